"""An endpoint that is deleted, gone, failed or half forgotten: what is created or repeated then, and what is not."""

import pytest
from tests.core.stage import Stage, canary, config, denied, rejected, two_revisions

from sluice.api.reasons import Reason
from sluice.api.status import EndpointStatus
from sluice.core.actions import CreateEndpoint, SyncTags
from sluice.core.observation import CallProblem, Presence

# Deletion -------------------------------------------------------------------------------------------------------


def test_an_endpoint_whose_owner_cannot_be_read_is_not_deleted() -> None:
    stage = Stage()
    stage.step()
    stage.step(stage.described("InService", "foreign"), owner=None)
    assert stage.condition("Stalled") == ("True", Reason.NOT_OWNED)
    stage.delete()
    for _ in range(3):
        stage.step(stage.described("InService", "foreign"), tags_read=False, problem=denied("ListTags"), seconds=40)
        assert stage.actions == []
        assert stage.status.endpoint_arn is None
    assert stage.condition("Stalled") == ("True", Reason.ACCESS_DENIED)
    stage.step(stage.described("InService", "foreign"), owner=None)
    assert stage.called() == ["PatchEndpoint"], "somebody else's endpoint stays"


def test_a_pin_that_was_removed_leaves_no_orphan() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.endpoint["metadata"]["annotations"].clear()
    stage.delete()
    stage.step(stage.described(moved=2))
    assert stage.called() == ["DeleteEndpoint"]


def test_a_pin_that_was_removed_is_not_written_anew_for_another_account() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.endpoint["metadata"]["annotations"].clear()
    stage.account = "999988887777"
    stage.step()
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.PLACEMENT_CHANGED)


def test_an_arn_that_keeps_the_case_of_the_name_is_ours() -> None:
    stage = Stage(endpointName="Churn")
    stage.step()
    stage.step()
    assert stage.status.intent is not None
    config_name = stage.status.intent.endpoint_config_name
    for status in ("Creating", "InService", "InService"):
        seen = stage.described(status, config_name, moved=1, name="Churn", arn_name="Churn")
        stage.step(seen, seconds=1)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


def test_a_deletion_that_reads_do_not_show_yet_is_not_repeated() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.delete()
    stage.step(stage.described(moved=2))
    assert stage.called() == ["DeleteEndpoint"]
    stage.acted = ("DeleteEndpoint",)
    for _ in range(3):
        stage.step(stage.described(moved=2), seconds=5)
        assert stage.actions == []
    stage.step(stage.described(moved=2), seconds=60)
    assert stage.called() == ["DeleteEndpoint"], "a minute later it has had no effect"


def test_an_adopted_endpoint_is_retained_though_the_annotation_was_removed() -> None:
    stage = Stage()
    stage.bring_into_service()
    assert stage.status.revision is not None
    revision = stage.status.revision.model_copy(update={"adopted": True})
    stage.status = stage.status.model_copy(update={"revision": revision})
    stage.delete()
    stage.step(stage.described(moved=2))
    assert stage.called() == ["DropRevision", "PatchEndpoint"]


# Gone, failed, created anew -------------------------------------------------------------------------------------


def _roll_back(stage: Stage) -> str:
    """Deploy repo/churn:2 and see SageMaker roll it back. Returns the fleet hash that is latched."""
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described(moved=2))
    stage.step(stage.described(moved=2), seconds=6)
    assert stage.called()[-1] == "UpdateEndpoint"
    stage.step(stage.described("Updating", moved=3), seconds=1)
    assert stage.status.revision is not None
    back = stage.described(moved=9, failure_reason="an alarm went off")
    stage.settle_down(back)
    assert stage.condition("Stalled") == ("True", Reason.ROLLED_BACK)
    assert stage.status.latch is not None
    return stage.status.latch.fleet_hash


@pytest.mark.parametrize("policy", ["Report", "Correct"])
def test_a_latched_revision_is_not_created_when_the_endpoint_is_deleted_outside(policy: str) -> None:
    stage = Stage(driftPolicy=policy)
    stage.bring_into_service()
    assert stage.status.revision is not None
    good = stage.status.revision
    latched = _roll_back(stage)
    stage.step(Presence.MISSING, seconds=60)
    if policy == "Report":
        assert stage.actions == []
        assert stage.condition("Stalled") == ("True", Reason.DRIFTED)
        return
    assert stage.called()[-1] == "CreateEndpoint"
    create = next(a.request for a in stage.actions if isinstance(a, CreateEndpoint))
    assert create["EndpointConfigName"] == good.endpoint_config_name
    stage.step(stage.described("Creating", good.endpoint_config_name, moved=70), seconds=1)
    served = stage.described("InService", good.endpoint_config_name, moved=80)
    stage.settle_down(served)
    assert stage.status.latch is not None
    assert stage.status.latch.fleet_hash == latched
    assert stage.condition("Stalled") == ("True", Reason.ROLLED_BACK)


def test_an_edit_does_not_bring_back_what_somebody_else_deleted() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(Presence.MISSING, seconds=60)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.DRIFTED)


