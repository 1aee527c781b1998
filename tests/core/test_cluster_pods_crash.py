"""One pod that crashes again and again beside others that are ready: while new ones are to start it turns the
deployment back, under traffic it holds what needs its instance and no more. Old pods that fail hold nothing up."""

from copy import deepcopy

import pytest
from tests.core.cluster_stage import ClusterStage, Fleet, blue_green, rolling
from tests.core.watched import deployment, ended, reach, served

from sluice.api.reasons import Cause, Outcome

POLICIES = {
    "all at once": blue_green(wait=0, final=5),
    "canary": blue_green("CANARY", wait=5, final=5),
    "linear": blue_green("LINEAR", wait=5, final=5),
    "rolling": rolling(50, wait=5),
}
STEPS = {"all at once": 1, "canary": 2, "linear": 4, "rolling": 2}
UNDER_TRAFFIC = [
    (policy, at, step)
    for policy, steps in STEPS.items()
    for step in range(1, steps + 1)
    for at in ("Shifting", "FinalBaking" if step == steps else "Baking")
]
THREE_OF_FOUR = 3
"""The last step of the linear policy that three instances are enough for."""
KILLED = "1 pod: container model was killed 3 times for want of memory (OOMKilled)"


def _reached(policy: str, at: str, step: int | None) -> ClusterStage:
    stage = served(POLICIES[policy])
    stage.image("two:1")
    reach(stage, at, step)
    return stage


def _fleet(stage: ClusterStage, *, new: bool) -> Fleet:
    mine = deployment(stage).fleet_hash
    [fleet] = [fleet for fleet in stage.cluster.fleets.values() if (fleet.fleet_hash == mine) is new]
    return fleet


def _passes_to_the_end(stage: ClusterStage) -> int:
    """A second each."""
    for number in range(600):
        if stage.status.deployment is None:
            return number
        stage.step()
    raise AssertionError(stage.message())


@pytest.mark.parametrize(("policy", "at", "step"), UNDER_TRAFFIC)
def test_one_pod_that_crashes_under_traffic_turns_nothing_back(policy: str, at: str, step: int) -> None:
    stage = _reached(policy, at, step)
    new, old = _fleet(stage, new=True), _fleet(stage, new=False)
    stood = old.replicas
    new.crashing = 1
    stage.run(40)  # longer than all bakes
    last = max(step, THREE_OF_FOUR) if policy == "linear" else step
    baking = "FinalBaking" if last == STEPS[policy] else "Baking"
    assert (deployment(stage).stage, deployment(stage).step) == (baking, last), "it goes as far as the others bear it"
    assert (new.ready, old.ready) == (new.replicas - 1, stood)
    assert f"a {new.ready}/{new.replicas} instances ready" in deployment(stage).message
    new.crashing = 0
    _passes_to_the_end(stage)
    assert (ended(stage).outcome, ended(stage).cause) == (Outcome.SUCCEEDED, Cause.NONE)


@pytest.mark.parametrize(("policy", "step"), [*((policy, 0) for policy in POLICIES), ("rolling", 1)])
def test_one_pod_that_crashes_where_new_ones_are_to_start_turns_it_back(policy: str, step: int) -> None:
    stage = _reached(policy, "Provisioning", step)
    new = _fleet(stage, new=True)
    stage.scale(new, 2 * (step + 1) if policy == "rolling" else 4)
    new.ready, new.crashing = new.replicas - 1, 1
    stage.step()
    assert (deployment(stage).stage, deployment(stage).cause) == ("RollingBack", Cause.HEALTH)
    assert deployment(stage).message == f"variant a: {KILLED}"
    _passes_to_the_end(stage)
    assert (ended(stage).outcome, ended(stage).cause) == (Outcome.ROLLED_BACK, Cause.HEALTH)
    assert ended(stage).message == f"variant a: {KILLED}"


@pytest.mark.parametrize("crashing", [1, 4])
@pytest.mark.parametrize(
    ("policy", "at", "step"), [*UNDER_TRAFFIC, *((policy, "Provisioning", 0) for policy in POLICIES)]
)
def test_old_pods_that_crash_hold_nothing_up(policy: str, at: str, step: int, crashing: int) -> None:
    stage = _reached(policy, at, step)
    expected = _passes_to_the_end(deepcopy(stage))
    old = _fleet(stage, new=False)
    old.crashing = min(crashing, old.replicas)
    assert _passes_to_the_end(stage) == expected
    assert ended(stage).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("policy", "at", "step"), [*UNDER_TRAFFIC, *((policy, "Provisioning", 0) for policy in POLICIES)]
)
def test_routes_that_somebody_deletes_wait_for_no_old_pod(policy: str, at: str, step: int) -> None:
    """None is ready: what there is of the new revision must get its traffic all the same."""
    stage = _reached(policy, at, step)
    old = _fleet(stage, new=False)
    old.crashing = old.replicas
    stage.cluster.route = None
    _passes_to_the_end(stage)
    assert ended(stage).outcome is Outcome.SUCCEEDED, ended(stage).message
