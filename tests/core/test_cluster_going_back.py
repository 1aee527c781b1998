"""A deployment that goes back: how it is told, what stands meanwhile, and what comes first."""

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import deployment, ended, name_of, reach, served

from sluice.api.reasons import Cause, Outcome, Reason
from sluice.core.cluster.actions import DeleteFleet, EnsureFleet, WriteRoute
from sluice.core.observation import CallProblem


def _going_back(how: str = "edit") -> ClusterStage:
    """From its first bake; the routers have not followed yet."""
    stage = served(blue_green("CANARY", wait=600))
    stage.image("two:1")
    reach(stage, "Baking", 1)
    for router in stage.cluster.routers:
        router.slow = True
    if how == "edit":
        stage.image("one:1")
    else:
        stage.annotate(rollback=name_of(stage))
    stage.step()
    assert deployment(stage).stage == "RollingBack"
    return stage


def _release(stage: ClusterStage) -> None:
    for router in stage.cluster.routers:
        router.slow = False


@pytest.mark.parametrize(
    ("how", "outcome"), [("edit", Outcome.SUPERSEDED), ("annotation", Outcome.ROLLED_BACK)], ids=["edit", "annotation"]
)
def test_what_a_person_took_back_by_annotation_was_rolled_back_and_not_superseded(how: str, outcome: Outcome) -> None:
    """The spec asks for it still: why it does not serve is told."""
    stage = _going_back(how)
    _release(stage)
    stage.run(20)
    assert (ended(stage).outcome, ended(stage).cause) == (outcome, Cause.PERSON)
    assert bool(stage.status.failure_reason) is (how == "annotation")


def test_what_goes_back_bakes_no_more() -> None:
    assert deployment(_going_back()).bake_until is None


def test_old_instances_that_somebody_takes_away_while_traffic_comes_back_are_brought_back() -> None:
    stage = _going_back()
    old = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "one:1")
    stage.scale(old, 1)
    stage.step()
    assert old.replicas == 4
    assert deployment(stage).stage == "RollingBack"


def test_an_old_fleet_that_is_lost_on_the_way_back_is_made_before_new_ones_are_deleted() -> None:
    """The first action that fails ends a pass."""
    stage = _going_back()
    old = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "one:1")
    _release(stage)
    for _ in range(10):
        stage.step(killed_after=0)
        if any(isinstance(action, DeleteFleet) for action in stage.actions):
            break
    del stage.cluster.fleets[old.name]
    stage.step(killed_after=0)
    assert [type(action) for action in stage.actions] == [EnsureFleet, DeleteFleet]


def test_routes_that_cannot_be_written_on_the_way_back_are_tried_ever_more_seldom() -> None:
    stage = served(blue_green("CANARY", wait=600))
    stage.image("two:1")
    reach(stage, "Baking", 1)
    stage.image("one:1")
    tried, failed = 0, None
    for _ in range(120):
        stage.step(problem=failed, killed_after=0)
        writes = any(isinstance(action, WriteRoute) for action in stage.actions)
        failed = CallProblem("WriteRoute", Reason.UNREACHABLE, "no answer within 10 s") if writes else None
        tried += writes
    assert 5 <= tried <= 12


def test_a_rollback_that_does_not_end_has_failed_in_the_end_and_goes_on() -> None:
    """A router that tells of requests without end at what goes: as long as somebody may still ask it, it stands."""
    stage = _going_back()
    [new] = [fleet.name for fleet in stage.cluster.fleets.values() if fleet.image == "two:1"]
    for router in stage.cluster.routers:
        router.busy = frozenset({new})
    _release(stage)
    stage.run(60)
    assert (stage.status.endpoint_status, stage.condition("Stalled")[0]) == ("Updating", "False")
    assert stage.percent_new() == 100, "what the spec asks for again has all requests"
    stage.step(5000)
    stage.step()
    assert stage.status.endpoint_status == "UpdateRollbackFailed"
    assert stage.condition("Stalled") == ("True", Reason.UPDATE_ROLLBACK_FAILED)
    assert "0% of the traffic is not known to have left it: waiting for" in stage.message("Stalled")
    for router in stage.cluster.routers:
        router.busy = frozenset()
    stage.in_service()
    assert (stage.status.endpoint_status, stage.condition("Stalled")[0]) == ("InService", "False")
    assert ended(stage).outcome is Outcome.SUPERSEDED
