"""What Envoy is to have, what of it is in force, and what comes next. No I/O.

The order that loses nothing: new clusters first; a route only when every cluster that it names is in use in Envoy; a
cluster goes only when the routes in force do not name it any more and no request to it is running. Each endpoint moves
by itself: one that waits or is refused holds up no other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from sluice.api.routes import LONGEST_STREAM_SECONDS, EndpointRouteSpec, RejectedRoute, RouteFleet, RouteReport
from sluice.router.clusters import cluster_names
from sluice.router.objects import Route, serving_pods
from sluice.router.reports import Hosts, Reports, rejections
from sluice.router.routes import compile_scope, fleets_of
from sluice.router.standing import Placed, PodsOf, Standing
from sluice.router.view import Activity, View
from sluice.router.wanted import Wanted
from sluice.router.wire import Resource, Snapshot, resource, version_of

Key = tuple[str, int]
"""Whose route (uid), which generation."""

LINGER_SECONDS: Final = 1.0
"""A worker may take up a request on the old route for a moment after the main thread has confirmed the new one."""
GRACE_SECONDS: Final = 5.0
_REMEMBERED: Final = 8
EMPTY_VERSION: Final = "empty"
"""Of what Envoy is to have before the first routes were read."""


@dataclass(frozen=True, slots=True)
class Served:
    """One endpoint as Envoy is to have it."""

    uid: str
    name: str
    generation: int
    spec: EndpointRouteSpec


@dataclass(slots=True)
class _Scopes:
    """One version of the scopes."""

    served: dict[str, Served] = field(default_factory=dict)
    confirms: dict[str, int] = field(default_factory=dict)
    """Route uid -> the generation that is in force when this version is."""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now; at most one kind of resource a step."""

    clusters: Snapshot | None = None
    scopes: Snapshot | None = None
    suspects: tuple[Route, ...] = ()
    """Envoy refused an update: one of these routes is why. They are held back until it is known which."""


