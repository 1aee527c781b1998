"""Ways back that something else is in the way of: a latch, what was refused before, old fleets that are gone, routers
that refuse, a sample invocation. Traffic goes back, nothing is tried again by itself, and status says why it waits."""

from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green, rolling
from tests.core.watched import CRASHES, deployment, ended, name_of, reach, served, watched

from sluice.api.reasons import Cause, Outcome, Reason
from sluice.core.actions import Action
from sluice.core.cluster.actions import EnsureFleet, ScaleFleet, WriteRoute
from sluice.core.observation import CallProblem

SAMPLE = {"sampleInvocation": {"body": "{}", "periodSeconds": 5}}


def pods_are_gone(stage: ClusterStage, image: str) -> None:
    """They end, and their successors do not get ready."""
    stage.cluster.troubles[image] = CRASHES
    for fleet in stage.cluster.fleets.values():
        fleet.ready = 0 if fleet.image == image else fleet.ready


def share_of(stage: ClusterStage, image: str) -> float:
    """Percent of the requests that the routes send to fleets of this image."""
    route = stage.cluster.route
    assert route is not None
    mine = {fleet.name for fleet in stage.cluster.fleets.values() if fleet.image == image}
    return sum(fleet.weight for fleet in route.spec.fleets if fleet.name in mine) / 10_000


def routers_reject(stage: ClusterStage) -> None:
    """From now on: they say why, and what they have stays in force."""
    stage.cluster.rejected = "no such cluster"
    for router in stage.cluster.routers:
        router.slow = True


# What was latched -----------------------------------------------------------------------------------------------


def test_what_an_alarm_turned_back_stays_out_when_what_a_person_brought_back_fails_too() -> None:
    stage = watched(blue_green("CANARY", wait=10, final=10))
    first = name_of(stage)
    (image,) = {fleet.image for fleet in stage.cluster.fleets.values()}
    stage.image("two:1")
    stage.in_service()
    stage.image("three:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "ALARM"
    stage.until("RolledBack", type_="Stalled")
    stage.alarms["errors"].state = "OK"
    bad = stage.resolution().revision
    assert bad is not None
    stage.cluster.troubles[image] = CRASHES
    stage.annotate(rollback=first)
    reach(stage, "Provisioning")
    stage.run(100)
    assert ended(stage).revision == first
    assert ended(stage).outcome is Outcome.ROLLED_BACK
    assert stage.status.deployment is None, "the revision that the alarm turned back is not tried again by itself"
    assert stage.status.latch is not None
    assert stage.status.latch.fleet_hash == bad.fleet_hash
    assert stage.condition("Stalled") == ("True", "HeldByRollback")
    assert f"{first}, which a person brought back, failed" in stage.message("Stalled")
    stage.annotate(retry="1")
    reach(stage, "Provisioning")
    assert deployment(stage).fleet_hash == bad.fleet_hash


def test_what_a_person_brought_back_and_failed_leaves_no_latch_on_what_serves() -> None:
    stage = served(blue_green(final=5))
    first = name_of(stage)
    stage.image("two:1")
    stage.in_service()
    stage.cluster.troubles["one:1"] = CRASHES
    stage.annotate(rollback=first)
    reach(stage, "Provisioning")
    stage.in_service()
    stage.run(5)
    assert stage.status.latch is None
    assert ended(stage).outcome is Outcome.ROLLED_BACK


# What was refused before ----------------------------------------------------------------------------------------


def refuse_for_long(stage: ClusterStage, kind: type[Action]) -> None:
    """Actions of this kind are refused so often that the next is minutes away; then they would be carried out."""
    refused = CallProblem(kind.__name__, Reason.REJECTED_BY_KUBERNETES, "a webhook is away", transient=False)
    carry_out = stage.do
    stage.do = lambda action: None if isinstance(action, kind) else carry_out(action)
    while stage.status.problem is None or stage.status.problem.count < 8:
        tried = any(isinstance(action, kind) for action in stage.actions)
        stage.step(problem=refused if tried else None)
    stage.do = carry_out
    assert stage.status.problem.next_attempt is not None
    assert (stage.status.problem.next_attempt - stage.now).total_seconds() > 60


def test_routes_that_were_refused_on_the_way_forward_do_not_delay_the_way_back() -> None:
    stage = watched(blue_green("LINEAR", wait=20, final=20))
    stage.image("two:1")
    reach(stage, "Baking", 1)
    refuse_for_long(stage, WriteRoute)
    assert stage.percent_new() == 25
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    assert stage.percent_new() == 0
    assert deployment(stage).cause is Cause.ALARM


def test_a_batch_that_was_refused_on_the_way_forward_does_not_delay_the_old_instances() -> None:
    stage = watched(rolling(25, back=25, wait=30))
    stage.image("two:1")
    reach(stage, "Baking", 2)
    refuse_for_long(stage, ScaleFleet)
    old = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image != "two:1")
    assert old.replicas < 4
    stage.alarms["errors"].state = "ALARM"
    for _ in range(30):
        stage.step()
    assert old.replicas == 4
    assert stage.percent_new() == 0


