"""Many Endpoints edited at once, a real operator process and a real API server: never more deployments than may run,
and the third rollback of an image stops the rest."""

import asyncio
from collections import Counter

import pytest
from tests.cluster_backend.declared import Declared
from tests.controller.waiting import until

from sluice.ports.kube import Object

pytestmark = pytest.mark.apiserver

COUNT = 12
LIMIT = 3
POLICY = {
    "blueGreenUpdatePolicy": {
        "trafficRoutingConfiguration": {"type": "ALL_AT_ONCE", "waitIntervalInSeconds": 0},
        "terminationWaitInSeconds": 1,
    }
}
VARIANT = {"variantName": "a", "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 1}
SETTINGS = {
    "SLUICE_SETTLE_SECONDS": "1",
    "SLUICE_LEASE_SECONDS": "4",
    "SLUICE_MAX_CONCURRENT_DEPLOYMENTS": str(LIMIT),
    "SLUICE_MAX_ROLLBACKS_OF_ONE_IMAGE": "3",
}


class Watch:
    """Looks at all Endpoints, one consistent listing after the other."""

    def __init__(self, world: Declared) -> None:
        self._world = world
        self.most = 0
        self.reasons: Counter[str] = Counter()
        self.messages: set[str] = set()
        self._task = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while True:
            running = 0
            for endpoint in await self._world.listed("Endpoint"):
                running += bool((endpoint.get("status") or {}).get("deployment"))
                for condition in (endpoint.get("status") or {}).get("conditions") or ():
                    self.reasons[condition["reason"]] += 1
                    self.messages.add(condition["message"])
            self.most = max(self.most, running)
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        assert not self._task.done(), self._task.exception()
        self._task.cancel()


def _image(image: str) -> Object:
    return {"primaryContainer": {"image": f"registry.example/churn:{image}"}}


async def _served(world: Declared) -> Counter[str]:
    """Image -> how many fleets run it."""
    return Counter(
        item["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]
        for item in await world.listed("Deployment")
        if "sluice.dev/variant" in item["metadata"]["annotations"]
    )


async def test_many_endpoints_edited_at_once(world: Declared) -> None:
    await world.apply("Model", _image("1"))
    await world.apply("EndpointConfig", {"productionVariants": [VARIANT]})
    names = [f"e{number:02}" for number in range(COUNT)]
    for name in names:
        spec = {"backend": "Cluster", "endpointConfigName": "churn", "deploymentConfig": POLICY}
        await world.apply("Endpoint", spec, name)
    for name in names:
        await world.ready(name, within=120)

    watch = Watch(world)
    await world.apply("Model", _image("2"))

    async def half() -> bool:
        return (await _served(world))["2"] > COUNT // 3

    await until(half, 120)
    assert world.process is not None
    await world.process.end()
    await world.process.start(ready=False)

    async def all_of_them() -> bool:
        return await _served(world) == Counter({"2": COUNT})

    await until(all_of_them, 240)
    for name in names:
        await world.ready(name, within=150)
    await watch.end()
    assert watch.most == LIMIT
    assert watch.reasons["DeploymentQueued"]
    assert any(f"of this operator run, at most {LIMIT} may ({world.namespace}/e" in text for text in watch.messages)

    watch = Watch(world)
    world.hands.crashing_images.add("registry.example/churn:bad")
    await world.apply("Model", _image("bad"))

    async def stopped() -> bool:
        conditions = [await world.condition("Stalled", name) for name in names]
        return all(condition[0] == "True" for condition in conditions)

    await until(stopped, 240)
    await watch.end()
    why = Counter([(await world.condition("Stalled", name))[1] for name in names])
    assert watch.most == LIMIT
    assert 3 <= why["RolledBack"] < 3 + LIMIT, "those that ran when the third was rolled back"
    assert why["ImageBraked"] == COUNT - why["RolledBack"]
    assert await _served(world) == Counter({"2": COUNT}), "everybody serves what served before"
