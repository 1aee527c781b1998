"""What was observed, written into the status: SageMaker's words, the alarms, and the problem that is in the way."""

from datetime import timedelta

from sluice.api.reasons import Reason, reason_of
from sluice.api.status import AlarmStatus, Problem, VariantSummary
from sluice.core.endpoint.draft import Draft
from sluice.core.hashing import short
from sluice.core.observation import CallProblem, Described, Presence

KEEPS_READY = frozenset({Reason.THROTTLED, Reason.UNREACHABLE})
"""Problems of the way to SageMaker, which say nothing about the endpoint."""
_MENDED_BY_PEOPLE = frozenset(
    {
        Reason.ACCESS_DENIED, Reason.NO_CREDENTIALS, Reason.QUOTA_EXCEEDED, Reason.REJECTED_BY_SAGEMAKER,
        Reason.REJECTED_BY_KUBERNETES, Reason.BACKEND_NOT_AVAILABLE, Reason.UNKNOWN_INSTANCE_TYPE,
    }
)  # fmt: skip


LONGEST_SECONDS = 600.0
"""Between two attempts, before they are spread."""
LONGEST_BACKOFF_SECONDS = 1.25 * LONGEST_SECONDS

HOUSEKEEPING = frozenset({"AddTags", "DeleteTags", "ListTags", "DeleteModel", "DeleteEndpointConfig"})
"""Calls that tidy up beside an endpoint which serves as it should."""


def take_alarms(d: Draft) -> None:
    """The alarm readings of this pass. They are read around deployments only; an old reading says nothing."""
    if not d.observation.alarms and d.status.deployment is None:
        d.set(alarms=())
    if d.observation.alarms:
        read = tuple(
            AlarmStatus(
                alarm_name=a.name[:255],
                state=a.state,
                message=(a.message or "")[:512] or None,
                source=a.source if d.given.cluster is not None else None,
            )
            for a in d.observation.alarms
        )
        d.set(alarms=read)


def take_endpoint(d: Draft, seen: Described) -> None:
    """DescribeEndpoint's answer, for an endpoint that is known to be ours."""
    before = {variant.variant_name: variant for variant in d.status.production_variants}
    d.set(
        endpoint_status=seen.status,
        failure_reason=(seen.failure_reason or None) and str(seen.failure_reason)[:1024],
        endpoint_arn=seen.arn,
        creation_time=seen.creation,
        last_modified_time=seen.last_modified,
        production_variants=tuple(_carried(variant, before.get(variant.variant_name)) for variant in seen.variants),
        shadow_production_variants=seen.shadow_variants[:1],
        address=_address(d, seen.name),
    )


def forget_endpoint(d: Draft) -> None:
    """There is no such endpoint (any more)."""
    d.set(
        endpoint_status=None,
        failure_reason=None,
        endpoint_arn=None,
        creation_time=None,
        last_modified_time=None,
        production_variants=(),
        shadow_production_variants=(),
        address=None,
        applied_tags=(),
    )


def take_problem(d: Draft) -> None:
    """Keep the problem of this pass with its backoff; forget an old one once something went well."""
    problem = d.observation.act_problem or d.observation.problem
    if problem is None:
        before = d.status.problem
        if before is not None and (d.observation.acted or _looked_well(d, before)):
            d.set(problem=None)
        return
    before = d.status.problem
    same = before is not None and (before.operation, before.reason) == (problem.operation, problem.reason)
    if same and waiting(d):
        return  # The same trouble again, before its time: nothing new to write down.
    count = before.count + 1 if same and before is not None else 1
    d.set(
        problem=Problem(
            operation=problem.operation,
            reason=problem.reason,
            code=problem.code,
            message=problem.message[:1024],
            since=before.since if same and before is not None else d.now,
            count=count,
            next_attempt=d.now + timedelta(seconds=backoff_seconds(problem, count, str(d.metadata.get("uid", "")))),
        )
    )


def backoff_seconds(problem: CallProblem, count: int, salt: str) -> float:
    """Until the next attempt: what the service asked for, else 1, 2, 4 .. 60 s (10 min where a person must act);
    spread by up to a quarter, so that a thousand Endpoints do not come back at once."""
    longest = LONGEST_SECONDS if not problem.transient or problem.reason in _MENDED_BY_PEOPLE else 60.0
    base = max(min(problem.retry_after_seconds or 0.0, LONGEST_SECONDS), min(longest, 2.0 ** min(count - 1, 10)))
    return base * (1.0 + int(short(salt, str(count), length=4), 16) / 0xFFFF / 4)


def waiting(d: Draft) -> bool:
    """Whether the next attempt is still to come. One that is further away than any backoff was noted before the clock
    went back: it is due."""
    problem = d.status.problem
    if problem is None or problem.next_attempt is None:
        return False
    return d.now < problem.next_attempt <= d.now + timedelta(seconds=LONGEST_BACKOFF_SECONDS)


def say_problem(d: Draft) -> None:
    """The problem as verdict: trouble on the way keeps Ready, what people must mend stalls."""
    problem = d.status.problem
    if problem is None:
        return
    if problem.next_attempt is not None:
        d.again_at(max(problem.next_attempt, d.now + timedelta(seconds=1)))
    reason = reason_of(problem.reason, Reason.UNREACHABLE)
    text = f"{problem.operation}: {problem.message}"
    if reason in KEEPS_READY:
        d.reconciling(reason, text, keep_ready=True)
    elif reason in _MENDED_BY_PEOPLE:
        unseen = d.observation.presence is Presence.UNKNOWN and d.status.endpoint_status is not None
        d.stalled(reason, text, ready="Unknown" if unseen else None)
    else:
        d.reconciling(reason, text)


def say_housekeeping(d: Draft) -> None:
    """A problem of tidying up: Ready tells of the endpoint, so it stays True."""
    problem = d.status.problem
    if problem is None:
        return
    if problem.next_attempt is not None:
        d.again_at(max(problem.next_attempt, d.now + timedelta(seconds=1)))
    text = f"{problem.operation}: {problem.message} (the revision asked for is in service)"
    reason = reason_of(problem.reason, Reason.UNREACHABLE)
    if reason in _MENDED_BY_PEOPLE:
        d.stalled(reason, text, ready="True")
    else:
        d.reconciling(reason, text, keep_ready=True)


def _looked_well(d: Draft, before: Problem) -> bool:
    if before.operation in HOUSEKEEPING:
        return before.operation == "ListTags" and d.observation.tags is not None
    looking = before.operation.startswith(("Describe", "List", "Get", "AssumeRole"))
    if d.given.cluster is not None:
        return looking  # whether the action is still to be done, the plan knows
    return d.observation.presence is not Presence.UNKNOWN and (looking or d.status.intent is None)


def _carried(variant: VariantSummary, before: VariantSummary | None) -> VariantSummary:
    if before is None:
        return variant
    return variant.model_copy(
        update={
            "last_applied_count": before.last_applied_count,
            "last_applied_weight": before.last_applied_weight,
            "retained_weight": before.retained_weight,
        }
    )


def _address(d: Draft, name: str) -> str:
    target = d.given.resolution.target
    region = target.credentials.region if target else ""
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://runtime.sagemaker.{region}.{suffix}/endpoints/{name}/invocations"