def test_retry_of_an_endpoint_that_failed_after_it_served_creates_it_again() -> None:
    stage = Stage()
    stage.bring_into_service()
    failed = stage.described("Failed", moved=5, failure_reason="gave up")
    stage.step(failed, seconds=10)
    stage.annotate(retry="1")
    stage.step(failed, seconds=1)
    assert stage.called() == ["DeleteEndpoint"]
    stage.step(failed, seconds=1, act_problem=denied("DeleteEndpoint"))
    assert stage.actions == [], "backs off"
    assert stage.condition("Stalled") == ("True", Reason.ACCESS_DENIED)
    stage.step(failed, seconds=120)
    assert stage.called() == ["DeleteEndpoint"], "what was said once is gone on with"
    stage.acted = ("DeleteEndpoint",)
    stage.step(failed, seconds=1)
    assert stage.actions == [], "reads do not show it yet"
    stage.step(stage.described("Deleting", moved=6), seconds=5)
    stage.step(Presence.MISSING, seconds=5)
    assert stage.called()[-1] == "CreateEndpoint"


@pytest.mark.parametrize("edit", ["count", "tags", "policy"])
def test_a_refused_creation_is_tried_again_after_any_change(edit: str) -> None:
    stage = Stage()
    stage.step()
    stage.step()
    stage.step(act_problem=rejected("CreateEndpoint"), seconds=1)
    stage.step(seconds=600)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.REJECTED_BY_SAGEMAKER)
    _change(stage, edit)
    stage.step(seconds=10)
    assert stage.called()[-1] == "CreateEndpoint"


@pytest.mark.parametrize("edit", ["count", "tags", "policy"])
def test_a_refused_update_is_tried_again_after_any_change(edit: str) -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described(moved=2))
    stage.step(stage.described(moved=2), seconds=6)
    stage.step(stage.described(moved=2), act_problem=rejected("UpdateEndpoint"), seconds=1)
    stage.step(stage.described(moved=2), seconds=600)
    assert "UpdateEndpoint" not in stage.called()
    assert stage.condition("Stalled") == ("True", Reason.REJECTED_BY_SAGEMAKER)
    seen = stage.described(moved=2)
    _change(stage, edit)
    stage.step(seen, seconds=10)
    stage.step(seen, seconds=10)
    assert stage.called()[-1] == "UpdateEndpoint"


def _change(stage: Stage, edit: str) -> None:
    if edit == "count":
        stage.edit("EndpointConfig", productionVariants=config(count=2)["spec"]["productionVariants"])
    elif edit == "tags":
        stage.objects["Model", "churn"]["spec"]["tags"] = [{"key": "team", "value": "a"}]
    else:
        stage.edit("Endpoint", deploymentConfig=canary())


# What was lost --------------------------------------------------------------------------------------------------


def test_a_creation_whose_answer_was_lost_before_an_edit_is_known_and_updated() -> None:
    stage = Stage()
    stage.step()
    stage.step()
    assert stage.status.intent is not None
    first = stage.status.intent.endpoint_config_name
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(seconds=5)
    assert stage.called()[-1] == "CreateEndpoint"
    taken = CallProblem("CreateEndpoint", Reason.NAME_CONFLICT, "Cannot create already existing", retry_after_seconds=1)
    stage.step(stage.described("Creating", first, moved=1), seconds=1, act_problem=taken)
    seen = stage.described("InService", first, moved=9)
    stage.step(seen, seconds=9)
    stage.step(seen, seconds=9)
    assert stage.called()[-1] == "UpdateEndpoint", "brought to what the spec asks for now"


@pytest.mark.parametrize("word", ["Creating", "Failed"])
def test_a_status_lost_while_creating_is_no_endpoint_that_served(word: str) -> None:
    stage = Stage()
    stage.step()
    stage.step()
    assert stage.status.intent is not None
    config_name = stage.status.intent.endpoint_config_name
    stage.status = EndpointStatus()
    stage.step(stage.described(word, config_name, moved=1, pending=stage.pending(str(config_name))), seconds=1)
    failed = stage.described("Failed", config_name, moved=9, failure_reason="gave up")
    stage.step(failed, seconds=5)
    assert stage.condition("Stalled") == ("True", Reason.CREATION_FAILED)
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(failed, seconds=5)
    assert stage.called() == ["DeleteEndpoint"]


def test_a_persons_rollback_outlives_the_status() -> None:
    stage = Stage()
    seen = two_revisions(stage)
    assert stage.status.previous_revision is not None
    back = stage.status.previous_revision
    stage.annotate(rollback=back.name)
    stage.step(seen, seconds=1)
    first = stage.described("InService", back.endpoint_config_name, moved=20)
    stage.settle_down(first)
    assert stage.condition("Stalled") == ("True", Reason.HELD_BY_ROLLBACK)
    stage.status = EndpointStatus()
    for _ in range(4):
        stage.step(first, seconds=60)
        assert "UpdateEndpoint" not in stage.called()
    assert stage.condition("Stalled") == ("True", Reason.HELD_BY_ROLLBACK)


def test_tags_that_are_edited_while_the_endpoint_is_made_are_written_afterwards() -> None:
    stage = Stage()
    stage.step()
    stage.step()
    assert stage.status.intent is not None
    config_name = stage.status.intent.endpoint_config_name
    stage.step(stage.described("Creating", config_name, moved=1), seconds=1)
    stage.edit("Endpoint", tags=[{"key": "team", "value": "a"}])
    stage.step(stage.described("Creating", config_name, moved=1), seconds=1)
    stage.step(stage.described("InService", config_name, moved=9), seconds=9)
    assert "SyncTags" in stage.called()
    synced = [action.resource for action in stage.actions if isinstance(action, SyncTags)]
    assert synced == ["endpoint/churn"]
