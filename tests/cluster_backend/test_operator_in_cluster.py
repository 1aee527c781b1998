"""A real operator process and a real API server: an Endpoint in the cluster comes into service, follows edits and pods,
and goes without a trace."""

import json
from pathlib import Path

import pytest
from tests.cluster_backend.declared import MODEL, VARIANTS, Declared
from tests.cluster_backend.hands import Hands
from tests.controller.process import OperatorProcess
from tests.controller.waiting import until

from localcluster.controlplane import ControlPlane
from sluice.api import names
from sluice.core.cluster.names import ROUTER
from sluice.kube.client import KubeClient
from sluice.ports.kube import Object

pytestmark = pytest.mark.apiserver

SETTINGS = {
    "SLUICE_SETTLE_SECONDS": "0",
    "SLUICE_LEASE_SECONDS": "4",
    "SLUICE_PERMISSIONS_SECONDS": "1",
    "SLUICE_INVOCATION_TIMEOUT_SECONDS": "90",
    "SLUICE_ROUTER_STREAM_DRAIN_SECONDS": "0",
}


async def test_the_life_of_an_endpoint(world: Declared) -> None:
    await world.declare()
    await world.ready()
    assert await world.fleets() == {"a": 2, "b": 1}
    assert await world.weights() == {"a": 500_000, "b": 500_000}
    before = {item["metadata"]["name"]: item for item in await world.listed("Deployment")}
    [route] = await world.listed(names.ENDPOINT_ROUTE)
    assert route["spec"]["timeoutSeconds"] == 90, "the installation's"
    router = await world.kube.get("Deployment", world.namespace, ROUTER)
    assert router is not None
    assert router["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 330, "the next step above 90, and 30"

    edited = [{**VARIANTS[0], "initialInstanceCount": 3, "initialVariantWeight": 3}, VARIANTS[1]]
    await world.apply("EndpointConfig", {"productionVariants": edited})

    async def followed() -> bool:
        return await world.fleets() == {"a": 3, "b": 1} and await world.weights() == {"a": 750_000, "b": 250_000}

    await until(followed, 120)
    await world.ready()
    after = {item["metadata"]["name"]: item for item in await world.listed("Deployment")}
    assert after.keys() == before.keys(), "weights and counts make no new fleet"

    await world.kube.delete("Endpoint", world.namespace, "churn")
    await world.gone()


async def test_a_pod_that_dies_is_seen_at_once(world: Declared) -> None:
    """A steady Endpoint looks by itself once a minute; its pods' watch wakes it, whatever the routers have to say."""
    await world.declare()
    await world.ready()
    await world.quiet()
    world.hands.making_pods = world.hands.reporting = False
    victims = [pod for pod in await world.listed("Pod") if "sluice.dev/fleet" in pod["metadata"]["labels"]]
    for pod in victims:
        await world.kube.delete("Pod", world.namespace, pod["metadata"]["name"])

    async def noticed() -> bool:
        return (await world.condition("Ready"))[0] != "True"

    await until(noticed, 20)
    world.hands.making_pods = world.hands.reporting = True
    await world.ready(within=120)


async def test_a_route_is_in_force_when_the_routers_say_so(world: Declared) -> None:
    await world.declare()
    await world.ready()
    world.hands.reporting = False
    edited = [{**VARIANTS[0], "initialVariantWeight": 3}, VARIANTS[1]]
    await world.apply("EndpointConfig", {"productionVariants": edited})

    async def waits() -> bool:
        return (await world.condition("Ready"))[0] != "True" and (await world.weights())["a"] == 750_000

    await until(waits, 120)
    world.hands.reporting = True
    await world.ready(within=120)


async def test_an_instance_type_can_be_added_while_the_operator_runs(world: Declared) -> None:
    variant = {**VARIANTS[0], "instanceType": "ml.own.large"}
    await world.declare()
    await world.ready()
    await world.apply("EndpointConfig", {"productionVariants": [variant]}, "other")
    await world.apply("Endpoint", {"backend": "Cluster", "endpointConfigName": "other"}, "other")

    async def stalled() -> bool:
        return (await world.condition("Stalled", "other"))[:2] == ("True", "UnknownInstanceType")

    await until(stalled, 120)
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


async def test_a_role_that_pods_are_to_assume_needs_the_administrators_word(world: Declared) -> None:
    role = "arn:aws:iam::111122223333:role/churn"
    access = {"modelDataAccess": {"assumeExecutionRole": True}}
    await world.apply("Model", {**MODEL, "executionRoleArn": role, "kubernetes": access})
    await world.apply("EndpointConfig", {"productionVariants": VARIANTS})
    await world.apply("Endpoint", {"backend": "Cluster", "endpointConfigName": "churn"})

    async def refused() -> bool:
        return (await world.condition("Stalled"))[:2] == ("True", "NotPermitted")

    await until(refused, 120)
    assert role in (await world.condition("Stalled"))[2] or "no rule" in (await world.condition("Stalled"))[2]
    assert await world.listed("Deployment") == []
    rules = {"rules": [{"namespaces": [world.namespace], "executionRoles": [role], "regions": ["nowhere"]}]}
    metadata = {"name": "sluice-permissions", "namespace": world.namespace}
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    await world.kube.create("ConfigMap", world.namespace, {**body, "data": {"policy.yaml": json.dumps(rules)}})
    await world.ready()


async def test_an_operator_without_the_backend_says_so_and_touches_nothing(
    control_plane: ControlPlane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    process = OperatorProcess(
        control_plane.kubeconfig,
        tmp_path / "operator.log",
        SLUICE_OPERATOR_NAMESPACE=namespace,
        SLUICE_WATCH_NAMESPACES=namespace,
        SLUICE_CLUSTER_BACKEND="false",
    )
    people = Declared(kube, namespace, Hands(kube, namespace), process)
    try:
        await process.start()
        await people.declare()

        async def stalled() -> bool:
            return (await people.condition("Stalled"))[:2] == ("True", "BackendNotAvailable")

        await until(stalled, 120)
        assert process.said("backend Cluster is off: setting SLUICE_CLUSTER_BACKEND is false")
        assert await people.listed("Deployment") == []
    finally:
        await process.end()
