"""Beside a scaler: what it made of the counts stays, whatever brings a revision back, and its work troubles nobody."""

import pytest
from tests.core.stage import Stage, canary, config, denied, two_revisions

from sluice.api.reasons import Reason
from sluice.core.actions import UpdateEndpoint
from sluice.core.endpoint.questions import questions
from sluice.core.observation import CallProblem, Described, Questions


def _asks(stage: Stage) -> Questions:
    return questions(stage.endpoint, stage.status, stage.resolution(), None, None, stage.now)


def _retains(stage: Stage) -> bool:
    request = next(action.request for action in stage.actions if isinstance(action, UpdateEndpoint))
    return bool(request["RetainAllVariantProperties"])


@pytest.mark.parametrize(
    ("scalable", "retained"),
    [(frozenset({"a"}), True), (frozenset(), False), (None, True)],
    ids=["scaled", "not scaled", "unknown"],
)
def test_a_persons_rollback_keeps_what_a_scaler_holds(scalable: frozenset[str] | None, retained: bool) -> None:
    stage = Stage()
    seen = two_revisions(stage)
    assert stage.status.previous_revision is not None
    stage.annotate(rollback=stage.status.previous_revision.name)
    assert _asks(stage).scalable
    problem = denied("DescribeScalableTargets") if scalable is None else None
    stage.step(seen, seconds=1, scalable=scalable, problem=problem)
    assert _retains(stage) is retained
    assert not _asks(stage).scalable


def test_mending_drift_asks_what_a_scaler_holds_before_it_corrects() -> None:
    stage = Stage(driftPolicy="Correct")
    stage.bring_into_service()
    moved = stage.described("InService", "foreign", moved=5)
    assert not _asks(stage).scalable
    stage.step(moved, seconds=60, scalable=None)
    assert stage.actions == []
    assert stage.status.drift is not None
    assert stage.status.drift.corrections == ()
    assert _asks(stage).scalable
    stage.step(moved, seconds=1, scalable=frozenset({"a"}))
    assert stage.condition("Reconciling") == ("True", Reason.CORRECTING_DRIFT)
    assert _retains(stage)


def test_what_the_spec_says_of_retaining_needs_no_question() -> None:
    stage = Stage(retainAllVariantProperties=False)
    seen = two_revisions(stage)
    assert stage.status.previous_revision is not None
    stage.annotate(rollback=stage.status.previous_revision.name)
    assert not _asks(stage).scalable
    stage.step(seen, seconds=1, scalable=None)
    assert not _retains(stage)


@pytest.mark.parametrize("word", ["Updating", "RollingBack"])
def test_a_scaler_at_work_leaves_ready_as_it_was(word: str) -> None:
    stage = Stage()
    stage.bring_into_service()
    variant = stage.status.production_variants[0].model_copy(update={"desired_instance_count": 8})
    stage.step(stage.described(word, moved=5, variants=(variant,)), seconds=60)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.condition("Serving")[0] == "True"
    assert stage.condition("Reconciling")[0] == "True"
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described(word, moved=5, variants=(variant,)), seconds=1)
    assert stage.condition("Ready")[0] == "False", "an edit that waits is no green lie"


@pytest.mark.parametrize("what", ["weights", "config"])
def test_what_else_somebody_changes_is_not_ready_while_it_runs(what: str) -> None:
    stage = Stage()
    stage.bring_into_service()
    weight = 5.0 if what == "weights" else 1.0
    variant = stage.status.production_variants[0].model_copy(update={"desired_weight": weight})
    pending = stage.pending("foreign") if what == "config" else None
    stage.step(stage.described("Updating", moved=5, variants=(variant,), pending=pending), seconds=60)
    assert stage.condition("Ready") == ("False", Reason.ENDING_FOREIGN_UPDATE)


# An attempt that had no effect, and the next ------------------------------------------------------------------------

LIMIT = CallProblem("UpdateEndpoint", Reason.QUOTA_EXCEEDED, "ResourceLimitExceeded", retry_after_seconds=60)


def _refused_once(stage: Stage, scalable: frozenset[str], alarms: dict[str, str] | None = None) -> Described:
    """A scaler made 20 instances of 2, another image is asked for, and SageMaker refuses the first UpdateEndpoint."""
    stage.objects["EndpointConfig", "churn"] = config(count=2)
    stage.bring_into_service()
    [variant] = stage.status.production_variants
    seen = stage.described(moved=5, variants=(variant.model_copy(update={"desired_instance_count": 20}),))
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(seen, seconds=60, scalable=None, alarms=alarms)
    stage.step(seen, seconds=6, scalable=scalable, alarms=alarms)
    assert stage.called()[-1] == "UpdateEndpoint"
    stage.step(seen, seconds=1, scalable=None, act_problem=LIMIT, alarms=alarms)
    assert stage.actions == []
    return seen


