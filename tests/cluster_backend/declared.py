"""An Endpoint in the cluster as people declare it, and what they can see of it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.cluster_backend.hands import Hands
from tests.controller.process import OperatorProcess
from tests.controller.waiting import until

from sluice.api import names
from sluice.core.cluster.names import ROUTER
from sluice.kube.client import KubeClient
from sluice.ports.kube import Conflict, Object

MODEL: Object = {"primaryContainer": {"image": "registry.example/churn:1"}}
VARIANTS = [
    {"variantName": name, "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": count}
    for name, count in (("a", 2), ("b", 1))
]


class Declared:
    """The Endpoint `churn` and who looks after it."""

    def __init__(self, kube: KubeClient, namespace: str, hands: Hands, process: OperatorProcess | None = None) -> None:
        self.process = process
        self.kube = kube
        self.namespace = namespace
        self.hands = hands

    async def apply(self, kind: str, spec: Object, name: str = "churn") -> None:
        """As a person does: over whatever the operator has just written into its status."""
        metadata = {"name": name, "namespace": self.namespace}
        body: Object = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
        for _ in range(20):
            found = await self.kube.get(kind, self.namespace, name)
            with suppress(Conflict):
                if found is None:
                    await self.kube.create(kind, self.namespace, body)
                else:
                    await self.kube.replace(kind, self.namespace, {**found, "spec": spec})
                return
        raise AssertionError(f"{kind} {name} could not be written")

    async def declare(self, **endpoint: Object) -> None:
        await self.apply("Model", MODEL)
        await self.apply("EndpointConfig", {"productionVariants": VARIANTS})
        await self.apply("Endpoint", {"backend": "Cluster", "endpointConfigName": "churn", **endpoint})

    async def condition(self, type_: str, name: str = "churn") -> tuple[str, str, str]:
        endpoint = await self.kube.get("Endpoint", self.namespace, name) or {}
        found = {c["type"]: c for c in (endpoint.get("status") or {}).get("conditions") or ()}
        condition = found.get(type_) or {}
        return condition.get("status", ""), condition.get("reason", ""), condition.get("message", "")

    async def ready(self, name: str = "churn", within: float = 150) -> None:
        async def asked() -> bool:
            return (await self.condition("Ready", name))[0] == "True"

        try:
            await until(asked, within)
        except AssertionError:
            endpoint = await self.kube.get("Endpoint", self.namespace, name) or {}
            raise AssertionError(f"never Ready: {endpoint.get('status')}") from None

    async def listed(self, kind: str) -> list[Object]:
        return [item async for item in self.kube.list(kind, self.namespace)]

    async def fleets(self) -> dict[str, int]:
        """Variant -> replicas."""
        return {
            item["metadata"]["annotations"]["sluice.dev/variant"]: item["spec"]["replicas"]
            for item in await self.listed("Deployment")
            if item["metadata"]["name"] != ROUTER
        }

    async def weights(self) -> dict[str, int]:
        route = await self.kube.get(names.ENDPOINT_ROUTE, self.namespace, "churn") or {}
        return {fleet["variantName"]: fleet["weight"] for fleet in route.get("spec", {}).get("fleets") or ()}

    async def quiet(self) -> None:
        """No pass for two seconds: whatever was on its way when the operator started is done."""
        assert self.process is not None
        seen: list[tuple[float, str]] = []

        async def asked() -> bool:
            assert self.process is not None
            _, text = await self.process.ask("/metrics")
            passes = "".join(line for line in text.splitlines() if line.startswith("sluice_passes_total"))
            if not seen or seen[-1][1] != passes:
                seen.append((time.monotonic(), passes))
            return time.monotonic() - seen[-1][0] > 2

        await until(asked, 150)

    async def gone(self, within: float = 150) -> None:
        """The Endpoint and everything of it is gone, but for the policies of its fleets: they are left to the sweep for
        orphans."""

        async def asked() -> bool:
            return await self.kube.get("Endpoint", self.namespace, "churn") is None

        await until(asked, within)
        for kind in ("Deployment", "Service", "PodDisruptionBudget", names.ENDPOINT_ROUTE):
            assert await self.listed(kind) == []
        assert ROUTER not in {item["metadata"]["name"] for item in await self.listed("NetworkPolicy")}
        records = [item["metadata"]["name"] for item in await self.listed("ConfigMap")]
        assert [name for name in records if name.endswith("-record")] == []


@asynccontextmanager
async def operated(
    kubeconfig: Path, kube: KubeClient, namespace: str, log: Path, **settings: str
) -> AsyncIterator[Declared]:
    """A namespace with a real operator process and hands; the operator's log is without a Traceback at the end."""
    hands = Hands(kube, namespace)
    process = OperatorProcess(
        kubeconfig,
        log,
        SLUICE_IDENTITY="one",
        SLUICE_OPERATOR_NAMESPACE=namespace,
        SLUICE_WATCH_NAMESPACES=namespace,
        **settings,
    )
    await process.start()
    hands.work()
    yield Declared(kube, namespace, hands, process)
    await hands.rest()
    await process.end()
    assert "Traceback" not in process.log.read_text(), process.log.read_text()