class Ledger:
    """The agent's memory. `step` is called whenever something changed, with what Envoy says."""

    def __init__(self) -> None:
        self.bad: dict[Key, str] = {}
        self._held: set[Key] = set()
        self._cleared: set[Key] = set()
        self._accepted: set[Key] = set()
        self._standing: dict[str, Standing] = {}
        self._clusters: dict[str, Resource] = {}
        self._clusters_version = EMPTY_VERSION
        self._noted: tuple[str, frozenset[str]] | None = None
        self._active: set[str] = set()
        self._scopes_version = EMPTY_VERSION
        self._versions: dict[str, _Scopes] = {EMPTY_VERSION: _Scopes()}
        self._passed: dict[str, frozenset[str]] = {}
        self._compiled: dict[Key, Resource] = {}
        self._reports = Reports()

    # -- the files survive a restart of the agent ----------------------------------------------------------------------

    def restore(self, placed: Mapping[str, Placed], served: Mapping[str, Served]) -> Step:
        """Go on from what an earlier process has left (`placed`, `served`); what Envoy is to have until a consistent
        read replaces it."""
        self._standing = {name: Standing.restored(one) for name, one in placed.items()}
        if placed:
            self._clusters = self._resources()
            self._clusters_version = version_of(self._clusters)
        resources = {endpoint: self._scope(one) for endpoint, one in served.items()}
        if served:
            self._scopes_version = version_of(resources)
            confirms = {one.uid: one.generation for one in served.values()}
            self._versions[self._scopes_version] = _Scopes(dict(served), confirms)
        return Step(
            Snapshot(self._clusters_version, self._clusters),
            Snapshot(self._scopes_version, resources),
        )

    @property
    def placed(self) -> Mapping[str, Placed]:
        """What of the clusters the next process needs, by fleet."""
        return {name: one.placed for name, one in self._standing.items() if one.placed is not None}

    @property
    def served(self) -> Mapping[str, Served]:
        """What of the scopes the next process needs, by endpoint."""
        return self._versions[self._scopes_version].served

    # -- deciding ------------------------------------------------------------------------------------------------------

    def step(self, wanted: Wanted, pods: PodsOf, view: View, activity: Activity, now: float) -> Step:
        """What Envoy is to have next, if that is something else."""
        self._forget_verdicts(wanted, view)
        suspects = self._refused(wanted, view)
        self._note_active(view)
        chosen = {
            endpoint: Served(route.uid, route.name, route.generation, route.spec)
            for endpoint, route in wanted.routes.items()
            if route.spec is not None and route.key not in self._held
        }
        kept = self._kept(wanted, chosen, view)
        self._stand(chosen, kept, view, activity, now)
        if self._place(pods):
            clusters = self._resources()
            version = version_of(clusters)
            self._clusters = clusters
            if version != self._clusters_version:
                self._clusters_version = version
                self._active &= clusters.keys()
                return Step(clusters=Snapshot(version, clusters), suspects=suspects)
        scopes = self._next_scopes(wanted, chosen, kept, pods, activity)
        current = self._versions[self._scopes_version]
        if scopes.served == current.served and self._scopes_version != EMPTY_VERSION:
            current.served, current.confirms = scopes.served, scopes.confirms
            return Step(suspects=suspects)
        resources = {endpoint: self._scope(served) for endpoint, served in scopes.served.items()}
        keys = {(served.uid, served.generation) for served in scopes.served.values()}
        self._compiled = {key: made for key, made in self._compiled.items() if key in keys}
        version = version_of(resources)
        self._versions.pop(version, None)
        self._versions[version] = scopes
        self._scopes_version = version
        for old in [one for one in self._versions if one not in (version, view.scopes)][:-_REMEMBERED]:
            del self._versions[old]
        return Step(scopes=Snapshot(version, resources), suspects=suspects)

    def judge(self, verdicts: Mapping[Key, str], suspects: Iterable[Route]) -> None:
        """What a validation of each suspect alone found: the reason, or nothing. One that passes alone twice and is
        refused again is refused for good."""
        for route in suspects:
            self._held.discard(route.key)
            reason = verdicts.get(route.key, "")
            if not reason and route.key in self._cleared:
                reason = "Envoy refuses it together with the other routes of the namespace"
            if reason:
                self.bad[route.key] = reason
            self._cleared.add(route.key)

    def settled(self, view: View) -> bool:
        """Whether Envoy has everything in force."""
        return view.clusters == self._clusters_version and view.scopes == self._scopes_version and not view.warming

    def lively(self) -> bool:
        """Whether something is to be known that Envoy alone knows: requests to a fleet that leaves, pods that pass the
        sample invocation."""
        return self.leaving or any(standing.fleet.sample is not None for standing in self._standing.values())

    def sampled(self) -> bool:
        """Whether a fleet is asked once, so that it is worth knowing which pods have passed."""
        return any(
            standing.fleet.sample is not None and standing.fleet.sample.period_seconds is None
            for standing in self._standing.values()
        )

    def failing(self, activity: Activity) -> dict[str, RouteFleet]:
        """Fleets of which not all pods pass the sample invocation, as far as Envoy has said."""
        return {
            name: standing.fleet
            for name, standing in self._standing.items()
            if standing.fleet.sample is not None
            and standing.leaving_since is None
            and activity.healthy.get(name, standing.hosts) < standing.hosts
        }

    def remember_passed(self, passed: Mapping[str, frozenset[str]]) -> None:
        """Pods that have passed the sample invocation."""
        self._passed = dict(passed)

    @property
    def leaving(self) -> bool:
        """Whether something is draining."""
        return any(standing.leaving_since is not None for standing in self._standing.values())

    def covers(self, wanted: Wanted, view: View) -> bool:
        """Whether every endpoint that can be served is in force, in this generation or an earlier one."""
        return self.settled(view) and self._versions[self._scopes_version].served.keys() >= wanted.routes.keys()

    # -- reporting -----------------------------------------------------------------------------------------------------

    def report(
        self,
        wanted: Wanted,
        routes: Iterable[Route],
        view: View,
        activity: Activity,
        words: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[tuple[RouteReport, ...], tuple[RejectedRoute, ...]]:
        """What of the existing routes is in force, and what was refused. `words`: what pods of fleets answered that
        fail the sample invocation."""
        self._note_healthy(view, activity)
        in_force = self._versions.get(view.scopes, _Scopes())
        draining: dict[str, tuple[str, ...]] = {}
        for name in sorted(self._standing):
            standing = self._standing[name]
            if standing.leaving_since is not None:
                draining[standing.endpoint_name] = (*draining.get(standing.endpoint_name, ()), name)

        def hosts(fleet: RouteFleet) -> Hosts:
            standing = self._standing.get(fleet.name)
            found = standing.hosts if standing is not None else 0
            healthy = found if fleet.sample is None or standing is None else min(found, standing.healthy)
            return found, healthy, words.get(fleet.name) if healthy < found else None

        served = {one.uid: one.spec for one in in_force.served.values()}
        return (
            self._reports.tell(routes, in_force.confirms, served, draining, hosts),
            rejections(wanted.rejected),
        )

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _refused(self, wanted: Wanted, view: View) -> tuple[Route, ...]:
        """The routes one of which is why Envoy refused the newest update. They are held back at once, so that Envoy is
        to have what it takes, also if it starts anew."""
        in_force = self._versions.get(view.scopes)
        if view.scopes == self._scopes_version and view.clusters == self._clusters_version and in_force:
            self._accepted = set(in_force.confirms.items())
        clusters, scopes = view.clusters_refused, view.scopes_refused
        fleets = clusters.names if clusters is not None and clusters.version == self._clusters_version else frozenset()
        endpoints = scopes.names if scopes is not None and scopes.version == self._scopes_version else frozenset()
        if not fleets and not endpoints:
            return ()
        suspects = tuple(
            route
            for endpoint, route in wanted.routes.items()
            if route.key not in self._accepted
            and route.key not in self._held
            and (endpoint in endpoints or not fleets.isdisjoint(_cluster_names(route)))
        )
        self._held |= {route.key for route in suspects}
        return suspects

    def _forget_verdicts(self, wanted: Wanted, view: View) -> None:
        """Of generations that are neither there nor served any more."""
        if not self._cleared:
            return
        rejected = (route for route, _ in wanted.rejected)
        living = {route.key for route in (*wanted.routes.values(), *wanted.retired, *rejected)}
        accepted = self._versions.get(view.scopes, _Scopes()).served
        living |= {(one.uid, one.generation) for one in (*self.served.values(), *accepted.values())}
        self._cleared &= living
        self.bad = {key: reason for key, reason in self.bad.items() if key in living}

    def _note_active(self, view: View) -> None:
        """Which clusters Envoy uses; once in use, they stay so while they stand."""
        if view.clusters != self._clusters_version or self._noted == (view.clusters, view.warming):
            return
        self._noted = (view.clusters, view.warming)
        self._active = (self._active | (self._clusters.keys() - view.warming)) & self._clusters.keys()
        for standing in self._standing.values():
            names = cluster_names(standing.fleet)
            standing.used = standing.used or not self._active.isdisjoint(names)
            if standing.placed is not None and view.warming.isdisjoint(names):
                standing.hosts = len(standing.placed.hosts)

    def _note_healthy(self, view: View, activity: Activity) -> None:
        """How many pods pass the sample invocation, of clusters whose newest definition is in use. While one warms,
        Envoy asks all pods anew (clusters.Host.passed spares those that are asked once) and counts them in the gauge of
        the definition that serves meanwhile: none passes then, though all serve."""
        if not activity.known or view.clusters != self._clusters_version:
            return
        for name, standing in self._standing.items():
            if standing.fleet.sample is not None and view.warming.isdisjoint(cluster_names(standing.fleet)):
                standing.healthy = activity.healthy.get(name, 0)

    def _kept(self, wanted: Wanted, chosen: Mapping[str, Served], view: View) -> dict[str, Served]:
        """What stays in force of routes whose newest generation cannot be applied (now, or at all)."""
        stuck = {route.uid for route, _ in wanted.rejected} | {
            route.uid for route in wanted.routes.values() if route.key in self._held
        }
        kept: dict[str, Served] = {}
        if not stuck:
            return kept
        # Where it is the scope that was refused, what Envoy accepted before it.
        accepted = self._versions.get(view.scopes, _Scopes()).served
        for endpoint, served in (*self.served.items(), *accepted.items()):
            key = (served.uid, served.generation)
            if endpoint not in chosen and served.uid in stuck and key not in self.bad and key not in self._held:
                kept.setdefault(endpoint, served)
        return kept

    def _stand(
        self, chosen: Mapping[str, Served], kept: Mapping[str, Served], view: View, activity: Activity, now: float
    ) -> None:
        """Which fleets stand among the clusters: those of the routes to come, those of the routes that Envoy is to
        have now, and the others until it has these routes in force and no request to them is left. Of two definitions
        of one fleet the newer wins. A fleet is leaving as soon as the routes in force name it no more: what confirms
        these routes must tell that it drains, also while newer ones are on their way."""
        needed: set[str] = set()
        for served in (*chosen.values(), *kept.values(), *self.served.values()):
            spec = served.spec
            for fleet in fleets_of(spec):
                if fleet.name in needed:
                    continue
                needed.add(fleet.name)
                standing = self._standing.get(fleet.name)
                if standing is None:
                    self._standing[fleet.name] = Standing(spec.endpoint_name, fleet, spec.timeout_seconds)
                    self._noted = None
                else:
                    standing.stay(spec.endpoint_name, fleet, spec.timeout_seconds)
        others = self._standing.keys() - needed
        named = self._named(view) if others else frozenset()
        for name in others:
            standing = self._standing[name]
            if not standing.used:
                del self._standing[name]
                continue
            if named is None:
                continue
            if name in named:
                standing.leaving_since = None
                continue
            if standing.leaving_since is None:
                standing.leaving_since = now
            if view.scopes != self._scopes_version:
                continue  # what is on its way may name it
            since = now - standing.leaving_since
            idle = since >= LINGER_SECONDS and activity.known and not activity.running.get(name)
            # What runs for longer than an invocation may is a stream.
            if idle or since >= max(LONGEST_STREAM_SECONDS, standing.timeout_seconds) + GRACE_SECONDS:
                del self._standing[name]

    def _named(self, view: View) -> frozenset[str] | None:
        """The fleets that the routes in force name; None: nobody knows."""
        in_force = self._versions.get(view.scopes)
        if in_force is None:
            return None
        return frozenset(fleet.name for served in in_force.served.values() for fleet in fleets_of(served.spec))

    def _place(self, pods: PodsOf) -> bool:
        """Every fleet follows its pods. Whether the clusters may be others than before."""
        moved = False
        for name, standing in self._standing.items():
            passed = self._passed.get(cluster_names(standing.fleet)[0], frozenset()) if self._passed else frozenset()
            moved = standing.follow(pods(name), passed) or moved
        names = sum(len(standing.resources) for standing in self._standing.values())
        return moved or names != len(self._clusters)

    def _resources(self) -> dict[str, Resource]:
        return {item.name: item for standing in self._standing.values() for item in standing.resources}

    def _next_scopes(
        self,
        wanted: Wanted,
        chosen: Mapping[str, Served],
        kept: Mapping[str, Served],
        pods: PodsOf,
        activity: Activity,
    ) -> _Scopes:
        current = self._versions[self._scopes_version]
        next_ = _Scopes()
        for endpoint, served in (*chosen.items(), *kept.items()):
            before = current.served.get(endpoint)
            if before == served or self._may_serve(served, before, pods, activity):
                next_.served[endpoint] = served
            elif before is not None:
                next_.served[endpoint] = before
        for served in next_.served.values():
            next_.confirms[served.uid] = served.generation
        for route in wanted.retired:
            if all(served.uid != route.uid for served in next_.served.values()):
                next_.confirms[route.uid] = route.generation
        return next_

    def _may_serve(self, served: Served, before: Served | None, pods: PodsOf, activity: Activity) -> bool:
        """Whether Envoy uses all its clusters, and the fleets whose weight rises have pods to take it. Where nothing
        served before, there is nothing better to wait with."""
        for fleet in fleets_of(served.spec):
            if not self._active.issuperset(cluster_names(fleet)):
                return False
            if before is not None and fleet.require_ready:
                if not serving_pods(pods(fleet.name), fleet.excluded_pods):
                    return False
                if fleet.sample is not None and not activity.healthy.get(fleet.name):
                    return False
        return True

    def _scope(self, served: Served) -> Resource:
        key = (served.uid, served.generation)
        made = self._compiled.get(key)
        if made is None:
            made = self._compiled[key] = resource(compile_scope(served.spec, f"{served.uid}@{served.generation}"))
        return made


def _cluster_names(route: Route) -> tuple[str, ...]:
    fleets = fleets_of(route.spec) if route.spec is not None else ()
    return tuple(name for fleet in fleets for name in cluster_names(fleet))