def test_a_router_that_does_not_follow_goes_although_something_else_is_refused() -> None:
    stage = served()
    stage.image("two:1")
    reach(stage, "Baking", 1)
    old = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "one:1")
    del stage.cluster.fleets[old.name]
    stuck = stage.cluster.routers[0]
    stuck.slow = True
    new = next(iter(stage.cluster.fleets.values()))
    new.ready, new.image = 0, "bad:1"
    refused = CallProblem("EnsureFleet", Reason.REJECTED_BY_KUBERNETES, "a webhook is away", transient=False)
    for _ in range(12):
        tried = any(isinstance(action, EnsureFleet) for action in stage.actions)
        stage.step(problem=refused if tried else None, refusing=old.name)
    assert stage.status.problem is not None
    assert stuck not in stage.cluster.routers
    assert stage.status.deployment is None or deployment(stage).traffic_percent == 0


def test_a_clock_that_goes_back_does_not_keep_a_router_that_does_not_follow() -> None:
    stage = served()
    stage.image("two:1")
    reach(stage, "Baking", 1)
    stuck = stage.cluster.routers[0]
    stuck.slow = True
    stage.annotate(rollback=name_of(stage))
    stage.step()
    stage.step()
    assert deployment(stage).stage == "RollingBack"
    stage.step(-3600.0)
    stage.run(8)
    assert stuck not in stage.cluster.routers


# Old fleets that are gone ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["another edit", "a revert", "a person", "the deadline"])
def test_without_an_old_pod_traffic_stays_where_it_is_answered(how: str) -> None:
    stage = served()
    stage.image("two:1")
    reach(stage, "FinalBaking")
    pods_are_gone(stage, "one:1")
    if how == "another edit":
        stage.image("three:1")
    elif how == "a revert":
        stage.image("one:1")
    elif how == "a person":
        stage.annotate(rollback=name_of(stage))
    else:
        stage.annotate(pause="true")
        stage.step((deployment(stage).deadline - stage.now).total_seconds())
    for _ in range(100):
        stage.step()
        assert deployment(stage).stage == "RollingBack"
        assert {f.variant_name: f.weight for f in stage.cluster.route.spec.fleets if f.weight} == {"a": 1_000_000}  # type: ignore[union-attr]
        assert any(f.ready for f in stage.cluster.fleets.values() if f.image == "two:1")
    serving = [f.name for f in stage.cluster.route.spec.fleets if f.weight]  # type: ignore[union-attr]
    assert [stage.cluster.fleets[name].image for name in serving] == ["two:1"]
    assert "traffic stays as it is until fleets of revision" in stage.message()
    assert "a 0/4 instances ready" in stage.message()
    del stage.cluster.troubles["one:1"]
    stage.step()
    stage.step()
    serving = [f.name for f in stage.cluster.route.spec.fleets if f.weight]  # type: ignore[union-attr]
    assert [stage.cluster.fleets[name].image for name in serving] == ["one:1"], "as soon as it answers"


