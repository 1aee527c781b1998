"""Deployments on SageMaker as decisions: what starts one, what holds it, how its end is read."""

import pytest
from tests.core.stage import Stage, canary, config

from sluice.api.reasons import Cause, Outcome, Reason
from sluice.core.actions import UpdateEndpoint
from sluice.core.observation import CallProblem, Presence


def _edited(alarms: tuple[str, ...] = (), **spec: object) -> Stage:
    stage = Stage(deploymentConfig=canary(alarms), **spec)
    stage.bring_into_service()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    return stage


def _started(stage: Stage, alarms: dict[str, str] | None = None) -> str:
    """Let the change settle; returns the AWS EndpointConfig that was asked for."""
    seen = stage.described(moved=2)
    stage.step(seen, alarms=alarms)
    assert stage.condition("Reconciling") == ("True", Reason.SETTLING)
    assert stage.actions == []
    stage.step(seen, seconds=5, alarms=alarms)
    assert stage.called()[-1] == "UpdateEndpoint", stage.condition("Ready")
    assert stage.status.intent is not None
    return str(stage.status.intent.endpoint_config_name)


def test_a_change_settles_before_it_starts() -> None:
    stage = _edited()
    seen = stage.described(moved=2)
    stage.step(seen)
    stage.edit("Model", primaryContainer={"image": "repo/churn:3"})
    stage.step(seen, seconds=4)
    stage.step(seen, seconds=4)
    assert stage.actions == [], "the second edit starts the wait anew"
    stage.step(seen, seconds=1)
    assert stage.called()[-1] == "UpdateEndpoint"


def test_settling_is_bounded() -> None:
    stage = _edited()
    seen = stage.described(moved=2)
    for image in range(3, 40):
        stage.step(seen, seconds=1)
        if stage.actions:
            break
        stage.edit("Model", primaryContainer={"image": f"repo/churn:{image}"})
    assert stage.called()[-1] == "UpdateEndpoint"
    assert (stage.now.timestamp() - 1767225600) < 40


def test_intent_is_persisted_with_the_request_and_success_is_the_config_name() -> None:
    stage = _edited()
    old = stage.status.revision
    wanted = _started(stage)
    request = next(a.request for a in stage.actions if isinstance(a, UpdateEndpoint))
    assert request["EndpointConfigName"] == wanted
    assert request["DeploymentConfig"]["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["Type"] == "CANARY"
    assert request["RetainAllVariantProperties"] is False
    pending = stage.pending(wanted)
    stage.step(stage.described("Updating", moved=3, pending=pending), seconds=1)
    assert stage.status.intent is not None
    assert stage.status.intent.accepted is not None
    assert stage.condition("Reconciling") == ("True", Reason.DEPLOYING)
    stage.step(stage.described("InService", wanted, moved=9), seconds=60)
    assert stage.status.revision is not None
    assert stage.status.revision.endpoint_config_name == wanted
    assert stage.status.previous_revision is not None
    assert old is not None
    assert stage.status.previous_revision.name == old.name
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


@pytest.mark.parametrize(
    ("failure_reason", "cause"),
    [
        ("One or more configured CloudWatch alarm(s) [churn-5xx] tripped", Cause.ALARM),
        ("The primary container for production variant a did not pass the ping health check.", Cause.HEALTH),
        ("Failed to download model data from s3://x", Cause.MODEL_DATA),
        ("Unable to provision requested ML compute capacity", Cause.CAPACITY),
        ("", Cause.SILENT),
        (None, Cause.SILENT),
    ],
)
def test_in_service_on_the_old_config_is_a_rollback_and_latches(failure_reason: str | None, cause: Cause) -> None:
    stage = _edited()
    wanted = _started(stage)
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted)), seconds=1)
    seen = stage.described("InService", moved=9, failure_reason=failure_reason)
    stage.step(seen, seconds=60)
    assert stage.status.last_deployment is not None
    assert (stage.status.last_deployment.outcome, stage.status.last_deployment.cause) == (Outcome.ROLLED_BACK, cause)
    assert stage.condition("Stalled") == ("True", Reason.ROLLED_BACK)
    assert stage.condition("Ready") == ("False", Reason.ROLLED_BACK)
    assert stage.condition("Serving")[0] == "True"
    for _ in range(5):
        stage.step(seen, seconds=600)
        assert "UpdateEndpoint" not in stage.called(), "a latched revision is not tried again"
    stage.annotate(retry="1")
    stage.step(seen, seconds=1)
    stage.step(seen, seconds=1)
    assert "UpdateEndpoint" in stage.called(), "a person may ask again"


