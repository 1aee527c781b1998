"""Alarms in the cluster: from a state in its source to the reading that wakes the pass, for each kind, with one watched
alarm and with many. Prometheus, Envoy and its agent's server, and moto's CloudWatch behind AWS' quota are real, and so
is the poller."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.alarms.quota import DESCRIBE_ALARMS_PER_SECOND, Counted
from tests.alarms.routers import Operator, invoke
from tests.bench.cloudwatch import REGION, alarms_behind_quota, moved_after, said
from tests.bench.figures import Figure
from tests.bench.polled import CLOCK, WAIT_SECONDS, all_read, key_of, polling, watch_all
from tests.bench.router import percentile
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.specs import fleet, route

from localcluster.prometheus import Prometheus
from sluice.alarms.cloudwatch import CloudWatchReader, CloudWatchSource
from sluice.alarms.poller import AlarmPoller
from sluice.alarms.prometheus import PrometheusSettings, PrometheusSource
from sluice.alarms.traffic import TrafficSource
from sluice.core.identity import Key

MANY, MANY_QUICK = 500, 50
ROUNDS, ROUNDS_QUICK = 10, 2
SOON_SECONDS = 3.0
"""A condition on Prometheus' own clock comes true after so long, when everybody watches it."""


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

                async with polling(PrometheusSource(CLOCK, PrometheusSettings(prometheus.url))) as poller:
                    taken += await _fired(poller, "PromQL", condition, number, lambda at=at: at)  # type: ignore[misc]
            return taken

        return _figure("PromQL: condition true on Prometheus' clock", number, rounds, asyncio.run(measure()))


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
                async with polling(PrometheusSource(CLOCK, PrometheusSettings(prometheus.url))) as poller:
                    taken += await _fired(
                        poller,
                        "PrometheusAlert",
                        lambda index: {"prometheusAlert": {"alertName": f"A{index}"}},
                        number,
                        lambda at=at: at,  # type: ignore[misc]
                    )
            return taken

        return _figure("alert evaluated each second: its expression true", number, rounds, asyncio.run(measure()))


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
                async with polling(source) as poller:
                    moved = watch_all(poller, "Traffic", lambda _: condition, number)
                    await all_read(moved, number)
                    await asyncio.to_thread(invoke, envoys[0], f"E{number - 1}")
                    at = time.time()
                    async with asyncio.timeout(WAIT_SECONDS):
                        while await moved.get() != key_of(number - 1):
                            continue
                    taken.append(time.time() - at)
            return taken

        return _figure("traffic, 2 routers: bad answer at its caller", number, rounds, asyncio.run(measure()))
    finally:
        operator.close()
        container.stop()
        for envoy in envoys:
            envoy.kill()
            envoy.end_serving()


def _cloudwatch(number: int, rounds: int) -> Figure:
    """One alarm of each Endpoint."""
    with alarms_behind_quota(number, 1) as (calls, client, quota):

        async def measure() -> list[float]:
            reader = CloudWatchReader(calls, CLOCK)
            async with polling(CloudWatchSource(reader, CLOCK, REGION)) as poller:
                moved = watch_all(poller, "CloudWatch", lambda _: {}, number)
                await all_read(moved, number)
                taken = await moved_after(poller, moved, client, number, rounds)
            await reader.stop()
            return taken

        return _figure(
            f"CloudWatch behind a quota of {DESCRIBE_ALARMS_PER_SECOND:g}/s: SetAlarmState answered",
            number,
            rounds,
            asyncio.run(measure()),
            quota.counted,
        )


async def _fired(
    poller: AlarmPoller,
    source: Any,
    condition: Callable[[int], dict[str, Any]],
    number: int,
    at: Callable[[], float],
) -> list[float]:
    """Seconds from `at` until each of the alarms was read as firing."""
    moved, taken = watch_all(poller, source, condition, number), dict[Key, float]()
    async with asyncio.timeout(WAIT_SECONDS):
        while len(taken) < number:
            key = await moved.get()
            if key not in taken and any(reading.state == "ALARM" for reading in poller.readings(key)):
                taken[key] = time.time() - at()
    return [*taken.values()]


def _figure(kind: str, number: int, rounds: int, seconds: list[float], calls: Counted | None = None) -> Figure:
    milliseconds = [1000 * value for value in seconds]
    return Figure(
        f"{kind} -> the poller wakes its Endpoint, {number} watched",
        f"p50 {percentile(milliseconds, 0.5):.0f} ms, p99 {percentile(milliseconds, 0.99):.0f} ms"
        + (f"; {said(calls)}" if calls else ""),
        "p99 < 2 s, CloudWatch as its quota allows",
        {
            "rounds": rounds,
            "watched": number,
            "milliseconds": [round(value, 1) for value in sorted(milliseconds)[-1000:]],
            **({"calls": asdict(calls)} if calls else {}),
        },
    )


PARTS = {"alarm-readings": readings}
