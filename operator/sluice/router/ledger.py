"""What stands in Envoy's two files, what Envoy has of it in force, and what is to be written next. No I/O.

The order that loses nothing: new clusters first; a route only when every cluster that it names is in use in Envoy; a
cluster goes only when the routes in force do not name it any more and no request to it is running. Each endpoint moves
by itself: one that waits or is refused holds up no other.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sluice.api.routes import EndpointRouteSpec, FleetReport, RejectedRoute, RouteFleet, RouteModel, RouteReport
from sluice.router.admin import Activity, View
from sluice.router.clusters import Host, cluster_names, compile_fleet, dumps
from sluice.router.objects import Pod, Route, serving_pods
from sluice.router.routes import compile_scope
from sluice.router.wanted import Wanted

Key = tuple[str, int]
"""Whose route (uid), which generation."""
PodsOf = Callable[[str], tuple[Pod, ...]]

LINGER_SECONDS: Final = 1.0
"""A worker may take up a request on the old route for a moment after the main thread has confirmed the new one."""
GRACE_SECONDS: Final = 5.0
_REMEMBERED: Final = 8
EMPTY_VERSION: Final = "empty"
"""Of the files that stand before the first routes were read."""


@dataclass(frozen=True, slots=True)
class Served:
    """One endpoint as a scopes file has it."""

    uid: str
    name: str
    generation: int
    spec: EndpointRouteSpec


@dataclass(frozen=True, slots=True)
class _Cluster:
    """One cluster as the clusters file has it."""

    definition: str
    """Without what was known about pods that passed the sample invocation."""
    text: str


@dataclass(slots=True)
class _Standing:
    """A fleet in the clusters file."""

    endpoint_name: str
    fleet: RouteFleet
    timeout_seconds: int
    addresses: tuple[str, ...] | None = None
    """The pods that it was compiled with."""
    clusters: tuple[_Cluster, ...] = ()
    used: bool = False
    """Envoy has had it in use, so requests may have come to it."""
    leaving_since: float | None = None
    """No route in force names it since then."""


@dataclass(slots=True)
class _Scopes:
    """One version of the scopes file."""

    served: dict[str, Served] = field(default_factory=dict)
    confirms: dict[str, int] = field(default_factory=dict)
    """Route uid -> the generation that is in force when this version is."""


@dataclass(frozen=True, slots=True)
class Write:
    """A file to write, and what it is called in Envoy."""

    version: str
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now; at most one file a step."""

    clusters: Write | None = None
    scopes: Write | None = None
    suspects: tuple[Route, ...] = ()
    """Envoy refused a file: one of these routes is why. They are held back until it is known which."""


