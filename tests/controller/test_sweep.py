"""The sweep heals what the watches missed, and tells a dead watch from an unlucky moment."""

import asyncio

import pytest
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube
from tests.controller.objects import endpoint, endpoint_config, model
from tests.controller.waiting import until

from sluice.controller.cache import Cache, Source
from sluice.controller.feed import Feed
from sluice.controller.sweep import (
    MOST_SOON_WAITS,
    SOON_SECONDS,
    WATCH_GRACE_SECONDS,
    HistoryWentBackError,
    Sweep,
)
from sluice.core.identity import Key
from sluice.kube.client import KubeClient

MODEL = Key("Model", "team", "model")
ENDPOINT = Key("Endpoint", "team", "churn")


class World:
    """A cluster, a cache of it, and who was woken."""

    def __init__(self) -> None:
        self.kube = MemoryKube()
        self.clock = SteppedClock()
        self.cache = Cache()
        self.feed = Feed(self.cache, self.kube)
        self.woken: list[Key] = []
        self.forgotten: list[Key] = []
        self.feed.connect(self.woken.append, self.forgotten.append)
        self.sweep = Sweep(
            self.kube, self.cache, feed=self.feed, namespaces=(), every_seconds=60, sleep=self.clock.sleep
        )

    def uid_of_model(self) -> str | None:
        """Of the Model that the cache knows."""
        known = self.cache.get(MODEL.kind, MODEL.namespace, MODEL.name)
        return str(known["metadata"]["uid"]) if known is not None else None


@pytest.fixture
async def world() -> World:
    """Three objects, listed."""
    world = World()
    for item in (model(), endpoint_config(), endpoint()):
        world.kube.put(item)
    await world.sweep.sync()
    world.woken.clear()
    return world


async def test_the_first_listing_wakes_every_object() -> None:
    world = World()
    for item in (model(), endpoint_config(), endpoint()):
        world.kube.put(item)
    await world.sweep.sync()
    assert world.sweep.synced
    assert set(world.woken) == {MODEL, ENDPOINT, Key("EndpointConfig", "team", "config")}


async def test_a_cluster_that_is_not_ready_is_waited_for() -> None:
    world = World()
    world.kube.away = True
    syncing = asyncio.create_task(world.sweep.sync())
    await world.clock.step(30)
    assert not world.sweep.synced
    world.kube.away = False
    await world.clock.step(6)
    assert syncing.done()
    assert world.sweep.synced


async def test_a_quiet_cluster_costs_four_listings_and_wakes_nobody(world: World) -> None:
    before = len(world.kube.calls)
    await world.sweep.once()
    assert [verb for verb, _, _ in world.kube.calls[before:]] == ["list"] * 4
    assert world.woken == []
    assert world.sweep.dead_watches == frozenset()


async def test_a_missed_change_is_healed_and_a_watch_that_stays_silent_is_dead(world: World) -> None:
    world.kube.put(model(generation=2))
    sweeping = asyncio.create_task(world.sweep.once())
    await world.clock.step(0)
    assert set(world.woken) == {MODEL, ENDPOINT}, "healed at once"
    assert not sweeping.done()
    await world.clock.step(WATCH_GRACE_SECONDS)
    await sweeping
    assert world.sweep.dead_watches == {"Model"}


async def test_a_watch_that_delivers_a_little_later_is_alive(world: World) -> None:
    changed = world.kube.put(model(generation=2))
    sweeping = asyncio.create_task(world.sweep.once())
    await world.clock.step(5)
    world.feed.seen(changed, Source.WATCH)
    await world.clock.step(WATCH_GRACE_SECONDS)
    await sweeping
    assert world.sweep.dead_watches == frozenset()


async def test_a_watch_that_came_back_to_life_is_alive_again(world: World) -> None:
    world.kube.put(model(generation=2))
    sweeping = asyncio.create_task(world.sweep.once())
    await world.clock.step(WATCH_GRACE_SECONDS)
    await sweeping
    assert world.sweep.dead_watches
    await world.sweep.once()
    assert world.sweep.dead_watches == frozenset()


async def test_a_missed_deletion_is_healed_and_held_against_nobody(world: World) -> None:
    del world.kube.objects["Model", "team", "model"]
    await world.sweep.once()
    assert world.cache.get("Model", "team", "model") is None
    assert world.woken == [ENDPOINT]
    assert world.sweep.dead_watches == frozenset()
    del world.kube.objects["Endpoint", "team", "churn"]
    await world.sweep.once()
    assert world.forgotten == [ENDPOINT]


