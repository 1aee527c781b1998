"""The watches that only wake: which of them is dead, and how the health probe tells."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube

from sluice.api import names
from sluice.controller.hearing import EVERY_SECONDS, Hearing
from sluice.controller.metrics import Metrics
from sluice.controller.sweep import WATCH_GRACE_SECONDS
from sluice.kube.client import KubeClient
from sluice.main.handlers import WAKING
from sluice.main.settings import Settings
from sluice.main.wiring import Operator
from sluice.ports.kube import Object


class World:
    """A cluster and what the watches tell of it."""

    def __init__(self) -> None:
        self.kube = MemoryKube()
        self.clock = SteppedClock()
        self.lost: list[tuple[str, str, str]] = []
        self.hearing = Hearing(
            self.kube, WAKING, (), lost=lambda *place: self.lost.append(place), sleep=self.clock.sleep
        )

    def put(self, kind: str, name: str, *, told: bool = True) -> Object:
        """Somebody writes an object."""
        item = self.kube.put(
            {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "team", "uid": name}}
        )
        if told:
            self.hearing.heard(item)
        return item

    def drop(self, item: Object, *, told: bool = True) -> None:
        """It goes."""
        del self.kube.objects[item["kind"], "team", item["metadata"]["name"]]
        if told:
            version = str(int(item["metadata"]["resourceVersion"]) + 1)
            self.hearing.heard({**item, "metadata": {**item["metadata"], "resourceVersion": version}})

    async def judged(self) -> frozenset[str]:
        """What a comparison finds."""
        comparing = asyncio.create_task(self.hearing.once())
        await self.clock.step(WATCH_GRACE_SECONDS)
        await comparing
        return self.hearing.dead_watches


@pytest.fixture
def world() -> World:
    """One object of each kind, told of."""
    world = World()
    for kind in WAKING:
        world.put(kind, "one")
    return world


async def test_a_quiet_cluster_costs_a_listing_of_each_kind(world: World) -> None:
    await world.hearing.once()
    assert [verb for verb, _, _ in world.kube.calls] == ["list"] * len(WAKING)
    assert world.hearing.dead_watches == frozenset()
    assert world.clock.sleeping == 0


@pytest.mark.parametrize("kind", ["Pod", "Deployment", names.ROUTER_REPORT, names.ENDPOINT_ROUTE])
async def test_a_watch_that_keeps_silent_is_dead_until_it_tells(world: World, kind: str) -> None:
    changed = world.put(kind, "one", told=False)
    assert await world.judged() == {kind}
    assert await world.judged() == {kind}, "still"
    world.hearing.heard(changed)
    assert await world.judged() == frozenset()


async def test_what_was_never_told_of_counts_too(world: World) -> None:
    world.put("Pod", "two", told=False)
    assert await world.judged() == {"Pod"}


async def test_a_watch_that_tells_a_little_later_is_alive(world: World) -> None:
    changed = world.put("Pod", "one", told=False)
    comparing = asyncio.create_task(world.hearing.once())
    await world.clock.step(5)
    world.hearing.heard(changed)
    await world.clock.step(WATCH_GRACE_SECONDS)
    await comparing
    assert world.hearing.dead_watches == frozenset()


async def test_an_older_state_that_is_told_late_takes_nothing_back(world: World) -> None:
    """A watch that is opened anew tells what was there when it listed."""
    older = world.put("Pod", "two")
    world.put("Pod", "two")
    world.hearing.heard(older)
    assert await world.judged() == frozenset()


async def test_what_goes_while_it_is_looked_for_is_no_loss(world: World) -> None:
    item = world.put("Pod", "two", told=False)
    comparing = asyncio.create_task(world.hearing.once())
    await world.clock.step(5)
    world.drop(item)
    await world.clock.step(WATCH_GRACE_SECONDS)
    await comparing
    assert world.hearing.dead_watches == frozenset()


async def test_what_is_gone_is_not_remembered_told_or_not(world: World) -> None:
    world.drop(world.put("Pod", "two"))
    world.drop(world.put("Pod", "three"), told=False)
    assert await world.judged() == frozenset()
    assert {name for kind, _, name in world.hearing._told if kind == "Pod"} == {"one"}
    assert world.lost == [("Pod", "team", "two"), ("Pod", "team", "three")]


async def test_what_is_made_anew_while_it_is_looked_for_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drop(world.put("Pod", "two"), told=False)
    listing = world.kube.list_metadata

    async def slow(kind: str, *rest: str) -> AsyncIterator[Object]:
        async for item in listing(kind, *rest):
            yield item
        if kind == "Pod":
            world.put("Pod", "two")

    monkeypatch.setattr(world.kube, "list_metadata", slow)
    await world.judged()
    monkeypatch.undo()
    assert await world.judged() == frozenset()
    assert world.lost == []


async def test_it_goes_on_when_the_api_server_is_away(world: World) -> None:
    running = asyncio.create_task(world.hearing.run())
    world.kube.away = True
    await world.clock.step(EVERY_SECONDS)
    world.kube.away = False
    world.put("Deployment", "one", told=False)
    await world.clock.step(EVERY_SECONDS + WATCH_GRACE_SECONDS)
    assert world.hearing.dead_watches == {"Deployment"}
    running.cancel()


async def test_the_operator_is_told_of_dead_watches_and_of_what_they_have_lost() -> None:
    kube = KubeClient(Configuration(), identity="test")
    operator = Operator(Settings(), kube, Metrics(CollectorRegistry(), "test"), "prod", in_cluster=True)
    try:
        assert [*operator.unhealthy()] == []
        assert operator._cluster is not None
        operator._cluster._hearing.dead_watches = frozenset({"Pod"})
        assert [*operator.unhealthy()] == ["dead watch: Pod"]
        assert operator._cluster._hearing._lost == operator._cluster.wakes.lost
    finally:
        await kube.close()
