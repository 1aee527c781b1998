"""Looks at one Endpoint in the cluster: its fleets, its route, and the routers of its namespace.

What moves is read live: pods and routers come and go without the Endpoint, and a decision to take something down must
not rest on a memory. Passes that look at the same time share these reads. Only what changes by the week (zones, whether
the router's Service is still there) or never in a fleet's life (its Service, its record, whose its ReplicaSets are) is
remembered for a minute. Decides nothing."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sluice.api import names
from sluice.cluster import seen
from sluice.cluster.labels import MANAGED, ROUTERS, endpoint_selector, is_fleet, is_ours, is_retained
from sluice.cluster.problems import FAILURES, Failure, leaves, problem
from sluice.cluster.remembered import REMEMBERED_SECONDS, Remembered
from sluice.cluster.rendering import Rendering
from sluice.cluster.shared import SharedReads
from sluice.cluster.turns import Holdups, RouterTurns
from sluice.core.cluster.names import ANNOTATION_TEMPLATE, ROUTER
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.identity import Owner
from sluice.core.resolve import Resolution
from sluice.core.revision import StoredRevision
from sluice.ports.backend import ClusterSight
from sluice.ports.clock import Clock
from sluice.ports.kube import Forbidden, Kube, Object

ZONE_LABEL = "topology.kubernetes.io/zone"
ROLLING_SECONDS = 5.0

Neighbours = Callable[[str, str], int]
"""(namespace, Endpoint) -> how many other Cluster Endpoints the namespace has."""


@dataclass(frozen=True, slots=True)
class _Zones:
    """The zones of the cluster's nodes; empty where they may not be read or carry none."""

    of_node: Mapping[str, str]
    schedulable: int


Shifting = Callable[[str, str], str]
"""(namespace, Endpoint) -> another Cluster Endpoint of the namespace whose traffic is being moved, or ""."""


