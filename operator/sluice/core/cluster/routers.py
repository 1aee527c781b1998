"""What the routers have confirmed. Two predicates hold everything that must not happen too early:

advance   may traffic be said to flow as the routes ask (bake, next step): at least one Ready router, and all Ready ones
          report the generation and see ready hosts of the fleets whose weight rises
destroy   may a fleet that the routes have let go of be taken down: every router pod that exists, in any phase, reports
          the generation and has no request of the fleet running, or is gone

A router that does not confirm while others have is evicted, never the last one."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sluice.api.routes import SCHEMA_VERSION, RouteReport
from sluice.api.status import EndpointStatus
from sluice.core.cluster.observation import ClusterObservation, RouterSeen, RouteSeen

EVICT_AFTER_SECONDS = 15.0
EVICT_AFTER_IN_ROLLBACK_SECONDS = 5.0
START_SECONDS = 120.0
"""What a router's start may take: evicting one that starts only makes another start."""
HEARD_OF_SECONDS = 3.0
"""What the nodes may take to hear of a ready pod and to send a Service's callers to it: kube-proxy writes its rules
once a second at most, and nothing in the API tells that it has. A pod's readiness is told to the second."""
STOP_GRACE_SECONDS = 15.0
"""Beyond the longest invocation: what a router may take to stop."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A predicate's answer. `waiting_for`: names of router pods, or of fleets, in words."""

    done: bool
    waiting_for: str = ""
    rejected: str = ""
    """What a router said against the routes."""
    busy: bool = False
    """Every router has let go: what is waited for are requests that run."""


def report_of(router: RouterSeen, route: RouteSeen) -> RouteReport | None:
    """What a router has in force of these very routes."""
    if router.report is None:
        return None
    return next((r for r in router.report.routes if r.name and r.uid == route.uid), None)


def confirms(router: RouterSeen, route: RouteSeen) -> bool:
    """Whether a router reports this generation or a newer one."""
    report = report_of(router, route)
    return report is not None and report.generation >= route.generation


def ready(seen: ClusterObservation) -> tuple[RouterSeen, ...]:
    """The routers that callers reach."""
    return tuple(router for router in seen.routers if router.ready and not router.terminating)


def moves_traffic(deployment: object, operation: str | None) -> bool:
    """Whether an Endpoint moves traffic, by its status: what is deployed, and its intent's operation. One that is being
    created, or whose creation failed, has none."""
    return bool(deployment) or operation not in {None, "CreateEndpoint"}


def held_by_traffic(seen: ClusterObservation, status: EndpointStatus) -> bool:
    """Whether the routers stay as they are because of the traffic that the Endpoint moves. Where none is ready there is
    no traffic, and what the Endpoint waits for may be the very setting that lets them start."""
    return bool(ready(seen)) and moves_traffic(status.deployment, status.intent.operation if status.intent else None)


def unheard_of(seen: ClusterObservation, now: datetime) -> float:
    """Seconds until the nodes have heard of one of the ready routers, so that the Service's address leads somewhere: 0
    where they have. A pod that says that it is ready since a time to come has a node whose clock tells nothing."""
    waits = []
    for router in ready(seen):
        passed = (now - router.readiness_since).total_seconds() if router.readiness_since else HEARD_OF_SECONDS
        waits.append(max(0.0, HEARD_OF_SECONDS - passed) if passed > -HEARD_OF_SECONDS else 0.0)
    return min(waits, default=0.0)


def serves(seen: ClusterObservation) -> bool:
    """Whether a router that callers reach has these routes, if perhaps not their newest generation."""
    route = seen.route
    return route is not None and any(report_of(router, route) is not None for router in ready(seen))


def is_lost(router: RouterSeen, now: datetime) -> bool:
    """Whether a terminating router is past the time by which kubelet kills it, and its pod is still there: its node is
    lost. No Service names it any more, no request that it took can still be running, and nobody may ever delete it."""
    if not router.terminating or router.stops_by is None:
        return False
    return now >= router.stops_by + timedelta(seconds=STOP_GRACE_SECONDS)


