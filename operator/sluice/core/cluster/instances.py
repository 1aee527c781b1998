"""Instance counts while a deployment runs: what was planned, what a scaler or a person made of it, and what must stand.

Scaling up is anybody's right at any time: it is noted, and stays until the old fleets go. Scaling in would take away
what a share of the traffic or a rollback needs: it is undone. Steps wait for what was planned, never for what somebody
wished beyond it."""

import math
from collections.abc import Iterable, Mapping

from sluice.api.status import DeploymentStatus, PlannedCount, VariantSummary
from sluice.core.cluster import batches, fleets, keeping
from sluice.core.cluster.actions import ScaleFleet
from sluice.core.endpoint.draft import Draft

Counts = Mapping[str, int]
"""Instances by variant."""


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
            d.act(ScaleFleet(fleet.name, goal))
        elif here.replicas > target[name] and here.replicas != _last_seen(d, name, new=new):
            if share > 0.0:
                grown[name] = math.floor(round(here.replicas / share, 3))
        elif here.replicas > target[name] and shrink:
            d.act(ScaleFleet(fleet.name, target[name]))
    _note_growth(d, grown, new=new)


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
