"""What people see of a running deployment, from SageMaker's own words; a rollback is never shown as progress."""

from datetime import timedelta

import pytest
from tests.core.stage import Stage, canary

from sluice.api.status import VariantStatus, VariantSummary
from sluice.core.observation import PendingDeployment

ROLLING = {
    "rollingUpdatePolicy": {"maximumBatchSize": {"type": "CAPACITY_PERCENT", "value": 25}, "waitIntervalInSeconds": 10}
}


def _look(stage: Stage, new: tuple[str, str] | None, old: tuple[str, str] | None = None, size: int = 0) -> None:
    assert stage.status.intent is not None
    made = stage.status.intent.endpoint_config_name or ""

    def word(told: tuple[str, str] | None) -> tuple[VariantStatus, ...]:
        return (VariantStatus(status=told[0], status_message=told[1], start_time=stage.now),) if told else ()

    variant = VariantSummary(
        variant_name="a", desired_instance_count=4, current_instance_count=size, variant_status=word(new)
    )
    serving = stage.status.production_variants[0].model_copy(update={"variant_status": word(old)})
    pending = PendingDeployment(made, stage.now, (variant,))
    stage.step(stage.described("Updating", moved=3, pending=pending, variants=(serving,)), seconds=1)


def _deploying(policy: dict[str, object]) -> Stage:
    stage = Stage(deploymentConfig=policy)
    stage.bring_into_service()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(stage.described(moved=2))
    stage.step(stage.described(moved=2), seconds=5)
    return stage


def _shown(stage: Stage) -> tuple[str, float | None, str | None]:
    assert stage.status.deployment is not None
    return stage.status.deployment.stage, stage.status.deployment.traffic_percent, stage.status.deployment.step_text


def test_a_canary_from_start_to_end() -> None:
    stage = _deploying(canary())
    _look(stage, ("Creating", "Launching 4 instance(s)."))
    assert _shown(stage) == ("Provisioning", 0.0, "0/2")
    _look(stage, ("ActivatingTraffic", "Activating traffic on canary capacity of 1 instance(s)."))
    assert _shown(stage) == ("Shifting", 25.0, "1/2")
    bake = "Baking for 60 seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s)."
    _look(stage, ("Baking", bake))
    assert _shown(stage) == ("Baking", 25.0, "1/2")
    assert stage.status.deployment is not None
    assert stage.status.deployment.bake_until == stage.now - timedelta(seconds=1) + timedelta(seconds=60)
    last = "Baking for 60 seconds (TerminationWaitInSeconds) with traffic enabled on full capacity of 4 instance(s)."
    _look(stage, ("Baking", last))
    assert _shown(stage) == ("FinalBaking", 100.0, "2/2")
    _look(stage, None, old=("Deleting", "Terminating 4 instance(s)."))
    assert _shown(stage) == ("CleaningUp", 100.0, "2/2")


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (None, ("ActivatingTraffic", "Activating traffic on full capacity of 4 instance(s).")),
        (("Deleting", "Terminating 4 instance(s)."), None),
    ],
)
def test_a_rollback_is_no_progress(new: tuple[str, str] | None, old: tuple[str, str] | None) -> None:
    stage = _deploying(canary())
    _look(stage, ("ActivatingTraffic", "Activating traffic on canary capacity of 1 instance(s)."))
    _look(stage, new, old)
    assert _shown(stage) == ("RollingBack", 0.0, "1/2")


def test_rolling_batches_add_up_and_go_back() -> None:
    stage = _deploying(ROLLING)
    _look(stage, ("ActivatingTraffic", "Activating traffic on batch capacity of 1 instance(s)."), size=1)
    assert _shown(stage) == ("Shifting", 25.0, "1/4")
    _look(stage, ("Creating", "Launching 1 instance(s)."), size=2)
    assert _shown(stage) == ("Provisioning", 25.0, "1/4")
    _look(stage, ("Baking", "Baking for 10 seconds with traffic enabled on batch capacity of 1 instance(s)."), size=2)
    assert _shown(stage) == ("Baking", 50.0, "2/4")
    _look(stage, ("Deleting", "Terminating 1 instance(s)."), size=1)
    assert _shown(stage) == ("RollingBack", 25.0, "2/4")


def test_words_without_a_start_time_are_taken() -> None:
    stage = _deploying(canary())
    assert stage.status.intent is not None
    words = (VariantStatus(status="Creating"), VariantStatus(status="Creating"))
    variant = VariantSummary(variant_name="a", desired_instance_count=4, variant_status=words)
    pending = PendingDeployment(stage.status.intent.endpoint_config_name or "", None, (variant,))
    stage.step(stage.described("Updating", moved=3, pending=pending), seconds=1)
    assert _shown(stage)[0] == "Provisioning"


def test_the_share_of_several_variants_is_that_of_the_one_that_speaks() -> None:
    stage = _deploying(canary())
    assert stage.status.intent is not None
    words = VariantStatus(
        status="Baking",
        status_message="Baking for 60 seconds with traffic enabled on canary capacity of 1 instance(s).",
        start_time=stage.now,
    )
    variants = tuple(
        VariantSummary(variant_name=name, desired_instance_count=count, variant_status=(words,) if name == "a" else ())
        for name, count in (("a", 2), ("b", 6))
    )
    pending = PendingDeployment(stage.status.intent.endpoint_config_name or "", stage.now, variants)
    stage.step(stage.described("Updating", moved=3, pending=pending), seconds=1)
    assert _shown(stage) == ("Baking", 50.0, "1/2")


def test_old_batches_that_go_are_no_clean_up_and_the_last_bake_is_the_final_one() -> None:
    stage = _deploying(ROLLING)
    _look(stage, ("Baking", "Baking for 10 seconds with traffic enabled on batch capacity of 1 instance(s)."), size=1)
    _look(stage, None, old=("Deleting", "Terminating 1 instance(s)."), size=1)
    assert _shown(stage) == ("Provisioning", 25.0, "1/4")
    _look(stage, ("Baking", "Baking for 10 seconds with traffic enabled on batch capacity of 1 instance(s)."), size=4)
    assert _shown(stage)[:2] == ("FinalBaking", 100.0)
    _look(stage, None, old=("Deleting", "Terminating 1 instance(s)."), size=4)
    assert _shown(stage)[:2] == ("CleaningUp", 100.0)
