"""Events never hold a pass up; the probes say what is wrong."""

import asyncio
import json
import threading
from collections.abc import Iterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Sample
from prometheus_client.registry import Collector
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube
from tests.controller.objects import endpoint
from tests.controller.waiting import until

from sluice.controller.events import MAX_WAITING, TOLD_EVERY_SECONDS, EventRecorder
from sluice.controller.health import LAG_BOUND_SECONDS, HealthServer, LoopLag
from sluice.core.decision import EventNote


async def test_events_are_written_in_order_in_the_background() -> None:
    kube = MemoryKube()
    recorder = EventRecorder(kube)
    running = asyncio.create_task(recorder.run())
    recorder.note(endpoint(), [EventNote("Normal", "First", "1"), EventNote("Warning", "Second", "2")])
    assert kube.events == []
    await until(lambda: len(kube.events) == 2, 120)
    assert kube.events == [("churn", "First", "1"), ("churn", "Second", "2")]
    running.cancel()


async def test_long_messages_are_cut_at_the_api_servers_limit_in_bytes() -> None:
    kube = MemoryKube()
    recorder = EventRecorder(kube)
    recorder.note(endpoint(), [EventNote("Normal", "Long", "ä" * 2000)])
    await recorder.flush()
    message = kube.events[0][2]
    assert len(message.encode()) <= 1024
    assert message.endswith("ä...")


async def test_the_oldest_are_dropped_when_too_many_wait() -> None:
    kube = MemoryKube()
    recorder = EventRecorder(kube)
    recorder.note(endpoint(), [EventNote("Normal", "N", str(n)) for n in range(MAX_WAITING + 5)])
    await recorder.flush()
    assert len(kube.events) == MAX_WAITING
    assert kube.events[-1][2] == str(MAX_WAITING + 4)


async def test_that_events_are_dropped_is_told_while_they_are_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube, clock, told = MemoryKube(), SteppedClock(), list[str]()
    recorder = EventRecorder(kube, monotonic=clock.monotonic)
    writes = 0

    async def more_come_than_are_written(*_: object, **__: object) -> None:
        nonlocal writes
        writes += 1
        if writes <= 3:
            recorder.note(endpoint(), [EventNote("Normal", "N", "")] * 2)  # for one that has gone
        told.append(caplog.text)
        caplog.clear()
        clock.skip(TOLD_EVERY_SECONDS / 2)

    monkeypatch.setattr(kube, "event", more_come_than_are_written)
    monkeypatch.setattr("sluice.controller.events.MAX_WAITING", 10)
    recorder.note(endpoint(), [EventNote("Normal", "N", "")] * 15)
    await recorder.flush()
    assert "6 events were dropped" in told[1]
    assert told[2] == ""
    assert "2 events were dropped" in told[3]


@pytest.mark.parametrize("problems", [(), ("stuck queue", "dead watch: Model")])
async def test_probes_answer_with_their_reasons(problems: tuple[str, ...]) -> None:
    registry = CollectorRegistry()
    Counter("sluice_something", "x", registry=registry).inc()
    server = HealthServer(lambda: problems, lambda: (), registry)
    port = await server.start(0, "127.0.0.1")
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/healthz") as answer:
                assert answer.status == (500 if problems else 200)
                assert json.loads(await answer.text()) == {"ok": not problems, "problems": list(problems)}
            async with session.get("/readyz") as answer:
                assert answer.status == 200
            async with session.get("/metrics") as answer:
                assert "sluice_something_total 1.0" in await answer.text()
    finally:
        await server.stop()


class Threads(Collector):
    """One sample, and the threads in which it was collected and written."""

    def __init__(self) -> None:
        self.collected: list[int] = []
        self.written: list[int] = []

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> list[GaugeMetricFamily]:
        self.collected.append(threading.get_ident())
        family = GaugeMetricFamily("sluice_something", "x", value=1)
        family.samples = Noting(family.samples, self.written)
        return [family]


class Noting(list[Sample]):
    """Samples that tell who reads them."""

    def __init__(self, samples: list[Sample], threads: list[int]) -> None:
        super().__init__(samples)
        self._threads = threads

    def __iter__(self) -> Iterator[Sample]:
        self._threads.append(threading.get_ident())
        return super().__iter__()


async def test_metrics_are_collected_in_the_loop_and_written_beside_it() -> None:
    registry, threads = CollectorRegistry(), Threads()
    registry.register(threads)
    server = HealthServer(lambda: (), lambda: (), registry)
    port = await server.start(0, "127.0.0.1")
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session, session.get("/metrics") as answer:
            assert "sluice_something 1.0" in await answer.text()
    finally:
        await server.stop()
    assert threads.collected == [threading.get_ident()], "what it reads is the loop's"
    assert threads.written
    assert threading.get_ident() not in threads.written, "which takes a second with thousands of Endpoints"


async def test_a_blocked_loop_is_a_problem_for_a_while() -> None:
    lag = LoopLag()
    assert list(lag.problems()) == []
    lag._lags.append(LAG_BOUND_SECONDS + 1)
    assert list(lag.problems()) == ["the event loop was blocked for 6.0 s"]
    lag._lags.extend([0.0] * 60)
    assert list(lag.problems()) == []
