"""The life of an endpoint as decisions: creation, lost status, weights, drift, deletion."""

import pytest
from tests.core.stage import Stage, canary, config

from sluice.api.reasons import Outcome, Reason
from sluice.api.status import EndpointStatus, VariantSummary
from sluice.core.actions import CreateEndpoint, EnsureEndpointConfig, EnsureModel, UpdateWeightsAndCapacities
from sluice.core.endpoint.draft import DecideSettings
from sluice.core.observation import CallProblem, Presence
from sluice.core.permission import Policy, Rule


def test_pin_and_finalizer_come_before_the_first_aws_write() -> None:
    stage = Stage()
    stage.step()
    assert stage.called() == ["PatchEndpoint"]
    stage.step()
    assert stage.called() == ["StoreRevision", "EnsureModel", "EnsureEndpointConfig", "CreateEndpoint"]
    made_model = next(a.request for a in stage.actions if isinstance(a, EnsureModel))
    made = next(a.request for a in stage.actions if isinstance(a, EnsureEndpointConfig))
    create = next(a.request for a in stage.actions if isinstance(a, CreateEndpoint))
    assert made["ProductionVariants"][0]["ModelName"] == made_model["ModelName"]
    assert create["EndpointConfigName"] == made["EndpointConfigName"]
    assert {"Key": "sluice.dev/owner", "Value": "test/team-a/churn"} in create["Tags"]
    assert stage.status.intent is not None
    assert stage.status.intent.operation == "CreateEndpoint"


def test_a_missing_model_is_named_and_its_arrival_creates() -> None:
    stage = Stage()
    model = stage.objects.pop(("Model", "churn"))
    stage.step()
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.MISSING_REFERENCE)
    stage.objects["Model", "churn"] = model
    stage.step()
    stage.step()
    assert "CreateEndpoint" in stage.called()


def test_deleting_a_referent_of_a_serving_endpoint_breaks_nothing() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.objects.pop(("Model", "churn"))
    stage.step(stage.described(moved=2))
    assert stage.actions == []
    assert stage.condition("Ready") == ("False", Reason.MISSING_REFERENCE)
    assert stage.condition("Serving")[0] == "True"


def test_nothing_is_asked_of_aws_without_permission() -> None:
    stage = Stage()
    stage.policy = Policy((Rule(namespaces=("team-a",), regions=("us-east-1",)),))
    stage.step()
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.NOT_PERMITTED)


def test_failed_at_creation_waits_for_any_change_and_is_created_anew() -> None:
    stage = Stage()
    stage.step()
    stage.step()
    failed = stage.described("Failed", "x", moved=5, failure_reason="did not pass the ping health check")
    stage.step(failed, seconds=10)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.CREATION_FAILED)
    stage.step(failed, seconds=600)
    assert stage.actions == []
    stage.edit("EndpointConfig", productionVariants=config(count=2)["spec"]["productionVariants"])
    stage.step(failed, seconds=1)
    assert stage.called() == ["DeleteEndpoint"]
    stage.step(Presence.MISSING, seconds=5)
    assert stage.called()[-1] == "CreateEndpoint"


def test_failed_after_it_served_is_recreated_only_by_a_person() -> None:
    stage = Stage()
    stage.bring_into_service()
    failed = stage.described("Failed", moved=5, failure_reason="gave up")
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(failed, seconds=10)
    stage.step(failed, seconds=10)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.ENDPOINT_FAILED)
    stage.annotate(retry="1")
    stage.step(failed, seconds=1)
    assert stage.called() == ["DeleteEndpoint"]


def test_lost_status_beside_a_living_endpoint_is_recovered_not_created() -> None:
    stage = Stage(deploymentConfig=canary())
    stage.bring_into_service()
    assert stage.status.revision is not None
    living = stage.described("InService", stage.status.revision.endpoint_config_name, moved=2)
    rebuilt = Stage(deploymentConfig=canary())
    rebuilt.endpoint["metadata"]["uid"] = "another"
    seen_calls = []
    for _ in range(6):
        rebuilt.step(living, seconds=1)
        seen_calls += rebuilt.called()
    assert set(seen_calls) <= {"PatchEndpoint", "StoreRevision", "SyncTags", "MarkRevision"}
    assert rebuilt.condition("Ready") == ("True", Reason.IN_SERVICE)


def test_lost_status_keeps_the_latch_from_the_stored_revisions() -> None:
    stage = Stage(deploymentConfig=canary())
    stage.bring_into_service()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    seen = stage.described(moved=2)
    stage.step(seen)
    stage.step(seen, seconds=5)
    assert stage.status.intent is not None
    wanted = str(stage.status.intent.endpoint_config_name)
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted)), seconds=1)
    back = stage.described("InService", moved=9, failure_reason="alarm tripped")
    stage.step(back, seconds=60)
    stage.settle_down(back)
    stage.status = EndpointStatus()
    for _ in range(8):
        stage.step(back, seconds=10)
        assert "UpdateEndpoint" not in stage.called()
    assert stage.condition("Stalled") == ("True", Reason.ROLLED_BACK)


