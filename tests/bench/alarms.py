"""Alarms in the cluster: from a state in its source to the reading that wakes the pass, for each kind, with one watched
alarm and with many. Prometheus, Envoy and its agent's server, and moto's CloudWatch are real, and so is the poller."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer
from tests.alarms.routers import Operator, invoke
from tests.bench.figures import Figure
from tests.bench.router import percentile
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.specs import fleet, route

from localcluster.prometheus import Prometheus
from sluice.alarms.cloudwatch import CloudWatchReader, CloudWatchSource
from sluice.alarms.poller import AlarmPoller, Source
from sluice.alarms.prometheus import PrometheusSettings, PrometheusSource
from sluice.alarms.traffic import TrafficSource
from sluice.core.identity import Key
from sluice.core.observation import AlarmQuestion, AlarmWatch, WatchedFleet
from sluice.ports.clock import SystemClock
from sluice.ports.telemetry import NoTelemetry
from sluice.sagemaker.clients import AwsCalls, AwsSettings

CLOCK = SystemClock()
MANY, MANY_QUICK = 500, 50
ROUNDS, ROUNDS_QUICK = 10, 2
WAIT_SECONDS = 120.0
SOON_SECONDS = 3.0
"""A condition on Prometheus' own clock comes true after so long, when everybody watches it."""
REGION = "eu-west-1"


def readings(directory: Path, *, quick: bool) -> list[Figure]:
    """All kinds, with one alarm and with many."""
    directory.mkdir(parents=True, exist_ok=True)
    rounds = ROUNDS_QUICK if quick else ROUNDS
    found = []
    for number in (1, MANY_QUICK if quick else MANY):
        found.append(_promql(directory / f"promql-{number}", number, rounds))
        found.append(_alert(directory / f"alert-{number}", number, rounds))
        found.append(_traffic(directory / f"traffic-{number}", number, rounds))
        found.append(_cloudwatch(number, rounds))
    return found


def _promql(directory: Path, number: int, rounds: int) -> Figure:
    directory.mkdir()
    with Prometheus(directory) as prometheus:

        async def measure() -> list[float]:
            taken: list[float] = []
            for _ in range(rounds):
                at = time.time() + SOON_SECONDS + random.random()  # noqa: S311 - spreads

                def condition(index: int, at: float = at) -> dict[str, Any]:
                    text = f"vector(time() - {at}) + 0 * {index}"
                    return {"promql": {"expression": text, "comparison": "GreaterThanThreshold", "threshold": 0}}

                async with _polling(PrometheusSource(CLOCK, PrometheusSettings(prometheus.url))) as poller:
                    taken += await _fired(poller, "PromQL", condition, number, lambda at=at: at)  # type: ignore[misc]
            return taken

        return _figure("PromQL", number, rounds, asyncio.run(measure()))


def _alert(directory: Path, number: int, rounds: int) -> Figure:
    """Its rule is evaluated once a second, which is part of what is measured."""
    directory.mkdir()
    with Prometheus(directory) as prometheus:

        async def measure() -> list[float]:
            taken: list[float] = []
            for _ in range(rounds):
                at = time.time() + 2 * SOON_SECONDS + random.random()  # noqa: S311 - spreads
                rules = [{"alert": f"A{index}", "expr": f"vector(time()) > {at}"} for index in range(number)]
                await asyncio.to_thread(prometheus.configure, rules=rules)
                async with _polling(PrometheusSource(CLOCK, PrometheusSettings(prometheus.url))) as poller:
                    taken += await _fired(
                        poller,
                        "PrometheusAlert",
                        lambda index: {"prometheusAlert": {"alertName": f"A{index}"}},
                        number,
                        lambda at=at: at,  # type: ignore[misc]
                    )
            return taken

        return _figure("alert, evaluated each second", number, rounds, asyncio.run(measure()))


def _traffic(directory: Path, number: int, rounds: int) -> Figure:
    """Two routers; one endpoint of many gets a bad answer."""
    envoys = [Envoy(directory / name) for name in ("one", "two")]
    operator, container = Operator(), Container("bad", status=500, keep=False).start()
    try:
        for envoy in envoys:
            drive = Drive(envoy)
            envoy.start()
            for index in range(number):
                drive.put(
                    route(f"E{index}", fleet(f"f{index}", "a", 1_000_000, container.port)), (f"f{index}", "127.0.0.1")
                )
            drive.settle(60)
            operator.add(envoy)
        condition = {"traffic": {"metric": "Invocation5XXErrors", "threshold": 0.0, "windowSeconds": 5}}

        async def measure() -> list[float]:
            taken = []
            for _ in range(rounds):
                source = TrafficSource(CLOCK, operator.find, operator.settings)
                async with _polling(source) as poller:
                    moved = _watch_all(poller, "Traffic", lambda _: condition, number)
                    await _all_read(moved, number)
                    await asyncio.to_thread(invoke, envoys[0], f"E{number - 1}")
                    at = time.time()
                    async with asyncio.timeout(WAIT_SECONDS):
                        while await moved.get() != _key(number - 1):
                            continue
                    taken.append(time.time() - at)
            return taken

        return _figure("traffic, 2 routers", number, rounds, asyncio.run(measure()))
    finally:
        operator.close()
        container.stop()
        for envoy in envoys:
            envoy.kill()
            envoy.end_serving()


