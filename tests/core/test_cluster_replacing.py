"""Rolling deployments on pools without room: a batch goes before its successors come, forward and back, and at no
moment are there more pods than there were, or fewer that serve than all but one batch."""

import copy
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.cluster_stage import ClusterStage, rolling

from sluice.api.reasons import Cause, Outcome
from sluice.core import guardrails
from sluice.core.cluster import batches
from sluice.core.cluster.actions import ScaleFleet, WriteRoute
from sluice.core.cluster.observation import PodTrouble

FIRST = {"replaceFirst": True}


@pytest.mark.parametrize("batch", [5, 10, 20, 25, 33, 50])
@pytest.mark.parametrize("total", [*range(2, 21), 50, 99, 100])
def test_a_plan_never_needs_more_room_and_keeps_all_but_a_batch(total: int, batch: int) -> None:
    policy = rolling(batch)["rollingUpdatePolicy"]
    steps = batches.plan(policy, {"a": total}, {"a": total}, replace_first=True)
    size = guardrails.instances(policy["maximumBatchSize"], total)
    new = [0, *(batches.new_of(step)["a"] for step in steps)]
    old = [total, *(batches.old_of(step)["a"] for step in steps)]
    shares = [0.0, *(step.traffic_percent for step in steps)]
    assert (new[-1], old[-1], shares[-1]) == (total, 0, 100.0)
    for before in range(len(steps)):
        after = before + 1
        assert new[after] + old[after] == total
        assert 0 < new[after] - new[before] <= size
        serving = new[before] + old[after]
        assert serving >= total - size, "while the batch is missing"
        share = batches.between(shares[before], shares[after])
        assert shares[before] <= share <= shares[after], "the new revision never gets more than its step's share"
        assert share == pytest.approx(100 * new[before] / serving, abs=0.01), "every instance has its even part"


@pytest.mark.parametrize("new", [{"a": 2, "b": 9}, {"a": 5, "b": 3}, {"a": 4, "b": 4, "c": 2}])
@pytest.mark.parametrize("batch", [5, 25, 50])
def test_several_variants_in_lock_step_each_keep_to_their_room(new: dict[str, int], batch: int) -> None:
    steps = batches.plan(rolling(batch)["rollingUpdatePolicy"], new, new, replace_first=True)
    for step in steps:
        for name, total in new.items():
            here, left = batches.new_of(step)[name], batches.old_of(step)[name]
            assert here + left <= total
            assert here >= 1, "a new fleet with traffic has an instance"
            assert left >= 1 or step is steps[-1], "and an old one too"


@pytest.mark.parametrize(("new", "old"), [(4, 2), (9, 2), (2, 9), (100, 3)])
@pytest.mark.parametrize("batch", [5, 25, 50])
def test_other_counts_than_before_leave_somebody_to_answer_for_each_share(new: int, old: int, batch: int) -> None:
    steps = batches.plan(rolling(batch)["rollingUpdatePolicy"], {"a": new}, {"a": old}, replace_first=True)
    for step in steps[:-1]:
        assert batches.old_of(step)["a"] >= 1, f"{100 - step.traffic_percent} % are still the old fleet's"
    assert batches.old_of(steps[-1])["a"] == 0


def at_work(count: int = 4, batch: int = 25, back: int | None = None, **more: Any) -> ClusterStage:
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": count},
        deploymentConfig=rolling(batch, wait=5, back=back),
        kubernetes=FIRST,
        **more,
    )
    stage.cluster.start_seconds = 3.0
    stage.room = count
    stage.in_service()
    stage.seen_percents.clear()
    return stage


def check(stage: ClusterStage, total: int, batch: int, *, dead: bool = False) -> None:
    """After every pass."""
    fleets = [fleet for fleet in stage.cluster.fleets.values() if fleet.gone_at is None]
    assert sum(fleet.replicas + fleet.stopping for fleet in fleets) <= total, "more pods than there were"
    if dead:
        return
    ready = sum(fleet.ready for fleet in fleets)
    assert ready >= total - batch, f"{ready} of {total} serve"
    assert stage.cluster.route is not None
    here = {fleet.name: fleet.ready for fleet in fleets}
    for entry in stage.cluster.route.spec.fleets:
        load = entry.weight / 1_000_000 * (total - batch)
        assert load <= here.get(entry.name, 0) + 1e-3, f"{entry.name} has more than its pods can bear"


