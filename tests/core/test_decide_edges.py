"""Edges of an endpoint's life that hurt at night: what is deleted, created, latched or repeated by mistake."""

import copy
import re
from typing import Any

import pytest
from tests.core.stage import Stage, canary, config, model

from sluice.api.reasons import Outcome, Reason
from sluice.api.status import EndpointStatus
from sluice.core.actions import CreateEndpoint, SyncTags
from sluice.core.identity import Owner
from sluice.core.observation import CallProblem, Described, Presence
from sluice.core.permission import Policy, Rule
from sluice.core.revision import build_revision, controller_revision, stored_revision


def _deleting(stage: Stage) -> None:
    stage.endpoint["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"


def _denied(operation: str) -> CallProblem:
    return CallProblem(
        operation, Reason.ACCESS_DENIED, "denied", code="AccessDeniedException", retry_after_seconds=30.0
    )


# Deletion -------------------------------------------------------------------------------------------------------


def test_an_endpoint_whose_owner_cannot_be_read_is_not_deleted() -> None:
    stage = Stage()
    stage.step()
    stage.step(stage.described("InService", "foreign"), owner=None)
    assert stage.condition("Stalled") == ("True", Reason.NOT_OWNED)
    _deleting(stage)
    for _ in range(3):
        stage.step(stage.described("InService", "foreign"), tags_read=False, problem=_denied("ListTags"), seconds=40)
        assert stage.actions == []
        assert stage.status.endpoint_arn is None
    assert stage.condition("Stalled") == ("True", Reason.ACCESS_DENIED)
    stage.step(stage.described("InService", "foreign"), owner=None)
    assert stage.called() == ["PatchEndpoint"], "somebody else's endpoint stays"


def test_a_pin_that_was_removed_leaves_no_orphan() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.endpoint["metadata"]["annotations"].clear()
    _deleting(stage)
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
    _deleting(stage)
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
    _deleting(stage)
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
    stage.step(failed, seconds=1, act_problem=_denied("DeleteEndpoint"))
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


def _rejected(operation: str) -> CallProblem:
    return CallProblem(
        operation, Reason.REJECTED_BY_SAGEMAKER, "1 validation error", code="ValidationException", transient=False
    )


@pytest.mark.parametrize("edit", ["count", "tags", "policy"])
def test_a_refused_creation_is_tried_again_after_any_change(edit: str) -> None:
    stage = Stage()
    stage.step()
    stage.step()
    stage.step(act_problem=_rejected("CreateEndpoint"), seconds=1)
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
    stage.step(stage.described(moved=2), act_problem=_rejected("UpdateEndpoint"), seconds=1)
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


# Drift ----------------------------------------------------------------------------------------------------------


def test_mending_drift_keeps_the_revision_before() -> None:
    stage = Stage(driftPolicy="Correct")
    stage.bring_into_service()
    first = stage.status.revision
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described(moved=2))
    stage.step(stage.described(moved=2), seconds=6)
    assert stage.status.intent is not None
    second = stage.status.intent.endpoint_config_name
    stage.settle_down(stage.described("InService", second, moved=9))
    assert first is not None
    assert stage.status.previous_revision is not None
    stage.step(stage.described("InService", "foreign", moved=12), seconds=60)
    assert stage.called()[-1] == "UpdateEndpoint"
    stage.settle_down(stage.described("InService", second, moved=15))
    assert stage.status.previous_revision.name == first.name
    assert first.name in stage.revisions


# Problems -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refused", [_denied("AddTags"), _rejected("AddTags"), _denied("ListTags")])
def test_tags_that_may_not_be_written_flip_nothing_and_back_off(refused: CallProblem) -> None:
    stage = Stage()
    stage.bring_into_service()
    seen = stage.described(moved=2)
    stage.edit("Endpoint", tags=[{"key": "team", "value": "a"}])
    tried, waits = 0, []
    for _ in range(40):
        stage.step(seen, seconds=5, tags_read=False)
        assert stage.condition("Ready")[0] == "True"
        if stage.actions:
            assert stage.called() == ["SyncTags"]
            tried += 1
            stage.acted = ()
            stage.step(seen, seconds=1, tags_read=False, act_problem=refused)
            assert stage.status.problem is not None
            waits.append(stage.status.problem.count)
        assert stage.condition("Stalled") == ("True", refused.reason)
        assert stage.decision is not None
        assert stage.decision.look_again is not None
        assert stage.decision.look_again > stage.now
    assert waits == sorted(set(waits)), "each attempt counts, so each waits longer"
    assert tried <= 8
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(seen, seconds=1)
    stage.step(seen, seconds=6)
    assert stage.called()[-1] == "UpdateEndpoint", "a deployment does not wait for tags"


