"""Rolling deployments of one variant: batch by batch a few new instances come, bake, and as many old ones go.

Pure: counts and policy in, stages out. At most one batch more than the fleet runs at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

from .stages import Capacity, Durations, Plan, Side, Size, Stage, StageKind, Standing, displaced


@dataclass(frozen=True, slots=True)
class Rolling:
    """A RollingUpdatePolicy. Without ``rollback_batch`` the way back restores the whole old capacity at once."""

    batch: Size
    wait_seconds: int = 0
    rollback_batch: Size | None = None
    timeout_seconds: int | None = None


def _stage(
    kind: StageKind,
    side: Side,
    seconds: float,
    name: str,
    old: Capacity,
    new: Capacity,
    amount: int,
    *,
    scope: str = "batch",
    wait: str = "",
    watched: bool = False,
) -> Stage:
    return Stage(kind, side, seconds, {name: old}, {name: new}, {name: amount}, scope, wait, watched)


def plan(policy: Rolling, name: str, old: int, new: int, durations: Durations) -> Plan:
    """Create a batch, give it traffic, bake, terminate what it replaces; until the old fleet is gone."""
    batch = policy.batch.instances(new)
    waits = policy.wait_seconds
    stages: list[Stage] = []
    old_up, new_up = old, 0
    while new_up < new:
        amount = min(batch, new - new_up)
        before_old, before_new = Capacity(old_up, old_up), Capacity(new_up, new_up)
        watched = new_up > 0 and waits > 0
        stages.append(
            _stage(
                StageKind.CREATE, Side.NEW, durations.provision, name, before_old, before_new, amount, watched=watched
            )
        )
        new_up += amount
        left = old - displaced(old, new, new_up)
        after_old, after_new = Capacity(old_up, left), Capacity(new_up, new_up)
        stages.append(
            _stage(StageKind.ACTIVATE, Side.NEW, durations.flip, name, after_old, after_new, amount, watched=waits > 0)
        )
        if waits > 0:
            stages.append(
                _stage(
                    StageKind.BAKE,
                    Side.NEW,
                    waits,
                    name,
                    after_old,
                    after_new,
                    amount,
                    wait="WaitIntervalInSeconds",
                    watched=True,
                )
            )
        gone, old_up = old_up - left, left
        stages.append(
            _stage(
                StageKind.CLEAN,
                Side.OLD,
                durations.cleanup,
                name,
                Capacity(left + gone, left),
                after_new,
                gone,
                watched=waits > 0 and new_up < new,
            )
        )
    return tuple(stages)


def way_back(policy: Rolling, name: str, whole: int, at: Standing, durations: Durations) -> Plan:
    """Old instances that idle take traffic again first; then lost ones are launched anew, batch by batch.

    ``whole`` is the old fleet's count before the deployment. The stages do not bake: the old revision is known.
    """
    old, new = at.old[name], at.new[name]
    wanted = policy.rollback_batch.instances(whole) if policy.rollback_batch else whole
    full_new = max(new.up, 1)
    stages: list[Stage] = []
    while new.up > 0 or old.active < whole:
        if old.up == old.active and old.up < whole:
            amount = min(wanted, whole - old.up)
            stages.append(_stage(StageKind.CREATE, Side.OLD, durations.provision, name, old, new, amount))
            old = Capacity(old.up + amount, old.active)
        staying = new.active - displaced(new.active, whole - old.active, old.up - old.active)
        regained = old.up - old.active
        if regained or staying < new.active:
            old, new = Capacity(old.up, old.up), Capacity(new.up, staying)
            scope = "full" if old.up >= whole else "batch"
            stages.append(_stage(StageKind.ACTIVATE, Side.OLD, durations.flip, name, old, new, regained, scope=scope))
        if new.up > new.active:
            gone = new.up - new.active
            stages.append(_stage(StageKind.CLEAN, Side.NEW, durations.cleanup, name, old, new, gone))
            new = Capacity(new.active, new.active)
        assert len(stages) <= 4 * (whole + full_new + 1)  # noqa: S101 - every round gains an old or loses a new instance
    return tuple(stages)
