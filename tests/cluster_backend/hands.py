"""Hands that do in a bare control plane what the controllers, kubelet and the routers' agents do: Deployments get pods,
pods become ready, routers report the routes that they have seen."""

import asyncio
import itertools
from contextlib import suppress

from tests.cluster_backend.objects import make_ready, pod_manifest, replica_set_manifest, replica_set_of

from sluice.api import names
from sluice.core.cluster.names import LABEL_FLEET, LABEL_ROUTER, ROUTER
from sluice.kube.client import KubeClient
from sluice.ports.kube import Conflict, Gone, Object

EVERY_SECONDS = 0.1
_names = itertools.count(1)


class Hands:
    """They work until `rest`; `bad_images` never become ready."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._task: asyncio.Task[None] | None = None
        self.bad_images: set[str] = set()
        self.reporting = True
        self.making_pods = True

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
            with suppress(Conflict, Gone):  # the operator writes at the same time
                await self._fleets()
                await self._routers()
            await asyncio.sleep(EVERY_SECONDS)

    async def _fleets(self) -> None:
        deployments = {item["metadata"]["name"]: item for item in await self._listed("Deployment")}
        pods = [pod for pod in await self._listed("Pod") if LABEL_FLEET in pod["metadata"]["labels"]]
        for pod in pods:
            if pod["metadata"]["labels"][LABEL_FLEET] not in deployments:
                await self._kube.delete("Pod", self._namespace, pod["metadata"]["name"])
        uids = {item["metadata"]["uid"] for item in deployments.values()}
        for replicas in await self._listed("ReplicaSet"):
            if replicas["metadata"]["ownerReferences"][0]["uid"] not in uids:
                await self._kube.delete("ReplicaSet", self._namespace, replicas["metadata"]["name"])
        for name, deployment in deployments.items():
            if name == ROUTER:
                continue
            mine = [pod for pod in pods if pod["metadata"]["labels"][LABEL_FLEET] == name]
            wanted = deployment["spec"]["replicas"]
            for pod in mine[wanted:]:
                await self._kube.delete("Pod", self._namespace, pod["metadata"]["name"])
            for _ in range(wanted - len(mine) if self.making_pods else 0):
                await self._pod(deployment)

    async def _pod(self, deployment: Object) -> None:
        template = deployment["spec"]["template"]
        name = f"{deployment['metadata']['name'][:50]}-{next(_names)}"
        labels = template["metadata"]["labels"]
        owner = await replica_set_of(self._kube, self._namespace, deployment["metadata"]["name"], labels)
        pod = pod_manifest(name, self._namespace, labels, owner)
        made = await self._kube.create("Pod", self._namespace, pod)
        image = template["spec"]["containers"][0]["image"]
        if image not in self.bad_images:
            await make_ready(self._kube, made)

    async def _routers(self) -> None:
        deployment = await self._kube.get("Deployment", self._namespace, ROUTER)
        labels = {LABEL_ROUTER: ROUTER}
        pods = [pod for pod in await self._listed("Pod") if LABEL_ROUTER in pod["metadata"]["labels"]]
        if deployment is None:
            for pod in pods:
                await self._kube.delete("Pod", self._namespace, pod["metadata"]["name"])
                await self._kube.delete(names.ROUTER_REPORT, self._namespace, pod["metadata"]["name"])
            return
        if not pods:
            number = next(_names)
            replicas = await self._kube.create(
                "ReplicaSet",
                self._namespace,
                replica_set_manifest(f"{ROUTER}-{number}", self._namespace, labels, deployment),
            )
            for index in range(deployment["spec"]["replicas"]):
                pod = pod_manifest(f"{ROUTER}-{number}-{index}", self._namespace, labels, replicas)
                await make_ready(self._kube, await self._kube.create("Pod", self._namespace, pod))
        for pod in pods if self.reporting else ():
            await self._report(pod)

    async def _report(self, pod: Object) -> None:
        routes = [await self._entry(route) for route in await self._listed(names.ENDPOINT_ROUTE)]
        name = pod["metadata"]["name"]
        spec = {"podUID": pod["metadata"]["uid"], "schemaVersion": 1, "routes": routes, "rejected": []}
        found = await self._kube.get(names.ROUTER_REPORT, self._namespace, name)
        if found is None:
            metadata = {"name": name, "namespace": self._namespace}
            body = {"apiVersion": names.API_VERSION, "kind": names.ROUTER_REPORT, "metadata": metadata, "spec": spec}
            await self._kube.create(names.ROUTER_REPORT, self._namespace, body)
        elif found["spec"]["routes"] != routes:
            await self._kube.replace(names.ROUTER_REPORT, self._namespace, {**found, "spec": spec})

    async def _entry(self, route: Object) -> Object:
        fleets = []
        for fleet in route["spec"].get("fleets") or ():
            selector = f"{LABEL_FLEET}={fleet['name']}"
            pods = [pod async for pod in self._kube.list("Pod", self._namespace, selector)]
            ready = sum(
                condition["type"] == "Ready" and condition["status"] == "True"
                for pod in pods
                for condition in pod["status"].get("conditions") or ()
            )
            fleets.append({"name": fleet["name"], "hosts": ready, "healthy": ready})
        metadata = route["metadata"]
        return {
            "name": metadata["name"],
            "uid": metadata["uid"],
            "generation": metadata["generation"],
            "fleets": fleets,
            "draining": [],
        }

    async def _listed(self, kind: str) -> list[Object]:
        return [item async for item in self._kube.list(kind, self._namespace)]
