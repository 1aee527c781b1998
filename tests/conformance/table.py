"""The scenarios that both backends go through, and what is seen of each: one table, and the list of what differs.

A scenario is declared in the words of the API alone, so that the same manifests (`backend` apart) make it on SageMaker,
on its simulator and in the cluster. What is seen is what a person sees in the Endpoint's status."""

from dataclasses import replace
from typing import Any

from tests.conformance.scenario import EDITED, Event, Scenario, Seen, Sizes
from tests.operator.harness.manifests import Manifest

PROVISIONING, SHIFTING, BACK, CLEANING = "Provisioning", "Shifting", "RollingBack", "CleaningUp"


def baking(share: float) -> str:
    """A bake with this share of the traffic on the new revision, in percent."""
    return f"Baking {share:g}%"


def final(share: float = 100) -> str:
    """The final bake."""
    return f"FinalBaking {share:g}%"


def blue_green(routing: Manifest, final_wait: int = 2) -> Manifest:
    """A blueGreenUpdatePolicy."""
    return {
        "blueGreenUpdatePolicy": {
            "trafficRoutingConfiguration": {"waitIntervalInSeconds": 2, **routing},
            "terminationWaitInSeconds": final_wait,
            "maximumExecutionTimeoutInSeconds": 3600,
        }
    }


def canary(value: int = 25, type_: str = "CAPACITY_PERCENT", wait: int = 2, final_wait: int = 2) -> Manifest:
    """A canary, then the rest."""
    size = {"type": type_, "value": value}
    return blue_green({"type": "CANARY", "canarySize": size, "waitIntervalInSeconds": wait}, final_wait)


def linear(value: int, type_: str = "CAPACITY_PERCENT", wait: int = 2) -> Manifest:
    """Equal steps."""
    return blue_green(
        {"type": "LINEAR", "linearStepSize": {"type": type_, "value": value}, "waitIntervalInSeconds": wait}
    )


def rolling(value: int = 50, wait: int = 2, **policy: Any) -> Manifest:
    """Batches."""
    size = {"type": "CAPACITY_PERCENT", "value": value}
    return {"rollingUpdatePolicy": {"maximumBatchSize": size, "waitIntervalInSeconds": wait, **policy}}


ALL_AT_ONCE = blue_green({"type": "ALL_AT_ONCE", "waitIntervalInSeconds": 0})
DONE = "Succeeded None"
UPDATED = ("InService", "Updating", "InService")
AGAIN = UPDATED[1:]
CANARY_STAGES = (PROVISIONING, SHIFTING, baking(25), SHIFTING, final(), CLEANING)
WITHOUT_BAKES = (PROVISIONING, SHIFTING, CLEANING)
AT_ONCE = (PROVISIONING, SHIFTING, final(), CLEANING)
HALVES = (PROVISIONING, SHIFTING, baking(50), SHIFTING, final(), CLEANING)
NO_BAKE = "SageMaker tells of no bake that takes no time; in the cluster the pods are looked at once more in it"
BATCHES = (PROVISIONING, SHIFTING, baking(50), PROVISIONING, SHIFTING, final(), CLEANING)
ROLLED_BACK = "InService RolledBack"


def succeeded(*stages: str) -> Seen:
    """The new revision came into service by these stages."""
    return Seen((*stages,), (DONE,), "new", "InService InService", UPDATED)


def turned_back(cause: str, *stages: str) -> Seen:
    """The old one serves on."""
    return Seen((*stages, BACK), (f"RolledBack {cause}",), "old", ROLLED_BACK, UPDATED)


def untouched(reason: str, **more: Any) -> Seen:
    """Nothing was deployed."""
    return Seen((), (), "old", f"InService {reason}", ("InService",), **more)