def _cloudwatch(number: int, rounds: int) -> Figure:
    """With AWS' quota: half of 9 calls a second."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    calls = AwsCalls(AwsSettings(), NoTelemetry(), CLOCK)
    try:
        client = boto3.client("cloudwatch", region_name=REGION)

        def state(index: int, value: str) -> None:
            client.set_alarm_state(AlarmName=f"q{index}", StateValue=value, StateReason="bench")

        for index in range(number):
            client.put_metric_alarm(
                AlarmName=f"q{index}", Namespace="Models", MetricName="x", Statistic="Sum", Period=60,
                EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold",
            )  # fmt: skip

        async def measure() -> list[float]:
            taken, reader = [], CloudWatchReader(calls, CLOCK)
            async with _polling(CloudWatchSource(reader, CLOCK, REGION)) as poller:
                moved = _watch_all(poller, "CloudWatch", lambda _: {}, number)
                await _all_read(moved, number)
                for round_ in range(rounds):
                    index = round_ * 7 % number
                    await asyncio.sleep(random.random())  # noqa: S311 - spreads
                    await asyncio.to_thread(state, index, "ALARM" if round_ // number % 2 == 0 else "OK")
                    at = time.time()
                    async with asyncio.timeout(WAIT_SECONDS):
                        while await moved.get() != _key(index):
                            continue
                    taken.append(time.time() - at)
            await reader.stop()
            return taken

        return _figure("CloudWatch", number, rounds, asyncio.run(measure()))
    finally:
        calls.close()
        server.stop()
        os.environ.clear()
        os.environ.update(before)


# Watching ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _polling(source: Source) -> AsyncIterator[AlarmPoller]:
    poller = AlarmPoller(CLOCK, (source,))
    running = asyncio.create_task(poller.run())
    yield poller
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _key(index: int) -> Key:
    return Key("Endpoint", "team-a", f"e{index}")


def _watch_all(
    poller: AlarmPoller, source: Any, condition: Callable[[int], dict[str, Any]], number: int
) -> asyncio.Queue[Key]:
    """One alarm of each of so many Endpoints. Returns whom the poller wakes."""
    moved = asyncio.Queue[Key]()
    poller.on_moved(moved.put_nowait, moved.put_nowait)
    for index in range(number):
        questions = (AlarmQuestion(source, f"q{index}", condition(index)),)
        fleets = (WatchedFleet(f"f{index}", "a", "r-1-1"),)
        poller.watch(_key(index), AlarmWatch(questions, "team-a", f"e{index}", new=fleets))
    return moved


async def _all_read(moved: asyncio.Queue[Key], number: int) -> None:
    """Each has had its first reading; then some part of a period, so that no moment of it is preferred."""
    seen = set[Key]()
    async with asyncio.timeout(WAIT_SECONDS):
        while len(seen) < number:
            seen.add(await moved.get())
    await asyncio.sleep(random.random())  # noqa: S311 - spreads


async def _fired(
    poller: AlarmPoller,
    source: Any,
    condition: Callable[[int], dict[str, Any]],
    number: int,
    at: Callable[[], float],
) -> list[float]:
    """Seconds from `at` until each of the alarms was read as firing."""
    moved, taken = _watch_all(poller, source, condition, number), dict[Key, float]()
    async with asyncio.timeout(WAIT_SECONDS):
        while len(taken) < number:
            key = await moved.get()
            if key not in taken and any(reading.state == "ALARM" for reading in poller.readings(key)):
                taken[key] = time.time() - at()
    return [*taken.values()]


def _figure(kind: str, number: int, rounds: int, seconds: list[float]) -> Figure:
    milliseconds = [1000 * value for value in seconds]
    return Figure(
        f"from state to reading: {kind}, {number} watched",
        f"p50 {percentile(milliseconds, 0.5):.0f} ms, p99 {percentile(milliseconds, 0.99):.0f} ms",
        "p99 < 2 s, CloudWatch as its quota allows",
        {
            "rounds": rounds,
            "watched": number,
            "milliseconds": [round(value, 1) for value in sorted(milliseconds)[-1000:]],
        },
    )


PARTS = {"alarm-readings": readings}
