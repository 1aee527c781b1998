"""Where a running SageMaker deployment stands, in Sluice's words: stage, step, share of the traffic, end of the bake.

SageMaker tells it in VariantStatus: a word, a start time, and a message that names instance counts and seconds."""

import re
from datetime import timedelta

from sluice.api.status import DeploymentStatus, VariantStatus
from sluice.core.endpoint.draft import Draft
from sluice.core.observation import PendingDeployment

_STAGES = {"Creating": "Provisioning", "ActivatingTraffic": "Shifting", "Baking": "Baking", "Deleting": "CleaningUp"}
_SECONDS = re.compile(r"for (\d+) second")
_CAPACITY = re.compile(r"(?:capacity of|on) (\d+) instance")
_FULL = re.compile(r"full capacity|TerminationWaitInSeconds")


def follow(d: Draft, pending: PendingDeployment) -> None:
    """Update the running deployment from PendingDeploymentSummary."""
    deployment = d.status.deployment
    if deployment is None or deployment.endpoint_config_name != pending.endpoint_config_name:
        return
    words = [status for variant in pending.variants for status in variant.variant_status]
    newest = max(words, key=lambda w: (w.start_time is not None, w.start_time), default=None)
    total = sum(variant.desired_instance_count or 0 for variant in pending.variants)
    rolling_back = "roll" in (newest.status_message or "").lower() and "back" in (newest.status_message or "").lower() if newest else False  # fmt: skip # noqa: E501
    stage = _stage(newest, deployment)
    share = _share(newest, stage, total, deployment, pending)
    step = deployment.step or 0
    if share > (deployment.traffic_percent or 0.0):
        step += 1
    steps = max(deployment.steps or 1, 1)
    d.set_deployment(
        stage="RollingBack" if rolling_back else stage,
        step=min(step, steps),
        step_text=f"{min(step, steps)}/{steps}",
        traffic_percent=share,
        traffic_text=f"{share:g}%",
        bake_until=_bake_until(newest),
        message=(newest.status_message if newest else None),
        pending_variants=pending.variants[:11],
    )


def _stage(newest: VariantStatus | None, deployment: DeploymentStatus) -> str:
    if newest is None:
        return deployment.stage
    stage = _STAGES.get(newest.status, deployment.stage)
    if stage == "Baking" and deployment.policy != "ROLLING" and _FULL.search(newest.status_message or ""):
        return "FinalBaking"
    return stage


def _share(
    newest: VariantStatus | None, stage: str, total: int, deployment: DeploymentStatus, pending: PendingDeployment
) -> float:
    """Percent of the traffic that reaches the new revision. Rolling batches are told one by one, the fleet's size
    tells how many there were."""
    if deployment.policy == "ROLLING":
        new = sum(variant.current_instance_count or 0 for variant in pending.variants)
        reached = stage in {"Shifting", "Baking", "CleaningUp"} and total
        return round(100.0 * new / total, 1) if reached else (deployment.traffic_percent or 0.0)
    if stage in {"FinalBaking", "CleaningUp"}:
        return 100.0
    found = _CAPACITY.search(newest.status_message or "") if newest is not None else None
    if stage in {"Shifting", "Baking"} and found and total:
        return min(100.0, round(100.0 * int(found.group(1)) / total, 1))
    return deployment.traffic_percent or 0.0


def _bake_until(newest: VariantStatus | None) -> object:
    if newest is None or newest.status != "Baking" or newest.start_time is None:
        return None
    found = _SECONDS.search(newest.status_message or "")
    return newest.start_time + timedelta(seconds=int(found.group(1))) if found else None
