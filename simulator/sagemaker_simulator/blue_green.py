"""Blue/green deployments: the whole new fleet first, then traffic in one, two or many steps, then the old fleet goes.

Pure: counts and policy in, stages out. Activation is per instance; instances that no longer take traffic keep running
until the clean-up, which is why the way back is one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .stages import (
    Capacity,
    Counts,
    Durations,
    Plan,
    Side,
    Size,
    Stage,
    StageKind,
    Standing,
    displaced,
    full,
    idle,
    none,
)


class Routing(StrEnum):
    """TrafficRoutingConfig.Type."""

    ALL_AT_ONCE = "ALL_AT_ONCE"
    CANARY = "CANARY"
    LINEAR = "LINEAR"


@dataclass(frozen=True, slots=True)
class BlueGreen:
    """A BlueGreenUpdatePolicy. ``size`` is the canary or the linear step."""

    routing: Routing = Routing.ALL_AT_ONCE
    wait_seconds: int = 0
    size: Size | None = None
    termination_wait_seconds: int = 0
    timeout_seconds: int | None = None


def _linear_active(size: Size, total: int, step: int) -> int:
    """New instances that take traffic after ``step`` linear steps; a percentage takes at most 100/percent steps."""
    if not size.percent:
        return min(total, step * size.value)
    return min(total, max(step, -(-step * size.value * total // 100)))


def shift(policy: BlueGreen, total: int) -> list[int]:
    """New instances of ``total`` that take traffic after each flip; the last is always all of them."""
    if policy.size is None or policy.routing is Routing.ALL_AT_ONCE:
        return [total]
    if policy.routing is Routing.CANARY:
        return [policy.size.instances(total), total]
    steps = [_linear_active(policy.size, total, 1)]
    while steps[-1] < total:
        steps.append(_linear_active(policy.size, total, len(steps) + 1))
    return steps


def plan(policy: BlueGreen, old: Counts, new: Counts, durations: Durations) -> Plan:
    """The stages of a deployment. Variants move in lock-step: one that is through early waits for the others."""
    shifts = {name: shift(policy, total) for name, total in new.items()}
    steps = max(len(one) for one in shifts.values())
    partial = {Routing.CANARY: "canary", Routing.LINEAR: "linear step"}.get(policy.routing, "full")
    bakes_last = policy.termination_wait_seconds > 0
    stages = [Stage(StageKind.CREATE, Side.NEW, durations.provision, full(old), none(new), dict(new))]
    for step in range(steps):
        last = step == steps - 1
        active = {name: one[min(step, len(one) - 1)] for name, one in shifts.items()}
        new_fleet = {name: Capacity(total, active[name]) for name, total in new.items()}
        old_fleet = {
            name: Capacity(total, total - (displaced(total, new[name], active[name]) if name in new else total * last))
            for name, total in old.items()
        }
        scope = "full" if last else partial
        wait, seconds = (
            ("TerminationWaitInSeconds", policy.termination_wait_seconds)
            if last
            else ("WaitIntervalInSeconds", policy.wait_seconds)
        )
        stages.append(
            Stage(
                StageKind.ACTIVATE,
                Side.NEW,
                durations.flip,
                old_fleet,
                new_fleet,
                active,
                scope,
                watched=bakes_last or (not last and policy.wait_seconds > 0),
            )
        )
        if seconds > 0:
            stages.append(
                Stage(StageKind.BAKE, Side.NEW, seconds, old_fleet, new_fleet, active, scope, wait, watched=True)
            )
    stages.append(Stage(StageKind.CLEAN, Side.OLD, durations.cleanup, idle(old), full(new), dict(old)))
    return tuple(stages)


def way_back(at: Standing, durations: Durations) -> Plan:
    """One step: all traffic to the old fleet, which still runs whole; then the new fleet is terminated."""
    old = {name: Capacity(capacity.up, capacity.up) for name, capacity in at.old.items()}
    launched = {name: capacity.up for name, capacity in at.new.items()}
    stages = []
    if any(capacity.active for capacity in at.new.values()):
        whole = {name: capacity.up for name, capacity in old.items()}
        stages.append(Stage(StageKind.ACTIVATE, Side.OLD, durations.flip, old, idle(launched), whole))
    stages.append(Stage(StageKind.CLEAN, Side.NEW, durations.cleanup, old, idle(launched), launched))
    return tuple(stages)
