"""The scenarios that both backends go through, and what is seen of each: one table, and the list of what differs.

A scenario is declared in the words of the API alone, so that the same manifests (`backend` apart) make it on SageMaker,
on its simulator and in the cluster. What is seen is what a person sees in the Endpoint's status."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.operator.harness.manifests import Manifest

Backend = Literal["SageMaker", "Cluster"]
BACKENDS: tuple[Backend, ...] = ("SageMaker", "Cluster")

PROVISIONING, SHIFTING, BACK, CLEANING = "Provisioning", "Shifting", "RollingBack", "CleaningUp"


def baking(share: float) -> str:
    """A bake with this share of the traffic on the new revision, in percent."""
    return f"Baking {share:g}%"


def final(share: float = 100) -> str:
    """The final bake."""
    return f"FinalBaking {share:g}%"


@dataclass(frozen=True, slots=True)
class Event:
    """What somebody does once the endpoint is seen in a stage (see Seen.stages), or under a condition's reason."""

    at: str
    do: Literal["alarm", "alarm is quiet", "third revision", "revert", "pause", "rollback"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen. stages: of the deployments, in order, without repetitions; bakes carry the share."""

    stages: tuple[str, ...]
    outcomes: tuple[str, ...]
    """Of the deployments, in order: outcome and cause."""
    serves: str
    """The image that serves at the end: old, new or third."""
    end: str
    """endpointStatus, and the reason of the condition that says why it is not Ready."""
    words: tuple[str, ...] = ()
    """endpointStatus, without repetitions, from the moment of the change on."""
    acknowledged: str = ""
    """What became of a command."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One line of the table."""

    name: str
    change: Literal["image", "weights", "counts", "nothing"] = "image"
    policy: Manifest | None = None
    counts: Mapping[str, int] = field(default_factory=lambda: {"a": 4})
    alarm: Literal["none", "quiet", "firing", "absent"] = "none"
    unhealthy: bool = False
    """The new image's containers never answer."""
    events: tuple[Event, ...] = ()
    seen: Seen = field(kw_only=True)
    differs: Mapping[Backend, Seen] = field(default_factory=dict)
    """What this backend shows instead, where it must."""
    source: str = ""
    """Why it must, and where that is written."""


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
CANARY_STAGES = (PROVISIONING, SHIFTING, baking(25), SHIFTING, final(), CLEANING)
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

TABLE = (
    Scenario("all-at-once", policy=ALL_AT_ONCE, seen=succeeded(PROVISIONING, SHIFTING, final(), CLEANING)),
    Scenario(
        "no-policy",
        seen=succeeded(PROVISIONING, SHIFTING, CLEANING),
        differs={"Cluster": succeeded(PROVISIONING, SHIFTING, final(), CLEANING)},
        source="SageMaker tells of no bake that takes no time; in the cluster the pods are looked at once more in it",
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
        seen=succeeded(PROVISIONING, SHIFTING, baking(50), SHIFTING, final(), CLEANING),
    ),
    Scenario(
        "linear-halves",
        policy=linear(50),
        seen=succeeded(PROVISIONING, SHIFTING, baking(50), SHIFTING, final(), CLEANING),
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
        seen=Seen((), (), "old", "InService InService", UPDATED),
    ),
    Scenario(
        "counts",
        change="counts",
        policy=canary(),
        counts={"a": 2},
        seen=Seen((), (), "old", "InService InService", UPDATED),
    ),
    Scenario(
        "third-revision",
        policy=canary(wait=CAUGHT),
        events=(Event(baking(25), "third revision"),),
        seen=Seen(
            (*CANARY_STAGES, *CANARY_STAGES), (DONE, DONE), "third", "InService InService", (*UPDATED, *UPDATED[1:])
        ),
        differs={
            "Cluster": Seen(
                (PROVISIONING, SHIFTING, baking(25), BACK, *CANARY_STAGES),
                ("Superseded Person", DONE),
                "third",
                "InService InService",
                (*UPDATED, *UPDATED[1:]),
            )
        },
        source="SageMaker has no way to stop an update; in the cluster a third revision rolls back, then starts anew",
    ),
    Scenario(
        "revert",
        policy=canary(wait=CAUGHT),
        events=(Event(baking(25), "revert"),),
        seen=Seen(
            (*CANARY_STAGES, *CANARY_STAGES), (DONE, DONE), "old", "InService InService", (*UPDATED, *UPDATED[1:])
        ),
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
        events=(Event(baking(25), "pause"),),
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
            (*UPDATED, *UPDATED[1:]),
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
)