class Observer:
    """Answers what one pass needs to know."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        rendering: Rendering,
        neighbours: Neighbours,
        *,
        shifting: Shifting = lambda _namespace, _name: "",
        namespaces: tuple[str, ...] = (),
        turns: RouterTurns | None = None,
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._rendering = rendering
        self._neighbours = neighbours
        self._shifting = shifting
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._shared = SharedReads(kube)
        self._remembered = Remembered(clock)
        self._zones: tuple[float, _Zones] | None = None
        self._turns = turns or RouterTurns()
        self._holdups = Holdups(clock)
        self._rolling: tuple[float, str] | None = None
        """When a router was last found being replaced, and its namespace."""
        self._complete: dict[str, tuple[float, str]] = {}
        """Namespace -> when what stands beside its router was found as it should be, and the Deployment's UID."""

    async def observe(
        self, endpoint: Mapping[str, Any], resolution: Resolution, stored: tuple[StoredRevision, ...]
    ) -> ClusterSight:
        """See ports.backend.ClusterBackend."""
        owner = resolution.owner
        deleting = bool(endpoint["metadata"].get("deletionTimestamp"))
        failures: list[Failure] = []
        try:
            async with asyncio.TaskGroup() as group:
                looks = _Looks(
                    terminating=group.create_task(self._is_terminating(owner.namespace, deleting=deleting)),
                    fleets=group.create_task(self._find_fleets(owner)),
                    route=group.create_task(
                        self._shared.named_after(names.ENDPOINT_ROUTE, owner.namespace, owner.name)
                    ),
                    router=group.create_task(self._find_router(owner.namespace)),
                    reports=group.create_task(self._shared.selected(names.ROUTER_REPORT, owner.namespace)),
                    retained=group.create_task(self._retained(owner, deleting=deleting)),
                    zones=group.create_task(self._find_zones()),
                )
            return ClusterSight(await self._assemble(owner, resolution, stored, looks))
        except* FAILURES as raised:
            failures = [*leaves(raised)]
        return ClusterSight(problem=problem("ListFleets", failures[0]))

    async def _assemble(
        self, owner: Owner, resolution: Resolution, stored: tuple[StoredRevision, ...], looks: "_Looks"
    ) -> ClusterObservation:
        zones = looks.zones.result()
        router, router_pods = looks.router.result()
        complete, current = await self._judge_router(owner.namespace, router)
        held, held_by = await self._held(owner, router) if router is not None and not current else ("", "")
        route, fleets = looks.route.result(), looks.fleets.result()
        return ClusterObservation(
            fleets=seen.fleets(
                fleets.deployments, fleets.replica_sets, fleets.pods, fleets.records, fleets.services, zones.of_node
            ),
            route=seen.route(route) if route is not None else None,
            routers=seen.routers(router_pods, looks.reports.result(), owner.name),
            router=seen.router_deployment(
                router,
                complete=complete,
                current=current,
                held=held,
                held_by=held_by,
            ),
            namespace_terminating=looks.terminating.result(),
            neighbours=self._neighbours(owner.namespace, owner.name) + looks.retained.result(),
            zones=zones.schedulable,
            unknown_instance_types=self._rendering.unknown_instance_types(resolution.revision),
            templates=self._rendering.templates(owner, resolution.revision, stored),
        )

    async def _is_terminating(self, namespace: str, *, deleting: bool) -> bool:
        """Whether the namespace goes: that deletes its Endpoints first, so that only then it matters."""
        if not deleting:
            return False
        found = await self._kube.get("Namespace", "", namespace)
        return found is None or (found.get("status") or {}).get("phase") == "Terminating"

    async def _find_fleets(self, owner: Owner) -> "_Fleets":
        selector = endpoint_selector(owner.name)
        deployments, pods = await asyncio.gather(
            self._shared.of_endpoint("Deployment", owner.namespace, owner.name),
            self._shared.of_endpoint("Pod", owner.namespace, owner.name),
        )
        ours = [item for item in deployments if is_fleet(item) and is_ours(item, owner)]
        named = {item["metadata"]["name"] for item in ours}

        async def beside(kind: str, explains: Callable[[list[Object]], bool]) -> list[Object]:
            return await self._remembered.list(
                (kind, owner.namespace, selector),
                lambda: self._shared.of_endpoint(kind, owner.namespace, owner.name),
                deployments=[item["metadata"]["uid"] for item in ours],
                explains=explains,
            )

        replica_sets, services, records = await asyncio.gather(
            beside("ReplicaSet", lambda known: seen.explain(known, pods)),
            beside("Service", lambda known: named <= seen.standing(known)),
            beside("ConfigMap", lambda known: named <= seen.by_fleet(known).keys()),
        )
        return _Fleets(ours, pods, replica_sets, services, records)

    async def _find_router(self, namespace: str) -> tuple[Mapping[str, Any] | None, tuple[Mapping[str, Any], ...]]:
        """(the router's Deployment, its pods)."""
        deployments, pods = await asyncio.gather(
            self._shared.selected("Deployment", namespace, ROUTERS),
            self._shared.selected("Pod", namespace, ROUTERS),
        )
        router = seen.find_router(deployments)
        if router is None:
            return None, ()
        replica_sets = await self._remembered.list(
            ("ReplicaSet", namespace, ROUTERS),
            lambda: self._shared.selected("ReplicaSet", namespace, ROUTERS),
            deployments=[router["metadata"]["uid"]],
            explains=lambda known: seen.explain(known, pods),
        )
        return router, seen.router_pods(router, replica_sets, pods)

    async def _list(self, kind: str, namespace: str | None, selector: str = "") -> list[Object]:
        return [item async for item in self._kube.list(kind, namespace, selector)]

    async def _retained(self, owner: Owner, *, deleting: bool) -> int:
        """How many other routes of the namespace serve on for Endpoints that are gone: they need the router too. It
        matters to who may be the last to go."""
        found = 0
        if not deleting:
            return found
        async for item in self._kube.list_metadata(names.ENDPOINT_ROUTE, owner.namespace, MANAGED):
            found += item["metadata"]["name"] != owner.name and is_retained(item)
        return found

    async def _held(self, owner: Owner, router: Mapping[str, Any]) -> tuple[str, str]:
        """(why the router may not be brought up to date now, the other namespace if one is why). Routers are replaced
        one namespace at a time; one that is being replaced already has its turn, also where another one is, too: two
        that are stuck would wait for each other, and what mends them reach neither."""
        if shifts := self._shifting(owner.namespace, owner.name):
            return f"Endpoint {shifts} shifts traffic", ""
        since = self._turns.written
        place = None if seen.has_two_templates(router) else await self._find_rolling(owner.namespace)
        self._turns.looked(owner.namespace, since=since, free=place is None)
        if place is None:
            return "", ""
        self._holdups.found(place, waiting=owner.namespace)
        return f"the router of namespace {place} is being replaced", place

    async def _find_rolling(self, namespace: str) -> str | None:
        """Another namespace whose router is being replaced. Once found it is believed for some seconds: every Endpoint
        of every namespace asks while an upgrade goes on."""
        now = self._clock.monotonic()
        if self._rolling is not None and self._rolling[1] != namespace and now - self._rolling[0] < ROLLING_SECONDS:
            return self._rolling[1]
        for watched in self._namespaces:
            for other in await self._list("Deployment", watched, ROUTERS):
                place = str(other["metadata"]["namespace"])
                if place == namespace or other["metadata"]["name"] != ROUTER:
                    continue
                if seen.is_rolling(other, self._rendering.router_template(place)):
                    self._rolling = (now, place)
                    return place
        return None

    async def _judge_router(self, namespace: str, router: Mapping[str, Any] | None) -> tuple[bool, bool]:
        """(whether everything that belongs to a router stands, whether it is all as rendered). What stands beside the
        Deployment is believed for a minute once it was found as it should be."""
        if router is None:
            return False, False
        current = seen.is_current(router, self._rendering.router_template(namespace), self._rendering.router_replicas)
        uid, now = str(router["metadata"]["uid"]), self._clock.monotonic()
        known = self._complete.get(namespace)
        if known is not None and known[1] == uid and now - known[0] < REMEMBERED_SECONDS:
            return True, current
        wanted = {
            item["kind"]: item["metadata"]["annotations"].get(ANNOTATION_TEMPLATE)
            for item in self._rendering.router(namespace)
            if item["kind"] != "Deployment"
        }
        found = await asyncio.gather(*(self._kube.get(kind, namespace, ROUTER) for kind in wanted))
        # Namespaces come and go.
        self._complete = {place: one for place, one in self._complete.items() if now - one[0] < REMEMBERED_SECONDS}
        self._complete.pop(namespace, None)
        standing = [item for item in found if item is not None]
        if len(standing) < len(wanted):
            return False, current
        if not all(seen.is_current(item, template) for item, template in zip(standing, wanted.values(), strict=True)):
            return True, False
        self._complete[namespace] = (now, uid)
        return True, current

    async def _find_zones(self) -> _Zones:
        now = self._clock.monotonic()
        if self._zones is not None and now - self._zones[0] < REMEMBERED_SECONDS:
            return self._zones[1]
        try:
            # Shared: when the memory ends, all passes under way want them, and they are the largest listing of all.
            nodes = await self._shared.selected("Node", "")
        except Forbidden:
            nodes = []  # an operator of single namespaces may not read nodes: zones are unknown then
        of_node = {
            node["metadata"]["name"]: labels[ZONE_LABEL]
            for node in nodes
            for labels in (node["metadata"].get("labels") or {},)
            if labels.get(ZONE_LABEL)
        }
        open_nodes = (node["metadata"]["name"] for node in nodes if not node["spec"].get("unschedulable"))
        found = _Zones(of_node, len({of_node[name] for name in open_nodes if name in of_node}))
        self._zones = (now, found)
        return found


@dataclass(frozen=True, slots=True)
class _Fleets:
    """The Endpoint's Deployments and what stands beside them."""

    deployments: list[Object]
    pods: list[Object]
    replica_sets: list[Object]
    services: list[Object]
    records: list[Object]


@dataclass(frozen=True, slots=True)
class _Looks:
    """What one pass asks, under way side by side."""

    terminating: asyncio.Task[bool]
    fleets: asyncio.Task[_Fleets]
    route: asyncio.Task[Object | None]
    router: asyncio.Task[tuple[Mapping[str, Any] | None, tuple[Mapping[str, Any], ...]]]
    reports: asyncio.Task[list[Object]]
    retained: asyncio.Task[int]
    zones: asyncio.Task[_Zones]