def test_a_problem_with_tags_ends_when_they_are_wanted_no_more() -> None:
    stage = Stage()
    stage.bring_into_service()
    seen = stage.described(moved=2)
    stage.edit("Endpoint", tags=[{"key": "team", "value": "a"}])
    stage.step(seen)
    stage.acted = ()
    stage.step(seen, seconds=1, act_problem=_rejected("AddTags"))
    stage.edit("Endpoint", tags=[])
    stage.step(seen, seconds=60)
    assert stage.status.problem is None
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.condition("Stalled")[0] == "False"


def test_what_may_not_be_collected_leaves_the_endpoint_ready() -> None:
    stage = Stage()
    stage.bring_into_service()
    for image in ("repo/churn:2", "repo/churn:3"):
        stage.edit("Model", primaryContainer={"image": image})
        assert stage.status.revision is not None
        before = stage.described("InService", stage.status.revision.endpoint_config_name, moved=2)
        stage.step(before)
        stage.step(before, seconds=6)
        assert stage.status.intent is not None
        config_name = stage.status.intent.endpoint_config_name
        seen = stage.described("InService", config_name, moved=stage.now.timestamp())
        stage.step(seen, seconds=9)
    while "DeleteModel" not in stage.called():
        stage.step(seen, seconds=1)
    states = set()
    for _ in range(10):
        stage.step(seen, seconds=5, act_problem=_denied("DeleteModel"))
        states.add(stage.condition("Ready"))
    assert {status for status, _ in states} == {"True"}


def test_tags_of_an_unknown_endpoint_that_may_not_be_read_are_asked_for_slowly() -> None:
    stage = Stage()
    stage.step()
    for _ in range(3):
        decision = stage.step(
            stage.described("InService", "x"), tags_read=False, problem=_denied("ListTags"), seconds=1
        )
        assert decision.look_again is not None
        assert (decision.look_again - stage.now).total_seconds() > 20


# Weights and counts ---------------------------------------------------------------------------------------------


def _weigh(stage: Stage, weight: float) -> None:
    stage.edit("EndpointConfig", productionVariants=config(weight=weight)["spec"]["productionVariants"])


def _seen(stage: Stage, status: str = "InService", moved: float = 2, **live: float) -> Described:
    variant = stage.status.production_variants[0].model_copy(update=live)
    return stage.described(status, moved=moved, variants=(variant,))


def test_weights_that_reads_do_not_show_yet_are_not_written_twice() -> None:
    stage = Stage()
    stage.bring_into_service()
    before = _seen(stage)
    _weigh(stage, 2.0)
    stage.step(before)
    assert stage.called() == ["UpdateWeightsAndCapacities"]
    stage.acted = ("UpdateWeightsAndCapacities",)
    for _ in range(3):
        stage.step(before, seconds=5)
        assert stage.actions == []


@pytest.mark.parametrize("status", ["SystemUpdating", Presence.UNKNOWN])
def test_a_weight_edit_that_must_wait_is_no_green_lie(status: str | Presence) -> None:
    stage = Stage()
    stage.bring_into_service()
    seen = _seen(stage, status) if not isinstance(status, Presence) else status
    _weigh(stage, 2.0)
    stage.step(seen, seconds=1)
    assert stage.condition("Ready")[0] == "False"


def test_single_precision_is_no_drift() -> None:
    stage = Stage()
    _weigh(stage, 0.1)
    stage.bring_into_service()
    stage.step(_seen(stage, moved=3, desired_weight=0.10000000149011612, current_weight=0.10000000149011612))
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


@pytest.mark.parametrize("weight", [5.0, 7.0])
def test_a_weight_drift_ends_when_the_spec_says_what_is_wanted(weight: float) -> None:
    stage = Stage()
    stage.bring_into_service()
    moved = _seen(stage, moved=5, desired_weight=5.0, current_weight=5.0)
    stage.step(moved, seconds=60)
    assert stage.condition("Stalled") == ("True", Reason.DRIFTED)
    _weigh(stage, weight)
    stage.step(moved, seconds=1)
    if weight == 5.0:
        assert stage.actions == [], "it is in force already"
        assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    else:
        assert stage.called() == ["UpdateWeightsAndCapacities"]
        stage.settle_down(_seen(stage, moved=9, desired_weight=7.0, current_weight=7.0))
        assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.status.drift is None


