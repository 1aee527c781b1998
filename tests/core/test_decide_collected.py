"""What is collected in AWS, and what is kept: nothing that may serve, and nothing that a person may go back to."""

import pytest
from tests.core.stage import Stage, config, rejected, two_revisions

from sluice.api.reasons import Outcome, Reason
from sluice.api.status import EndpointStatus
from sluice.core.actions import DeleteEndpointConfig, DeleteModel
from sluice.core.observation import Described


def _deleted(stage: Stage) -> set[str]:
    """The AWS objects that the last pass deletes."""
    return {action.name for action in stage.actions if isinstance(action, DeleteEndpointConfig | DeleteModel)}


def _asked(stage: Stage, seen: Described, image: str) -> str:
    """Another image settles and is asked for. Returns its EndpointConfig."""
    stage.edit("Model", primaryContainer={"image": image})
    stage.step(seen, seconds=60)
    stage.step(seen, seconds=6)
    assert stage.called()[-1] == "UpdateEndpoint"
    assert stage.status.intent is not None
    return str(stage.status.intent.endpoint_config_name)


def _rolled_back(stage: Stage, image: str, moved: float, status: str = "InService") -> tuple[str, Described]:
    """A deployment that did not come into service. Returns its EndpointConfig and what is seen then."""
    bad = _asked(stage, stage.described(moved=moved), image)
    stage.step(stage.described("Updating", moved=moved + 1, pending=stage.pending(bad)), seconds=1)
    return bad, stage.described(status, moved=moved + 9, failure_reason="no capacity")


def test_nothing_is_collected_while_a_mix_of_revisions_serves() -> None:
    stage = Stage()
    two_revisions(stage)
    stage.settle_down(stage.described(moved=9))
    mixed, broken = _rolled_back(stage, "repo/churn:3", 20, "UpdateRollbackFailed")
    stage.step(broken, seconds=60)
    assert stage.condition("Stalled") == ("True", Reason.UPDATE_ROLLBACK_FAILED)
    deleted: set[str] = set()
    for image in ("repo/churn:4", "repo/churn:5"):
        _asked(stage, broken, image)
        stage.step(broken, seconds=1, act_problem=rejected("UpdateEndpoint"))
        for _ in range(6):
            deleted |= _deleted(stage)
            stage.step(broken, seconds=700)
    assert deleted == set(), "what failed serves beside what it was to replace"
    good = _asked(stage, broken, "repo/churn:6")
    serving = stage.described("InService", good, moved=90)
    for _ in range(12):
        stage.step(serving, seconds=60)
        deleted |= _deleted(stage)
    assert mixed in deleted, "nothing serves it now"


@pytest.mark.parametrize("latched", [True, False])
def test_a_lost_status_forgets_neither_the_revision_before_nor_the_one_that_failed(latched: bool) -> None:
    stage = Stage()
    two_revisions(stage)
    stage.settle_down(stage.described(moved=9))
    before, serving = stage.status.previous_revision, stage.status.revision
    assert before is not None
    assert serving is not None
    _, seen = _rolled_back(stage, "repo/churn:3", 20)
    stage.settle_down(seen)
    assert stage.status.latch is not None
    kept = set(stage.revisions)
    assert len(kept) == 3
    if not latched:
        stage.edit("Model", primaryContainer={"image": "repo/churn:2"})  # the one that serves is asked for again
        stage.settle_down(seen)
    stage.status = EndpointStatus()
    for _ in range(8):
        stage.step(seen, seconds=60)
        assert _deleted(stage) == set()
    assert set(stage.revisions) == kept
    assert stage.status.revision is not None
    assert stage.status.revision.name == serving.name
    assert stage.status.previous_revision is not None
    assert (stage.status.previous_revision.name, stage.status.previous_revision.endpoint_config_name) == (
        before.name,
        before.endpoint_config_name,
    )
    stage.annotate(rollback=before.name)
    stage.step(seen, seconds=1)
    assert stage.called()[-1] == "UpdateEndpoint"


def test_of_one_fleet_the_newest_that_failed_is_kept() -> None:
    stage = Stage()
    two_revisions(stage)
    stage.settle_down(stage.described(moved=9))
    _, seen = _rolled_back(stage, "repo/churn:3", 20)
    stage.settle_down(seen)
    stage.annotate(retry="1")
    stage.objects["EndpointConfig", "churn"] = config(count=5)
    _, seen = _rolled_back(stage, "repo/churn:3", 40)
    stage.settle_down(seen)
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.ROLLED_BACK
    for _ in range(4):
        stage.step(seen, seconds=60)
    assert len(stage.revisions) == 3
    assert stage.status.last_deployment.revision in stage.revisions