def test_a_revert_of_what_was_rolled_back_is_ready_at_once() -> None:
    stage = _edited()
    wanted = _started(stage)
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted)), seconds=1)
    seen = stage.described("InService", moved=9, failure_reason="alarm tripped")
    stage.step(seen, seconds=60)
    stage.edit("Model", primaryContainer={"image": "repo/churn:1"})
    stage.settle_down(seen)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.status.latch is None


def test_a_call_that_never_arrived_is_made_again_and_one_that_did_is_not() -> None:
    stage = _edited()
    wanted = _started(stage)
    stage.step(stage.described(moved=2), seconds=1)
    assert stage.called()[-1] == "UpdateEndpoint", "LastModifiedTime did not move: nothing arrived"
    assert stage.status.intent is not None
    assert stage.status.intent.attempt == 2
    stage.acted = ("UpdateEndpoint",)
    stage.step(stage.described(moved=2), seconds=1)
    assert stage.actions == [], "SageMaker answered, reads are stale"
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted)), seconds=1)
    assert stage.actions == []


def test_edits_during_updating_wait_by_name_and_start_afterwards() -> None:
    stage = _edited()
    wanted = _started(stage)
    updating = stage.described("Updating", moved=3, pending=stage.pending(wanted))
    stage.step(updating, seconds=1)
    stage.edit("Model", primaryContainer={"image": "repo/churn:3"})
    stage.step(updating, seconds=30)
    assert stage.condition("Reconciling") == ("True", Reason.WAITING_FOR_SAGEMAKER)
    assert stage.actions == []
    done = stage.described("InService", wanted, moved=9)
    stage.step(done, seconds=60)
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED
    stage.step(done, seconds=5)
    assert stage.called()[-1] == "UpdateEndpoint"


@pytest.mark.parametrize(
    ("state", "reason", "kind"),
    [
        ("ALARM", Reason.ALARM_FIRING, "Reconciling"),
        ("Missing", Reason.ALARM_MISSING, "Stalled"),
        ("Unreadable", Reason.ALARMS_UNREADABLE, "Reconciling"),
    ],
)
def test_alarms_before_the_start(state: str, reason: Reason, kind: str) -> None:
    stage = _edited(("churn-5xx",))
    seen = stage.described(moved=2)
    stage.step(seen)
    stage.step(seen, seconds=5, alarms={"churn-5xx": state})
    assert stage.actions == []
    assert stage.condition(kind) == ("True", reason)
    stage.step(seen, seconds=5, alarms={"churn-5xx": "OK"})
    assert stage.called()[-1] == "UpdateEndpoint", "it starts by itself when OK"


def test_ignore_firing_starts_now_and_names_the_revision() -> None:
    stage = _edited(("churn-5xx",))
    seen = stage.described(moved=2)
    stage.step(seen)
    stage.annotate(ignore_firing="another-revision")
    stage.step(seen, seconds=5, alarms={"churn-5xx": "ALARM"})
    assert stage.actions == []
    assert stage.status.desired_revision is not None
    stage.annotate(ignore_firing=stage.status.desired_revision.name)
    stage.step(seen, seconds=5, alarms={"churn-5xx": "ALARM"})
    assert stage.called()[-1] == "UpdateEndpoint"
    assert [(a.command, a.result) for a in stage.status.commands] == [("ignore-firing", "Done")]


