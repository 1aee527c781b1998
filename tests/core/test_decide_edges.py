"""Edges of an endpoint's life that hurt at night: drift, refused tags, and what reads do not show yet."""

from datetime import timedelta

import pytest
from tests.core.stage import Stage, config, denied, rejected

from sluice.api.reasons import Outcome, Reason
from sluice.api.status import Latch, Problem
from sluice.core.endpoint.latches import request_key
from sluice.core.observation import CallProblem, Described, Presence

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


@pytest.mark.parametrize("operation", ["DescribeEndpoint", "AddTags"])
def test_a_problem_that_a_newer_operator_wrote_is_told_and_tried_again(operation: str) -> None:
    stage = Stage()
    stage.bring_into_service()
    later = stage.now + timedelta(seconds=30)
    problem = Problem(operation=operation, reason="OfTomorrow", message="m", since=stage.now, next_attempt=later)
    stage.status = stage.status.model_copy(update={"problem": problem})
    stage.edit("Endpoint", tags=[{"key": "team", "value": "a"}])
    decision = stage.step(Presence.UNKNOWN if operation == "DescribeEndpoint" else stage.described(moved=2), seconds=1)
    assert stage.condition("Reconciling") == ("True", Reason.UNREACHABLE)
    assert stage.condition("Ready")[0] == "True"
    assert decision.look_again == later


def test_a_creation_that_a_newer_operator_latched_stays_out() -> None:
    stage = Stage()
    desired = stage.resolution().revision
    assert desired is not None
    key = request_key(stage.endpoint["spec"], desired)
    latch = Latch(fleet_hash=key, reason="OfTomorrow", message="no", time=stage.now)
    stage.status = stage.status.model_copy(update={"latch": latch})
    stage.step()
    stage.step()
    assert "CreateEndpoint" not in stage.called()
    assert stage.condition("Stalled") == ("True", Reason.CREATION_FAILED)


@pytest.mark.parametrize("refused", [denied("AddTags"), rejected("AddTags"), denied("ListTags")])
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
    stage.step(seen, seconds=1, act_problem=rejected("AddTags"))
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
        stage.step(seen, seconds=5, act_problem=denied("DeleteModel"))
        states.add(stage.condition("Ready"))
    assert {status for status, _ in states} == {"True"}


def test_tags_of_an_unknown_endpoint_that_may_not_be_read_are_asked_for_slowly() -> None:
    stage = Stage()
    stage.step()
    for _ in range(3):
        decision = stage.step(stage.described("InService", "x"), tags_read=False, problem=denied("ListTags"), seconds=1)
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


@pytest.mark.parametrize("policy", ["Report", "Correct"])
def test_a_weight_that_was_refused_while_a_scaler_moved_the_endpoint_is_written_again(policy: str) -> None:
    stage = Stage(driftPolicy=policy)
    stage.bring_into_service()
    if policy == "Report":
        _weigh(stage, 2.0)
        before = _seen(stage)
    else:
        before = _seen(stage, moved=5, desired_weight=5.0)
    stage.step(before, seconds=60)
    assert stage.called() == ["UpdateWeightsAndCapacities"]
    busy = CallProblem(
        "UpdateEndpointWeightsAndCapacities",
        Reason.WAITING_FOR_SAGEMAKER,
        "Cannot update in-progress endpoint",
        retry_after_seconds=5,
    )
    weight = 1.0 if policy == "Report" else 5.0
    stage.step(_seen(stage, "Updating", moved=61, desired_weight=weight), seconds=1, act_problem=busy)
    assert stage.actions == []
    after = _seen(stage, moved=63, desired_weight=weight, desired_instance_count=8)
    stage.step(after, seconds=2)
    assert stage.condition("Stalled")[0] == "False", stage.status.conditions
    stage.step(after, seconds=20)
    assert stage.called() == ["UpdateWeightsAndCapacities"]
    done = 2.0 if policy == "Report" else 1.0
    stage.settle_down(_seen(stage, moved=90, desired_weight=done, current_weight=done, desired_instance_count=8))
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