def never_comes(router: RouterSeen, now: datetime) -> bool:
    """Whether a router has not run since it was created some time ago. No request can be in it, and if it comes yet, it
    begins with the routes of then; what waits for it would wait for as long as no node has room for it."""
    return router.never_ran and router.since is not None and now >= router.since + timedelta(seconds=START_SECONDS)


def schema_version(seen: ClusterObservation, newest: int = SCHEMA_VERSION) -> int:
    """The shape of routes to write: the lowest that the namespace's live routers understand, and never a newer one than
    this operator's. Where no router has reported yet, the newest."""
    known = [r.report.schema_version for r in seen.routers if r.report is not None and not r.terminating]
    return min([newest, *known])


def advance(seen: ClusterObservation, *, require_ready: bool = True) -> Progress:
    """Whether the routes as they stand are in force. Without routes nothing is."""
    route = seen.route
    if route is None:
        return Progress(False, "the routes are not written yet")
    reached = ready(seen)
    if not reached:
        return Progress(False, "a router to be ready")
    rejected = _rejected(reached, route)
    late = [router.pod for router in reached if not confirms(router, route)]
    if late:
        return Progress(False, f"{_names(late)} to apply generation {route.generation}", rejected)
    if require_ready:
        rising = {fleet.name for fleet in route.spec.fleets if fleet.require_ready}
        for router in reached:
            report = report_of(router, route)
            healthy = {f.name: f.healthy for f in report.fleets} if report is not None else {}
            empty = sorted(name for name in rising if healthy.get(name, 0) < 1)
            if empty:
                return Progress(False, f"{router.pod} to see a ready pod of {_names(empty)}", rejected)
    return Progress(True)


def destroy(seen: ClusterObservation, fleets: Iterable[str], now: datetime) -> Progress:
    """Whether nobody can be sending to these fleets any more. No router pod at all: nobody."""
    routers = [router for router in seen.routers if not is_lost(router, now) and not never_comes(router, now)]
    if seen.namespace_terminating or not routers:
        return Progress(True)
    route = seen.route
    if route is None:  # somebody deleted them, and routers may not know it yet
        return Progress(False, "the routes to be written")
    names = frozenset(fleets)
    named = names & {fleet.name for fleet in route.spec.fleets} | names & {s.fleet.name for s in route.spec.shadows}
    if named:
        return Progress(False, f"the routes to let go of {_names(sorted(named))}")
    rejected = _rejected(routers, route)
    late = [router.pod for router in routers if not confirms(router, route)]
    if late:
        return Progress(False, f"{_names(late)} to let go", rejected)
    busy = [
        router.pod
        for router in routers
        if (report := report_of(router, route)) is not None and names & set(report.draining)
    ]
    return Progress(not busy, f"requests running in {_names(busy)}" if busy else "", rejected, busy=bool(busy))


def silent(seen: ClusterObservation) -> bool:
    """Whether a router that has reported before, and is not on its way out, does not confirm the routes."""
    route = seen.route
    return route is not None and any(
        router.report is not None and not router.terminating and not confirms(router, route) for router in seen.routers
    )


def sees_healthy(seen: ClusterObservation, fleet: str, wanted: int) -> bool:
    """Whether every Ready router (at least one) sees so many pods of the fleet pass the sample invocation."""
    route = seen.route
    reached = ready(seen)
    if route is None or not reached:
        return False
    for router in reached:
        report = report_of(router, route)
        if report is None or next((f.healthy for f in report.fleets if f.name == fleet), 0) < wanted:
            return False
    return True


def sees_none(seen: ClusterObservation, fleet: str) -> bool:
    """Whether routers that callers reach have the routes in force, and none of them has a pod of the fleet that
    answers: its Service or its sample invocation fails although the pods say that they are ready."""
    route, counts = seen.route, []
    for router in ready(seen):
        report = report_of(router, route) if route is not None and confirms(router, route) else None
        counts += [found.healthy for found in report.fleets if found.name == fleet] if report is not None else []
    return bool(counts) and not any(counts)


