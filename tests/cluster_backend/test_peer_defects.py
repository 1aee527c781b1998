"""How other progressive-delivery controllers fail, as tests that need an API server: tests/core/test_peer_defects.py
has the others, and says what is not applicable. AR is argoproj/argo-rollouts."""

import asyncio
from contextlib import suppress

import pytest
from tests.cluster_backend.declared import VARIANTS, Declared
from tests.cluster_backend.objects import scale as scale_fleet
from tests.controller.waiting import until

from sluice.core.cluster.names import ROUTER
from sluice.ports.kube import Conflict, Gone

pytestmark = pytest.mark.apiserver

POLICY = {
    "blueGreenUpdatePolicy": {
        "trafficRoutingConfiguration": {
            "type": "CANARY",
            "canarySize": {"type": "CAPACITY_PERCENT", "value": 50},
            "waitIntervalInSeconds": 1,
        },
        "terminationWaitInSeconds": 1,
    }
}
SETTINGS = {
    "SLUICE_SETTLE_SECONDS": "0",
}


async def test_several_updates_at_once_failed_on_a_lock_and_it_stayed_stuck_until_a_restart(world: Declared) -> None:
    """AR 3080, AR 3316, AR 2522. People edit all three kinds, scale fleets and delete routes while the operator writes
    to them; without a restart all comes to what the last edit asks for."""
    await world.declare(deploymentConfig=POLICY)
    await world.ready()

    async def edit_models() -> None:
        for number in range(2, 7):
            await world.apply("Model", {"primaryContainer": {"image": f"registry.example/churn:{number}"}})
            await asyncio.sleep(0.3)

    async def edit_weights() -> None:
        for number in range(1, 11):
            variants = [{**VARIANTS[0], "initialVariantWeight": number}, VARIANTS[1]]
            await world.apply("EndpointConfig", {"productionVariants": variants})
            await asyncio.sleep(0.2)

    async def edit_endpoint() -> None:
        for number in range(10):
            policy = {"deploymentConfig": POLICY} if number % 2 else {}
            await world.apply("Endpoint", {"backend": "Cluster", "endpointConfigName": "churn", **policy})
            await asyncio.sleep(0.2)

    async def scale() -> None:
        for number in range(10):
            for item in await world.listed("Deployment"):
                name = item["metadata"]["name"]
                with suppress(Gone, Conflict):  # the operator takes fleets down meanwhile, or scales them
                    if name != ROUTER:
                        await scale_fleet(world.kube, world.namespace, name, 1 + number % 3)
            await asyncio.sleep(0.2)

    await asyncio.gather(edit_models(), edit_weights(), edit_endpoint())
    await scale()

    async def as_asked() -> bool:
        fleets = [item for item in await world.listed("Deployment") if item["metadata"]["name"] != ROUTER]
        images = {item["spec"]["template"]["spec"]["containers"][0]["image"] for item in fleets}
        ready = (await world.condition("Ready"))[0] == "True"
        return ready and images == {"registry.example/churn:6"} and len(fleets) == 2

    await until(as_asked, 120)
    weights = await world.weights()
    assert round(weights["a"] / weights["b"]) == 10
    assert world.process is not None
    assert world.process.process.returncode is None, "the process that was there from the start"