def through(stage: ClusterStage, total: int, batch: int, *, dead: bool = False, most: int = 600) -> int:
    """Passes until it is Ready or Stalled; how many."""
    for number in range(most):
        stage.step()
        check(stage, total, batch, dead=dead)
        if stage.status.deployment is None and number > 8:
            return number
    raise AssertionError(stage.message())


@pytest.mark.parametrize(("count", "batch", "size"), [(4, 25, 1), (4, 50, 2), (2, 50, 1), (5, 33, 1), (7, 34, 2)])
def test_batches_take_the_place_of_batches(count: int, batch: int, size: int) -> None:
    stage = at_work(count, batch)
    stage.image("new:1")
    through(stage, count, size)
    assert stage.condition("Ready") == ("True", "InService")
    [fleet] = stage.cluster.fleets.values()
    assert (fleet.image, fleet.replicas, fleet.ready) == ("new:1", count, count)
    assert stage.seen_percents == sorted(stage.seen_percents)
    last = stage.status.last_deployment
    assert last is not None
    assert last.outcome is Outcome.SUCCEEDED


def test_old_fleets_that_no_route_names_any_more_go_at_once() -> None:
    """The last batch was replaced, so no router has anything to confirm, and no event wakes anybody."""
    stage = at_work(2, 50)
    stage.image("new:1")
    while stage.status.deployment is None or stage.status.deployment.stage != "CleaningUp":
        decision = stage.step()
    assert not [action for action in decision.actions if isinstance(action, WriteRoute)]
    assert decision.look_again is not None
    assert decision.look_again <= stage.now + timedelta(seconds=1)
    assert stage.status.deployment.old_variants == (), "none of their pods is left to be shown as Deleting"


def test_without_it_a_pool_without_room_never_gets_the_first_batch() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(25, wait=5))
    stage.room = 4
    stage.in_service()
    stage.image("new:1")
    stage.run(600)
    assert stage.status.deployment is not None
    assert (stage.status.deployment.stage, stage.status.deployment.step) == ("Provisioning", 0)


def test_traffic_leaves_the_old_batch_before_its_pods_go() -> None:
    stage = at_work(4, 50)
    stage.image("new:1")
    [old] = stage.cluster.fleets
    went: list[tuple[int, float]] = []
    for _ in range(300):
        stage.step()
        for action in stage.actions:
            if isinstance(action, ScaleFleet) and action.name == old:
                assert not any(r.applied and r.applied[2] != stage.cluster.route.spec for r in stage.cluster.routers)  # type: ignore[union-attr]
                went.append((action.replicas, stage.percent_new()))
        if stage.status.deployment is None and went:
            break
    assert went == [(2, 0.0), (0, 100.0)], "the first of them has nobody to give traffic to; the last gave all of it"


def test_a_frozen_router_keeps_the_last_old_pods_up_until_it_is_gone() -> None:
    stage = at_work(2, 50)
    stage.image("new:1")
    for _ in range(200):
        stage.step()
        if stage.status.deployment and (stage.status.deployment.step, stage.status.deployment.stage) == (1, "Baking"):
            break
    [old] = [fleet for fleet in stage.cluster.fleets.values() if fleet.image == "repo/churn:1"]
    frozen = stage.cluster.routers[0]
    frozen.frozen, frozen.ready = True, False
    for _ in range(300):
        there = frozen in stage.cluster.routers
        stage.step()
        if there:
            assert old.replicas == 1, "the router that does not answer still sends to it"
        if stage.status.deployment is None:
            break
    assert frozen not in stage.cluster.routers
    assert [fleet.image for fleet in stage.cluster.fleets.values()] == ["new:1"]


def test_a_new_pod_that_is_lost_brings_its_fleet_no_more_traffic() -> None:
    stage = at_work(batch=50)
    stage.image("new:1")
    while stage.status.deployment is None or (stage.status.deployment.stage, stage.status.deployment.step) != (
        "Provisioning",
        1,
    ):
        stage.step()
    fresh = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "new:1")
    stage.capped[fresh.name] = fresh.ready = 1
    for _ in range(30):
        stage.step()
        assert stage.percent_new() == 50
    del stage.capped[fresh.name]
    stage.in_service()