def test_a_correction_that_was_throttled_is_not_a_second_foreign_change() -> None:
    stage = Stage(driftPolicy="Correct")
    stage.bring_into_service()
    moved = _seen(stage, moved=5, desired_weight=5.0)
    stage.step(moved, seconds=60)
    assert stage.called() == ["UpdateWeightsAndCapacities"]
    throttled = CallProblem("UpdateEndpointWeightsAndCapacities", Reason.THROTTLED, "slow down", retry_after_seconds=2)
    stage.step(moved, seconds=1, act_problem=throttled)
    assert stage.actions == []
    stage.step(moved, seconds=10)
    assert stage.called() == ["UpdateWeightsAndCapacities"]
    stage.settle_down(_seen(stage, moved=80, desired_weight=1.0))
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


def test_maintenance_between_refused_attempts_is_no_rollback() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described(moved=2))
    stage.step(stage.described(moved=2), seconds=6)
    quota = CallProblem("CreateModel", Reason.QUOTA_EXCEEDED, "limit", retry_after_seconds=300)
    for moved in (2, 2, 50, 90):
        stage.step(stage.described(moved=moved), seconds=1, act_problem=quota)
        assert stage.status.latch is None
        stage.step(stage.described(moved=moved), seconds=900)
        assert stage.called()[-1] == "UpdateEndpoint"
        assert stage.status.latch is None
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED


# What people write into the namespace ---------------------------------------------------------------------------


def _two_revisions(stage: Stage, **first: Any) -> Described:
    """Deploy the Model as it is, then repo/churn:2. Returns what is seen then."""
    stage.objects["Model", "churn"]["spec"].update(first)
    stage.bring_into_service()
    stage.objects["Model", "churn"]["spec"].pop("executionRoleArn", None)
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    before = stage.described(moved=2)
    stage.step(before)
    stage.step(before, seconds=6)
    assert stage.status.intent is not None
    seen = stage.described("InService", stage.status.intent.endpoint_config_name, moved=9)
    stage.settle_down(seen)
    return seen


@pytest.mark.parametrize("deleting", [False, True])
def test_a_forged_revision_deletes_nobody_elses_objects(deleting: bool) -> None:
    stage = Stage()
    stage.bring_into_service()
    seen = stage.described(moved=2)
    forged = copy.deepcopy(next(iter(stage.revisions.values())))
    forged["metadata"]["name"] = "forged"
    forged["data"]["sagemaker"] = {"endpointConfigName": "team-b-production", "modelNames": ["team-b-model"]}
    stage.revisions["forged"] = forged
    if deleting:
        _deleting(stage)
    for seen_now in (seen, seen, Presence.MISSING) if deleting else (seen, seen):
        stage.step(seen_now, seconds=100)
        assert "team-b" not in repr(stage.actions)
    assert "forged" not in stage.revisions


@pytest.mark.parametrize(
    "data",
    [None, "text", {}, {"spec": {"template": {}}}, {"fleetHash": 5}, {"endpointConfig": {"productionVariants": [5]}},
     {"models": {}}, {"sagemaker": {"endpointConfigName": "x" * 64, "modelNames": []}}, {"fleetHash": "x" * 500},
     {"sagemaker": {"endpointConfigName": "x", "modelNames": 7}}],
)  # fmt: skip
def test_what_is_no_revision_is_left_alone(data: Any) -> None:
    stage = Stage()
    stage.bring_into_service()
    body = copy.deepcopy(next(iter(stage.revisions.values())))
    body["data"] = {**body["data"], **data} if isinstance(data, dict) and data and "spec" not in data else data
    with pytest.raises(ValueError, match="left alone"):
        stored_revision(body)


def test_a_rollback_asks_the_policy_as_it_is_now() -> None:
    stage = Stage()
    seen = _two_revisions(stage, executionRoleArn="arn:aws:iam::111122223333:role/admin")
    assert stage.status.previous_revision is not None
    back = stage.status.previous_revision.name
    stage.policy = Policy((Rule(namespaces=("*",), execution_roles=("arn:aws:iam::111122223333:role/small",)),))
    stage.annotate(rollback=back)
    stage.step(seen, seconds=1)
    assert stage.actions == []
    assert [(ack.result, ack.reason) for ack in stage.status.commands] == [("Refused", Reason.NOT_PERMITTED)]
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


