"""What nobody owns any more in the cluster: fleets, routes and routers whose Endpoint is gone although its finalizer
never ran to its end (somebody took it away), what a pass that was killed between two deletions left behind, and the
NetworkPolicies of fleets that went, once their pods are gone, too.

Nothing here is in a hurry. A policy goes where two sweeps found it without its fleet. Another orphan is one only after
it was found again and again for minutes, the API server itself says that there is no such Endpoint, and this process
holds the Lease. Its route is emptied first; its fleets go when the longest request could have ended. What
deletionPolicy Retain left (annotation sluice.dev/retained on the route) serves on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from sluice.api import names
from sluice.api.routes import LONGEST_STREAM_SECONDS, EndpointRouteSpec
from sluice.cluster import pods
from sluice.cluster.act import FLEET_KINDS, POLICY, delete_fleet, remove_router, write_route
from sluice.cluster.labels import MANAGED, fleet_of, installation_of, is_fleet, is_retained, owner_of
from sluice.cluster.observe import Neighbours
from sluice.core.cluster.names import LABEL_FLEET, LABEL_ROUTER, ROUTER, record_name
from sluice.core.identity import Owner
from sluice.ports.clock import Clock
from sluice.ports.kube import Conflict, Forbidden, Gone, Kube, KubeUnavailable, NotHeld, Object, Rejected

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 120.0
GRACE_SECONDS: Final = 600.0
AFTER_LONGEST_REQUEST_SECONDS: Final = 60.0
FAILURES: Final = (KubeUnavailable, Forbidden, Gone, Rejected, Conflict, NotHeld)

Place = tuple[str, ...]
"""(kind of orphan, namespace, name), of a policy also its UID: one that was made anew has just been found."""
Exists = Callable[[str, str], bool]
"""(namespace, name) -> whether the cache has this Endpoint."""
Sleep = Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class _Remains:
    """What is left of one Endpoint that is gone."""

    fleets: list[Object] = field(default_factory=list)
    route: Object | None = None


class OrphanSweep:
    """Looks every two minutes; remembers since when it has found what."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        *,
        installation_id: str,
        namespaces: tuple[str, ...],
        exists: Exists,
        neighbours: Neighbours,
        held: Callable[[], bool],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._installation_id = installation_id
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._exists = exists
        self._neighbours = neighbours
        self._held = held
        self._sleep = sleep
        self._since: dict[Place, float] = {}
        self._emptied: dict[Place, float] = {}

    async def run(self) -> None:
        """Sweep for ever."""
        while True:
            await self._sleep(EVERY_SECONDS)
            try:
                await self.once()
            except FAILURES as error:
                logger.warning("the sweep for orphans was given up: %s", error)

    async def once(self) -> None:
        """One sweep."""
        deployments = await self._list("Deployment", MANAGED)
        routes = await self._list(names.ENDPOINT_ROUTE, MANAGED)
        remains = self._remains(deployments, routes)
        beside = await self._beside({_place(item) for item in deployments})
        routers = self._lonely_routers(deployments, {item["metadata"]["namespace"] for item in routes})
        found: list[Place] = [("Endpoint", *place) for place in remains]
        for place, items in sorted(beside.items()):
            found += dict.fromkeys(_orphan(item, place) for item in items)
        found += [("router", namespace, ROUTER) for namespace in routers]
        for orphan in self._due(found):
            if not self._held():
                return
            try:
                await self._take_down(orphan, remains, beside)
            except FAILURES as error:  # what cannot be taken down here must not keep what lies elsewhere
                logger.warning("%s %s/%s is left for the next sweep: %s", *orphan[:3], error)

    async def _take_down(
        self, orphan: Place, remains: Mapping[tuple[str, str], _Remains], beside: Mapping[tuple[str, str], list[Object]]
    ) -> None:
        kind, namespace, name = orphan[:3]
        if kind == "Endpoint":
            await self._collect(namespace, name, remains[namespace, name])
        elif kind in ("fleet", "policy"):
            if await self._kube.get("Deployment", namespace, name) is not None:
                return  # made a moment ago: its Service must stay
            if kind == "policy" and await self._has_pods(namespace, name):
                return
            if kind == "fleet":
                logger.warning("collecting what is left of fleet %s/%s", namespace, name)
            for item in beside[namespace, name]:
                if _orphan(item, (namespace, name)) == orphan:
                    metadata = item["metadata"]
                    await self._kube.delete(item["kind"], namespace, metadata["name"], uid=metadata["uid"])
        elif not await self._routes(namespace):
            logger.warning("removing the router of namespace %s: no Endpoint needs it", namespace)
            await remove_router(self._kube, namespace)

    def _due(self, found: list[Place]) -> list[Place]:
        """Of what was found, what has been found for long enough."""
        now = self._clock.monotonic()
        self._since = {place: self._since.get(place, now) for place in found}
        self._emptied = {place: when for place, when in self._emptied.items() if place in self._since}
        grace = {"policy": EVERY_SECONDS}
        return [place for place in found if now - self._since[place] >= grace.get(place[0], GRACE_SECONDS)]

    async def _routes(self, namespace: str) -> bool:
        """Whether a namespace needs its router by now: what was listed may be minutes old."""
        if self._neighbours(namespace, ""):
            return True
        async for endpoint in self._kube.list(names.ENDPOINT, namespace):
            if endpoint["spec"].get("backend") == names.BACKEND_CLUSTER:
                return True  # the cache is behind
        async for _ in self._kube.list_metadata(names.ENDPOINT_ROUTE, namespace, MANAGED):
            return True
        return False

    async def _has_pods(self, namespace: str, fleet: str) -> bool:
        """Whether pods of a fleet run, be it on their way out."""
        async for pod in self._kube.list("Pod", namespace, f"{LABEL_FLEET}={fleet}"):
            if not pods.is_finished(pod):
                return True
        return False

    def _remains(self, deployments: list[Object], routes: list[Object]) -> dict[tuple[str, str], _Remains]:
        """Fleets and routes of Endpoints that the cache does not have, unless they were retained."""
        retained = {owner_of(route) for route in routes if is_retained(route)}
        found: dict[tuple[str, str], _Remains] = {}
        for item in (*filter(is_fleet, deployments), *routes):
            owner = owner_of(item)
            if owner is None or owner in retained or not self._is_ours(item) or self._exists(*owner):
                continue
            left = found.setdefault(owner, _Remains())
            if item["kind"] == names.ENDPOINT_ROUTE:
                left.route = item
            else:
                left.fleets.append(item)
        return found

    async def _beside(self, fleets: set[tuple[str, str]]) -> dict[tuple[str, str], list[Object]]:
        """What is left of fleets of which only Services and the like are. A label is what anybody can write: what does
        not bear the name that it would have, or says that it belongs elsewhere, is none of a fleet's."""
        found: dict[tuple[str, str], list[Object]] = {}
        for kind in (*FLEET_KINDS, "ConfigMap"):
            for item in await self._list(kind, MANAGED):
                fleet = fleet_of(item)
                namespace, name = _place(item)
                named = name == (record_name(fleet) if kind == "ConfigMap" else fleet)
                ours = self._is_ours(item) and owner_of(item) is not None
                if fleet and named and ours and (namespace, fleet) not in fleets:
                    found.setdefault((namespace, fleet), []).append(item)
        return found

    def _lonely_routers(self, deployments: list[Object], routed: set[str]) -> list[str]:
        """Namespaces with a router, without a Cluster Endpoint and without a route."""
        return sorted(
            namespace
            for namespace, name in (_place(item) for item in deployments if _is_router(item) and self._is_ours(item))
            if name == ROUTER and namespace not in routed and not self._neighbours(namespace, "")
        )

    async def _collect(self, namespace: str, name: str, left: _Remains) -> None:
        """Empty the route, wait as long as a request may take, take down what stood behind it."""
        if await self._kube.get(names.ENDPOINT, namespace, name) is not None:
            return  # the cache is behind
        place, owner = ("Endpoint", namespace, name), Owner(self._installation_id, namespace, name)
        if left.route is not None and place not in self._emptied:
            logger.warning("Endpoint %s/%s is gone: emptying the route that it left", namespace, name)
            await self._empty(owner)
            self._emptied[place] = self._clock.monotonic()
            return
        if left.route is not None and self._clock.monotonic() - self._emptied[place] < await self._patience(left.route):
            return
        for fleet in left.fleets:
            logger.warning("Endpoint %s/%s is gone: deleting fleet %s", namespace, name, fleet["metadata"]["name"])
            await delete_fleet(self._kube, owner, fleet["metadata"]["name"], fleet["metadata"]["uid"])
        if left.route is not None:
            await self._kube.delete(names.ENDPOINT_ROUTE, namespace, name, uid=left.route["metadata"]["uid"])

    async def _empty(self, owner: Owner) -> None:
        live = await self._kube.get(names.ENDPOINT_ROUTE, owner.namespace, owner.name)
        if live is None:
            return
        spec = _spec(live)
        if spec.fleets or spec.shadows:
            emptied = spec.model_copy(update={"fleets": (), "shadows": ()})
            await write_route(self._kube, owner, emptied, live["metadata"]["resourceVersion"])

    async def _patience(self, route: Object) -> float:
        live = await self._kube.get(names.ENDPOINT_ROUTE, *_place(route))
        longest = max(LONGEST_STREAM_SECONDS, _spec(live).timeout_seconds) if live is not None else 0
        return AFTER_LONGEST_REQUEST_SECONDS + longest

    def _is_ours(self, item: Object) -> bool:
        return installation_of(item) == self._installation_id

    async def _list(self, kind: str, selector: str) -> list[Object]:
        found: list[Object] = []
        for namespace in self._namespaces:
            found += [item async for item in self._kube.list_metadata(kind, namespace, selector)]
        return found


def _orphan(item: Object, fleet: tuple[str, str]) -> Place:
    """As which orphan something is collected that stands beside no fleet any more."""
    return ("policy", *fleet, str(item["metadata"]["uid"])) if item["kind"] == POLICY else ("fleet", *fleet)


def _place(item: Object) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _is_router(item: Object) -> bool:
    return (item["metadata"].get("labels") or {}).get(LABEL_ROUTER) == ROUTER


def _spec(route: Object) -> EndpointRouteSpec:
    try:
        return EndpointRouteSpec.from_manifest(route["spec"])
    except (KeyError, ValidationError):
        return EndpointRouteSpec(endpoint_name=str(route["metadata"]["name"])[:63])
