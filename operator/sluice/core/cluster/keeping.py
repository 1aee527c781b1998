"""What a pass keeps up whatever else goes on: the router, the fleets that must stand, what they run on record, the
routes as the split says, and the clean-up of what nothing needs any more.

Capacity first, then routes, then confirmation; taking down only what every router has let go of."""

from collections.abc import Iterable

from sluice.api.routes import EndpointRouteSpec
from sluice.api.status import RouteStatus
from sluice.core.actions import StoreRevision
from sluice.core.cluster import fleets, routers, routing
from sluice.core.cluster.actions import DeleteFleet, EnsureRouter, EvictRouter, RecordFleet, WriteRoute
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.cluster.routers import Progress
from sluice.core.decision import EventNote
from sluice.core.endpoint.draft import Draft
from sluice.core.revision import Revision

WAIT_SECONDS = 2.0
"""Between two looks while routers or pods are on their way; they also wake the Endpoint themselves."""


HELD_SECONDS = 10.0
"""Between two looks at whether the router may be brought up to date."""


def seen(d: Draft) -> ClusterObservation:
    """What was seen in the cluster."""
    assert d.given.cluster is not None  # noqa: S101 - decide_cluster has looked
    return d.given.cluster


def limits(d: Draft) -> routing.Limits:
    """What holds of every request to the Endpoint."""
    return d.given.settings.limits.of(d.spec)


def keep(
    d: Draft,
    split: routing.Split,
    standing: Iterable[fleets.Wanted],
    *,
    rolling_back: bool = False,
    require_ready: bool = True,
) -> Progress:
    """Keep the fleets and write the routes of a split. Tells whether the routes are in force; `require_ready`: with
    ready hosts wherever weight rises (never in a rollback)."""
    sides = {split.serving.fleet_hash: split.serving}
    if split.deployed is not None:
        sides[split.deployed.fleet_hash] = split.deployed
    _make(d, sides, standing)
    progress = route(d, split, rolling_back=rolling_back, require_ready=require_ready)
    record(d)
    return progress


def make(d: Draft, side: routing.Side, standing: Iterable[fleets.Wanted]) -> None:
    """Keep the router and the fleets of a revision, and leave the routes as they are."""
    _make(d, {side.fleet_hash: side}, standing)
    record(d)


def _make(d: Draft, sides: dict[str, routing.Side], standing: Iterable[fleets.Wanted]) -> None:
    router(d)
    for fleet in standing:
        made(d, fleet, sides)


def router(d: Draft) -> None:
    """The namespace has its router; it is brought up to date while nothing shifts, and always in its turn."""
    found = seen(d).router
    if not found.exists or not found.complete:
        d.act(EnsureRouter())
        d.again(WAIT_SECONDS)
    elif not found.current and not routers.held_by_traffic(seen(d), d.status):
        # Without a router that is ready an Endpoint of the namespace holds nothing up, whatever it is about.
        if found.held if routers.ready(seen(d)) else found.held_by:
            d.again(HELD_SECONDS)
        else:
            d.act(EnsureRouter(update=True))


def store(d: Draft, revision: Revision) -> None:
    """A revision that fleets are made of is stored, again if that was lost: a pass may be killed before its first
    action, and an endpoint whose revision is stored nowhere could not be changed any more."""
    if d.find_stored(revision.name) is None:
        number = max((stored.number for stored in d.given.stored), default=0) + 1
        d.act(StoreRevision(revision.name, revision.data(), number))


def made(d: Draft, fleet: fleets.Wanted, sides: dict[str, routing.Side]) -> None:
    """A fleet that must stand and does not, or whose pods no router finds, is made, from the stored revision."""
    here = seen(d).fleet(fleet.name)
    if here is None or (not here.reachable and not here.deleting):
        side = next(s for s in sides.values() if fleet.name in {w.name for w in fleets.wanted(_endpoint(d), s, {})})
        d.act(fleets.ensure(fleet, side))
        d.again(WAIT_SECONDS)
    elif here.deleting:
        d.again(WAIT_SECONDS)  # deleted by somebody; it is made again when its name is free


def warn_of_moving_images(d: Draft, side: routing.Side) -> None:
    """Said once, when fleets are about to be made."""
    images = fleets.moving_images(side.models)
    if images:
        text = (
            f"{', '.join(images)}: what such a tag stands for can change; pods that run another digest than their "
            "fleet's first get no requests (ImageDrift). Name a digest or a fixed tag."
        )
        d.notes.append(EventNote("Warning", "MovingImageTag", text))


