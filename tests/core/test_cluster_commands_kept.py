"""What a person said holds: while an object is missing, when the status is lost, and at once."""

from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import ended, images_of, name_of, reach, served

from sluice.api.reasons import Outcome, Reason
from sluice.api.status import EndpointStatus
from sluice.core.cluster.actions import EnsureFleet
from sluice.core.cluster.observation import PodTrouble
from sluice.core.observation import CallProblem


def test_what_a_person_turned_away_while_its_model_was_missing_stays_out_when_that_is_back() -> None:
    stage = served(blue_green(final=0))
    first = name_of(stage)
    stage.image("two:1")
    stage.step()
    stage.in_service()
    model = stage.objects.pop(("Model", "churn"))
    stage.annotate(rollback=first)
    stage.run(60)
    assert name_of(stage) == first
    stage.objects["Model", "churn"] = model
    stage.run(60)
    assert images_of(stage) == ["one:1"]
    assert stage.condition("Stalled") == ("True", "HeldByRollback")


def _rolled_back() -> ClusterStage:
    """What the spec asks for was rolled back, and would get ready now."""
    stage = served(blue_green("CANARY", wait=60, final=0))
    stage.cluster.troubles["two:1"] = PodTrouble("CrashLoop", "exit code 1", final=True)
    stage.image("two:1")
    stage.until("RolledBack", type_="Stalled")
    stage.run(3)
    stage.cluster.troubles.clear()
    return stage


def test_a_revision_that_failed_and_is_brought_back_by_name_is_latched_no_more() -> None:
    stage = _rolled_back()
    assert stage.status.latch is not None
    stage.annotate(rollback=ended(stage).revision)
    stage.step()
    assert stage.status.deployment is not None
    assert stage.status.latch is None
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_a_retry_outlives_a_status_that_is_lost_while_it_is_deployed() -> None:
    stage = _rolled_back()
    stage.annotate(retry="1")
    reach(stage, "Baking", 1)
    stage.status = EndpointStatus()
    stage.in_service()
    assert images_of(stage) == ["two:1"]


def test_retry_tries_at_once_what_was_refused() -> None:
    stage = served()
    stage.cluster.fleets.clear()
    failed = None
    for _ in range(200):
        stage.step(problem=failed, killed_after=0)
        refused = CallProblem("EnsureFleet", Reason.QUOTA_EXCEEDED, "exceeded quota", transient=False)
        failed = refused if stage.actions else None
    stage.step(problem=failed, killed_after=0)
    assert not stage.actions, "the next attempt is minutes away"
    stage.annotate(retry="1")
    stage.step()
    assert any(isinstance(action, EnsureFleet) for action in stage.actions)
    stage.in_service()


def test_a_rollback_that_is_called_off_before_it_was_done_holds_nothing() -> None:
    """Said while the old fleet goes, it waits for that; what it would have turned away serves on, and is gone back to
    like any other."""
    stage = served(blue_green("CANARY", wait=60, final=0))
    first = name_of(stage)
    stage.image("two:1")
    while not any(fleet.gone_at for fleet in stage.cluster.fleets.values()):
        stage.step()
    stage.annotate(rollback=first)
    stage.step()
    assert [ack.result for ack in stage.status.commands] == ["Queued"]
    stage.endpoint["metadata"]["annotations"].clear()
    stage.in_service()
    stage.run(3)
    assert images_of(stage) == ["two:1"]
    assert stage.status.latch is None
    stage.image("three:1")
    reach(stage, "Baking", 1)
    stage.image("two:1")
    stage.step()
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "RollingBack"


def test_what_is_edited_after_a_change_was_called_off_settles_like_any_other() -> None:
    """Or a Model would be deployed before its EndpointConfig, which is applied a second later."""
    stage = served()
    stage.image("two:1")
    stage.step()
    assert stage.condition("Reconciling") == ("True", "Settling")
    stage.annotate(rollback=name_of(stage))
    stage.until("HeldByRollback", type_="Stalled", most=3)
    stage.run(60)
    stage.image("three:1")
    for _ in range(4):
        stage.step()
        assert stage.condition("Reconciling") == ("True", "Settling")
    reach(stage, "Provisioning")