def test_rollback_by_a_person_goes_back_without_policy_and_holds_against_git() -> None:
    stage = _edited(("churn-5xx",))
    first = stage.status.revision
    assert first is not None
    wanted = _started(stage, {"churn-5xx": "OK"})
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted)), seconds=1)
    seen = stage.described("InService", wanted, moved=9)
    stage.settle_down(seen)
    stage.annotate(rollback=first.name)
    stage.step(seen, seconds=1, alarms={"churn-5xx": "ALARM"})
    request = next(a.request for a in stage.actions if isinstance(a, UpdateEndpoint))
    assert request["EndpointConfigName"] == first.endpoint_config_name
    assert "DeploymentConfig" not in request
    back = stage.described("Updating", moved=10, pending=stage.pending(str(first.endpoint_config_name)))
    stage.step(back, seconds=1)
    seen = stage.described("InService", first.endpoint_config_name, moved=11)
    stage.settle_down(seen)
    for _ in range(3):
        stage.step(seen, seconds=300)
        assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.HELD_BY_ROLLBACK)
    stage.edit("Model", primaryContainer={"image": "repo/churn:3"})
    stage.step(seen)
    stage.step(seen, seconds=5, alarms={"churn-5xx": "OK"})
    assert stage.called()[-1] == "UpdateEndpoint", "another content is another wish"


def test_a_rollback_calls_off_a_deployment_that_could_not_start_yet() -> None:
    """A quota holds the update up; freed, it would deploy what a person has called off."""
    stage = _edited()
    first = stage.status.revision
    assert first is not None
    _started(stage)
    seen = stage.described(moved=2)
    quota = CallProblem(
        "UpdateEndpoint", Reason.QUOTA_EXCEEDED, "quota", code="ResourceLimitExceeded", retry_after_seconds=300.0
    )
    stage.step(seen, seconds=1, act_problem=quota)
    stage.annotate(rollback=first.name)
    for _ in range(6):
        stage.step(seen, seconds=200)
        assert "UpdateEndpoint" not in stage.called()
    assert [(ack.result, ack.message) for ack in stage.status.commands] == [
        ("Done", "its fleet serves already, and no other is deployed")
    ]
    assert stage.condition("Stalled") == ("True", Reason.HELD_BY_ROLLBACK)
    stage.annotate(retry="1")
    stage.step(seen, seconds=1)
    assert stage.called()[-1] == "UpdateEndpoint"


def test_a_rollback_to_other_counts_of_the_fleet_that_serves_is_refused() -> None:
    stage = Stage()
    stage.bring_into_service()
    first = stage.status.revision
    assert first is not None
    stage.objects["EndpointConfig", "churn"] = config(count=6)
    seen = stage.described(moved=3)
    stage.settle_down(seen)
    assert stage.status.desired_revision is not None
    assert stage.status.desired_revision.name != first.name
    stage.annotate(rollback=first.name)
    stage.step(seen, seconds=1)
    assert stage.actions == []
    assert [(ack.result, ack.message) for ack in stage.status.commands] == [
        (
            "Refused",
            f"found {first.name}, whose fleet serves already; counts, weights and what else changes in place are the "
            "spec's: edit EndpointConfig churn or its Models",
        )
    ]
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


def test_a_rollback_to_what_serves_holds_out_what_the_spec_asks_for() -> None:
    stage = _edited()
    first = stage.status.revision
    assert first is not None
    seen = stage.described(moved=2)
    stage.annotate(rollback=first.name)
    for _ in range(4):
        stage.step(seen, seconds=10)
        assert "UpdateEndpoint" not in stage.called()
    assert [ack.result for ack in stage.status.commands] == ["Done"]
    assert stage.condition("Stalled") == ("True", Reason.HELD_BY_ROLLBACK)


def test_a_rollback_to_what_serves_brings_it_back_where_somebody_deployed_another() -> None:
    stage = Stage()
    stage.bring_into_service()
    first = stage.status.revision
    assert first is not None
    foreign = stage.described("InService", "foreign", moved=8)
    stage.step(foreign, seconds=60)
    assert stage.condition("Stalled") == ("True", Reason.DRIFTED)
    stage.annotate(rollback=first.name)
    stage.step(foreign, seconds=5)
    request = next(a.request for a in stage.actions if isinstance(a, UpdateEndpoint))
    assert request["EndpointConfigName"] == first.endpoint_config_name
    stage.settle_down(stage.described("InService", first.endpoint_config_name, moved=20))
    assert [ack.result for ack in stage.status.commands] == ["Done"]
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


