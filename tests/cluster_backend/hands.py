"""Hands that do in a bare control plane what the controllers, kubelet and the routers' agents do: Deployments get pods,
pods become ready, routers report the routes that they have seen."""

import asyncio
import itertools
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from tests.cluster_backend.objects import make_crashing, make_ready, pod_manifest, replica_set_manifest, replica_set_of

from sluice.api import names
from sluice.core.cluster.names import LABEL_FLEET, LABEL_ROUTER, ROUTER
from sluice.kube.client import KubeClient
from sluice.ports.kube import Conflict, Gone, Object

EVERY_SECONDS = 0.1
_names = itertools.count(1)


Place = tuple[str, str]
"""(namespace, name)."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """What stands, listed once a round."""

    deployments: dict[Place, Object]
    replica_sets: list[Object]
    pods: list[Object]
    routes: list[Object]
    reports: dict[Place, Object]
    of_fleet: dict[Place, list[Object]]
    """Namespace and fleet -> its pods."""


class Hands:
    """They work until `rest`; `bad_images` never become ready, `crashing_images` end again and again once routes name
    their fleet: until then every pass sees the same."""

    def __init__(self, kube: KubeClient, namespace: str | None) -> None:
        """Without a namespace: in all that are in `namespaces`, with as many listings as for one."""
        self._kube = kube
        self._namespace = namespace
        self._task: asyncio.Task[None] | None = None
        self.namespaces = {namespace} if namespace is not None else set()
        self.bad_images: set[str] = set()
        self.crashing_images: set[str] = set()
        self.reporting = True
        self.making_pods = True
        self.resting = False
        """They look at nothing meanwhile."""

    def work(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._work())

    async def rest(self) -> None:
        """End; a failure of theirs is the test's."""
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _work(self) -> None:
        while True:
            if self.resting:
                await asyncio.sleep(EVERY_SECONDS)
                continue
            with suppress(Gone):  # the kinds are not served yet
                sight = await self._look()
                for namespace in sorted(self.namespaces):
                    with suppress(Conflict, Gone):  # the operator writes at the same time
                        await self._fleets(namespace, sight)
                        await self._routers(namespace, sight)
            await asyncio.sleep(EVERY_SECONDS)

    async def _look(self) -> _Sight:
        deployments = await self._listed("Deployment")
        replica_sets = await self._listed("ReplicaSet")
        pods = await self._listed("Pod")
        of_fleet: dict[Place, list[Object]] = {}
        for pod in pods:
            if fleet := pod["metadata"]["labels"].get(LABEL_FLEET):
                of_fleet.setdefault((pod["metadata"]["namespace"], fleet), []).append(pod)
        return _Sight(
            deployments={_place(item): item for item in deployments},
            replica_sets=replica_sets,
            pods=pods,
            routes=await self._listed(names.ENDPOINT_ROUTE),
            reports={_place(item): item for item in await self._listed(names.ROUTER_REPORT)},
            of_fleet=of_fleet,
        )

    async def _fleets(self, namespace: str, sight: _Sight) -> None:
        deployments = {name: item for (space, name), item in sight.deployments.items() if space == namespace}
        uids = {item["metadata"]["uid"] for item in deployments.values()}
        standing = {item["metadata"]["uid"] for item in sight.replica_sets if _owner(item) in uids}
        pods = [pod for pod in _of(namespace, sight.pods) if LABEL_FLEET in pod["metadata"]["labels"]]
        for pod in pods:
            # Also where its Deployment has gone and come back since the last round, as the garbage collector does.
            if _owner(pod) not in standing:
                await self._kube.delete("Pod", namespace, pod["metadata"]["name"])
        for replicas in _of(namespace, sight.replica_sets):
            if _owner(replicas) not in uids:
                await self._kube.delete("ReplicaSet", namespace, replicas["metadata"]["name"])
        for name, deployment in deployments.items():
            if name == ROUTER:
                continue
            mine = [pod for pod in sight.of_fleet.get((namespace, name), []) if _owner(pod) in standing]
            wanted = deployment["spec"]["replicas"]
            for pod in mine[wanted:]:
                await self._kube.delete("Pod", namespace, pod["metadata"]["name"])
            for _ in range(wanted - len(mine) if self.making_pods else 0):
                await self._pod(deployment)
            if _image(deployment) in self.crashing_images and name in _routed(namespace, sight):
                for pod in mine:
                    if not pod["status"].get("containerStatuses"):
                        await make_crashing(self._kube, pod)

    async def _pod(self, deployment: Object) -> None:
        template, namespace = deployment["spec"]["template"], deployment["metadata"]["namespace"]
        name = f"{deployment['metadata']['name'][:50]}-{next(_names)}"
        labels = template["metadata"]["labels"]
        owner = await replica_set_of(self._kube, namespace, deployment["metadata"]["name"], labels)
        pod = pod_manifest(name, namespace, labels, owner)
        made = await self._kube.create("Pod", namespace, pod)
        if _image(deployment) not in self.bad_images | self.crashing_images:
            await make_ready(self._kube, made)

    async def _routers(self, namespace: str, sight: _Sight) -> None:
        deployment = sight.deployments.get((namespace, ROUTER))
        labels = {LABEL_ROUTER: ROUTER}
        pods = [pod for pod in _of(namespace, sight.pods) if LABEL_ROUTER in pod["metadata"]["labels"]]
        if deployment is None:
            for pod in pods:
                await self._kube.delete("Pod", namespace, pod["metadata"]["name"])
                await self._kube.delete(names.ROUTER_REPORT, namespace, pod["metadata"]["name"])
            return
        if not pods:
            number = next(_names)
            replicas = await self._kube.create(
                "ReplicaSet", namespace, replica_set_manifest(f"{ROUTER}-{number}", namespace, labels, deployment)
            )
            for index in range(deployment["spec"]["replicas"]):
                pod = pod_manifest(f"{ROUTER}-{number}-{index}", namespace, labels, replicas)
                await make_ready(self._kube, await self._kube.create("Pod", namespace, pod))
        if self.reporting:
            routes = [_entry(route, sight) for route in _of(namespace, sight.routes)]
            for pod in pods:
                await self._report(pod, routes, sight)

    async def _report(self, pod: Object, routes: list[Object], sight: _Sight) -> None:
        namespace, name = _place(pod)
        spec = {"podUID": pod["metadata"]["uid"], "schemaVersion": 1, "routes": routes, "rejected": []}
        found = sight.reports.get((namespace, name))
        if found is None:
            metadata = {"name": name, "namespace": namespace}
            body = {"apiVersion": names.API_VERSION, "kind": names.ROUTER_REPORT, "metadata": metadata, "spec": spec}
            await self._kube.create(names.ROUTER_REPORT, namespace, body)
        elif found["spec"]["routes"] != routes:
            await self._kube.replace(names.ROUTER_REPORT, namespace, {**found, "spec": spec})

    async def _listed(self, kind: str) -> list[Object]:
        return [
            item
            async for item in self._kube.list(kind, self._namespace)
            if item["metadata"]["namespace"] in self.namespaces
        ]


