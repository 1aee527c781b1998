"""Status of the declarations: a Model or EndpointConfig is accepted (it passed admission), and rolled out when every
Endpoint that uses it serves its newest content.

An edit of weights is in force before anybody has read that it is not: that a declaration which was rolled out waits for
its Endpoints is said when it has waited for a while."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sluice.api.reasons import ConditionType, Reason
from sluice.api.status import DeclarationStatus
from sluice.core.conditions import Truth, find, set_condition

Object = Mapping[str, Any]
_SHOWN = 50


def decide_declaration(
    declaration: Object, status: DeclarationStatus, users: Iterable[Object], now: datetime
) -> DeclarationStatus:
    """The status of one declaration.

    users: the Endpoints (raw objects) that depend on it, of the same namespace."""
    metadata = declaration["metadata"]
    generation = int(metadata.get("generation") or 0)
    using = sorted(users, key=lambda endpoint: endpoint["metadata"]["name"])
    conditions = set_condition(
        status.conditions,
        ConditionType.READY,
        "True",
        Reason.ACCEPTED,
        "Accepted; an Endpoint makes it real.",
        generation=generation,
        now=now,
    )
    waiting = [e["metadata"]["name"] for e in using if not _runs(e, declaration, generation)]
    truth: Truth = "False"
    if not using:
        reason, message = Reason.NOT_REFERENCED, "No Endpoint uses it."
    elif waiting:
        reason = Reason.WAITING_FOR_ENDPOINTS
        message = f"Not in service (yet) at Endpoint {', '.join(waiting[:10])}; see there."
    else:
        truth, reason, message = "True", Reason.ROLLED_OUT, f"In service at {len(using)} Endpoint(s)."
    conditions = set_condition(
        conditions, ConditionType.ROLLED_OUT, truth, reason, message, generation=generation, now=now
    )
    return status.model_copy(
        update={
            "observed_generation": generation,
            "used_by": tuple(e["metadata"]["name"] for e in using[:_SHOWN]),
            "conditions": conditions,
        }
    )


def can_wait(before: DeclarationStatus, after: DeclarationStatus) -> bool:
    """Whether the news is only that a declaration which was rolled out waits for its Endpoints."""
    was, now = (find(status.conditions, ConditionType.ROLLED_OUT) for status in (before, after))
    return (
        was is not None
        and was.status == "True"
        and now is not None
        and now.reason == Reason.WAITING_FOR_ENDPOINTS
        and before.used_by == after.used_by
    )


def service_of(endpoint: Object | None) -> tuple[bool, Any, Any]:
    """All that a declaration's status depends on of an Endpoint's: (whether it is Ready, for which generation, resolved
    from which references)."""
    status = (endpoint or {}).get("status") or {}
    ready = any(
        isinstance(c, Mapping) and (c.get("type"), c.get("status")) == (ConditionType.READY, "True")
        for c in status.get("conditions") or ()
    )
    return ready, status.get("observedGeneration"), status.get("observedReferences")


def _runs(endpoint: Object, declaration: Object, generation: int) -> bool:
    """Whether the Endpoint is Ready for its newest generation and was resolved from this very generation."""
    ready, observed, references = service_of(endpoint)
    if not ready or observed != endpoint["metadata"].get("generation"):
        return False
    uid = declaration["metadata"]["uid"]
    return any(
        reference.get("uid") == uid and reference.get("generation") == generation for reference in references or ()
    )