def record(d: Draft) -> None:
    """What the first ready pod of a fleet runs is required of every later one."""
    for fleet in seen(d).fleets:
        if fleet.record is None and fleet.candidate is not None and not fleet.deleting:
            d.act(RecordFleet(fleet.name, fleet.candidate))


def route(d: Draft, split: routing.Split, *, rolling_back: bool = False, require_ready: bool = True) -> Progress:
    """Write the routes where they are not as the split says; else tell whether they are in force."""
    found = seen(d).route
    wanted = routing.compile_route(
        _endpoint(d),
        d.endpoint_name,
        split,
        limits(d),
        found.spec if found is not None else None,
        schema_version=routers.schema_version(seen(d)),
    )
    empty = [] if rolling_back or found is None else _rising_without_pods(d, found.spec, wanted)
    if empty:
        d.again(WAIT_SECONDS)
        return Progress(False, f"a ready pod of {', '.join(empty)}, which is to get more of the requests")
    # A later step of the same pass decides: its routes take the place of what an earlier one wanted to write.
    d.actions[:] = [action for action in d.actions if not isinstance(action, WriteRoute)]
    if found is None or wanted != found.spec or found.retained:
        write = WriteRoute(wanted, found.resource_version if found is not None else None)
        # The first action that fails ends a pass. Traffic that goes back waits for nothing.
        d.actions.insert(0 if rolling_back else len(d.actions), write)
        d.again(1.0)
        return Progress(False, "the routes to be written")
    return confirm(d, rolling_back=rolling_back, require_ready=require_ready)


def _rising_without_pods(d: Draft, before: EndpointRouteSpec, wanted: EndpointRouteSpec) -> list[str]:
    """Fleets that would get more requests and have no pod to answer them. Where no fleet has one it makes no
    difference."""
    had = {fleet.name: fleet.weight for fleet in before.fleets}
    alive = {fleet.name for fleet in seen(d).fleets if fleet.ready and not fleet.deleting}
    rising = [f.name for f in wanted.fleets if before.fleets and f.weight > had.get(f.name, 0) and f.name not in alive]
    return rising if alive & {fleet.name for fleet in before.fleets if fleet.weight} else []


def confirm(d: Draft, *, rolling_back: bool, require_ready: bool) -> Progress:
    """Whether the routes as they stand are in force; a router that does not confirm them is evicted, also where nobody
    waits for it: without an agent that works it serves nobody and never comes back by itself."""
    found = seen(d).route
    if found is None:
        return Progress(False, "the routes to be written")
    note_route(d)
    progress = routers.advance(seen(d), require_ready=require_ready and not rolling_back)
    if not progress.done or routers.silent(seen(d)):
        d.again(WAIT_SECONDS)
        evict(d, rolling_back=rolling_back)
    return progress


def note_route(d: Draft) -> None:
    """Since when this generation of the routes stands. After a clock that went back: since now."""
    found, before = seen(d).route, d.status.route
    same = found is not None and before is not None and (before.uid, before.generation) == (found.uid, found.generation)
    if found is not None and not (same and before is not None and before.since <= d.now):
        d.set(route=RouteStatus(uid=found.uid, generation=found.generation, since=d.now))


def evict(d: Draft, *, rolling_back: bool = False) -> None:
    """Evict a router that does not confirm while a peer has."""
    if d.status.route is None:
        return
    late = routers.to_evict(
        seen(d),
        d.now,
        since=d.status.route.since,
        rolling_back=rolling_back,
        longest_seconds=limits(d).longest_seconds,
    )
    if late is not None and (eviction := EvictRouter(late.pod, late.uid)) not in d.actions:
        d.act(eviction)


def clean_up(d: Draft, needed: frozenset[str], *, rolling_back: bool = False) -> Progress:
    """Take down the fleets that nothing needs, once every router has let go of them. Done: there are none."""
    extra = [fleet for fleet in seen(d).fleets if fleet.name not in needed]
    standing = [fleet for fleet in extra if not fleet.deleting]
    if not standing:
        return Progress(not extra, "pods to stop" if extra else "")
    note_route(d)
    progress = routers.destroy(seen(d), (fleet.name for fleet in standing), d.now)
    if progress.done:
        d.act(*(DeleteFleet(fleet.name, fleet.uid) for fleet in standing))
        progress = Progress(False, "pods to stop")
    else:
        evict(d, rolling_back=rolling_back)
    d.again(WAIT_SECONDS)
    return progress


def _endpoint(d: Draft) -> str:
    return str(d.metadata["name"])
