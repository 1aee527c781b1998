"""Conditions: one verdict a pass, turned into kstatus' Ready, Reconciling and Stalled, and Serving.

lastTransitionTime moves only when a condition's status moves, so a status that says the same is the same bytes."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sluice.api.reasons import ConditionType, Reason
from sluice.api.status import Condition

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pass has to say: ready, on the way, or stalled; `keep_ready` leaves Ready as it was."""

    kind: Literal["ready", "reconciling", "stalled"]
    reason: Reason
    message: str
    keep_ready: bool = False
    ready: Truth | None = None
    """Overrides Ready's status (Unknown where the world cannot be seen)."""


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of this type."""
    return next((condition for condition in conditions if condition.type == type_), None)


def set_condition(
    conditions: tuple[Condition, ...],
    type_: str,
    status: Truth,
    reason: str,
    message: str,
    *,
    generation: int | None,
    now: datetime,
) -> tuple[Condition, ...]:
    """The conditions with this one set; the transition time is kept where the status stays."""
    before = find(conditions, type_)
    since = before.last_transition_time if before is not None and before.status == status else now
    made = Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message[:4096],
        last_transition_time=since,
        observed_generation=generation,
    )
    return (*(made if c.type == type_ else c for c in conditions), *(() if before else (made,)))


def drop_condition(conditions: tuple[Condition, ...], type_: str) -> tuple[Condition, ...]:
    """The conditions without this one."""
    return tuple(condition for condition in conditions if condition.type != type_)


def with_verdict(
    conditions: tuple[Condition, ...], verdict: Verdict, *, generation: int | None, now: datetime
) -> tuple[Condition, ...]:
    """Ready, Reconciling and Stalled as the verdict has them."""

    def put(type_: ConditionType, status: Truth, reason: str, message: str) -> None:
        nonlocal conditions
        conditions = set_condition(conditions, type_, status, reason, message, generation=generation, now=now)

    before = find(conditions, ConditionType.READY)
    if verdict.kind == "ready":
        put(ConditionType.READY, "True", verdict.reason, verdict.message)
    elif verdict.keep_ready and before is not None:
        put(ConditionType.READY, before.status, before.reason, before.message)
    else:
        put(ConditionType.READY, verdict.ready or "False", verdict.reason, verdict.message)
    if verdict.kind == "reconciling":
        put(ConditionType.RECONCILING, "True", verdict.reason, verdict.message)
    else:
        put(ConditionType.RECONCILING, "False", Reason.SETTLED, "")
    if verdict.kind == "stalled":
        put(ConditionType.STALLED, "True", verdict.reason, verdict.message)
    else:
        put(ConditionType.STALLED, "False", Reason.NOTHING_STALLED, "")
    return conditions
