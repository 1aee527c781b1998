"""What serves is read from SageMaker: a status from an old backup, an answer that is older than the one before."""

import pytest
from tests.core.stage import Stage, config, two_revisions

from sluice.api.reasons import Reason
from sluice.api.status import Latch, RevisionStatus
from sluice.core.observation import Described

SENT = {"UpdateEndpoint", "UpdateWeightsAndCapacities"}


def restored(*, stored: bool, **spec: object) -> tuple[Stage, Described]:
    """The status of a backup says the first revision; SageMaker serves the second, which the spec asks for."""
    stage = Stage(**spec)
    stage.bring_into_service()
    backup = stage.status
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described(moved=2))
    stage.step(stage.described(moved=2), seconds=6)
    assert stage.status.intent is not None
    second, name = stage.status.intent.endpoint_config_name, stage.status.intent.revision
    seen = stage.described("InService", second, moved=9)
    stage.settle_down(seen)
    stage.status = backup
    if not stored:
        stage.revisions.pop(str(name))
    return stage, seen


def _sent(stage: Stage, seen: Described, passes: int = 8) -> set[str]:
    sent: set[str] = set()
    for _ in range(passes):
        stage.step(seen, seconds=20)
        sent |= SENT & set(stage.called())
    return sent


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("policy", ["Report", "Correct"])
def test_a_status_of_an_old_backup_takes_up_what_serves(stored: bool, policy: str) -> None:
    stage, seen = restored(stored=stored, driftPolicy=policy)
    first = stage.status.revision
    assert first is not None
    assert _sent(stage, seen) == set(), "not to itself, and not back"
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.status.revision is not None
    assert stage.status.revision.endpoint_config_name == seen.endpoint_config_name
    assert stage.status.previous_revision is not None
    assert stage.status.previous_revision.name == first.name
    assert stage.status.revision.name in stage.revisions, "what serves can be gone back to, and collected"


def test_counts_that_were_edited_since_the_backup_are_written() -> None:
    stage, seen = restored(stored=True)
    stage.objects["EndpointConfig", "churn"] = config(count=6)
    variants = tuple(variant.model_copy(update={"desired_instance_count": 4}) for variant in seen.variants)
    stage.step(stage.described("InService", seen.endpoint_config_name, moved=9, variants=variants), seconds=20)
    assert stage.called()[-1] == "UpdateWeightsAndCapacities"


def test_a_latch_on_what_serves_is_of_before() -> None:
    stage, seen = restored(stored=True)
    revision = stage.resolution().revision
    assert revision is not None
    latch = Latch(fleet_hash=revision.fleet_hash, reason=Reason.ROLLED_BACK, message="alarm", time=stage.now)
    stage.status = stage.status.model_copy(update={"latch": latch})
    assert _sent(stage, seen) == set()
    assert stage.status.latch is None
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


def test_what_a_person_turned_away_is_not_taken_up_because_somebody_brings_it_back() -> None:
    stage = Stage()
    seen = two_revisions(stage)
    back = stage.status.previous_revision
    assert back is not None
    stage.annotate(rollback=back.name)
    stage.step(seen, seconds=1)
    stage.settle_down(stage.described("InService", back.endpoint_config_name, moved=20))
    assert stage.status.latch is not None
    assert _sent(stage, stage.described("InService", seen.endpoint_config_name, moved=30)) == set()
    assert stage.condition("Stalled") == ("True", Reason.DRIFTED)


@pytest.mark.parametrize("which", ["the one before", "nobody knows"])
def test_another_configuration_that_somebody_puts_there_is_drift(which: str) -> None:
    stage = Stage()
    seen = two_revisions(stage)
    stage.settle_down(seen)
    before: RevisionStatus | None = stage.status.previous_revision
    assert before is not None
    put = str(before.endpoint_config_name) if which == "the one before" else "foreign"
    assert _sent(stage, stage.described("InService", put, moved=30)) == set(), "driftPolicy says Report"
    assert stage.condition("Stalled") == ("True", Reason.DRIFTED)


# Answers that are older than the one before -------------------------------------------------------------------------


def _called(stage: Stage, moved: float) -> str:
    """Another image, asked for when the endpoint had last moved then. Returns its EndpointConfig."""
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described(moved=moved))
    stage.step(stage.described(moved=moved), seconds=60)
    assert stage.status.intent is not None
    return str(stage.status.intent.endpoint_config_name)


def test_an_answer_from_before_the_call_is_no_rollback() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.now += (stage.described(moved=100).last_modified - stage.now) * 2
    stage.settle_down(stage.described(moved=50))
    wanted = _called(stage, 50)
    stage.acted = ("UpdateEndpoint",)
    stage.step(stage.described(moved=2), seconds=1)
    stage.step(stage.described(moved=2), seconds=100)
    assert stage.status.latch is None
    stage.step(stage.described("Updating", moved=300, pending=stage.pending(wanted)), seconds=100)
    stage.settle_down(stage.described("InService", wanted, moved=350))
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


@pytest.mark.parametrize("policy", ["Report", "Correct"])
def test_an_answer_from_before_the_end_changes_nothing(policy: str) -> None:
    stage = Stage(driftPolicy=policy)
    stage.bring_into_service()
    old = stage.described(moved=2)
    wanted = _called(stage, 2)
    stage.settle_down(stage.described("InService", wanted, moved=50))
    stage.step(old, seconds=1)
    assert stage.actions == []
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.status.last_modified_time == stage.described(moved=50).last_modified


def test_a_time_that_no_answer_can_have_had_blinds_nobody() -> None:
    """Somebody wrote the status, or a clock was far ahead."""
    stage = Stage()
    stage.bring_into_service()
    far = stage.described(moved=10_000_000).last_modified
    stage.status = stage.status.model_copy(update={"last_modified_time": far})
    stage.settle_down(stage.described(moved=2))
    assert stage.status.last_modified_time == stage.described(moved=2).last_modified
