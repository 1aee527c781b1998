"""Deleting an Endpoint in the cluster: routes away, confirmed by every router, then fleets, last the finalizer."""

from datetime import timedelta

from sluice.api.reasons import Reason
from sluice.core.actions import DropRevision, PatchEndpoint
from sluice.core.cluster import keeping, routers, routing
from sluice.core.cluster.actions import DeleteFleet, DeleteRoute, RemoveRouter, RetainRoute, WriteRoute
from sluice.core.endpoint.draft import Draft, has_finalizer


def delete(d: Draft) -> None:
    """Route away, confirmed by every router pod that exists; running requests end; then the fleets, the routes, the
    router if it was the last, the revisions, and last the finalizer."""
    if not has_finalizer(d.given.endpoint):
        return
    seen = keeping.seen(d)
    if d.spec.get("deletionPolicy") == "Retain":
        d.act(RetainRoute(), PatchEndpoint(remove_finalizer=True))
        d.reconciling(Reason.DELETING, "deletionPolicy Retain: the fleets go on serving.")
        return
    d.set(endpoint_status="Deleting" if seen.fleets or seen.route else d.status.endpoint_status)
    route = seen.route
    drained = seen.namespace_terminating or not seen.routers
    standing = [fleet for fleet in seen.fleets if not fleet.deleting]
    # Routes that somebody deleted are written, too: only what routers have confirmed says that they let go.
    if not drained and (route.spec.fleets if route is not None else standing):
        version = route.resource_version if route is not None else None
        d.act(WriteRoute(routing.retired(d.endpoint_name), version))
        d.again(1.0)
        d.reconciling(Reason.DRAINING, "The routers let go of the endpoint.")
        return
    progress = _let_go(d, [fleet.name for fleet in seen.fleets])
    if standing and not progress.done:
        d.again(keeping.WAIT_SECONDS)
        d.reconciling(Reason.DRAINING, f"waiting for {progress.waiting_for}")
        return
    if standing:
        d.act(*(DeleteFleet(fleet.name, fleet.uid) for fleet in standing))
        d.again(1.0)
        d.reconciling(Reason.DELETING, "Deleting the fleets.")
        return
    if seen.fleets:
        d.again(keeping.WAIT_SECONDS)
        d.reconciling(Reason.DELETING, "Waiting for the fleets to be gone.")
        return
    if route is not None:
        d.act(DeleteRoute(route.uid))
    if seen.neighbours == 0 and (seen.router.exists or seen.routers):
        d.act(RemoveRouter())
    d.act(*(DropRevision(stored.name) for stored in d.given.stored), PatchEndpoint(remove_finalizer=True))
    d.again(1.0)
    d.reconciling(Reason.DELETING, "Everything is gone.")


def _let_go(d: Draft, names: list[str]) -> routers.Progress:
    """destroy, with a deadline. A router that does not let go holds it up for the longest invocation and a router's
    stop; one that has, for as long as streams may run."""
    if d.status.route is None or keeping.seen(d).route is None:
        keeping.note_route(d)
    progress = routers.destroy(keeping.seen(d), names, d.now)
    if progress.done or d.status.route is None:
        return progress
    keeping.note_route(d)
    keeping.evict(d)
    limits = keeping.limits(d)
    longest = limits.longest_seconds if progress.busy else limits.timeout_seconds
    bound = longest + routers.STOP_GRACE_SECONDS + routers.EVICT_AFTER_SECONDS
    if d.status.route is not None and d.now >= d.status.route.since + timedelta(seconds=bound):
        return routers.Progress(True)
    return progress