class Ledger:
    """The agent's memory. `step` is called whenever something changed, with what Envoy says."""

    def __init__(self) -> None:
        self.bad: dict[Key, str] = {}
        self._held: set[Key] = set()
        self._cleared: set[Key] = set()
        self._accepted: set[Key] = set()
        self._standing: dict[str, _Standing] = {}
        self._clusters: dict[str, _Cluster] = {}
        self._clusters_version = EMPTY_VERSION
        self._clusters_refused = 0
        self._active: set[str] = set()
        self._scopes_version = EMPTY_VERSION
        self._scopes_refused = 0
        self._versions: dict[str, _Scopes] = {EMPTY_VERSION: _Scopes()}
        self._passed: dict[str, frozenset[str]] = {}
        self._compiled: dict[Key, str] = {}

    # -- the file's state survives a restart of the agent -------------------------------------------------------------

    def restore(self, clusters_text: str, scopes_text: str, state: Mapping[str, Any]) -> None:
        """Go on from the files of an earlier process. Files and state that do not fit each other are left as they are
        until a consistent read replaces them."""
        clusters, scopes = json.loads(clusters_text), json.loads(scopes_text)
        self._clusters_version = clusters["version_info"]
        self._clusters = {item["name"]: _Cluster(_definition(item), dumps(item)) for item in clusters["resources"]}
        self._scopes_version = scopes["version_info"]
        for version, told in state.get("scopes", {}).items():
            self._versions[version] = _Scopes(
                {
                    endpoint: Served(
                        item["uid"], item["name"], item["generation"], EndpointRouteSpec.model_validate(item["spec"])
                    )
                    for endpoint, item in told["served"].items()
                },
                dict(told["confirms"]),
            )
        self._versions.setdefault(self._scopes_version, _Scopes())
        for told in state.get("standing", ()):
            fleet = RouteFleet.model_validate(told["fleet"])
            # Whether it is leaving is found out anew: the clock of the earlier process means nothing here.
            self._standing[fleet.name] = _Standing(told["endpoint_name"], fleet, told["timeout_seconds"], used=True)

    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the two files."""
        kept = list(self._versions)[-2:]
        return {
            "scopes": {
                version: {
                    "served": {
                        endpoint: {
                            "uid": served.uid,
                            "name": served.name,
                            "generation": served.generation,
                            "spec": _plain(served.spec),
                        }
                        for endpoint, served in self._versions[version].served.items()
                    },
                    "confirms": self._versions[version].confirms,
                }
                for version in kept
            },
            "standing": [
                {
                    "endpoint_name": standing.endpoint_name,
                    "fleet": _plain(standing.fleet),
                    "timeout_seconds": standing.timeout_seconds,
                }
                for standing in self._standing.values()
            ],
        }

    # -- deciding ------------------------------------------------------------------------------------------------------

    def step(self, wanted: Wanted, pods: PodsOf, view: View, activity: Activity, now: float) -> Step:
        """The next file to write, if there is one."""
        suspects = self._refused(wanted, view)
        self._note_active(view)
        chosen = {
            endpoint: Served(route.uid, route.name, route.generation, route.spec)
            for endpoint, route in wanted.routes.items()
            if route.spec is not None and route.key not in self._held
        }
        kept = self._kept(wanted, chosen)
        self._stand(chosen, kept, view, activity, now)
        clusters = self._compile_clusters(pods)
        if clusters != self._clusters:
            self._clusters = clusters
            version = _version(cluster.text for cluster in clusters.values())
            if version != self._clusters_version:
                self._clusters_version = version
                self._active &= clusters.keys()
                return Step(clusters=_write(version, [c.text for c in clusters.values()]), suspects=suspects)
        scopes = self._next_scopes(wanted, chosen, kept, pods, activity)
        current = self._versions[self._scopes_version]
        if scopes.served == current.served and self._scopes_version != EMPTY_VERSION:
            current.confirms = scopes.confirms
            return Step(suspects=suspects)
        texts = [self._scope_text(scopes.served[endpoint]) for endpoint in sorted(scopes.served)]
        version = _version(texts)
        self._versions.pop(version, None)
        self._versions[version] = scopes
        self._scopes_version = version
        while len(self._versions) > _REMEMBERED:
            del self._versions[next(iter(self._versions))]
        return Step(scopes=_write(version, texts), suspects=suspects)

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
        """Whether Envoy has both files in force."""
        return view.clusters == self._clusters_version and view.scopes == self._scopes_version and not view.warming

    def sampled(self) -> bool:
        """Whether a fleet is asked once, so that it is worth knowing which pods have passed."""
        return any(
            fleet.sample is not None and fleet.sample.period_seconds is None
            for served in self._versions[self._scopes_version].served.values()
            for fleet in _fleets(served.spec)
        )

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
        self, wanted: Wanted, routes: Iterable[Route], view: View, activity: Activity
    ) -> tuple[tuple[RouteReport, ...], tuple[RejectedRoute, ...]]:
        """What of the existing routes is in force, and what was refused."""
        scopes = self._versions.get(view.scopes)
        reports = []
        for route in sorted(routes, key=lambda route: route.name):
            generation = scopes.confirms.get(route.uid) if scopes else None
            if scopes is None or generation is None:
                continue
            served = next((item for item in scopes.served.values() if item.uid == route.uid), None)
            fleets = _fleets(served.spec) if served else ()
            endpoint = served.spec.endpoint_name if served else (route.spec.endpoint_name if route.spec else "")
            reports.append(
                RouteReport(
                    name=route.name,
                    uid=route.uid,
                    generation=generation,
                    fleets=tuple(_fleet_report(fleet, activity) for fleet in fleets),
                    draining=tuple(
                        sorted(
                            standing.fleet.name
                            for standing in self._standing.values()
                            if standing.endpoint_name == endpoint and standing.leaving_since is not None
                        )
                    ),
                )
            )
        rejected = tuple(
            RejectedRoute(name=route.name, uid=route.uid, generation=route.generation, message=reason[:1024])
            for route, reason in sorted(wanted.rejected, key=lambda item: item[0].name)
        )
        return tuple(reports), rejected

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _refused(self, wanted: Wanted, view: View) -> tuple[Route, ...]:
        """The routes one of which is why Envoy refused the newest file. They are held back at once, so that the file
        that stands is one that Envoy takes, also if it starts anew."""
        in_force = self._versions.get(view.scopes)
        if view.scopes == self._scopes_version and view.clusters == self._clusters_version and in_force:
            self._accepted |= set(in_force.confirms.items())
        if not view.counted:
            return ()
        clusters = view.clusters != self._clusters_version and view.clusters_refused > self._clusters_refused
        scopes = view.scopes != self._scopes_version and view.scopes_refused > self._scopes_refused
        # What was refused up to now is judged below or was replaced since; and Envoy counts from zero when it starts.
        self._clusters_refused, self._scopes_refused = view.clusters_refused, view.scopes_refused
        if not clusters and not scopes:
            return ()
        suspects = tuple(
            route for route in wanted.routes.values() if route.key not in self._accepted and route.key not in self._held
        )
        self._held |= {route.key for route in suspects}
        return suspects

    def _note_active(self, view: View) -> None:
        """Which clusters Envoy uses; once in use, they stay so while they stand."""
        if view.clusters != self._clusters_version:
            return
        self._active = (self._active | (self._clusters.keys() - view.warming)) & self._clusters.keys()
        for standing in self._standing.values():
            standing.used = standing.used or not self._active.isdisjoint(cluster_names(standing.fleet))

    def _kept(self, wanted: Wanted, chosen: Mapping[str, Served]) -> dict[str, Served]:
        """What stays in force of routes whose newest generation cannot be applied (now, or at all)."""
        current = self._versions[self._scopes_version].served
        stuck = {route.uid for route, _ in wanted.rejected} | {
            route.uid for route in wanted.routes.values() if route.key in self._held
        }
        return {
            endpoint: served
            for endpoint, served in current.items()
            if endpoint not in chosen
            and served.uid in stuck
            and (served.uid, served.generation) not in self.bad
            and (served.uid, served.generation) not in self._held
        }

    def _stand(
        self, chosen: Mapping[str, Served], kept: Mapping[str, Served], view: View, activity: Activity, now: float
    ) -> None:
        """Which fleets stand in the clusters file: those of the routes to come, those of the routes in the scopes file,
        and the others until Envoy has these routes in force and no request to them is left. Of two definitions of one
        fleet the newer wins."""
        current = self._versions[self._scopes_version].served
        needed: dict[str, _Standing] = {}
        for served in (*chosen.values(), *kept.values(), *current.values()):
            for fleet in _fleets(served.spec):
                if fleet.name not in needed:
                    needed[fleet.name] = _Standing(served.spec.endpoint_name, fleet, served.spec.timeout_seconds)
        for name, standing in needed.items():
            before = self._standing.get(name)
            if before is None or before.fleet is not standing.fleet:
                standing.used = before is not None and before.used
                self._standing[name] = standing
            else:
                before.leaving_since = None
                before.timeout_seconds = standing.timeout_seconds
        for name in self._standing.keys() - needed.keys():
            standing = self._standing[name]
            if not standing.used:
                del self._standing[name]
                continue
            if view.scopes != self._scopes_version:
                continue
            if standing.leaving_since is None:
                standing.leaving_since = now
            since = now - standing.leaving_since
            idle = since >= LINGER_SECONDS and activity.known and not activity.running.get(name)
            if idle or since >= standing.timeout_seconds + GRACE_SECONDS:
                del self._standing[name]

    def _compile_clusters(self, pods: PodsOf) -> dict[str, _Cluster]:
        """The clusters file. A fleet that did not change is not compiled again."""
        made: dict[str, _Cluster] = {}
        for name in sorted(self._standing):
            standing = self._standing[name]
            fleet = standing.fleet
            addresses = tuple(pod.address for pod in serving_pods(pods(name), fleet.excluded_pods))
            if standing.addresses != addresses:
                standing.clusters = self._compile(standing, addresses)
                standing.addresses = addresses
            made |= zip(cluster_names(fleet), standing.clusters, strict=True)
        return made

    def _compile(self, standing: _Standing, addresses: tuple[str, ...]) -> tuple[_Cluster, ...]:
        fleet = standing.fleet
        names = cluster_names(fleet)
        plain = compile_fleet(standing.endpoint_name, fleet, [Host(address) for address in addresses])
        definitions = [dumps(item) for item in plain]
        known = [self._clusters.get(name) for name in names]
        if all(c is not None and c.definition == d for c, d in zip(known, definitions, strict=True)):
            # An earlier process wrote the same, but for what it knew of pods that had passed.
            return tuple(cluster for cluster in known if cluster is not None)
        passed = self._passed.get(names[0], frozenset())
        hosts = [Host(address, address in passed) for address in addresses]
        texts = [dumps(item) for item in compile_fleet(standing.endpoint_name, fleet, hosts)] if passed else definitions
        return tuple(_Cluster(d, t) for d, t in zip(definitions, texts, strict=True))

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
        for fleet in _fleets(served.spec):
            if not self._active.issuperset(cluster_names(fleet)):
                return False
            if before is not None and fleet.require_ready:
                if not serving_pods(pods(fleet.name), fleet.excluded_pods):
                    return False
                if fleet.sample is not None and not activity.healthy.get(fleet.name):
                    return False
        return True

    def _scope_text(self, served: Served) -> str:
        key = (served.uid, served.generation)
        text = self._compiled.get(key)
        if text is None:
            for old in [known for known in self._compiled if known[0] == served.uid]:
                del self._compiled[old]
            text = self._compiled[key] = dumps(compile_scope(served.spec, f"{served.uid}@{served.generation}"))
        return text


def _fleets(spec: EndpointRouteSpec) -> tuple[RouteFleet, ...]:
    return spec.fleets + tuple(shadow.fleet for shadow in spec.shadows)


def _plain(model: RouteModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _fleet_report(fleet: RouteFleet, activity: Activity) -> FleetReport:
    hosts = activity.hosts.get(fleet.name, 0)
    healthy = hosts if fleet.sample is None else activity.healthy.get(fleet.name, 0)
    return FleetReport(name=fleet.name, hosts=hosts, healthy=healthy)


def _definition(item: Mapping[str, Any]) -> str:
    """A cluster of the file without what was known about pods that passed."""
    plain = json.loads(json.dumps(item))
    for locality in plain["load_assignment"]["endpoints"]:
        for host in locality["lb_endpoints"]:
            host["endpoint"].pop("health_check_config", None)
    return dumps(plain)


def _version(texts: Iterable[str]) -> str:
    """Equal content is the same version, also to the next process."""
    found = hashlib.sha256()
    for text in texts:
        found.update(text.encode())
        found.update(b"\n")
    return found.hexdigest()[:16]


def _write(version: str, texts: list[str]) -> Write:
    return Write(version, f'{{"version_info":"{version}","resources":[{",".join(texts)}]}}\n')