LONG = 30
"""Seconds of a bake that something is to interrupt."""
CAUGHT = 10
"""The same where one of the backends waits for its end."""
DEADLINE = {
    "blueGreenUpdatePolicy": {
        **canary(wait=18, final_wait=1)["blueGreenUpdatePolicy"],
        "maximumExecutionTimeoutInSeconds": 600,
    }
}
"""On AWS, where waits are 30 times as long, the canary's bake does not end by then."""


def retaining(name: str, sizes: Sizes, *excluded: str) -> Scenario:
    """Live sizes of before, but for what is excluded, come with a config that says others."""
    options: Manifest = {"retainAllVariantProperties": True}
    if excluded:
        options["excludeRetainedVariantProperties"] = [{"variantPropertyType": one} for one in excluded]
    return Scenario(
        name,
        change="config",
        policy=canary(50),
        counts={"a": 2, "b": 2},
        becomes={"a": (4, 5), "b": (2, 1)},
        options=options,
        seen=replace(succeeded(*HALVES), sizes=sizes),
    )


TABLE = (
    Scenario("all-at-once", policy=ALL_AT_ONCE, seen=succeeded(*AT_ONCE)),
    Scenario(
        "no-policy",
        seen=succeeded(*WITHOUT_BAKES),
        differs={"Cluster": succeeded(*AT_ONCE)},
        source=NO_BAKE,
    ),
    Scenario("canary-percent", policy=canary(), seen=succeeded(*CANARY_STAGES)),
    Scenario(
        "canary-instances",
        policy=canary(1, "INSTANCE_COUNT"),
        counts={"a": 3},
        seen=succeeded(PROVISIONING, SHIFTING, baking(33.3), SHIFTING, final(), CLEANING),
    ),
    Scenario(
        "canary-two-variants",
        policy=canary(50),
        counts={"a": 2, "b": 2},
        seen=succeeded(*HALVES),
    ),
    Scenario(
        "linear-halves",
        policy=linear(50),
        seen=succeeded(*HALVES),
    ),
    Scenario(
        "linear-thirds",
        policy=linear(33),
        counts={"a": 3},
        seen=succeeded(PROVISIONING, SHIFTING, baking(33.3), SHIFTING, baking(66.7), SHIFTING, final(), CLEANING),
    ),
    Scenario(
        "rolling-halves",
        policy=rolling(50),
        seen=succeeded(*BATCHES),
    ),
    Scenario(
        "alarm-in-canary",
        policy=canary(wait=LONG),
        alarm="quiet",
        events=(Event(baking(25), "alarm"),),
        seen=turned_back("Alarm", PROVISIONING, SHIFTING, baking(25)),
    ),
    Scenario(
        "alarm-in-final-bake",
        policy=canary(final_wait=LONG),
        alarm="quiet",
        events=(Event(final(), "alarm"),),
        seen=turned_back("Alarm", PROVISIONING, SHIFTING, baking(25), SHIFTING, final()),
    ),
    Scenario(
        "alarm-in-linear",
        policy=linear(50, wait=LONG),
        alarm="quiet",
        events=(Event(baking(50), "alarm"),),
        seen=turned_back("Alarm", PROVISIONING, SHIFTING, baking(50)),
    ),
    Scenario(
        "alarm-in-rolling",
        policy=rolling(50, wait=LONG),
        alarm="quiet",
        events=(Event(baking(50), "alarm"),),
        seen=turned_back("Alarm", PROVISIONING, SHIFTING, baking(50)),
    ),
    Scenario(
        "alarm-in-the-second-batch",  # what has moved goes back in batches of its own size
        policy=rolling(25, CAUGHT, rollbackMaximumBatchSize={"type": "INSTANCE_COUNT", "value": 2}),
        alarm="quiet",
        events=(Event(baking(50), "alarm"),),
        seen=turned_back("Alarm", *BATCHES[:2], baking(25), *BATCHES[:2], baking(50)),
    ),
    Scenario(
        "alarm-while-quiet",
        policy=canary(),
        alarm="quiet",
        seen=succeeded(*CANARY_STAGES),
    ),
    Scenario(
        "alarm-before-the-start",
        policy=canary(),
        alarm="firing",
        events=(Event("AlarmFiring", "alarm is quiet"),),
        seen=succeeded(*CANARY_STAGES),
    ),
    Scenario("alarm-absent", policy=canary(), alarm="absent", seen=untouched("AlarmMissing")),
    Scenario("unhealthy", policy=canary(), unhealthy=True, seen=turned_back("Health", PROVISIONING)),
    Scenario(
        "weights",
        change="weights",
        policy=canary(),
        counts={"a": 2, "b": 2},
        seen=Seen((), (), "old", "InService InService", UPDATED, sizes={"a": (2, EDITED), "b": (2, 1)}),
    ),
    Scenario(
        "counts",
        change="counts",
        policy=canary(),
        counts={"a": 2},
        seen=Seen((), (), "old", "InService InService", UPDATED, sizes={"a": (3, 1)}),
    ),
    Scenario(
        "third-revision",
        policy=canary(wait=CAUGHT),
        events=(Event(baking(25), "third revision"),),
        seen=Seen((*CANARY_STAGES, *CANARY_STAGES), (DONE, DONE), "third", "InService InService", (*UPDATED, *AGAIN)),
        differs={
            "Cluster": Seen(
                (PROVISIONING, SHIFTING, baking(25), BACK, *CANARY_STAGES),
                ("Superseded Person", DONE),
                "third",
                "InService InService",
                (*UPDATED, *AGAIN),
            )
        },
        source="SageMaker has no way to stop an update; in the cluster a third revision rolls back, then starts anew",
    ),
    Scenario(
        "revert",
        policy=canary(wait=CAUGHT),
        events=(Event(baking(25), "revert"),),
        seen=Seen((*CANARY_STAGES, *CANARY_STAGES), (DONE, DONE), "old", "InService InService", (*UPDATED, *AGAIN)),
        differs={
            "Cluster": Seen(
                (PROVISIONING, SHIFTING, baking(25), BACK),
                ("Superseded Person",),
                "old",
                "InService InService",
                UPDATED,
            )
        },
        source="SageMaker has no way to stop an update; in the cluster a revert rolls back at once, without bakes",
    ),
    Scenario(
        "canary-of-one-instance",
        policy=canary(10),
        counts={"a": 1},
        seen=succeeded(PROVISIONING, SHIFTING, baking(100), SHIFTING, final(), CLEANING),
        differs={"Cluster": succeeded(PROVISIONING, SHIFTING, baking(10), SHIFTING, final(), CLEANING)},
        source="SageMaker moves whole instances; in the cluster the router splits the traffic by weight",
    ),
    Scenario(
        "rolling-with-two-variants",
        policy=rolling(50),
        counts={"a": 2, "b": 2},
        seen=untouched("InvalidDeploymentConfig"),
        differs={"Cluster": succeeded(*BATCHES)},
        source="SageMaker takes rolling for one variant only; the cluster moves several in lock-step",
    ),
    Scenario(
        "pause",
        policy=canary(wait=CAUGHT),
        events=(Event(baking(25), "pause"), Event(baking(25), "resume")),
        seen=Seen(CANARY_STAGES, (DONE,), "new", "InService InService", UPDATED, "pause Refused"),
        differs={"Cluster": Seen(CANARY_STAGES, (DONE,), "new", "InService InService", UPDATED, "pause Done")},
        source="SageMaker has no way to pause an update",
    ),
    Scenario(
        "rollback-while-moving",
        policy=canary(wait=CAUGHT),
        events=(Event(baking(25), "rollback"),),
        seen=Seen(
            (*CANARY_STAGES, PROVISIONING, SHIFTING, CLEANING),
            (DONE, DONE),
            "old",
            "InService HeldByRollback",
            (*UPDATED, *AGAIN),
            "rollback Done",
        ),
        differs={
            "Cluster": Seen(
                (PROVISIONING, SHIFTING, baking(25), BACK),
                ("RolledBack Person",),
                "old",
                "InService HeldByRollback",
                UPDATED,
                "rollback Done",
            )
        },
        source="SageMaker has no way to stop an update: the rollback is queued until it has ended",
    ),
    Scenario(
        "promote",
        policy=canary(wait=CAUGHT),
        # Without the second the pause would last for ever.
        events=(Event(baking(25), "pause"), Event(baking(25), "promote"), Event(final(), "resume")),
        seen=Seen(CANARY_STAGES, (DONE,), "new", "InService InService", UPDATED, "pause Refused, promote Refused"),
        differs={
            "Cluster": Seen(CANARY_STAGES, (DONE,), "new", "InService InService", UPDATED, "pause Done, promote Done")
        },
        source="SageMaker has no way to pause an update, or to skip a bake of it",
    ),
    Scenario(
        "retry",
        policy=canary(wait=CAUGHT),
        alarm="quiet",
        events=(
            Event(baking(25), "alarm"),
            Event("RolledBack", "same again"),
            Event("RolledBack", "alarm is quiet"),
            Event("RolledBack", "retry"),
        ),
        seen=Seen(
            (PROVISIONING, SHIFTING, baking(25), BACK, *CANARY_STAGES),
            ("RolledBack Alarm", DONE),
            "new",
            "InService InService",
            (*UPDATED, *AGAIN),
            "retry Done",
        ),
    ),
    Scenario(
        "revert-after-a-rollback",
        policy=canary(),
        unhealthy=True,
        events=(Event("RolledBack", "revert"),),
        seen=Seen((PROVISIONING, BACK), ("RolledBack Health",), "old", "InService InService", UPDATED),
    ),
    Scenario(
        "rollback-after-the-end",
        policy=ALL_AT_ONCE,
        counts={"a": 2, "b": 1},
        events=(
            Event(DONE, "rollback"),
            Event("HeldByRollback", "same again"),
            Event("HeldByRollback", "weights"),
            Event("HeldByRollback", "counts"),
        ),
        seen=Seen(
            (*AT_ONCE, *WITHOUT_BAKES),
            (DONE, DONE),
            "old",
            "InService HeldByRollback",
            (*UPDATED, *AGAIN, *AGAIN, *AGAIN),
            "rollback Done",
            {"a": (3, EDITED), "b": (1, 1)},
        ),
        differs={
            "Cluster": Seen(
                (*AT_ONCE, *AT_ONCE),
                (DONE, DONE),
                "old",
                "InService HeldByRollback",
                (*UPDATED, *AGAIN, *AGAIN, *AGAIN),
                "rollback Done",
                {"a": (3, EDITED), "b": (1, 1)},
            )
        },
        source=NO_BAKE,
    ),
    Scenario(
        "edits-after-a-rollback",
        policy=canary(50),
        counts={"a": 2, "b": 2},
        unhealthy=True,
        events=(Event("RolledBack", "weights"), Event("RolledBack", "counts")),
        seen=replace(
            turned_back("Health", PROVISIONING),
            words=(*UPDATED, *AGAIN, *AGAIN),
            sizes={"a": (3, EDITED), "b": (2, 1)},
        ),
    ),
    Scenario(
        "sizes-with-a-revision",
        change="config",
        policy=canary(50),
        counts={"a": 2, "b": 2},
        becomes={"a": (4, 5), "b": (2, 1)},
        seen=succeeded(*HALVES),
    ),
    Scenario(
        "sizes-with-what-fails",
        change="config",
        policy=canary(50),
        counts={"a": 2, "b": 2},
        becomes={"a": (4, 5), "b": (1, 1)},
        unhealthy=True,
        events=(Event("RolledBack", "weights"),),
        seen=replace(
            turned_back("Health", PROVISIONING), words=(*UPDATED, *AGAIN), sizes={"a": (2, EDITED), "b": (2, 1)}
        ),
    ),
    Scenario(
        "third-revision-after-a-rollback",
        policy=canary(),
        unhealthy=True,
        events=(Event("RolledBack", "third revision"),),
        seen=Seen(
            (PROVISIONING, BACK, *CANARY_STAGES),
            ("RolledBack Health", DONE),
            "third",
            "InService InService",
            (*UPDATED, *AGAIN),
        ),
    ),
    Scenario(
        "policy-retained",
        policy=canary(),
        events=(Event(DONE, "third revision by the policy retained"),),
        seen=Seen((*CANARY_STAGES, *CANARY_STAGES), (DONE, DONE), "third", "InService InService", (*UPDATED, *AGAIN)),
    ),
    retaining("properties-retained", {"a": (2, 1), "b": (2, 1)}),
    retaining("properties-retained-but-weights", {"a": (2, 5), "b": (2, 1)}, "DesiredWeight"),
    retaining("properties-retained-but-counts", {"a": (4, 1), "b": (2, 1)}, "DesiredInstanceCount"),
    Scenario(
        "rollback-fails",
        policy=rolling(25, CAUGHT),
        events=(Event(baking(25), "nothing starts"),),
        seen=Seen(
            (PROVISIONING, SHIFTING, baking(25), PROVISIONING),
            ("UpdateRollbackFailed Unknown",),
            "old",
            "UpdateRollbackFailed UpdateRollbackFailed",
            ("InService", "Updating", "UpdateRollbackFailed"),
            sizes={"a": (3, 1)},
        ),
        differs={
            "Cluster": Seen(
                (PROVISIONING, SHIFTING, baking(25), PROVISIONING, BACK),
                (),
                "old",
                "UpdateRollbackFailed UpdateRollbackFailed",
                ("InService", "Updating", "UpdateRollbackFailed"),
                sizes={"a": (3, 1)},
            )
        },
        source="SageMaker ends it there, without a word of why; in the cluster the way back goes on by itself",
    ),
    Scenario(
        "deadline",
        policy=DEADLINE,
        events=(Event(baking(25), "deadline"),),
        seen=turned_back("Deadline", PROVISIONING, SHIFTING, baking(25)),
    ),
    Scenario(
        "variant-added",
        change="config",
        counts={"a": 2},
        becomes={"a": (2, 1), "b": (1, 2)},
        seen=succeeded(*WITHOUT_BAKES),
        differs={"Cluster": succeeded(*AT_ONCE)},
        source=NO_BAKE,
    ),
    Scenario(
        "variant-removed",
        change="config",
        counts={"a": 2, "b": 1},
        becomes={"a": (2, 1)},
        seen=succeeded(*WITHOUT_BAKES),
        differs={"Cluster": succeeded(*AT_ONCE)},
        source=NO_BAKE,
    ),
    Scenario(
        "variant-renamed",
        change="config",
        counts={"a": 2, "b": 1},
        becomes={"c": (2, 1), "b": (1, 1)},
        seen=succeeded(*WITHOUT_BAKES),
        differs={"Cluster": succeeded(*AT_ONCE)},
        source=NO_BAKE,
    ),
    Scenario(
        "variant-renamed-with-what-fails",
        change="config",
        counts={"a": 2},
        becomes={"c": (2, 1)},
        unhealthy=True,
        seen=turned_back("Health", PROVISIONING),
    ),
    Scenario(
        "variants-under-a-policy",
        change="config",
        policy=canary(50),
        counts={"a": 2},
        becomes={"a": (2, 1), "b": (2, 1)},
        seen=untouched("InvalidDeploymentConfig"),
        differs={"Cluster": succeeded(*HALVES)},
        source="SageMaker's guardrails ask for the same variants before and after; the cluster's do not",
    ),
)