@pytest.mark.parametrize("how", ["another edit", "a revert", "a person"])
@pytest.mark.parametrize(
    ("policy", "spec", "steps"),
    [
        (blue_green("CANARY"), {}, (25,)),
        (blue_green(), {}, (100,)),
        (blue_green("LINEAR", wait=5), {}, (25, 50)),
        (rolling(50, wait=5), {}, (50,)),
        (rolling(25, wait=5), {}, (25, 50)),
        (rolling(50, wait=5), {"kubernetes": {"replaceFirst": True}}, (50,)),
    ],
    ids=["canary", "all at once", "linear", "rolling", "second batch", "replace first"],
)
def test_a_step_that_is_not_confirmed_yet_is_not_taken_back_to_nobody(
    policy: dict[str, Any], spec: dict[str, Any], steps: tuple[int, ...], how: str
) -> None:
    """Some routers may send its share already; going back before an old pod is ready would lose it."""
    stage = served(policy, **spec)
    first = name_of(stage)
    stage.image("two:1")
    reach(stage, "Shifting", len(steps))
    for router in stage.cluster.routers:
        router.slow = True
    pods_are_gone(stage, "one:1")
    if how == "another edit":
        stage.image("three:1")
    elif how == "a revert":
        stage.image("one:1")
    else:
        stage.annotate(rollback=first)
    for second in range(40):
        stage.step()
        assert deployment(stage).stage == "RollingBack"
        assert share_of(stage, "two:1") == steps[-1]
        assert "a 0/4 instances ready" in stage.message() or "variant a: 4 pods" in stage.message()
        if second == 30:
            for router in stage.cluster.routers:
                router.slow = False
    assert deployment(stage).traffic_text == f"{steps[-1]}%", "what the routers have is told"
    del stage.cluster.troubles["one:1"]
    for _ in range(60):
        stage.step()
        if ended(stage).revision != first:
            break
    assert ended(stage).cause is Cause.PERSON
    assert share_of(stage, "one:1") == 100


@pytest.mark.parametrize("policy", [blue_green("CANARY"), rolling(50)], ids=["canary", "rolling"])
@pytest.mark.parametrize("gone", [(), ("one:1", "two:1")], ids=["old pods answer", "nobody answers"])
def test_a_first_step_goes_back_at_once_where_nothing_is_lost_by_it(
    policy: dict[str, Any], gone: tuple[str, ...]
) -> None:
    stage = served(policy)
    stage.image("two:1")
    reach(stage, "Shifting", 1)
    for image in gone:
        pods_are_gone(stage, image)
    stage.image("one:1")
    stage.step()
    assert share_of(stage, "one:1") == 100


def test_a_batch_goes_back_to_as_many_old_pods_as_answer_for_it_though_it_was_not_confirmed() -> None:
    stage = served(rolling(50))
    stage.image("two:1")
    reach(stage, "Shifting", 1)
    (old,) = (fleet for fleet in stage.cluster.fleets.values() if fleet.image == "one:1")
    stage.capped[old.name] = 3
    stage.image("one:1")
    stage.run(30)
    assert (share_of(stage, "two:1"), old.ready) == (50, 3)
    del stage.capped[old.name]
    stage.run(3)
    assert share_of(stage, "one:1") == 100


def test_without_an_old_pod_it_goes_back_all_the_same_when_those_had_their_time() -> None:
    stage = served()
    stage.image("two:1")
    reach(stage, "Baking", 1)
    pods_are_gone(stage, "one:1")
    stage.image("three:1")
    stage.run(3)
    assert deployment(stage).stage == "RollingBack"
    stage.step(1380)
    stage.step()
    assert [f.weight for f in stage.cluster.route.spec.fleets] == [1_000_000]  # type: ignore[union-attr]
    reach(stage, "Provisioning")
    pods_are_gone(stage, "one:1")
    stage.in_service()  # nothing old keeps what mends it from being deployed
    assert {fleet.image for fleet in stage.cluster.fleets.values() if fleet.gone_at is None} == {"three:1"}


def test_an_alarm_goes_back_at_once_whether_an_old_pod_answers_or_not() -> None:
    stage = watched()
    (image,) = {fleet.image for fleet in stage.cluster.fleets.values()}
    stage.image("two:1")
    reach(stage, "Baking", 1)
    pods_are_gone(stage, image)
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    assert stage.percent_new() == 0


