"""CloudWatch alarms behind the quota that AWS grants: how old what is known of very many is, and how soon a state is
known. moto's CloudWatch and the poller are real; the quota is a proxy before moto, which has none."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
from moto.server import ThreadedMotoServer
from tests.alarms.quota import DESCRIBE_ALARMS_PER_SECOND, Counted, Quota, behind_quota
from tests.bench.figures import Figure
from tests.bench.polled import CLOCK, WAIT_SECONDS, alarms_of, key_of, polling, watch_all
from tests.bench.router import percentile

from sluice.alarms.cloudwatch import CloudWatchReader, CloudWatchSource
from sluice.alarms.poller import AlarmPoller
from sluice.alarms.subjects import Sight, Subject
from sluice.core.identity import Key
from sluice.ports.telemetry import NoTelemetry
from sluice.sagemaker.clients import AwsCalls, AwsSettings

REGION = "eu-west-1"
ALARMS_EACH = 5
ENDPOINTS, ENDPOINTS_QUICK = 500, 50
ROUNDS, ROUNDS_QUICK = 20, 4
STRIDE = 211
"""From one Endpoint whose alarm moves to the next: they are in all calls of a round, the first as the last."""
LOOK_SECONDS = 0.5
"""Between two looks at how old everything is, on average."""


@dataclass(slots=True)
class _Seen:
    """What looks at all readings found."""

    ages: list[float] = field(default_factory=list)
    """Seconds, of each reading at each look."""
    readings: Counter[str] = field(default_factory=Counter)
    """Alarm -> new readings of it, since the first look."""
    last: dict[str, datetime] = field(default_factory=dict)

    def look(self, poller: AlarmPoller, endpoints: int) -> int:
        """How many alarms have a reading."""
        now, found = CLOCK.now(), [one for index in range(endpoints) for one in poller.readings(key_of(index))]
        for reading in found:
            self.ages.append((now - reading.read_at).total_seconds())
            self.readings[reading.name] += self.last.get(reading.name, reading.read_at) != reading.read_at
            self.last[reading.name] = reading.read_at
        return len(found)


@dataclass(frozen=True, slots=True)
class _Measured:
    seen: _Seen
    seconds: float
    rounds: int
    """Of the poller, that ended meanwhile."""
    calls: Counted
    period_seconds: float
    """As the source says it at the end."""
    first_seconds: float
    """From the first watch until every alarm had been read once."""
    first_calls: Counted
    known_after: list[float]
    """Seconds from a state to its reading."""


class _Rounds(CloudWatchSource):
    """Counts the poller's rounds, by the alarm that stands first in each."""

    ended = 0
    _first: Subject | None = None

    async def read(self, subjects: Collection[Subject]) -> Mapping[Subject, Sight]:
        """See Source."""
        found = await super().read(subjects)
        self._first = self._first or next(iter(subjects))
        self.ended += self._first in subjects
        return found


def aged(_: Path, *, quick: bool) -> list[Figure]:
    """Many Endpoints, each with alarms of its own."""
    endpoints, rounds = (ENDPOINTS_QUICK, ROUNDS_QUICK) if quick else (ENDPOINTS, ROUNDS)
    with alarms_behind_quota(endpoints, ALARMS_EACH) as (calls, client, quota):
        measured = asyncio.run(_measure(calls, client, quota, endpoints, rounds))
    every = (
        f"{endpoints} Endpoints x {ALARMS_EACH} CloudWatch alarms behind a quota of {DESCRIBE_ALARMS_PER_SECOND:g}/s"
    )
    seen, known = measured.seen, measured.known_after
    readings = [seen.readings[name] for name in seen.last]
    mean = sum(readings) / len(readings)
    return [
        Figure(
            f"age of what is known of an alarm, at any moment: {every}",
            f"p50 {percentile(seen.ages, 0.5):.1f} s, p99 {percentile(seen.ages, 0.99):.1f} s; {measured.rounds} "
            f"rounds in {measured.seconds:.0f} s, {measured.rounds / mean:.2f} for each reading of an alarm; "
            f"{said(measured.calls)}",
            "as the quota allows; 0 refused",
            {
                "seconds": round(measured.seconds, 1),
                "oldestSeconds": round(max(seen.ages), 1),
                "rounds": measured.rounds,
                "readingsOfAnAlarm": {"mean": round(mean, 2), "fewest": min(readings), "most": max(readings)},
                "periodSecondsAtTheEnd": round(measured.period_seconds, 2),
                "calls": asdict(measured.calls),
            },
        ),
        Figure(
            f"first watched -> every alarm read once: {every}",
            f"{measured.first_seconds:.1f} s; {said(measured.first_calls)}",
            "as the quota allows; 0 refused",
            {"seconds": round(measured.first_seconds, 2), "calls": asdict(measured.first_calls)},
        ),
        Figure(
            f"SetAlarmState answered -> its Endpoint is woken with that state: {every}",
            f"p50 {percentile(known, 0.5):.1f} s, p99 {percentile(known, 0.99):.1f} s ({rounds} states)",
            "as the quota allows",
            {"seconds": [round(value, 2) for value in sorted(known)]},
        ),
    ]


