"""What a way back must heed: old fleets that cannot answer yet, and what was latched before it."""

from sluice.api.reasons import Cause
from sluice.api.status import DeploymentStatus
from sluice.core.cluster import fleets, keeping
from sluice.core.cluster.routing import Side, percent_on
from sluice.core.endpoint.draft import Draft

_NO_FAULT = frozenset({Cause.PERSON, Cause.DEADLINE, Cause.ALARMS_UNREADABLE})
"""Causes that tell nothing against the answers of the new revision."""


def without_pods(
    d: Draft, blue: Side, green: Side | None, held: tuple[fleets.Wanted, ...], deployment: DeploymentStatus
) -> tuple[fleets.Wanted, ...]:
    """Old fleets (`held`) that have no pod to answer, while all new ones that have traffic do and nothing was said
    against them: going back now would only lose requests. They have the time that their start may take."""
    since = deployment.stage_since or d.now
    if not is_answered(d, green, deployment) or d.now >= since + fleets.budget(held):
        return ()
    return tuple(fleet for fleet in held if _is_silent(d, blue, fleet))


def is_answered(d: Draft, green: Side | None, deployment: DeploymentStatus) -> bool:
    """Whether new fleets that have traffic can answer all of it, and nothing was said against their answers."""
    if deployment.cause not in _NO_FAULT or green is None or not moved_percent(d, green, deployment):
        return False
    return not any(_is_silent(d, green, fleet) for fleet in fleets.wanted(str(d.metadata["name"]), green, {}))


def moved_percent(d: Draft, green: Side | None, deployment: DeploymentStatus) -> float:
    """The percent of the traffic that new fleets may have: what the routers confirmed, or what the routes ask for where
    that is more, as one router follows before another."""
    confirmed, route = deployment.traffic_percent or 0.0, keeping.seen(d).route
    if green is None or route is None:
        return confirmed
    mine = frozenset(fleet.name for fleet in fleets.wanted(str(d.metadata["name"]), green, {}))
    return max(confirmed, percent_on(route.spec, mine))


def _is_silent(d: Draft, side: Side, fleet: fleets.Wanted) -> bool:
    """Whether a variant that takes requests has no ready pod."""
    here = keeping.seen(d).fleet(fleet.name)
    takes = not fleet.shadow and side.weights.get(str(fleet.variant["variantName"]), 1.0) > 0
    return takes and (here is None or here.deleting or here.ready == 0)


def latched_besides(d: Draft, deployment: DeploymentStatus) -> bool:
    """Whether what the spec asks for is latched, and another revision was deployed: one that a person brought back.
    That this failed is no reason to try the latched one again."""
    asked, serving, latch = d.asked_hash, d.status.revision, d.status.latch
    if asked is None or serving is None or asked in {deployment.fleet_hash, serving.fleet_hash}:
        return False
    return latch is not None and latch.fleet_hash == asked
