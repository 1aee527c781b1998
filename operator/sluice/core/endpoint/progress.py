"""Where a running SageMaker deployment stands, in Sluice's words: stage, step, share of the traffic, end of the bake.

SageMaker tells it in VariantStatus: a word, a start time, and a message that names instance counts and seconds. The
new fleet's are in PendingDeploymentSummary, the old fleet's at the top level. A rollback has no word of its own: it
shows as the new fleet being deleted, or the old one taking traffic again."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sluice.api.status import DeploymentStatus, VariantStatus, VariantSummary
from sluice.core import guardrails
from sluice.core.endpoint.draft import Draft
from sluice.core.observation import Described, PendingDeployment

_STAGES = {"Creating": "Provisioning", "ActivatingTraffic": "Shifting", "Baking": "Baking"}
_SECONDS = re.compile(r"for (\d+) second")
_CAPACITY = re.compile(r"capacity of (\d+) instance")
_FULL = re.compile(r"full capacity|TerminationWaitInSeconds")
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


def follow(d: Draft, seen: Described) -> None:
    """Update the running deployment from what DescribeEndpoint tells of both fleets."""
    deployment, pending = d.status.deployment, seen.pending
    if deployment is None or pending is None or deployment.endpoint_config_name != pending.endpoint_config_name:
        return
    new, old = _newest(pending.variants), _newest(seen.variants)
    stage = _stage(new, old, deployment)
    share = _share(new, stage, deployment, pending)
    if deployment.policy == guardrails.ROLLING:
        stage = _of_batches(stage, share)
    steps = max(deployment.steps or 1, 1)
    step = deployment.step or 0
    if share > (deployment.traffic_percent or 0.0):
        step = min(step + 1, steps)
    d.set_deployment(
        stage=stage,
        step=step,
        step_text=f"{step}/{steps}",
        traffic_percent=share,
        traffic_text=f"{share:g}%",
        bake_until=_bake_until(new),
        message=new.status_message if new else None,
        pending_variants=pending.variants[:11],
    )


def _of_batches(stage: str, share: float) -> str:
    """Between two batches the old instances of the first go while the next is being prepared; the bake of the last one
    is the final one, as nothing else moves."""
    if stage == "CleaningUp" and share < 100.0:
        return "Provisioning"
    return "FinalBaking" if stage == "Baking" and share >= 100.0 else stage


def _newest(variants: Iterable[VariantSummary]) -> VariantStatus | None:
    words = [status for variant in variants for status in variant.variant_status]
    return max(words, key=lambda word: word.start_time or _LONG_AGO, default=None)


def _stage(new: VariantStatus | None, old: VariantStatus | None, deployment: DeploymentStatus) -> str:
    if (new is not None and new.status == "Deleting") or (old is not None and old.status == "ActivatingTraffic"):
        return "RollingBack"
    if old is not None and old.status == "Deleting":
        return "CleaningUp"
    if new is None:
        return deployment.stage
    stage = _STAGES.get(new.status, deployment.stage)
    if stage == "Baking" and deployment.policy != guardrails.ROLLING and _FULL.search(new.status_message or ""):
        return "FinalBaking"
    return stage


def _share(new: VariantStatus | None, stage: str, deployment: DeploymentStatus, pending: PendingDeployment) -> float:
    """Percent of the traffic that reaches the new revision.

    Variants move in lock-step, and each tells its own instances. Rolling batches are told one by one, so there the new
    fleet's size tells how many there were; a rollback in batches shrinks it, one of blue/green takes all traffic away
    at once."""
    before = deployment.traffic_percent or 0.0
    if deployment.policy == guardrails.ROLLING:
        total = sum(variant.desired_instance_count or 0 for variant in pending.variants)
        size = sum(variant.current_instance_count or 0 for variant in pending.variants)
        return before if stage == "Provisioning" or not total else round(100.0 * size / total, 1)
    if stage == "RollingBack":
        return 0.0
    if stage in {"FinalBaking", "CleaningUp"}:
        return 100.0
    found = _CAPACITY.search(new.status_message or "") if new is not None else None
    speaks = next((variant for variant in pending.variants if new in variant.variant_status), None)
    size = (speaks.desired_instance_count or 0) if speaks is not None else 0
    if stage in {"Shifting", "Baking"} and found and size:
        return min(100.0, round(100.0 * int(found.group(1)) / size, 1))
    return before


def _bake_until(new: VariantStatus | None) -> datetime | None:
    if new is None or new.status != "Baking" or new.start_time is None:
        return None
    found = _SECONDS.search(new.status_message or "")
    return new.start_time + timedelta(seconds=int(found.group(1))) if found else None
