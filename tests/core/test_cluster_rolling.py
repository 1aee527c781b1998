"""Rolling deployments in the cluster: batches with one to spare, rollback in batches, and what its failure is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.cluster_stage import ClusterStage, rolling
from tests.core.watched import deployment, ended, reach

from sluice.api.reasons import Cause, Outcome
from sluice.core import guardrails
from sluice.core.cluster import batches
from sluice.core.cluster.observation import PodTrouble


@pytest.mark.parametrize("batch", [5, 10, 20, 25, 33, 50])
@pytest.mark.parametrize("total", [*range(1, 21), 50, 99, 100])
def test_a_plan_is_complete_monotonic_and_within_its_batch(total: int, batch: int) -> None:
    policy = rolling(batch)["rollingUpdatePolicy"]
    steps = batches.plan(policy, {"a": total}, {"a": total})
    size = guardrails.instances(policy["maximumBatchSize"], total)
    new = [batches.new_of(step)["a"] for step in steps]
    old = [batches.old_of(step)["a"] for step in steps]
    assert len(steps) == guardrails.step_count({"rollingUpdatePolicy": policy}, total)
    assert (new[-1], old[-1], steps[-1].traffic_percent) == (total, 0, 100.0)
    for before, after in zip([0, *new], new, strict=False):
        assert 0 < after - before <= size
    for step, instances, left in zip(steps, new, old, strict=True):
        assert step.traffic_percent == pytest.approx(100 * instances / total, abs=0.001)
        assert left == total - instances
    for instances, left in zip(new[1:], old, strict=False):
        assert instances + left <= total + size, "room for one batch is all it needs"


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 40), min_size=1),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 40), min_size=1),
    st.integers(5, 50),
)
def test_variants_move_in_lock_step(new: dict[str, int], old: dict[str, int], batch: int) -> None:
    steps = batches.plan(rolling(batch)["rollingUpdatePolicy"], new, old)
    shares = [step.traffic_percent for step in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    for step in steps:
        share = step.traffic_percent / 100
        for name, count in batches.new_of(step).items():
            assert count >= share * new[name] - 0.01, "no new fleet gets more than its part of the traffic"
        for name, count in batches.old_of(step).items():
            assert count >= (1 - share) * old[name] - 0.01, "no old fleet keeps less than the rest needs"


def test_batches_replace_batches() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(25))
    stage.in_service()
    stage.most_pods = 0
    stage.image("new:1")
    stage.in_service()
    assert stage.most_pods == 5, "one batch to spare"
    assert sorted(set(stage.seen_percents)) == [0, 25, 50, 75, 100]
    [fleet] = stage.cluster.fleets.values()
    assert (fleet.image, fleet.replicas, fleet.ready) == ("new:1", 4, 4)
    last = stage.status.last_deployment
    assert last is not None
    assert last.outcome is Outcome.SUCCEEDED
    assert (last.end_time - last.start_time).total_seconds() >= 4 * 30  # type: ignore[operator]
    assert stage.status.production_variants[0].desired_instance_count == 4


def _second_batch(stage: ClusterStage) -> None:
    stage.in_service()
    stage.image("new:1")
    for _ in range(500):
        stage.step()
        deployment = stage.status.deployment
        if deployment and (deployment.stage, deployment.step) == ("Baking", 2):
            return
    raise AssertionError(stage.message())


def test_what_dies_under_traffic_goes_back_to_the_old_fleet_at_full_size() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(25))
    _second_batch(stage)
    stage.cluster.troubles["new:1"] = PodTrouble("CrashLoop", "exit code 137", 2)
    stage.step()
    stage.step()
    assert stage.percent_new() == 0, "nothing answers there: all traffic goes to what stands, at once"
    stage.until("RolledBack", type_="Stalled")
    [fleet] = stage.cluster.fleets.values()
    assert (fleet.image, fleet.replicas) == ("repo/churn:1", 4)
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.cause is Cause.HEALTH


@pytest.mark.parametrize(("back", "percents"), [(None, [0]), (25, [25, 0])])
def test_a_revert_goes_back_in_batches_capacity_first(back: int | None, percents: list[float]) -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(25, back=back))
    _second_batch(stage)
    assert stage.percent_new() == 50
    new_hash = stage.status.deployment.fleet_hash  # type: ignore[union-attr]
    stage.image("repo/churn:1")
    shares: list[float] = []
    for _ in range(400):
        stage.step()
        route = stage.cluster.route
        assert route is not None
        mine = {f.name for f in stage.cluster.fleets.values() if f.fleet_hash == new_hash}
        share = sum(f.weight for f in route.spec.fleets if f.name in mine) / 10_000
        if share != 50 and (not shares or shares[-1] != share):
            shares.append(share)
        if stage.condition("Ready")[0] == "True":
            break
    assert shares == percents
    [fleet] = stage.cluster.fleets.values()
    assert (fleet.image, fleet.replicas) == ("repo/churn:1", 4)


@pytest.mark.parametrize("replace_first", [False, True])
@pytest.mark.parametrize(("at", "step"), [("Baking", 1), ("Baking", 2), ("FinalBaking", 3)])
def test_a_batch_back_of_one_instance_brings_one_after_another(at: str, step: int, replace_first: bool) -> None:
    config = rolling(2, type="INSTANCE_COUNT")
    config["rollingUpdatePolicy"]["rollbackMaximumBatchSize"] = {"type": "INSTANCE_COUNT", "value": 1}
    kubernetes = {"replaceFirst": True} if replace_first else {}
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 6}, deploymentConfig=config, kubernetes=kubernetes
    )
    stage.in_service()
    [old] = stage.cluster.fleets.values()
    stage.image("new:1")
    reach(stage, at, step)
    before, percent = old.replicas, deployment(stage).traffic_percent
    confirmed = []
    stage.image("repo/churn:1")
    while stage.status.deployment is not None:
        if deployment(stage).traffic_percent != percent:
            confirmed.append(percent := deployment(stage).traffic_percent)
            before = old.replicas
        stage.step()
        assert old.replicas <= before + 1, f"at {percent} % of the traffic"
    assert confirmed == pytest.approx([100 * left / 6 for left in reversed(range(2 * step))], abs=0.01)
    stage.run(15)  # the last one starts
    assert [(fleet.image, fleet.ready) for fleet in stage.cluster.fleets.values()] == [("repo/churn:1", 6)]


def test_a_rollback_without_room_is_said_and_goes_on_by_itself() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(25))
    _second_batch(stage)
    old = next(f for f in stage.cluster.fleets.values() if f.image == "repo/churn:1")
    stage.capped[old.name] = 3
    stage.image("repo/churn:1")
    stage.run(10)
    stage.step(3000)
    stage.step()
    assert stage.status.endpoint_status == "UpdateRollbackFailed"
    assert stage.condition("Stalled") == ("True", "UpdateRollbackFailed")
    stage.capped.clear()
    stage.in_service()
    assert [(f.image, f.replicas) for f in stage.cluster.fleets.values()] == [("repo/churn:1", 4)]


def test_a_batch_that_does_not_come_up_rolls_back() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(50))
    stage.in_service()
    stage.cluster.troubles["broken:1"] = PodTrouble("CrashLoop", "exit code 1", 2, final=True)
    stage.image("broken:1")
    stage.until("RolledBack", type_="Stalled")
    assert [(f.image, f.replicas) for f in stage.cluster.fleets.values()] == [("repo/churn:1", 4)]
    assert max(stage.seen_percents[1:], default=0) == 0


def test_the_last_batch_bakes_too() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 2}, deploymentConfig=rolling(50, wait=100))
    stage.in_service()
    stage.image("new:1")
    for _ in range(400):
        stage.step()
        if stage.percent_new() == 100:
            break
    old = next(f for f in stage.cluster.fleets.values() if f.image == "repo/churn:1")
    stage.run(90)
    assert stage.cluster.fleets[old.name].replicas == 1, "what the last batch replaces stands until it has baked"
    stage.in_service()


def test_a_batch_bakes_only_when_every_ready_router_has_confirmed() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(50))
    stage.in_service()
    stage.image("new:1")
    for _ in range(100):
        stage.step()
        if stage.status.deployment and stage.status.deployment.stage == "Shifting":
            break
    slow = stage.cluster.routers[0]
    slow.slow = True
    for _ in range(5):
        stage.step()
        assert stage.status.deployment is not None
        assert stage.status.deployment.stage == "Shifting"
    slow.slow = False
    stage.run(2)
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "Baking"


def test_what_dies_while_the_next_batch_comes_goes_back_too() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(25))
    _second_batch(stage)
    for _ in range(60):
        stage.step()
        deployment = stage.status.deployment
        if deployment and (deployment.stage, deployment.step) == ("Provisioning", 2):
            break
    stage.cluster.troubles["new:1"] = PodTrouble("CrashLoop", "exit code 137", 2)
    stage.run(3)
    assert stage.percent_new() == 0
    stage.until("RolledBack", type_="Stalled")


@pytest.mark.parametrize("idle", [("b",), ("a", "b")], ids=["one variant", "all variants"])
@pytest.mark.parametrize(
    ("policy", "first"), [(rolling(50), False), (rolling(50, back=50), False), (rolling(50), True)]
)
def test_what_was_scaled_to_nothing_before_does_not_break_the_way_back(
    policy: dict[str, Any], first: bool, idle: tuple[str, ...]
) -> None:
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4},
        {"variantName": "b", "initialInstanceCount": 2},
        deploymentConfig=policy,
        **({"kubernetes": {"replaceFirst": True}} if first else {}),
    )
    stage.in_service()
    serving = stage.status.revision
    assert serving is not None
    for fleet in stage.cluster.fleets.values():
        if fleet.variant in idle:
            stage.scale(fleet, 0)
    stage.run(5)
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.annotate(rollback=serving.name)
    for _ in range(200):
        stage.step()
        if stage.status.deployment is None:
            break
    assert ended(stage).outcome is Outcome.ROLLED_BACK
    assert {f.variant: f.replicas for f in stage.cluster.fleets.values()} == {
        name: 0 if name in idle else count for name, count in (("a", 4), ("b", 2))
    }


def test_batches_that_start_slowly_are_each_given_their_time() -> None:
    """Twenty of seven minutes: no batch is late, and neither is the whole."""
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 20}, deploymentConfig=rolling(5, wait=10))
    stage.in_service()
    stage.cluster.start_seconds = 420
    stage.image("good:2")
    for _ in range(1500):
        stage.step(10.0)
        if stage.status.deployment is None and stage.condition("Ready")[0] == "True":
            break
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED
    assert {fleet.image for fleet in stage.cluster.fleets.values()} == {"good:2"}