@pytest.mark.parametrize("step", [0, 1])
def test_old_pods_that_do_not_go_tell_nothing_against_the_new_ones(step: int) -> None:
    """A pod on a lost node stays until its node is gone: no room for the new one, of which no pod was made."""
    stage = at_work(4, 25)
    [old] = stage.cluster.fleets.values()
    stage.image("new:1")
    while old.replicas != 3 - step:
        stage.step()
    old.stopped_at = None
    for _ in range(400):
        stage.step(5)
        if stage.status.deployment and stage.status.deployment.stage == "RollingBack":
            break
    old.stopping = 0
    through(stage, 4, 2)
    last = stage.status.last_deployment
    assert last is not None
    assert (last.outcome, last.cause) == (Outcome.ROLLED_BACK, Cause.CAPACITY)
    assert last.message == (
        f"not ready in time: the instances that the batch replaces have not gone; a {step}/{step} instances ready"
    )


@pytest.mark.parametrize("at", [("Baking", 1), ("Provisioning", 3), ("Shifting", 4), ("FinalBaking", 4)])
@pytest.mark.parametrize("back", [None, 50])
def test_the_way_back_comes_to_old_instances_that_have_a_sample_invocation(
    at: tuple[str, int], back: int | None
) -> None:
    """From the last batch on the routes named the new fleet alone, and no router told how the old one answers."""
    sample = {"kubernetes": {"sampleInvocation": {"body": "{}"}}}
    stage = at_work(4, 25, back, model_spec=sample)
    stage.image("new:1")
    for _ in range(300):
        stage.step()
        running = stage.status.deployment
        if running is not None and (running.stage, running.step) == at:
            break
    stage.run(2)
    stage.image("repo/churn:1")
    through(stage, 4, 2 if back else 1)
    assert [(fleet.image, fleet.ready) for fleet in stage.cluster.fleets.values()] == [("repo/churn:1", 4)]


@pytest.mark.parametrize("image", ["new:1", "bad:1"])
def test_a_shadow_takes_no_room_before_the_old_one_goes(image: str) -> None:
    """Its new pods come in the clean-up, in the room of the old: before, they took that of the first new instance."""
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(25, wait=5), kubernetes=FIRST
    )
    [variant] = stage.objects["EndpointConfig", "churn"]["spec"]["productionVariants"]
    shadow = {**variant, "variantName": "s", "initialInstanceCount": 1}
    stage.edit("EndpointConfig", shadowProductionVariants=[shadow])
    stage.cluster.start_seconds, stage.room = 3.0, 5
    stage.in_service()
    stage.image(image)
    for number in range(2000):
        stage.step()
        stages = {stage.status.deployment.stage} if stage.status.deployment else set()
        assert stages <= {"CleaningUp"} or len(stage.cluster.fleets) <= 3, "two of variant a, and the old shadow"
        if not stages and number > 8:
            break
    stage.run(20)
    image = image if image == "new:1" else "repo/churn:1"
    found = [(fleet.variant, fleet.image, fleet.ready) for fleet in stage.cluster.fleets.values()]
    assert sorted(found) == [("a", image, 4), ("s", image, 1)]
    assert stage.cluster.route is not None
    [mirrored] = stage.cluster.route.spec.shadows
    assert mirrored.sampling == 1_000_000
    last = stage.status.last_deployment
    assert last is not None
    assert last.outcome is (Outcome.SUCCEEDED if image == "new:1" else Outcome.ROLLED_BACK)


def moments() -> list[ClusterStage]:
    """A deployment of four by batches of one, at each of its passes."""
    stage = at_work(4, 25)
    stage.image("new:1")
    found = []
    for _ in range(200):
        stage.step()
        if stage.status.deployment is not None:
            found.append(copy.deepcopy(stage))
        elif found:
            return found
    raise AssertionError(stage.message())


MOMENTS = moments()


@pytest.mark.parametrize("moment", range(len(MOMENTS)))
@pytest.mark.parametrize("killed", [None, 0, 1])
def test_from_every_moment_the_way_back_keeps_to_the_room(moment: int, killed: int | None) -> None:
    stage = copy.deepcopy(MOMENTS[moment])
    cleaning = stage.status.deployment is not None and stage.status.deployment.stage == "CleaningUp"
    stage.image("repo/churn:1")
    stage.step(killed_after=killed)
    check(stage, 4, 1)
    for number in range(600):
        stage.step(killed_after=killed if number % 3 == 0 else None)
        check(stage, 4, 1)
        if stage.condition("Ready")[0] == "True":
            break
    assert stage.condition("Ready") == ("True", "InService")
    assert [(f.image, f.replicas, f.ready) for f in stage.cluster.fleets.values()] == [("repo/churn:1", 4, 4)]
    if not cleaning:
        assert stage.status.last_deployment is not None
        assert stage.status.last_deployment.outcome is Outcome.SUPERSEDED


