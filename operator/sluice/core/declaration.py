"""Status of the declarations: a Model or EndpointConfig is accepted (it passed admission), and rolled out when every
Endpoint that uses it serves its newest content."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sluice.api.reasons import ConditionType, Reason
from sluice.api.status import DeclarationStatus
from sluice.core.conditions import Truth, set_condition

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


def _runs(endpoint: Object, declaration: Object, generation: int) -> bool:
    """Whether the Endpoint is Ready for its newest generation and was resolved from this very generation."""
    status = endpoint.get("status") or {}
    ready = next((c for c in status.get("conditions") or () if c.get("type") == ConditionType.READY), None)
    if ready is None or ready.get("status") != "True":
        return False
    if status.get("observedGeneration") != endpoint["metadata"].get("generation"):
        return False
    uid = declaration["metadata"]["uid"]
    return any(
        reference.get("uid") == uid and reference.get("generation") == generation
        for reference in status.get("observedReferences") or ()
    )
