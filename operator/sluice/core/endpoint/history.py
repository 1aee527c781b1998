"""How deployments end: the last one, a short history, and the cause read from SageMaker's FailureReason."""

from datetime import datetime

from sluice.api.reasons import Cause, Outcome
from sluice.api.status import LastDeployment
from sluice.core.endpoint.draft import Draft

_WORDS = (
    (Cause.ALARM, ("alarm",)),
    (Cause.HEALTH, ("ping health check", "health check", "unhealthy")),
    (Cause.MODEL_DATA, ("download model data", "model data", "model artifacts")),
    (Cause.CAPACITY, ("capacity", "availability zones", "insufficient", "resourcelimit", "quota")),
    (Cause.DEADLINE, ("timeout", "timed out", "maximum execution")),
)


def cause_of(failure_reason: str | None) -> Cause:
    """The cause behind a FailureReason; an empty one is Silent (SageMaker rolls back without a word at times)."""
    if not failure_reason:
        return Cause.SILENT
    text = failure_reason.lower()
    return next((cause for cause, words in _WORDS if any(word in text for word in words)), Cause.UNKNOWN)


def ended(
    d: Draft,
    revision: str,
    fleet_hash: str,
    outcome: Outcome,
    cause: Cause,
    message: str | None,
    start_time: datetime | None,
    images: tuple[str, ...] = (),
) -> None:
    """Write how a deployment ended. `images`: what one that was rolled back brought."""
    last = LastDeployment(
        revision=revision,
        fleet_hash=fleet_hash,
        outcome=outcome,
        cause=cause,
        message=message[:1200] if message else None,
        start_time=start_time,
        end_time=d.now,
        images=images,
    )
    d.set(last_deployment=last, history=(last, *d.status.history)[:5])
