"""Instance counts while a deployment runs: what was planned, what a scaler or a person made of it, and what must stand.

Scaling up is anybody's right at any time: it is noted, and stays until the old fleets go. Scaling in would take away
what a share of the traffic or a rollback needs: it is undone. Steps wait for what was planned, never for what somebody
wished beyond it.

Scaling in that comes back again and again is a scaler's, for which half of the load is gone, as the plan wants it.
Undone each time, pods would start and stop every 15 s until the deployment ends; so it is undone more and more rarely,
and at once again when the fleet is to take its traffic back."""

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta

from sluice.api.status import DeploymentStatus, PlannedCount, ScaledIn, VariantSummary
from sluice.core.cluster import batches, fleets, keeping
from sluice.core.cluster.actions import ScaleFleet
from sluice.core.decision import EventNote
from sluice.core.endpoint.draft import Draft

Counts = Mapping[str, int]
"""Instances by variant."""
PATIENCE = 3
"""How often scaling in is undone at once."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(minutes=15)
"""Then it is undone so much later, each time after twice as long."""


def at_start(old: Counts, new: Counts) -> tuple[PlannedCount, ...]:
    """What a deployment notes when it starts."""
    return (*_noted(old, new=False), *_noted(new, new=True))


def planned(deployment: DeploymentStatus, *, new: bool) -> dict[str, int]:
    """The fleets' instances as planned, of the new or of the old revision."""
    return {count.variant_name: count.count for count in deployment.before if count.new is new}


def whole(deployment: DeploymentStatus, *, new: bool) -> dict[str, int]:
    """What was planned, or what has become of it where that is more."""
    found = planned(deployment, new=new)
    for count in deployment.grown:
        if count.new is new:
            found[count.variant_name] = max(count.count, found.get(count.variant_name, 0))
    return found


def hold(
    d: Draft,
    wanted: Iterable[fleets.Wanted],
    target: Counts,
    *,
    new: bool,
    share: float = 1.0,
    shrink: bool = False,
    room: Counts | None = None,
) -> None:
    """Keep fleets at their target: scaled in, they are scaled up again (within `room`, if any); scaled up by somebody
    else, that is noted. `share` (0 to 1): the part of its traffic that a fleet has at its target, so that what somebody
    made of a part tells of the whole. `shrink`: what is more because an earlier pass did not get to it, goes now."""
    grown: dict[str, int] = {}
    for fleet in wanted:
        name = str(fleet.variant["variantName"])
        here = keeping.seen(d).fleet(fleet.name)
        if here is None or here.deleting or fleet.shadow or name not in target:
            continue
        goal = target[name] if room is None else min(target[name], room.get(name, target[name]))
        if here.replicas < goal:
            if new or _undoes(d, name, here.replicas, goal):
                d.act(ScaleFleet(fleet.name, goal))
        elif here.replicas > target[name] and here.replicas != _last_seen(d, name, new=new):
            if share > 0.0:
                grown[name] = math.floor(round(here.replicas / share, 3))
        elif here.replicas > target[name] and shrink:
            d.act(ScaleFleet(fleet.name, target[name]))
    _note_growth(d, grown, new=new)


def note_added(d: Draft, wanted: Iterable[fleets.Wanted], target: Counts, *, new: bool) -> None:
    """What somebody made of fleets beyond their target since the pass before, which holds them no more."""
    grown = {
        name: here.replicas
        for fleet in wanted
        if (here := keeping.seen(d).fleet(fleet.name)) is not None and not here.deleting and not fleet.shadow
        if (name := str(fleet.variant["variantName"])) in target
        if here.replicas > target[name] and here.replicas != _last_seen(d, name, new=new)
    }
    _note_growth(d, grown, new=new)


def _undoes(d: Draft, variant: str, count: int, goal: int) -> bool:
    """Whether an old fleet that has fewer instances than it should is scaled up in this pass. Each time that somebody
    has taken some away since the pass before is counted."""
    deployment, before = d.status.deployment, _last_seen(d, variant, new=False)
    if deployment is None or deployment.stage == "RollingBack":
        return True
    found = next((s for s in deployment.scaled_in if s.variant_name == variant), None)
    again = found is not None and found.times > PATIENCE
    if found is not None and again:
        pause = min(FIRST_PAUSE * 2 ** (found.times - PATIENCE - 1), LONGEST_PAUSE)
        if d.now < found.last + pause:
            d.again_at(found.last + pause)
            return False
    if again or (before is not None and count < min(before, goal)):
        times = found.times + 1 if found is not None else 1
        others = (s for s in deployment.scaled_in if s is not found)
        d.set_deployment(scaled_in=(*others, ScaledIn(variant_name=variant, times=times, last=d.now)))
        if times == PATIENCE + 1:
            text = (
                f"variant {variant} of the old revision: scaled in to {count} of {goal} for the {times}th time while "
                "another is deployed. Let the scaler that does it not scale in meanwhile (of a HorizontalPodAutoscaler "
                "behavior.scaleDown.selectPolicy Disabled). It is undone more rarely from now on"
            )
            d.notes.append(EventNote("Warning", "ScaledInAgain", text))
    return True


def short(d: Draft, wanted: Iterable[fleets.Wanted], percent: float) -> tuple[fleets.Wanted, ...]:
    """The fleets that have fewer ready instances than a share of the traffic, in percent, is for: a node was lost, or
    somebody scaled in. `wanted`: with the counts that all of the traffic is for."""
    seen = keeping.seen(d)
    return tuple(
        fleet
        for fleet in wanted
        if not fleet.shadow and not fleets.ready(seen, fleet, batches.for_share(fleet.count, percent))
    )


def _last_seen(d: Draft, variant: str, *, new: bool) -> int | None:
    """What the pass before this one saw and noted in status."""
    before = d.given.status
    noted: tuple[VariantSummary, ...] = before.production_variants
    if new:
        noted = before.deployment.pending_variants if before.deployment is not None else ()
    return next((v.desired_instance_count for v in noted if v.variant_name == variant), None)


def _note_growth(d: Draft, grown: Counts, *, new: bool) -> None:
    deployment = d.status.deployment
    if deployment is None:
        return
    more = {name: count for name, count in grown.items() if count > whole(deployment, new=new).get(name, 0)}
    if more:
        kept = (c for c in deployment.grown if c.new is not new or c.variant_name not in more)
        d.set_deployment(grown=(*kept, *_noted(more, new=new)))


def _noted(counts: Counts, *, new: bool) -> tuple[PlannedCount, ...]:
    return tuple(PlannedCount(variant_name=name, count=count, new=new) for name, count in sorted(counts.items()))
