"""What is done again on SageMaker and what is not: lost calls, corrections, deletions, a person's way back."""

from tests.core.stage import Stage, canary, config, two_revisions

from sluice.api.reasons import Cause, Outcome, Reason
from sluice.core.actions import UpdateEndpoint, UpdateWeightsAndCapacities
from sluice.core.observation import CallProblem, Described, Presence

THROTTLED = CallProblem("UpdateEndpoint", Reason.THROTTLED, "slow down", retry_after_seconds=5)


def _asked_for(stage: Stage) -> str:
    """The EndpointConfig that the last pass's UpdateEndpoint names; empty: there was none."""
    found = (a.request["EndpointConfigName"] for a in stage.actions if isinstance(a, UpdateEndpoint))
    return str(next(found, ""))


def _start(stage: Stage, seen: Described, image: str, alarms: dict[str, str] | None = None) -> str:
    """Another image settles and is asked for. Returns its EndpointConfig."""
    stage.edit("Model", primaryContainer={"image": image})
    stage.step(seen, seconds=1, alarms=alarms)
    stage.step(seen, seconds=6, alarms=alarms)
    assert _asked_for(stage)
    return _asked_for(stage)


def test_a_rollback_without_a_word_while_an_alarm_fires_was_the_alarms() -> None:
    stage = Stage(deploymentConfig=canary(("churn-5xx",)))
    stage.bring_into_service()
    wanted = _start(stage, stage.described(moved=2), "repo/churn:2", {"churn-5xx": "OK"})
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted)), seconds=1)
    stage.step(stage.described("InService", moved=9), seconds=60, alarms={"churn-5xx": "ALARM"})
    assert stage.status.last_deployment is not None
    assert (stage.status.last_deployment.outcome, stage.status.last_deployment.cause) == (
        Outcome.ROLLED_BACK,
        Cause.ALARM,
    )
    assert "churn-5xx" in (stage.status.last_deployment.message or "")


def test_what_a_person_turned_away_stays_out_when_the_way_back_fails() -> None:
    stage = Stage()
    seen = two_revisions(stage)
    back, serving = stage.status.previous_revision, stage.status.revision
    assert back is not None
    assert serving is not None
    stage.edit("Model", primaryContainer={"image": "repo/churn:3"})
    stage.step(seen, seconds=1)
    stage.annotate(rollback=back.name)
    stage.step(seen, seconds=1)
    assert _asked_for(stage) == back.endpoint_config_name
    updating = stage.described("Updating", moved=20, pending=stage.pending(str(back.endpoint_config_name)))
    stage.step(updating, seconds=1)
    failed = stage.described("InService", serving.endpoint_config_name, moved=40, failure_reason="no capacity")
    for _ in range(5):
        stage.step(failed, seconds=60)
        assert not _asked_for(stage)
    assert stage.condition("Stalled") == ("True", Reason.HELD_BY_ROLLBACK)


def test_mending_that_was_throttled_goes_on_beside_a_revision_that_is_kept_out() -> None:
    stage = Stage(driftPolicy="Correct")
    stage.bring_into_service()
    assert stage.status.revision is not None
    ours = stage.status.revision.endpoint_config_name
    wanted = _start(stage, stage.described(moved=2), "repo/churn:2")
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted)), seconds=1)
    stage.settle_down(stage.described("InService", ours, moved=9, failure_reason="no capacity"))
    assert stage.condition("Stalled") == ("True", Reason.ROLLED_BACK)
    foreign = stage.described("InService", "foreign", moved=20)
    stage.step(foreign, seconds=60)
    assert _asked_for(stage) == ours
    stage.step(foreign, seconds=1, act_problem=THROTTLED)
    stage.step(foreign, seconds=20)
    assert _asked_for(stage) == ours, "the same correction, not a second one"
    assert stage.condition("Reconciling")[0] == "True"


def test_the_counts_of_two_variants_are_written_one_after_the_other() -> None:
    """UpdateEndpointWeightsAndCapacities takes the weights of several variants and the capacity of one."""
    stage = Stage()
    first = config()["spec"]["productionVariants"][0]
    stage.objects["EndpointConfig", "churn"]["spec"]["productionVariants"] = [first, {**first, "variantName": "b"}]
    stage.bring_into_service()
    before = stage.described(moved=2)
    more = [
        {**first, "variantName": name, "initialInstanceCount": 6, "initialVariantWeight": 2.0} for name in ("a", "b")
    ]
    stage.edit("EndpointConfig", productionVariants=more)
    stage.step(before, seconds=1)
    [request] = [a.request for a in stage.actions if isinstance(a, UpdateWeightsAndCapacities)]
    assert request["DesiredWeightsAndCapacities"] == [
        {"VariantName": "a", "DesiredWeight": 2.0, "DesiredInstanceCount": 6},
        {"VariantName": "b", "DesiredWeight": 2.0},
    ]


def test_an_endpoint_that_somebody_deletes_again_and_again_is_not_fought_over() -> None:
    stage = Stage(driftPolicy="Correct")
    stage.bring_into_service()
    stage.step(Presence.MISSING, seconds=60)
    assert stage.called()[-1] == "CreateEndpoint"
    assert stage.status.intent is not None
    made = stage.status.intent.endpoint_config_name
    stage.step(stage.described("Creating", made, moved=70), seconds=1)
    stage.settle_down(stage.described("InService", made, moved=80))
    stage.step(Presence.MISSING, seconds=600)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.FOREIGN_OWNER)


def test_deleted_right_after_its_creation_was_called_it_waits_until_that_would_be_seen() -> None:
    stage = Stage()
    stage.step()
    stage.step()
    assert stage.called()[-1] == "CreateEndpoint"
    assert stage.status.intent is not None
    made = stage.status.intent.endpoint_config_name
    stage.delete()
    for _ in range(3):
        stage.step(Presence.MISSING, seconds=10)
        assert stage.actions == [], "the answer may be lost, and reads may lag"
    stage.step(stage.described("Creating", made, moved=1), seconds=10)
    assert stage.condition("Ready") == ("False", Reason.DELETING)
    stage.step(stage.described("InService", made, moved=50), seconds=30)
    assert stage.called() == ["DeleteEndpoint"], "it is not left behind"


def test_trouble_that_is_met_again_before_its_time_puts_nothing_off() -> None:
    """Whatever wakes the Endpoint meanwhile: events come by the second."""
    stage = Stage()
    stage.bring_into_service()
    seen = stage.described(moved=2)
    stage.step(seen, seconds=1, problem=THROTTLED)
    told = stage.status.problem
    assert told is not None
    for _ in range(5):
        stage.step(seen, seconds=0.2, problem=THROTTLED)
    assert stage.status.problem == told


def test_what_was_pinned_to_one_account_is_not_created_in_another() -> None:
    stage = Stage()
    stage.step()
    stage.account = "999988887777"
    stage.step()
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.PLACEMENT_CHANGED)