@pytest.mark.parametrize("moment", range(len(MOMENTS)))
def test_from_every_moment_what_dies_gives_way_to_the_old_fleet(moment: int) -> None:
    stage = copy.deepcopy(MOMENTS[moment])
    assert stage.status.deployment is not None
    if stage.status.deployment.stage == "CleaningUp":
        return
    stage.cluster.troubles["new:1"] = PodTrouble("CrashLoop", "exit code 137", 2, final=True)
    through(stage, 4, 1, dead=True)
    assert stage.condition("Stalled") == ("True", "RolledBack")
    assert [(f.image, f.replicas) for f in stage.cluster.fleets.values()] == [("repo/churn:1", 4)]
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.cause is Cause.HEALTH
    stage.run(10)
    assert [f.ready for f in stage.cluster.fleets.values()] == [4]


def test_back_in_batches_of_their_own_size() -> None:
    stage = at_work(4, 25, back=50)
    stage.image("new:1")
    for _ in range(200):
        stage.step()
        if stage.percent_new() == 100:
            break
    stage.run(4)
    stage.image("repo/churn:1")
    for _ in range(400):
        stage.step()
        check(stage, 4, 2)
        if stage.condition("Ready")[0] == "True":
            break
    assert [(f.image, f.ready) for f in stage.cluster.fleets.values()] == [("repo/churn:1", 4)]


def test_one_instance_is_refused_as_it_would_be_an_outage() -> None:
    stage = at_work(1)
    stage.image("new:1")
    stage.until("InvalidDeploymentConfig")
    assert "kubernetes.replaceFirst" in stage.message("Stalled")
    assert "two instances" in stage.message("Stalled")
    assert [fleet.image for fleet in stage.cluster.fleets.values()] == ["repo/churn:1"]
    stage.edit("Endpoint", kubernetes={})
    stage.room = None
    stage.in_service()


def test_it_is_judged_by_the_counts_that_it_starts_with() -> None:
    """Live are four instances; the spec's one is what the deployment takes, as it says not to retain counts."""
    stage = at_work(
        1,
        50,
        retainAllVariantProperties=True,
        excludeRetainedVariantProperties=[{"variantPropertyType": "DesiredInstanceCount"}],
    )
    [fleet] = stage.cluster.fleets.values()
    stage.room = None
    stage.scale(fleet, 4)
    stage.run(10)
    stage.image("new:1")
    stage.until("InvalidDeploymentConfig")
    assert "found true with one instance of variant a" in stage.message()
    assert [(f.image, f.ready) for f in stage.cluster.fleets.values()] == [("repo/churn:1", 4)]


def test_it_says_nothing_where_nothing_rolls() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 1}, kubernetes=FIRST)
    stage.in_service()
    stage.image("new:1")
    stage.in_service()
    assert [fleet.image for fleet in stage.cluster.fleets.values()] == ["new:1"]


EVENTS = st.sampled_from(
    ["time", "time", "killed", "killed later", "slow router", "fast routers", "pod lost", "revert", "again", "third"]
)


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.integers(0, len(MOMENTS) - 1), st.lists(st.tuples(EVENTS, st.integers(1, 6)), max_size=12))
def test_whatever_happens_there_are_never_more_pods_and_all_but_a_batch_serve(
    moment: int, events: list[tuple[str, int]]
) -> None:
    stage = copy.deepcopy(MOMENTS[moment])
    hurt = False
    for event, passes in events:
        if event == "slow router" and stage.cluster.routers:
            stage.cluster.routers[0].slow = True
        elif event == "fast routers":
            for router in stage.cluster.routers:
                router.slow = False
        elif event == "pod lost":
            for fleet in stage.cluster.fleets.values():
                if fleet.ready > 1:
                    fleet.ready, fleet.born, hurt = fleet.ready - 1, stage.now, True
        elif event in {"revert", "again", "third"}:
            stage.image({"revert": "repo/churn:1", "again": "new:1", "third": "new:2"}[event])
        for number in range(passes):
            stage.step(killed_after={"killed": 0, "killed later": 1}.get(event) if number == 0 else None)
            check(stage, 4, 1, dead=hurt)
    for router in stage.cluster.routers:
        router.slow = False
    for _ in range(1500):
        stage.step()
        check(stage, 4, 1, dead=hurt)
        if stage.condition("Ready")[0] == "True":
            break
    stage.run(10)  # a pod that was lost comes back
    desired = stage.objects["Model", "churn"]["spec"]["primaryContainer"]["image"]
    assert [(f.image, f.ready) for f in stage.cluster.fleets.values()] == [(desired, 4)], stage.message()