def _live(stage: Stage, **values: float) -> VariantSummary:
    return stage.status.production_variants[0].model_copy(update=values)


def test_weights_and_counts_change_in_place_and_a_scaler_is_never_corrected() -> None:
    stage = Stage()
    stage.bring_into_service()
    scaled = stage.described(moved=3, variants=(_live(stage, desired_instance_count=9),))
    stage.step(scaled)
    assert stage.actions == []
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    stage.edit("EndpointConfig", productionVariants=config(count=6, weight=2.0)["spec"]["productionVariants"])
    stage.step(scaled)
    request = next(a.request for a in stage.actions if isinstance(a, UpdateWeightsAndCapacities))
    assert request["DesiredWeightsAndCapacities"] == [
        {"VariantName": "a", "DesiredWeight": 2.0, "DesiredInstanceCount": 6}
    ]
    assert len(stage.actions) == 1, "no new EndpointConfig"
    done = stage.described(moved=5, variants=(_live(stage, desired_instance_count=6, desired_weight=2.0),))
    stage.settle_down(done)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.status.production_variants[0].last_applied_count == 6


def test_a_weight_change_that_sagemaker_rolls_back_is_said_and_not_repeated() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.edit("EndpointConfig", productionVariants=config(count=6)["spec"]["productionVariants"])
    stage.step(stage.described(moved=2, variants=(_live(stage),)))
    assert stage.called() == ["UpdateWeightsAndCapacities"]
    stage.step(stage.described("RollingBack", moved=3, variants=(_live(stage),)), seconds=1)
    assert stage.condition("Reconciling") == ("True", Reason.ROLLING_BACK)
    back = stage.described(moved=4, variants=(_live(stage, desired_instance_count=4),))
    for _ in range(4):
        stage.step(back, seconds=60)
        assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.VARIANT_UPDATE_FAILED)


@pytest.mark.parametrize("policy", ["Report", "Correct"])
def test_drift_of_the_config(policy: str) -> None:
    stage = Stage(driftPolicy=policy)
    stage.bring_into_service()
    moved = stage.described("InService", "foreign-config", moved=5)
    stage.step(moved, seconds=60)
    if policy == "Report":
        assert stage.actions == []
        assert stage.condition("Ready") == ("False", Reason.DRIFTED)
        message = next(c.message for c in stage.status.conditions if c.type == "Ready")
        assert "found foreign-config" in message
        return
    assert stage.called()[-1] == "UpdateEndpoint"
    assert stage.status.revision is not None
    ours = stage.status.revision.endpoint_config_name
    stage.step(stage.described("InService", ours, moved=7), seconds=10)
    stage.settle_down(stage.described("InService", ours, moved=7))
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    stage.step(stage.described("InService", "foreign-config", moved=8), seconds=60)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.FOREIGN_OWNER)


def test_deleted_outside_is_reported_and_brought_back_on_request() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.step(Presence.MISSING, seconds=60)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.DRIFTED)
    assert stage.condition("Serving")[0] == "False"
    stage.step(Presence.MISSING, seconds=60)
    assert stage.actions == []
    stage.annotate(retry="1")
    stage.step(Presence.MISSING, seconds=1)
    assert stage.called()[-1] == "CreateEndpoint"


def test_deleted_outside_is_mended_under_correct() -> None:
    stage = Stage(driftPolicy="Correct")
    stage.bring_into_service()
    stage.step(Presence.MISSING, seconds=60)
    assert stage.called()[-1] == "CreateEndpoint"


def test_writes_are_off_in_read_only_mode_and_by_annotation() -> None:
    for freeze in ("read-only", "disabled"):
        stage = Stage()
        stage.bring_into_service()
        if freeze == "disabled":
            stage.annotate(reconcile="disabled")
        else:
            stage.settings = DecideSettings(read_only=True)
        stage.edit("EndpointConfig", productionVariants=config(weight=3.0)["spec"]["productionVariants"])
        for _ in range(3):
            stage.step(stage.described(moved=2, variants=(_live(stage),)), seconds=10)
            assert stage.actions == []
        reason = Reason.READ_ONLY if freeze == "read-only" else Reason.RECONCILE_DISABLED
        assert stage.condition("Stalled") == ("True", reason)
        message = next(c.message for c in stage.status.conditions if c.type == "Stalled")
        assert "UpdateWeightsAndCapacities" in message


def test_what_waits_while_writes_are_off_does_not_promise_to_go_on() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.annotate(reconcile="disabled")
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described(moved=2))
    assert stage.condition("Reconciling") == ("True", Reason.SETTLING)
    message = next(c.message for c in stage.status.conditions if c.type == "Reconciling")
    assert message.endswith("Nothing is written (annotation sluice.dev/reconcile: disabled).")
    stage.step(stage.described(moved=2), seconds=6)
    assert stage.condition("Stalled") == ("True", Reason.RECONCILE_DISABLED)