async def test_what_is_created_anew_while_a_sweep_reads_is_not_taken_for_what_it_missed(world: World) -> None:
    world.kube.put(endpoint(generation=2))
    world.kube.put(model("other"))
    del world.kube.objects["Model", "team", "model"]
    world.kube.before["get"] = [lambda: world.feed.seen(world.kube.put(model(uid="anew")), Source.WATCH)]
    sweeping = asyncio.create_task(world.sweep.once())
    await world.clock.step(WATCH_GRACE_SECONDS)
    await sweeping
    assert world.uid_of_model() == "anew"


async def test_what_is_created_anew_while_it_is_read_is_not_taken_for_what_was_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone_and_created(*_: str) -> None:
        world.feed.seen(world.kube.put(model(uid="anew")), Source.WATCH)

    monkeypatch.setattr(world.kube, "get", gone_and_created)
    await world.feed.read(MODEL)
    assert world.uid_of_model() == "anew"


async def test_a_cluster_restored_from_a_backup_ends_the_process(world: World) -> None:
    world.kube.objects["Model", "team", "model"]["metadata"]["resourceVersion"] = "3"
    with pytest.raises(HistoryWentBackError, match="Model/team/model"):
        await world.sweep.once()


async def test_it_sweeps_soon_after_the_start_and_after_a_watch_was_opened_anew(world: World) -> None:
    running = asyncio.create_task(world.sweep.run())
    del world.kube.objects["Model", "team", "model"]
    await world.clock.step(SOON_SECONDS)
    assert world.cache.get("Model", "team", "model") is None
    del world.kube.objects["Endpoint", "team", "churn"]
    await world.clock.step(10)
    assert world.cache.get("Endpoint", "team", "churn") is not None
    for _ in range(100):
        world.sweep.soon()
    before = len(world.kube.calls)
    await world.clock.step(SOON_SECONDS)
    assert world.cache.get("Endpoint", "team", "churn") is None
    assert len(world.kube.calls) - before == 4
    running.cancel()


async def test_watches_that_go_on_listing_do_not_put_a_sweep_off_for_ever(world: World) -> None:
    running = asyncio.create_task(world.sweep.run())
    await world.clock.step(0)
    del world.kube.objects["Model", "team", "model"]
    for _ in range(MOST_SOON_WAITS):
        assert world.cache.get("Model", "team", "model") is not None
        world.sweep.soon()
        await world.clock.step(SOON_SECONDS)
    assert world.cache.get("Model", "team", "model") is None
    running.cancel()


async def test_sweeps_go_on_after_an_outage(world: World) -> None:
    running = asyncio.create_task(world.sweep.run())
    world.kube.away = True
    await world.clock.step(130)
    world.kube.away = False
    world.kube.put(model(generation=2))
    await world.clock.step(61)
    assert MODEL in world.woken
    assert not running.done()
    running.cancel()


@pytest.mark.apiserver
async def test_on_a_real_api_server_nothing_is_missed_and_nothing_is_found_twice(
    kube: KubeClient, namespace: str
) -> None:
    cache, woken = Cache(), list[Key]()
    feed = Feed(cache, kube)
    feed.connect(woken.append, lambda _key: None)
    clock = SteppedClock()
    sweep = Sweep(kube, cache, feed=feed, namespaces=(namespace,), every_seconds=60, sleep=clock.sleep)

    def fresh(item: dict[str, object]) -> dict[str, object]:
        metadata = item["metadata"]
        assert isinstance(metadata, dict)
        for field in ("uid", "resourceVersion", "generation"):
            metadata.pop(field)
        return item

    await kube.create("Model", namespace, fresh(model(namespace=namespace)))
    await kube.create("Endpoint", namespace, fresh(endpoint(namespace=namespace)))
    await sweep.sync()
    assert len(woken) == 2
    await sweep.once()
    assert len(woken) == 2
    await kube.create("EndpointConfig", namespace, fresh(endpoint_config(namespace=namespace)))
    await kube.delete("Model", namespace, "model")
    sweeping = asyncio.create_task(sweep.once())
    await until(lambda: clock.sleeping, 120)
    await clock.step(WATCH_GRACE_SECONDS)
    await sweeping
    assert cache.get("Model", namespace, "model") is None
    assert cache.get("EndpointConfig", namespace, "config") is not None
    assert Key("Endpoint", namespace, "churn") in woken[2:]
