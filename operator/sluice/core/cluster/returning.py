"""What a way back must heed: old fleets that cannot answer yet, and what was latched before it."""

from sluice.api.reasons import Cause
from sluice.api.status import DeploymentStatus
from sluice.core.cluster import fleets, keeping
from sluice.core.cluster.routing import Side
from sluice.core.endpoint import latches
from sluice.core.endpoint.draft import Draft

_NO_FAULT = frozenset({Cause.PERSON, Cause.DEADLINE, Cause.ALARMS_UNREADABLE})
"""Causes that tell nothing against the answers of the new revision."""


def without_pods(
    d: Draft, blue: Side, green: Side | None, held: tuple[fleets.Wanted, ...], deployment: DeploymentStatus
) -> tuple[fleets.Wanted, ...]:
    """Old fleets (`held`) that have no pod to answer, while all new ones that have traffic do and nothing was said
    against them: going back now would only lose requests. They have the time that their start may take."""
    since = deployment.stage_since or d.now
    if deployment.cause not in _NO_FAULT or green is None or not deployment.traffic_percent:
        return ()
    if d.now >= since + fleets.budget(held):
        return ()
    if any(_is_silent(d, green, fleet) for fleet in fleets.wanted(str(d.metadata["name"]), green, {})):
        return ()
    return tuple(fleet for fleet in held if _is_silent(d, blue, fleet))


def _is_silent(d: Draft, side: Side, fleet: fleets.Wanted) -> bool:
    """Whether a variant that takes requests has no ready pod."""
    here = keeping.seen(d).fleet(fleet.name)
    takes = not fleet.shadow and side.weights.get(str(fleet.variant["variantName"]), 1.0) > 0
    return takes and (here is None or here.deleting or here.ready == 0)


def latched_besides(d: Draft, deployment: DeploymentStatus) -> bool:
    """Whether what the spec asks for is latched, and another revision was deployed: one that a person brought back.
    That this failed is no reason to try the latched one again."""
    desired, serving = d.desired, d.status.revision
    if desired is None or serving is None or desired.fleet_hash in {deployment.fleet_hash, serving.fleet_hash}:
        return False
    return latches.holds(d.status.latch, d.spec, desired)
