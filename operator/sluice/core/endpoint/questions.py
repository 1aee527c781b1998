"""What a pass needs to ask SageMaker beyond the listing. Every question costs calls, so each is asked only where the
answer can change the decision; a steady Endpoint asks nothing."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.api.status import EndpointStatus
from sluice.core import capabilities, guardrails
from sluice.core.endpoint import latches
from sluice.core.endpoint.commands import unanswered
from sluice.core.endpoint.draft import MOVING, DecideSettings, deletion_asked
from sluice.core.observation import CallProblem, Listed, Questions
from sluice.core.resolve import Resolution

_SETTLE_LIMIT = timedelta(seconds=DecideSettings().settle_limit_seconds)


def questions(
    endpoint: Mapping[str, Any],
    status: EndpointStatus,
    resolution: Resolution,
    listed: Listed | None,
    act_problem: CallProblem | None,
    now: datetime,
) -> Questions:
    """The questions of one pass."""
    adopt = (endpoint["metadata"].get("annotations") or {}).get(names.ADOPT) == "true"
    adopted = status.revision is not None and status.revision.adopted is True
    unknown = status.endpoint_arn is None
    taken = act_problem is not None and act_problem.reason is Reason.NAME_CONFLICT
    intends = status.intent is not None
    there = listed is not None or taken or intends
    deleting = deletion_asked(endpoint)
    desired = resolution.revision
    differs = desired is not None and (
        status.desired_revision is None
        or status.desired_revision.name != desired.name
        or status.revision is None
        or status.revision.fleet_hash != desired.fleet_hash
    )
    moved = listed is not None and (
        listed.status != status.endpoint_status or listed.last_modified != status.last_modified_time
    )
    describe = there and (
        unknown
        or intends
        or moved
        or differs
        or deleting
        or status.endpoint_status in MOVING
        or status.endpoint_status != "InService"
        or status.drift is not None
        or bool(unanswered(endpoint, status))
    )
    if deleting and not unknown:
        describe = True
    deploys = not deleting and (_about_to_deploy(endpoint, status, resolution, now) or status.deployment is not None)
    # One that SageMaker is not known to have taken says so when it may be called for again: not in the pass after it.
    begins = status.deployment is None or (status.intent is not None and status.intent.not_before is not None)
    starts = (deploys and begins) or (not deleting and _brings_back(endpoint, status))
    return Questions(
        describe=describe,
        owner=describe and unknown,
        content=describe and unknown and (adopt or adopted) and not deleting,
        scalable=starts and endpoint["spec"].get("retainAllVariantProperties") is None,
        alarms=guardrails.alarm_names(endpoint["spec"].get("deploymentConfig")) if deploys else (),
    )


def _brings_back(endpoint: Mapping[str, Any], status: EndpointStatus) -> bool:
    """Whether an update may start that no edit asked for: a person's rollback, or the mending of drift."""
    drifted = status.drift is not None and bool(status.drift.fields)
    mends = drifted and endpoint["spec"].get("driftPolicy") == "Correct"
    return mends or capabilities.ROLLBACK in unanswered(endpoint, status)


def _about_to_deploy(
    endpoint: Mapping[str, Any], status: EndpointStatus, resolution: Resolution, now: datetime
) -> bool:
    desired = resolution.revision
    if desired is None or status.revision is None or resolution.finding is not None:
        return False
    if status.endpoint_status == "UpdateRollbackFailed":
        return True
    if latches.holds(status.latch, endpoint["spec"], desired):
        return False
    if status.settle is None or status.revision.fleet_hash == desired.fleet_hash:
        return False
    # The last edit may be news to this pass: then the bound on settling decides, and the same answers are needed.
    return min(status.settle.until, status.settle.since + _SETTLE_LIMIT) <= now
