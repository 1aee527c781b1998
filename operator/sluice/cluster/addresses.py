"""Where the routers of a namespace are reached. Read live; decides nothing."""

import asyncio

from sluice.cluster import seen
from sluice.cluster.labels import ROUTERS
from sluice.ports.kube import Gone, Kube, Object
from sluice.ports.routers import RouterAddress


class Addresses:
    """Implements ports.routers.RouterPods."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def __call__(self, namespace: str) -> tuple[RouterAddress, ...]:
        """See RouterPods."""
        try:
            deployments, replica_sets, pods = await asyncio.gather(
                self._list("Deployment", namespace), self._list("ReplicaSet", namespace), self._list("Pod", namespace)
            )
        except Gone:
            return ()
        found = seen.router_pods(seen.find_router(deployments), replica_sets, pods)
        return tuple(
            RouterAddress(
                pod=pod["metadata"]["name"],
                uid=pod["metadata"]["uid"],
                address=str((pod.get("status") or {}).get("podIP") or ""),
            )
            for pod in found
        )

    async def _list(self, kind: str, namespace: str) -> list[Object]:
        return [item async for item in self._kube.list(kind, namespace, ROUTERS)]