def _entry(route: Object, sight: _Sight) -> Object:
    """What a router says of an Endpoint's routes: the newest are in force, with all ready pods."""
    metadata = route["metadata"]
    fleets = []
    for fleet in route["spec"].get("fleets") or ():
        ready = sum(
            condition["type"] == "Ready" and condition["status"] == "True"
            for pod in sight.of_fleet.get((metadata["namespace"], fleet["name"]), ())
            for condition in pod["status"].get("conditions") or ()
        )
        fleets.append({"name": fleet["name"], "hosts": ready, "healthy": ready})
    return {
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": metadata["generation"],
        "fleets": fleets,
        "draining": [],
    }


def _image(deployment: Object) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def _routed(namespace: str, sight: _Sight) -> set[str]:
    """The fleets that routes name, with whatever weight."""
    return {fleet["name"] for route in _of(namespace, sight.routes) for fleet in route["spec"].get("fleets") or ()}


def _of(namespace: str, items: Iterable[Object]) -> list[Object]:
    return [item for item in items if item["metadata"]["namespace"] == namespace]


def _owner(item: Object) -> str | None:
    """The uid of its first owner."""
    owners = item["metadata"].get("ownerReferences") or ()
    return str(owners[0]["uid"]) if owners else None


def _place(item: Object) -> Place:
    return item["metadata"]["namespace"], item["metadata"]["name"]
