"""Looks at one Endpoint in the cluster: its fleets, its route, and the routers of its namespace.

Everything is read live: pods and routers come and go without the Endpoint, and a decision to take something down must
not rest on a memory. Only what changes by the week (zones, whether the router's Service is still there) is remembered
for a minute. Decides nothing."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sluice.api import names
from sluice.cluster import seen
from sluice.cluster.labels import MANAGED, ROUTERS, endpoint_selector, is_ours, is_retained
from sluice.cluster.problems import FAILURES, Failure, leaves, problem
from sluice.cluster.rendering import Rendering
from sluice.core.cluster.names import ANNOTATION_TEMPLATE, ROUTER
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.identity import Owner
from sluice.core.resolve import Resolution
from sluice.core.revision import StoredRevision
from sluice.ports.backend import ClusterSight
from sluice.ports.clock import Clock
from sluice.ports.kube import Forbidden, Kube, Object

REMEMBERED_SECONDS = 60.0
ZONE_LABEL = "topology.kubernetes.io/zone"

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
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._rendering = rendering
        self._neighbours = neighbours
        self._shifting = shifting
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._zones: tuple[float, _Zones] | None = None
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
                    namespace=group.create_task(self._kube.get("Namespace", "", owner.namespace)),
                    deployments=group.create_task(self._of_endpoint("Deployment", owner)),
                    of_fleets=group.create_task(self._of_endpoint("ReplicaSet", owner)),
                    pods=group.create_task(self._of_endpoint("Pod", owner)),
                    services=group.create_task(self._of_endpoint("Service", owner)),
                    records=group.create_task(self._of_endpoint("ConfigMap", owner)),
                    route=group.create_task(self._kube.get(names.ENDPOINT_ROUTE, owner.namespace, owner.name)),
                    routers=group.create_task(self._list("Deployment", owner.namespace, ROUTERS)),
                    replica_sets=group.create_task(self._list("ReplicaSet", owner.namespace, ROUTERS)),
                    router_pods=group.create_task(self._list("Pod", owner.namespace, ROUTERS)),
                    reports=group.create_task(self._list(names.ROUTER_REPORT, owner.namespace)),
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
        router = seen.find_router(looks.routers.result())
        complete, current = await self._judge_router(owner.namespace, router)
        namespace, route = looks.namespace.result(), looks.route.result()
        ours = [item for item in looks.deployments.result() if is_ours(item, owner)]
        router_pods = seen.router_pods(router, looks.replica_sets.result(), looks.router_pods.result())
        return ClusterObservation(
            fleets=seen.fleets(
                ours,
                looks.of_fleets.result(),
                looks.pods.result(),
                looks.records.result(),
                looks.services.result(),
                zones.of_node,
            ),
            route=seen.route(route) if route is not None else None,
            routers=seen.routers(router_pods, looks.reports.result(), owner.name),
            router=seen.router_deployment(
                router,
                complete=complete,
                current=current,
                held=await self._held(owner) if router is not None and not current else "",
            ),
            namespace_terminating=_is_terminating(namespace),
            neighbours=self._neighbours(owner.namespace, owner.name) + looks.retained.result(),
            zones=zones.schedulable,
            unknown_instance_types=self._rendering.unknown_instance_types(resolution.revision),
            templates=self._rendering.templates(owner, resolution.revision, stored),
        )

    async def _of_endpoint(self, kind: str, owner: Owner) -> list[Object]:
        return await self._list(kind, owner.namespace, endpoint_selector(owner.name))

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

    async def _held(self, owner: Owner) -> str:
        """Why the router may not be brought up to date now. Routers are replaced one namespace at a time."""
        if shifts := self._shifting(owner.namespace, owner.name):
            return f"Endpoint {shifts} shifts traffic"
        for namespace in self._namespaces:
            for other in await self._list("Deployment", namespace, ROUTERS):
                place = other["metadata"]["namespace"]
                if place != owner.namespace and other["metadata"]["name"] == ROUTER and seen.is_rolling(other):
                    return f"the router of namespace {place} is being replaced"
        return ""

    async def _judge_router(self, namespace: str, router: Mapping[str, Any] | None) -> tuple[bool, bool]:
        """(whether everything that belongs to a router stands, whether it is all as rendered). What stands beside the
        Deployment is believed for a minute once it was found as it should be."""
        if router is None:
            return False, False
        current = seen.is_current(router, self._rendering.router_template(namespace))
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
            nodes = await self._list("Node", None)
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
class _Looks:
    """The listings of one pass, under way side by side."""

    namespace: asyncio.Task[Object | None]
    deployments: asyncio.Task[list[Object]]
    of_fleets: asyncio.Task[list[Object]]
    pods: asyncio.Task[list[Object]]
    services: asyncio.Task[list[Object]]
    records: asyncio.Task[list[Object]]
    route: asyncio.Task[Object | None]
    routers: asyncio.Task[list[Object]]
    replica_sets: asyncio.Task[list[Object]]
    router_pods: asyncio.Task[list[Object]]
    reports: asyncio.Task[list[Object]]
    retained: asyncio.Task[int]
    zones: asyncio.Task[_Zones]


def _is_terminating(namespace: Object | None) -> bool:
    return namespace is None or (namespace.get("status") or {}).get("phase") == "Terminating"
