"""A real operator process and a real API server: an Endpoint in the cluster comes into service, follows edits and pods,
and goes without a trace."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.cluster_backend.hands import Hands
from tests.controller.process import OperatorProcess
from tests.controller.waiting import until

from localcluster.controlplane import ControlPlane
from sluice.api import names
from sluice.core.cluster.names import ROUTER
from sluice.kube.client import KubeClient
from sluice.ports.kube import Object

pytestmark = pytest.mark.apiserver

MODEL: Object = {"primaryContainer": {"image": "registry.example/churn:1"}}
VARIANTS = [
    {"variantName": name, "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": count}
    for name, count in (("a", 2), ("b", 1))
]


class World:
    """The Endpoint `churn` and who looks after it."""

    def __init__(self, kube: KubeClient, namespace: str, hands: Hands) -> None:
        self.kube = kube
        self.namespace = namespace
        self.hands = hands

    async def apply(self, kind: str, spec: Object, name: str = "churn") -> None:
        found = await self.kube.get(kind, self.namespace, name)
        metadata = {"name": name, "namespace": self.namespace}
        body: Object = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
        if found is None:
            await self.kube.create(kind, self.namespace, body)
        else:
            await self.kube.replace(kind, self.namespace, {**found, "spec": spec})

    async def declare(self, **endpoint: Object) -> None:
        await self.apply("Model", MODEL)
        await self.apply("EndpointConfig", {"productionVariants": VARIANTS})
        await self.apply("Endpoint", {"backend": "Cluster", "endpointConfigName": "churn", **endpoint})

    async def condition(self, type_: str, name: str = "churn") -> tuple[str, str, str]:
        endpoint = await self.kube.get("Endpoint", self.namespace, name) or {}
        found = {c["type"]: c for c in (endpoint.get("status") or {}).get("conditions") or ()}
        condition = found.get(type_) or {}
        return condition.get("status", ""), condition.get("reason", ""), condition.get("message", "")

    async def ready(self, name: str = "churn", within: float = 40) -> None:
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


@pytest.fixture
async def world(control_plane: ControlPlane, kube: KubeClient, namespace: str, tmp_path: Path) -> AsyncIterator[World]:
    hands = Hands(kube, namespace)
    process = OperatorProcess(
        control_plane.kubeconfig,
        tmp_path / "operator.log",
        SLUICE_IDENTITY="one",
        SLUICE_OPERATOR_NAMESPACE=namespace,
        SLUICE_WATCH_NAMESPACES=namespace,
        SLUICE_SETTLE_SECONDS="0",
        SLUICE_LEASE_SECONDS="4",
        SLUICE_PERMISSIONS_SECONDS="1",
    )
    await process.start()
    hands.work()
    yield World(kube, namespace, hands)
    await hands.rest()
    await process.end()
    assert "Traceback" not in process.log.read_text(), process.log.read_text()


async def test_the_life_of_an_endpoint(world: World) -> None:
    await world.declare()
    await world.ready()
    assert await world.fleets() == {"a": 2, "b": 1}
    assert await world.weights() == {"a": 500_000, "b": 500_000}
    before = {item["metadata"]["name"]: item for item in await world.listed("Deployment")}

    edited = [{**VARIANTS[0], "initialInstanceCount": 3, "initialVariantWeight": 3}, VARIANTS[1]]
    await world.apply("EndpointConfig", {"productionVariants": edited})

    async def followed() -> bool:
        return await world.fleets() == {"a": 3, "b": 1} and await world.weights() == {"a": 750_000, "b": 250_000}

    await until(followed, 20)
    await world.ready()
    after = {item["metadata"]["name"]: item for item in await world.listed("Deployment")}
    assert after.keys() == before.keys(), "weights and counts make no new fleet"

    await world.kube.delete("Endpoint", world.namespace, "churn")

    async def gone() -> bool:
        return await world.kube.get("Endpoint", world.namespace, "churn") is None

    await until(gone, 40)
    for kind in ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", names.ENDPOINT_ROUTE):
        assert await world.listed(kind) == []
    records = [item["metadata"]["name"] for item in await world.listed("ConfigMap")]
    assert records == ["kube-root-ca.crt"] or records == []


async def test_a_pod_that_dies_is_seen_at_once(world: World) -> None:
    """A steady Endpoint looks by itself once a minute; its pods' watch wakes it."""
    await world.declare()
    await world.ready()
    world.hands.making_pods = False
    victims = [pod for pod in await world.listed("Pod") if "sluice.dev/fleet" in pod["metadata"]["labels"]]
    for pod in victims:
        await world.kube.delete("Pod", world.namespace, pod["metadata"]["name"])

    async def noticed() -> bool:
        return (await world.condition("Ready"))[0] != "True"

    await until(noticed, 10)
    world.hands.making_pods = True
    await world.ready(within=15)


async def test_a_route_is_in_force_when_the_routers_say_so(world: World) -> None:
    await world.declare()
    await world.ready()
    world.hands.reporting = False
    edited = [{**VARIANTS[0], "initialVariantWeight": 3}, VARIANTS[1]]
    await world.apply("EndpointConfig", {"productionVariants": edited})

    async def waits() -> bool:
        return (await world.condition("Ready"))[0] != "True" and (await world.weights())["a"] == 750_000

    await until(waits, 20)
    world.hands.reporting = True
    await world.ready(within=15)


async def test_an_instance_type_can_be_added_while_the_operator_runs(world: World) -> None:
    variant = {**VARIANTS[0], "instanceType": "ml.own.large"}
    await world.declare()
    await world.ready()
    await world.apply("EndpointConfig", {"productionVariants": [variant]}, "other")
    await world.apply("Endpoint", {"backend": "Cluster", "endpointConfigName": "other"}, "other")

    async def stalled() -> bool:
        return (await world.condition("Stalled", "other"))[:2] == ("True", "UnknownInstanceType")

    await until(stalled, 20)
    await world.kube.create(
        "ConfigMap",
        world.namespace,
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "sluice-instance-types", "namespace": world.namespace},
            "data": {"instance-types.yaml": "ml.own.large: {cpu: '1', memory: 1Gi, nodeSelector: {pool: own}}"},
        },
    )
    await world.ready("other")
    pools = [item["spec"]["template"]["spec"].get("nodeSelector") for item in await world.listed("Deployment")]
    assert {"pool": "own"} in pools


async def test_a_role_that_pods_are_to_assume_needs_the_administrators_word(world: World) -> None:
    role = "arn:aws:iam::111122223333:role/churn"
    access = {"modelDataAccess": {"assumeExecutionRole": True}}
    await world.apply("Model", {**MODEL, "executionRoleArn": role, "kubernetes": access})
    await world.apply("EndpointConfig", {"productionVariants": VARIANTS})
    await world.apply("Endpoint", {"backend": "Cluster", "endpointConfigName": "churn"})

    async def refused() -> bool:
        return (await world.condition("Stalled"))[:2] == ("True", "NotPermitted")

    await until(refused, 20)
    assert role in (await world.condition("Stalled"))[2] or "no rule" in (await world.condition("Stalled"))[2]
    assert await world.listed("Deployment") == []
    rules = {"rules": [{"namespaces": [world.namespace], "executionRoles": [role], "regions": ["nowhere"]}]}
    metadata = {"name": "sluice-permissions", "namespace": world.namespace}
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    await world.kube.create("ConfigMap", world.namespace, {**body, "data": {"policy.yaml": json.dumps(rules)}})
    await world.ready()