def test_while_new_pods_are_lost_the_old_ones_stay_for_the_way_back() -> None:
    stage = served()
    stage.image("two:1")
    reach(stage, "FinalBaking")
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "two:1")
    stage.capped[new.name] = 2
    stage.run(100)
    assert deployment(stage).stage == "FinalBaking"
    assert "the old fleets go when the new ones are all there: a 2/4" in stage.message()
    stage.annotate(rollback=name_of(stage))
    stage.step()
    assert stage.percent_new() == 0
    stage = served()
    stage.image("two:1")
    reach(stage, "FinalBaking")
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "two:1")
    stage.capped[new.name] = 2
    stage.run(100)
    del stage.capped[new.name]
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("policy", [blue_green("CANARY", wait=60), rolling(50, wait=60)], ids=["canary", "rolling"])
def test_a_way_back_from_what_is_dead_is_confirmed_though_no_router_sees_an_old_pod(policy: dict[str, Any]) -> None:
    stage = served(policy)
    stage.image("two:1")
    reach(stage, "Baking", 1)
    for fleet in stage.cluster.fleets.values():
        if fleet.image == "one:1":
            fleet.unseen = True
        else:
            fleet.ready, fleet.image = 0, "bad:1"
    for _ in range(60):
        stage.step()
        if stage.status.deployment is None:
            break
    assert ended(stage).outcome is Outcome.ROLLED_BACK
    assert {fleet.image for fleet in stage.cluster.fleets.values()} == {"one:1"}


# Routers that do not follow -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [blue_green("CANARY", wait=60), rolling(50, wait=60)], ids=["canary", "rolling"])
def test_new_fleets_that_wait_for_routers_say_so(policy: dict[str, Any]) -> None:
    stage = served(policy)
    for router in stage.cluster.routers:
        router.slow = True
    stage.image("two:1")
    stage.run(60)
    assert deployment(stage).stage == "Provisioning"
    names = ", ".join(router.pod for router in stage.cluster.routers)
    assert f"waiting for {names} to apply generation" in stage.message()
    routers_reject(stage)
    stage.step()
    assert stage.condition("Reconciling") == ("True", "RouterNotConverged")
    assert "no such cluster" in stage.message()


@pytest.mark.parametrize("policy", [blue_green("CANARY", wait=60), rolling(50, wait=60)], ids=["canary", "rolling"])
def test_a_way_back_that_routers_reject_says_why(policy: dict[str, Any]) -> None:
    stage = served(policy)
    stage.image("two:1")
    reach(stage, "Baking", 1)
    routers_reject(stage)
    stage.annotate(rollback=name_of(stage))
    stage.run(30)
    assert deployment(stage).stage == "RollingBack"
    assert stage.condition("Reconciling") == ("True", "RouterNotConverged")
    assert "no such cluster" in stage.message()


def test_a_clean_up_that_routers_reject_says_why() -> None:
    stage = served(blue_green(final=5))
    stage.image("two:1")
    reach(stage, "FinalBaking")
    routers_reject(stage)
    reach(stage, "CleaningUp")
    stage.run(5)
    assert deployment(stage).stage == "CleaningUp"
    assert stage.condition("Reconciling") == ("True", "RouterNotConverged")
    assert "no such cluster" in stage.message()


# The sample invocation ------------------------------------------------------------------------------------------


def test_new_pods_that_all_fail_the_sample_invocation_under_traffic_go_back() -> None:
    stage = served(kubernetes={})
    stage.edit("Model", kubernetes=SAMPLE)
    stage.in_service()
    stage.image("two:1")
    reach(stage, "Baking", 1)
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "two:1")
    new.failing = 3
    stage.run(5)
    assert deployment(stage).stage == "Baking", "one pod that answers is enough to go on baking"
    new.failing = 4
    stage.step()
    assert deployment(stage).stage == "RollingBack"
    assert deployment(stage).cause is Cause.HEALTH
    assert "do not answer the sample invocation" in deployment(stage).message
    assert stage.percent_new() == 0