@pytest.mark.parametrize("moment", ["somebody deployed another", "the rollback failed", "the spec asks for another"])
def test_a_persons_way_back_has_no_policy_and_no_alarms_however_often_it_is_called(moment: str) -> None:
    """The alarm that fires because of what it leads away from would turn it back."""
    stage = _edited(("churn-5xx",))
    first = stage.status.revision
    assert first is not None
    wanted = _started(stage, {"churn-5xx": "OK"})
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted)), seconds=1)
    if moment == "the spec asks for another":
        seen = stage.described("InService", wanted, moved=9)
    else:
        seen = stage.described("UpdateRollbackFailed", first.endpoint_config_name, moved=9, failure_reason="ICE")
        stage.edit("Model", primaryContainer={"image": "repo/churn:1"})
    if moment == "somebody deployed another":
        stage.settle_down(stage.described("InService", first.endpoint_config_name, moved=9))
        seen = stage.described("InService", "foreign", moved=12)
    stage.step(seen, seconds=1, alarms={"churn-5xx": "ALARM"})
    stage.annotate(rollback=first.name)
    throttled = CallProblem("UpdateEndpoint", Reason.THROTTLED, "Rate exceeded", code="ThrottlingException")
    for _ in range(3):
        stage.step(seen, seconds=1000, alarms={"churn-5xx": "ALARM"})
        [request] = [a.request for a in stage.actions if isinstance(a, UpdateEndpoint)]
        assert request["EndpointConfigName"] == first.endpoint_config_name
        assert "DeploymentConfig" not in request
        assert stage.status.deployment is not None
        assert stage.status.deployment.policy == "ALL_AT_ONCE"
        stage.step(seen, seconds=1, act_problem=throttled)
    stage.settle_down(stage.described("InService", first.endpoint_config_name, moved=20))
    assert stage.status.intent is None


def test_a_way_back_that_could_not_be_called_gives_way_to_another_edit_under_its_policy() -> None:
    stage = _edited(("churn-5xx",))
    first = stage.status.revision
    assert first is not None
    wanted = _started(stage, {"churn-5xx": "OK"})
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted)), seconds=1)
    seen = stage.described("UpdateRollbackFailed", first.endpoint_config_name, moved=9, failure_reason="ICE")
    stage.edit("Model", primaryContainer={"image": "repo/churn:1"})
    stage.annotate(rollback=first.name)
    stage.step(seen, seconds=1)
    throttled = CallProblem("UpdateEndpoint", Reason.THROTTLED, "Rate exceeded", code="ThrottlingException")
    stage.edit("Model", primaryContainer={"image": "repo/churn:3"})
    stage.step(seen, seconds=1, act_problem=throttled)
    for _ in range(3):
        stage.step(seen, seconds=10, alarms={"churn-5xx": "OK"})
        if "UpdateEndpoint" in stage.called():
            break
    [request] = [a.request for a in stage.actions if isinstance(a, UpdateEndpoint)]
    assert request["EndpointConfigName"] != first.endpoint_config_name
    assert "DeploymentConfig" in request
    assert stage.status.intent is not None
    assert stage.status.intent.commanded is None


def test_commands_sagemaker_cannot_do_are_refused_once() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.annotate(pause="now", promote="now")
    seen = stage.described(moved=2)
    stage.step(seen)
    assert {(a.command, a.result, a.reason) for a in stage.status.commands} == {
        ("pause", "Refused", "NotSupportedByBackend"),
        ("promote", "Refused", "NotSupportedByBackend"),
    }
    assert stage.decision is not None
    assert len([e for e in stage.decision.events if e.reason == "CommandRefused"]) == 2
    stage.step(seen, seconds=10)
    assert stage.decision.events == ()


def test_update_rollback_failed_is_named_and_has_ways_out() -> None:
    stage = _edited()
    wanted = _started(stage)
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted)), seconds=1)
    broken = stage.described("UpdateRollbackFailed", moved=9, failure_reason="rollback failed")
    stage.step(broken, seconds=60)
    assert stage.condition("Stalled") == ("True", Reason.UPDATE_ROLLBACK_FAILED)
    assert stage.condition("Ready") == ("False", Reason.UPDATE_ROLLBACK_FAILED)
    stage.step(broken, seconds=600)
    assert "UpdateEndpoint" not in stage.called()
    stage.edit("Model", primaryContainer={"image": "repo/churn:1"})
    stage.step(broken)
    stage.step(broken, seconds=5)
    assert stage.called()[-1] == "UpdateEndpoint", "going back to what served mends the mix"