def test_a_refused_attempt_after_a_lost_one_is_no_rollback() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described(moved=2))
    stage.step(stage.described(moved=2), seconds=6)
    lost = CallProblem("UpdateEndpoint", Reason.UNREACHABLE, "no answer", retry_after_seconds=2)
    stage.step(stage.described(moved=2), seconds=1, act_problem=lost)
    stage.step(stage.described(moved=2), seconds=10)
    assert stage.called()[-1] == "UpdateEndpoint", "the first had no effect"
    busy = CallProblem(
        "UpdateEndpoint", Reason.WAITING_FOR_SAGEMAKER, "Cannot update in-progress endpoint", retry_after_seconds=5
    )
    stage.step(stage.described("Updating", moved=18), seconds=1, act_problem=busy)
    stage.step(stage.described(moved=20), seconds=10)  # the scaler that was in the way is done
    assert stage.status.latch is None
    assert stage.called()[-1] == "UpdateEndpoint"


def test_a_reason_that_stood_there_before_a_lost_call_is_not_the_reason_of_its_end() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    before = stage.described(moved=2, failure_reason="the update before was rolled back")
    stage.step(before)
    stage.step(before, seconds=6)
    assert stage.called()[-1] == "UpdateEndpoint"
    # The process is gone before the call; a scaler moves the endpoint before the next one looks.
    stage.step(stage.described(moved=40, failure_reason="the update before was rolled back"), seconds=60)
    assert stage.status.latch is None
    assert stage.called()[-1] == "UpdateEndpoint"


# A scaler, and somebody else, right after our call ------------------------------------------------------------------


def _written(stage: Stage, **wanted: float) -> None:
    """A call for weights and counts that SageMaker took; before, the variant had 4 instances and weight 1."""
    stage.bring_into_service()
    before = _seen(stage)
    variant = {"initialInstanceCount": wanted.get("count", 4), "initialVariantWeight": wanted.get("weight", 1.0)}
    spec = config()["spec"]["productionVariants"]
    stage.edit("EndpointConfig", productionVariants=[{**spec[0], **variant}])
    stage.step(before)
    assert stage.called() == ["UpdateWeightsAndCapacities"]
    stage.acted = ("UpdateWeightsAndCapacities",)
    stage.step(_seen(stage, "Updating", moved=10), seconds=5)


def test_a_scaler_that_acts_right_after_our_count_is_no_failure_of_ours() -> None:
    stage = Stage()
    _written(stage, count=6)
    scaled = _seen(stage, moved=40, desired_instance_count=9)
    for _ in range(3):
        stage.step(scaled, seconds=20)
        assert stage.actions == [], "the scaler's count is not fought"
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.status.live_latch is None
    assert stage.status.production_variants[0].last_applied_count == 6


@pytest.mark.parametrize("wanted", [{"count": 6}, {"weight": 2.0}])
def test_values_that_are_those_of_before_were_rolled_back(wanted: dict[str, float]) -> None:
    stage = Stage()
    _written(stage, **wanted)
    back = _seen(stage, moved=40, desired_instance_count=4, desired_weight=1.0)
    stage.step(back, seconds=20)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.VARIANT_UPDATE_FAILED)


def test_a_weight_that_is_neither_ours_nor_that_of_before_is_drift() -> None:
    stage = Stage()
    _written(stage, weight=2.0)
    stage.step(_seen(stage, moved=40, desired_weight=7.0), seconds=20)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.DRIFTED)
    stage.settle_down(_seen(stage, moved=60, desired_weight=2.0, current_weight=2.0))
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


def test_one_of_two_values_that_was_rolled_back_is_a_failure_still() -> None:
    stage = Stage()
    _written(stage, count=6, weight=2.0)
    stage.step(_seen(stage, moved=40, desired_weight=1.0, desired_instance_count=9), seconds=20)
    assert stage.condition("Stalled") == ("True", Reason.VARIANT_UPDATE_FAILED)
    assert stage.status.production_variants[0].last_applied_count == 6


def test_what_an_earlier_release_began_is_judged_as_it_was() -> None:
    stage = Stage()
    _written(stage, count=6)
    assert stage.status.intent is not None
    stage.status = stage.status.model_copy(
        update={"intent": stage.status.intent.model_copy(update={"variants_before": ()})}
    )
    stage.step(_seen(stage, moved=40, desired_instance_count=9), seconds=20)
    assert stage.condition("Stalled") == ("True", Reason.VARIANT_UPDATE_FAILED)