def test_system_updating_leaves_ready_as_it_was() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.step(stage.described("SystemUpdating", moved=5), seconds=60)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.condition("Reconciling") == ("True", Reason.SYSTEM_UPDATING)


def test_an_edit_under_maintenance_or_throttling_is_no_green_lie() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described("SystemUpdating", moved=5), seconds=60)
    assert stage.condition("Ready") == ("False", Reason.SYSTEM_UPDATING)
    stage.step(Presence.UNKNOWN, problem=CallProblem("ListEndpoints", Reason.THROTTLED, "Rate exceeded"))
    assert stage.condition("Ready") == ("False", Reason.THROTTLED)


def test_out_of_service_is_not_ready() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.step(stage.described("OutOfService", moved=5), seconds=60)
    assert stage.condition("Ready") == ("False", Reason.OUT_OF_SERVICE)
    assert stage.condition("Serving")[0] == "False"


def test_deletion_waits_collects_and_lets_go() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.delete()
    stage.step(stage.described("Updating", moved=5), seconds=60)
    assert stage.actions == []
    assert "SageMaker cannot delete it before" in next(c.message for c in stage.status.conditions if c.type == "Ready")
    stage.step(stage.described("InService", moved=6), seconds=60)
    assert stage.called() == ["DeleteEndpoint"]
    stage.step(stage.described("Deleting", moved=7), seconds=5)
    assert stage.actions == []
    stage.step(Presence.MISSING, seconds=5)
    assert stage.called() == ["DeleteEndpointConfig", "DeleteModel", "DropRevision", "PatchEndpoint"]
    assert stage.endpoint["metadata"]["finalizers"] == []


def test_retain_leaves_aws_alone() -> None:
    stage = Stage(deletionPolicy="Retain")
    stage.bring_into_service()
    stage.delete()
    stage.step(stage.described("InService", moved=6), seconds=60)
    assert stage.called() == ["DropRevision", "PatchEndpoint"]


def test_old_revisions_are_collected_but_not_serving_previous_or_last_failed() -> None:
    stage = Stage()
    stage.bring_into_service()
    names = [stage.status.revision.name if stage.status.revision else ""]
    for number in range(2, 5):
        stage.edit("Model", primaryContainer={"image": f"repo/churn:{number}"})
        seen = stage.described(moved=number * 10)
        stage.step(seen)
        stage.step(seen, seconds=5)
        assert stage.status.intent is not None
        wanted = str(stage.status.intent.endpoint_config_name)
        done = stage.described("InService", wanted, moved=number * 10 + 5)
        stage.step(done, seconds=60)
        stage.settle_down(done, passes=10)
        assert stage.status.revision is not None
        names.append(stage.status.revision.name)
    assert sorted(stage.revisions) == sorted(names[-2:])


def test_quota_stalls_and_is_tried_again_slowly() -> None:
    stage = Stage()
    stage.step()
    stage.step()
    quota = CallProblem(
        "CreateEndpoint", Reason.QUOTA_EXCEEDED, "limit 0 instances", "ResourceLimitExceeded", retry_after_seconds=300
    )
    stage.step(act_problem=quota, seconds=1)
    assert stage.condition("Stalled") == ("True", Reason.QUOTA_EXCEEDED)
    assert stage.actions == []
    stage.step(seconds=200)
    assert stage.actions == []
    stage.step(seconds=300)
    assert stage.called()[-1] == "CreateEndpoint"


def test_a_rejected_creation_waits_for_another_spec() -> None:
    stage = Stage()
    stage.step()
    stage.step()
    rejected = CallProblem("CreateEndpointConfig", Reason.REJECTED_BY_SAGEMAKER, "no such type", transient=False)
    for _ in range(3):
        stage.step(act_problem=rejected, seconds=1)
        assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.REJECTED_BY_SAGEMAKER)
    stage.step(seconds=4000)
    assert stage.actions == []
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(seconds=1)
    assert stage.called()[-1] == "CreateEndpoint"


def test_steady_passes_change_nothing() -> None:
    stage = Stage()
    stage.bring_into_service()
    before = stage.status
    for _ in range(3):
        decision = stage.step(Presence.UNCHANGED, seconds=300)
        assert stage.actions == []
        assert decision.events == ()
        assert stage.status == before
        assert decision.look_again is None


def test_outcomes_are_noted_on_stored_revisions() -> None:
    stage = Stage()
    stage.bring_into_service()
    assert [stored.outcome for stored in stage.stored()] == [Outcome.SUCCEEDED]


def test_a_deletion_that_is_not_permitted_says_so_and_retain_lets_go() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.policy = Policy()
    stage.delete()
    stage.step(Presence.UNKNOWN)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.NOT_PERMITTED)
    stage.endpoint["spec"]["deletionPolicy"] = "Retain"
    stage.step(Presence.UNKNOWN)
    assert stage.called() == ["DropRevision", "PatchEndpoint"]