def test_guardrail_numbers_are_named_before_any_call() -> None:
    policy = canary()
    policy["blueGreenUpdatePolicy"]["trafficRoutingConfiguration"]["canarySize"] = {
        "type": "INSTANCE_COUNT",
        "value": 3,
    }
    stage = Stage(deploymentConfig=policy)
    stage.step()
    assert stage.actions == []
    status, reason = stage.condition("Stalled")
    assert (status, reason) == ("True", Reason.INVALID_DEPLOYMENT_CONFIG)
    message = next(c.message for c in stage.status.conditions if c.type == "Stalled")
    assert "canarySize.value: found 3 instances for variant a of 4" in message
    assert "1 to 2" in message


def test_variant_names_are_kept_under_a_policy() -> None:
    stage = _edited()
    variant = {**stage.objects["EndpointConfig", "churn"]["spec"]["productionVariants"][0], "variantName": "b"}
    served = stage.described(moved=2)
    stage.edit("EndpointConfig", productionVariants=[variant])
    stage.step(served)
    stage.step(served, seconds=5)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.INVALID_DEPLOYMENT_CONFIG)


def test_throttling_never_flips_ready() -> None:
    stage = Stage()
    stage.bring_into_service()
    throttled = CallProblem("ListEndpoints", Reason.THROTTLED, "Rate exceeded", "ThrottlingException")
    for _ in range(4):
        stage.step(Presence.UNKNOWN, seconds=30, problem=throttled)
        assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


def test_access_denied_stalls_and_is_not_a_green_lie() -> None:
    stage = Stage()
    stage.bring_into_service()
    denied = CallProblem("ListEndpoints", Reason.ACCESS_DENIED, "role x may not sagemaker:ListEndpoints")
    stage.step(Presence.UNKNOWN, seconds=30, problem=denied)
    assert stage.condition("Stalled") == ("True", Reason.ACCESS_DENIED)
    assert stage.condition("Ready")[0] == "Unknown"


def test_a_rejected_update_is_latched_with_its_message() -> None:
    stage = _edited()
    _started(stage)
    rejected = CallProblem("UpdateEndpoint", Reason.REJECTED_BY_SAGEMAKER, "1 validation error", transient=False)
    seen = stage.described(moved=2)
    stage.step(seen, seconds=1, act_problem=rejected)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.REJECTED_BY_SAGEMAKER)
    stage.step(seen, seconds=3600)
    assert "UpdateEndpoint" not in stage.called()


def test_policy_and_tag_edits_never_deploy() -> None:
    stage = _edited()
    stage.edit("Model", primaryContainer={"image": "repo/churn:1"})
    stage.edit("Endpoint", deploymentConfig=canary(("x",)), tags=[{"key": "team", "value": "a"}])
    stage.step(stage.described(moved=2))
    assert stage.called() == ["SyncTags"]


def test_redeploy_is_part_of_the_fleet_hash() -> None:
    stage = Stage(deploymentConfig=canary())
    stage.bring_into_service()
    stage.annotate(redeploy="2026-11-21")
    old = stage.status.revision
    wanted = _started(stage)
    assert old is not None
    assert wanted != old.endpoint_config_name


def test_a_question_that_may_not_be_asked_is_said() -> None:
    stage = _edited()
    seen = stage.described(moved=2)
    stage.step(seen)
    denied = CallProblem("DescribeScalableTargets", Reason.ACCESS_DENIED, "role x may not")
    stage.step(seen, seconds=5, scalable=None, problem=denied)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.ACCESS_DENIED)


def test_alarms_are_shown_around_deployments_only() -> None:
    stage = _edited(("churn-5xx",))
    wanted = _started(stage, {"churn-5xx": "OK"})
    updating = stage.described("Updating", moved=3, pending=stage.pending(wanted))
    stage.step(updating, seconds=1, alarms={"churn-5xx": "ALARM"})
    assert stage.status.alarms_text == "ALARM churn-5xx"
    stage.step(updating, seconds=1)
    assert stage.status.alarms_text == "ALARM churn-5xx", "a pass that did not read forgets nothing"
    stage.settle_down(stage.described("InService", wanted, moved=9))
    assert stage.status.alarms_text is None
