"""Beside a scaler: what it made of the counts stays, whatever brings a revision back, and its work troubles nobody."""

import pytest
from tests.core.stage import Stage, denied, two_revisions

from sluice.api.reasons import Reason
from sluice.core.actions import UpdateEndpoint
from sluice.core.endpoint.questions import questions
from sluice.core.observation import Questions


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