def test_a_rollback_without_an_endpoint_is_refused_not_done() -> None:
    stage = Stage()
    _two_revisions(stage)
    assert stage.status.previous_revision is not None
    stage.annotate(rollback=stage.status.previous_revision.name)
    stage.step(Presence.MISSING, seconds=1)
    assert stage.actions == []
    assert [ack.result for ack in stage.status.commands] == ["Refused"]
    assert stage.status.latch is None


def test_labels_and_names_of_revisions_are_valid_for_every_endpoint_name() -> None:
    pattern = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
    for name in ("a" * 62 + "-" + "b" * 20, "a" * 62 + "." + "b" * 20, "a" * 199 + "." + "b" * 30, "a" * 199 + "-b"):
        endpoint = {"metadata": {"name": name, "namespace": "team-a"}}
        label = controller_revision(endpoint, "x", {}, 1)["metadata"]["labels"]["sluice.dev/endpoint"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", label)
        revision = build_revision(Owner("i", "team-a", name), "SageMaker", config()["spec"], {"churn": model()["spec"]})
        assert pattern.fullmatch(revision.name)
        assert len(revision.name) <= 253


def test_an_endpoint_with_many_models_has_a_status_that_fits() -> None:
    stage = Stage()
    variants = []
    for index in range(10):
        names = [f"m-{index}-{pool}" for pool in range(5)]
        for name in names:
            stage.objects["Model", name] = model(name)
        pools = [
            {"instanceType": f"ml.m5.{pool}xlarge", "priority": pool + 1, "modelNameOverride": name}
            for pool, name in enumerate(names)
        ]
        variants.append({"variantName": f"v{index}", "modelName": "churn", "initialInstanceCount": 1, "instancePools": pools})  # fmt: skip # noqa: E501 - one variant
    stage.objects["EndpointConfig", "churn"]["spec"]["productionVariants"] = variants
    stage.bring_into_service()
    assert len(stage.status.observed_references) == 52
    assert len(stage.status.applied_tags) == 53


# One name, two Endpoints ----------------------------------------------------------------------------------------


def _rival(stage: Stage, *, created: str = "2025-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    """Another Endpoint with a pin on the same place, and older."""
    rival = copy.deepcopy(stage.endpoint)
    rival["metadata"] |= {"namespace": "team-b", "name": "other", "creationTimestamp": created}
    rival["spec"] |= {"endpointName": "churn", **spec}
    return rival


def test_the_elder_claim_keeps_the_name() -> None:
    stage = Stage()
    stage.step()
    stage.step(rivals=(_rival(stage),), tags_read=False)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.NAME_CONFLICT)


@pytest.mark.parametrize(
    "spec", [{"backend": "Cluster"}, {"endpointName": "another"}, {"sagemaker": {"region": "us-east-1"}}]
)
def test_a_forged_claim_takes_no_name(spec: dict[str, Any]) -> None:
    stage = Stage()
    stage.step()
    stage.step(rivals=(_rival(stage, **spec),), tags_read=False)
    assert stage.called()[-1] == "CreateEndpoint"


def test_a_claim_that_is_not_permitted_takes_no_name() -> None:
    stage = Stage()
    stage.policy = Policy((Rule(namespaces=("team-a",)), Rule(namespaces=("*",), endpoint_name_prefixes=("x-",))))
    stage.step()
    stage.step(rivals=(_rival(stage),), tags_read=False)
    assert stage.called()[-1] == "CreateEndpoint"


def test_who_began_to_create_goes_on_though_an_elder_claims_the_name_now() -> None:
    stage = Stage()
    stage.step()
    stage.step()
    assert stage.status.intent is not None
    created = stage.described("Creating", stage.status.intent.endpoint_config_name, moved=1)
    stage.step(created, seconds=1, rivals=(_rival(stage),))
    assert stage.condition("Reconciling") == ("True", Reason.CREATING)


def test_whose_tag_the_endpoint_carries_keeps_it_after_a_rebuild() -> None:
    stage = Stage()
    stage.bring_into_service()
    seen = stage.described(moved=2)
    stage.status = EndpointStatus()
    stage.step(seen, rivals=(_rival(stage),))
    assert stage.condition("Stalled")[0] == "False"
    assert stage.status.revision is not None


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
    seen = _two_revisions(stage)
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