def unanswered(seen: ClusterObservation) -> str:
    """Why no request is answered now, whoever is to answer it; empty: some are. While a deployment runs the endpoint's
    status is Updating whatever becomes of the pods."""
    if seen.route is None:
        return "there are no routes"
    if not ready(seen):
        return "no router is ready"
    taking = {fleet.name for fleet in seen.route.spec.fleets if fleet.weight}
    alive = [fleet for fleet in seen.fleets if fleet.name in taking and fleet.ready and fleet.reachable]
    return "" if any(not sees_none(seen, fleet.name) for fleet in alive) else "no fleet with traffic has a ready pod"


def failing_sample(seen: ClusterObservation, fleet: str) -> tuple[int, int]:
    """(pods of the fleet that do not pass the sample invocation, of so many), by the router that callers reach and that
    sees most of them fail. Envoy counts a pod that it ejected a moment ago, because it broke off requests, among
    them."""
    route = seen.route
    found = [(0, 0)]
    for router in ready(seen):
        report = report_of(router, route) if route is not None else None
        found += [(f.hosts - f.healthy, f.hosts) for f in report.fleets if f.name == fleet] if report else []
    return max(found)


def sample_answer(seen: ClusterObservation, fleet: str) -> str:
    """What a pod of the fleet answered to a router that asked why it fails the sample invocation, with the pod's name;
    empty: none has said."""
    route = seen.route
    for router in sorted(ready(seen), key=lambda router: router.pod):
        report = report_of(router, route) if route is not None else None
        for found in report.fleets if report is not None else ():
            if found.name == fleet and found.sample_answer:
                return found.sample_answer
    return ""


def to_evict(
    seen: ClusterObservation, now: datetime, *, since: datetime, rolling_back: bool, longest_seconds: int
) -> RouterSeen | None:
    """A router that holds everything up: it has not confirmed the routes some seconds after they were written, while
    another Ready one has; or it has, and says that requests run, for longer than any may (longest_seconds), or while
    its agent answers no probe, so that nobody will ever say that they have ended. One at a time, and only while more
    others have confirmed than are on their way out without it: so never the last one, and each that goes is replaced
    before the next one does, unless there are enough. One that stops, has confirmed and waits for its streams is none
    of them."""
    route = seen.route
    if route is None:
        return None
    routers = [router for router in seen.routers if not router.terminating]
    leaving = [r for r in seen.routers if r.terminating and not is_lost(r, now) and not confirms(r, route)]
    peers = [router for router in routers if router.ready and confirms(router, route)]
    wait = EVICT_AFTER_IN_ROLLBACK_SECONDS if rolling_back else EVICT_AFTER_SECONDS
    late = [
        router
        for router in routers
        if not confirms(router, route)
        and not router.never_ran
        and now >= max(since, router.since or since) + timedelta(seconds=START_SECONDS if _starts(router) else wait)
    ]
    if late and len(peers) > len(leaving):
        return min(late, key=lambda router: router.pod)
    bound = since + timedelta(seconds=longest_seconds + STOP_GRACE_SECONDS)
    stuck = [
        router
        for router in routers
        if confirms(router, route) and _drains(router, route) and (now >= bound or _is_mute(router, now))
    ]
    if not stuck:
        return None
    # Another one that is stuck, too, answers requests all the same while it is Ready.
    first = min(stuck, key=lambda router: (router.ready, router.pod))
    return first if len([router for router in peers if router is not first]) > len(leaving) else None


def _starts(router: RouterSeen) -> bool:
    """Whether a router has never said anything: its image is being pulled, or its first snapshot applied."""
    return router.report is None and not router.ready


def _is_mute(router: RouterSeen, now: datetime) -> bool:
    """Whether it has not been Ready for longer than a busy node makes a probe late: what it reported may be old."""
    since = router.readiness_since
    return not router.ready and since is not None and now >= since + timedelta(seconds=EVICT_AFTER_SECONDS)


def _drains(router: RouterSeen, route: RouteSeen) -> bool:
    report = report_of(router, route)
    return report is not None and bool(report.draining)


def _rejected(routers: Iterable[RouterSeen], route: RouteSeen) -> str:
    for router in routers:
        for rejected in router.report.rejected if router.report is not None else ():
            if rejected.uid == route.uid and rejected.generation == route.generation:
                return f"{router.pod}: {rejected.message}"
    return ""


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