@pytest.mark.parametrize("edited", ["count", "weight", "nothing"])
def test_a_second_attempt_keeps_what_a_scaler_holds(edited: str) -> None:
    stage = Stage()
    seen = _refused_once(stage, frozenset({"a"}))
    if edited == "count":
        stage.objects["EndpointConfig", "churn"] = config(count=3)
    elif edited == "weight":
        stage.objects["EndpointConfig", "churn"] = config(count=2, weight=2.0)
    assert not _asks(stage).scalable
    stage.step(seen, seconds=100, scalable=None)
    assert stage.actions == [], "a scaler may have come or gone: it is asked first"
    assert _asks(stage).scalable
    stage.step(seen, seconds=2, scalable=frozenset({"a"}))
    assert _retains(stage)


@pytest.mark.parametrize(("first", "second"), [(frozenset({"a"}), frozenset()), (frozenset(), frozenset({"a"}))])
def test_a_second_attempt_goes_by_the_scalers_of_its_own_time(first: frozenset[str], second: frozenset[str]) -> None:
    stage = Stage()
    seen = _refused_once(stage, first)
    stage.step(seen, seconds=100, scalable=second)
    assert _retains(stage) is bool(second)
    assert stage.status.deployment is not None
    assert stage.status.deployment.retain_all_variant_properties is bool(second)


@pytest.mark.parametrize("said", [True, False])
def test_a_second_attempt_heeds_what_the_spec_says_of_retaining_by_then(said: bool) -> None:
    stage = Stage()
    seen = _refused_once(stage, frozenset() if said else frozenset({"a"}))
    stage.edit("Endpoint", retainAllVariantProperties=said)
    assert not _asks(stage).scalable
    stage.step(seen, seconds=100, scalable=None)
    assert _retains(stage) is said


def test_a_persons_rollback_that_is_tried_again_keeps_what_it_kept_at_first() -> None:
    stage = Stage()
    seen = two_revisions(stage)
    assert stage.status.previous_revision is not None
    stage.annotate(rollback=stage.status.previous_revision.name)
    stage.step(seen, seconds=1, scalable=frozenset({"a"}))
    assert _retains(stage)
    stage.step(seen, seconds=1, scalable=None, act_problem=LIMIT)
    stage.step(seen, seconds=100, scalable=None)
    assert _retains(stage), "who goes back waits for no answer"


def test_a_second_attempt_does_not_start_under_an_alarm_that_fires_by_then() -> None:
    stage = Stage(deploymentConfig=canary(("x",)), retainAllVariantProperties=True)
    seen = _refused_once(stage, frozenset(), {"x": "OK"})
    assert _asks(stage).alarms == ("x",)
    for _ in range(3):
        stage.step(seen, seconds=100, alarms={"x": "ALARM"})
        assert stage.actions == []
        assert stage.condition("Reconciling") == ("True", Reason.ALARM_FIRING)
    stage.step(seen, seconds=5, alarms={"x": "OK"})
    assert stage.called()[-1] == "UpdateEndpoint"


def test_a_second_attempt_does_not_start_under_a_policy_that_does_not_fit_by_then() -> None:
    stage = Stage(retainAllVariantProperties=True)
    seen = _refused_once(stage, frozenset())
    size = {"type": "INSTANCE_COUNT", "value": 15}
    policy = canary()
    policy["blueGreenUpdatePolicy"]["trafficRoutingConfiguration"]["canarySize"] = size
    stage.edit("Endpoint", deploymentConfig=policy)
    stage.step(seen, seconds=100)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.INVALID_DEPLOYMENT_CONFIG)


def test_mending_drift_again_asks_for_scalers_again_and_for_no_alarm() -> None:
    stage = Stage(driftPolicy="Correct", deploymentConfig=canary(("x",)))
    stage.bring_into_service()
    moved = stage.described("InService", "foreign", moved=5)
    stage.step(moved, seconds=60, scalable=None)
    stage.step(moved, seconds=1, scalable=frozenset())
    assert not _retains(stage)
    stage.step(moved, seconds=1, scalable=None, act_problem=LIMIT)
    stage.step(moved, seconds=100, scalable=None)
    assert stage.actions == []
    stage.step(moved, seconds=1, scalable=frozenset({"a"}), alarms={"x": "ALARM"})
    assert _retains(stage)