async def _measure(calls: AwsCalls, client: Any, quota: Quota, endpoints: int, rounds: int) -> _Measured:
    reader = CloudWatchReader(calls, CLOCK)
    source = _Rounds(reader, CLOCK, REGION)
    async with polling(source) as poller:
        began = time.monotonic()
        moved = watch_all(poller, "CloudWatch", lambda _: {}, endpoints, ALARMS_EACH)
        async with asyncio.timeout(WAIT_SECONDS):
            while _Seen().look(poller, endpoints) < endpoints * ALARMS_EACH:
                await moved.get()
        first_seconds, first_calls = time.monotonic() - began, quota.counted
        seen, ended, began = _Seen(), source.ended, time.monotonic()
        seen.look(poller, endpoints)
        looking = asyncio.create_task(_look(seen, poller, endpoints))
        known_after = await moved_after(poller, moved, client, endpoints, rounds)
        seen.look(poller, endpoints)
        measured = _Measured(
            seen,
            time.monotonic() - began,
            source.ended - ended,
            quota.counted.since(first_calls),
            source.period_seconds,
            first_seconds,
            first_calls,
            known_after,
        )
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    await reader.stop()
    return measured


async def _look(seen: _Seen, poller: AlarmPoller, endpoints: int) -> None:
    while True:
        seen.look(poller, endpoints)
        await asyncio.sleep(random.uniform(0, 2 * LOOK_SECONDS))  # noqa: S311 - spreads


async def moved_after(
    poller: AlarmPoller, moved: asyncio.Queue[Key], client: Any, endpoints: int, rounds: int
) -> list[float]:
    """Seconds from a state of one Endpoint's first alarm, one Endpoint after the other, until the poller wakes that
    Endpoint with it."""
    taken = []
    for number in range(rounds):
        index, state = number * STRIDE % endpoints, "ALARM" if number // endpoints % 2 == 0 else "OK"
        name, key = alarms_of(index)[0], key_of(index)
        # The last one was told at the end of a round: no moment of the next is preferred.
        await asyncio.sleep(random.random() * max(poller.periods().values()))  # noqa: S311 - spreads
        await asyncio.to_thread(client.set_alarm_state, AlarmName=name, StateValue=state, StateReason="bench")
        at = time.time()
        async with asyncio.timeout(WAIT_SECONDS):
            while await moved.get() != key or (name, state) not in {(r.name, r.state) for r in poller.readings(key)}:
                continue
        taken.append(time.time() - at)
    return taken


@contextmanager
def alarms_behind_quota(endpoints: int, each: int) -> Iterator[tuple[AwsCalls, Any, Quota]]:
    """So many alarms of so many Endpoints: calls that reach them through the quota, a client that does not."""
    before = dict(os.environ)
    try:
        with moto() as upstream, behind_quota(upstream) as quota:
            os.environ |= {
                "AWS_ENDPOINT_URL": quota.url,
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
            client = boto3.client("cloudwatch", region_name=REGION, endpoint_url=upstream)
            for index in range(endpoints):
                for name in alarms_of(index, each):
                    client.put_metric_alarm(
                        AlarmName=name, Namespace="Models", MetricName="x", Statistic="Sum", Period=60,
                        EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold",
                    )  # fmt: skip
            calls = AwsCalls(AwsSettings(), NoTelemetry(), CLOCK)
            try:
                yield calls, client, quota
            finally:
                calls.close()
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def moto() -> Iterator[str]:
    """The URL of a CloudWatch without quotas."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def said(calls: Counted) -> str:
    """What the quota counted."""
    return f"{calls.passed} calls of DescribeAlarms passed, {calls.refused} refused"


PARTS: dict[str, Callable[..., list[Figure]]] = {"alarm-readings-quota": aged}
"""Each takes a directory of its own and `quick`."""
