"""How other progressive-delivery controllers fail with thousands of objects, as tests; see
tests/core/test_peer_defects.py. AR is argoproj/argo-rollouts, FL fluxcd/flagger."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry
from tests.controller.objects import endpoint
from tests.controller.pass_world import ALLOWED, World
from tests.controller.waiting import until

from sluice.controller import cache as caches
from sluice.controller.cache import Cache, Source, key_of
from sluice.controller.metrics import Metrics
from sluice.controller.queue import Schedule
from sluice.core.identity import Key
from sluice.kube.client import KubeClient

Answer = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def kube_at(answer: Answer, **settings: Any) -> AsyncIterator[KubeClient]:
    """The adapter at an API server that answers so."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = KubeClient(Configuration(host=host), identity="test", **settings)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def test_ar_2855_memory_grew_with_what_had_changed_and_gone_until_the_daily_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eleven thousand objects held 11 GB there, more each day."""
    count = 150
    monkeypatch.setattr(caches, "MAX_TOMBSTONES", count)  # else what went lately is remembered for many days of these
    cache, schedule, metrics = Cache(), Schedule[Key](), Metrics(CollectorRegistry(), "test")

    def day(number: int) -> int:
        """Endpoints come, deploy and go; how many bytes are held while they stand."""
        for stage in ("Provisioning", "Baking", "CleaningUp"):
            deployment = {"revision": "r", "fleetHash": "f", "policy": "CANARY", "stage": stage}
            for index in range(count):
                item = endpoint(f"e{number}-{index}", status={"deployment": deployment})
                cache.apply(item, Source.WATCH)
                key = key_of(item)
                metrics.show_endpoint(key, "SageMaker", cache.status(key))
                schedule.add(key, 0.0)
                assert schedule.take(0.0) == key
                schedule.done(key, 0.0)
                schedule.add_at(key, 1e6, 0.0)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
        for key in cache.keys("Endpoint"):
            cache.remove(endpoint(key.name), Source.WATCH)
            metrics.hide_endpoint(key)
            schedule.drop_delay(key)
        assert cache.count("Endpoint") == 0
        return held

    tracemalloc.start()
    try:
        days = [day(number) for number in range(6)]
    finally:
        tracemalloc.stop()
    assert days[0] < count * 20_000, "bytes for each"
    assert days[-1] - days[2] < 3 * count * 50, "bytes for each that came and went"


async def test_ar_3929_each_object_that_was_asked_for_made_a_metric_of_its_own() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"metadata": {"name": "x"}})

    metrics = Metrics(CollectorRegistry(), "test")

    def series() -> int:
        return sum(len(family.samples) for family in metrics.registry.collect())

    async with kube_at(answer, telemetry=metrics) as kube:
        found = []
        for number in range(20):
            place = f"team-{number}"
            body = {"metadata": {"name": f"m{number}", "resourceVersion": "1"}}
            await kube.get("Model", place, f"m{number}")
            await kube.replace("Model", place, body)
            await kube.replace_status("Model", place, body)
            await kube.delete("Model", place, f"m{number}")
            found.append(series())
    assert set(found) == {found[0]}


async def test_ar_1711_to_tell_of_one_object_all_were_listed() -> None:
    """There a command-line tool takes 40 s among 10,000. Here what is shown of an Endpoint is in its own status, and a
    pass writes that without asking for any other."""
    calls = []
    for others in (0, 1000):
        world = World(ALLOWED)
        for number in range(others):
            world.feed.seen(world.kube.put(endpoint(f"other-{number}")), Source.WATCH)
        await world.run_until_ready()
        calls.append([(verb, kind) for verb, kind, _ in world.kube.calls])
    assert calls[0] == calls[1]
    assert "list" not in {verb for verb, _ in calls[1]}


async def test_fl_638_calls_waited_for_the_clients_own_throttle_until_the_lease_was_lost() -> None:
    """client-go sends five a second: at 2 % of a processor, 50 canaries took six times as long. Here as many calls are
    out as may be, the Lease's beside them, and 400 are soon done."""
    standing, released = 0, asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        nonlocal standing
        standing += 1
        await released.wait()
        return web.json_response({"metadata": {"name": "x"}})

    async with kube_at(answer, concurrency=32) as kube, asyncio.timeout(30), asyncio.TaskGroup() as calls:
        for number in range(400):
            calls.create_task(kube.get("Endpoint", "team", f"e{number}"))
        await until(lambda: standing == 32, 15)
        calls.create_task(kube.replace("Lease", "team", {"metadata": {"name": "x"}}))
        await until(lambda: standing == 33, 15)
        released.set()
    assert standing == 401
