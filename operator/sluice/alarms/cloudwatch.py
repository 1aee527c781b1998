"""Reads CloudWatch alarms by name: one poller for all Endpoints with the same credentials.

Requests that come while a poll runs share the next one, a hundred names a call. The period is one second, or what half
of the account's quota for DescribeAlarms allows, whichever is longer. Says what the alarms are; what that means for a
deployment is decided in core."""

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sluice.api.reasons import Reason
from sluice.core.identity import Credentials, Target
from sluice.core.observation import AlarmReading
from sluice.ports.aws import Aws
from sluice.ports.backend import ActFailed
from sluice.ports.clock import Clock

NAMES_PER_CALL: Final = 100
MISSING: Final = "Missing"
UNREADABLE: Final = "Unreadable"
# Without AlarmTypes only metric alarms come back, and a composite one would look missing.
_ALARM_TYPES: Final = ("MetricAlarm", "CompositeAlarm")


@dataclass(frozen=True, slots=True)
class CloudWatchSettings:
    """How often alarms are read."""

    shortest_period_seconds: float = 1.0
    calls_per_second: float = 4.5
    """Half of DescribeAlarms' default quota, 9 per second in an account and region."""
    longest_read_seconds: float = 10.0
    """A pass waits no longer than this; then its alarms are Unreadable."""


@dataclass(slots=True, eq=False)
class _Request:
    names: tuple[str, ...]
    not_before: datetime
    answer: asyncio.Future[tuple[AlarmReading, ...]]


@dataclass(slots=True)
class _Poller:
    waiting: list[_Request] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    started: float = -math.inf
    """When the last poll was started, monotonic."""
    period_seconds: float = 0.0


class CloudWatchReader:
    """Implements AlarmReader with DescribeAlarms."""

    def __init__(self, aws: Aws, clock: Clock, settings: CloudWatchSettings | None = None) -> None:
        self._aws = aws
        self._clock = clock
        self._settings = settings or CloudWatchSettings()
        self._pollers: dict[Credentials, _Poller] = {}

    async def read(self, target: Target, names: tuple[str, ...], not_before: datetime) -> tuple[AlarmReading, ...]:
        """See AlarmReader. A not_before in the future is waited for."""
        names = tuple(dict.fromkeys(names))
        if not names:
            return ()
        poller = self._pollers.setdefault(target.credentials, _Poller())
        request = _Request(names, not_before, asyncio.get_running_loop().create_future())
        poller.waiting.append(request)
        if poller.task is None or poller.task.done():
            poller.task = asyncio.create_task(self._poll(target.credentials, poller), name="cloudwatch alarms")
        longest = self._settings.longest_read_seconds + max(0.0, (not_before - self._clock.now()).total_seconds())
        try:
            async with asyncio.timeout(longest):
                return await request.answer
        except TimeoutError:
            message = f"DescribeAlarms gave no answer within {longest:.0f} s"
            return tuple(AlarmReading(name, UNREADABLE, self._clock.now(), message) for name in names)
        finally:
            if request in poller.waiting:
                poller.waiting.remove(request)

    def period_seconds(self, credentials: Credentials) -> float:
        """The computed time between two polls with these credentials: how late an alarm can be seen."""
        poller = self._pollers.get(credentials)
        return max(self._settings.shortest_period_seconds, 0.0 if poller is None else poller.period_seconds)

    async def stop(self) -> None:
        """End the polls; passes that still wait get no answer."""
        tasks = [poller.task for poller in self._pollers.values() if poller.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll(self, credentials: Credentials, poller: _Poller) -> None:
        """Polls while somebody waits."""
        while poller.waiting:
            await asyncio.sleep(self._pause(poller))
            due = [request for request in poller.waiting if request.not_before <= self._clock.now()]
            if not due:
                continue
            names = sorted({name for request in due for name in request.names})
            poller.started = self._clock.monotonic()
            poller.period_seconds = math.ceil(len(names) / NAMES_PER_CALL) / self._settings.calls_per_second
            readings = {reading.name: reading for reading in await self._describe(credentials, names)}
            for request in due:
                if not request.answer.done():
                    request.answer.set_result(tuple(readings[name] for name in request.names))
                if request in poller.waiting:
                    poller.waiting.remove(request)

    def _pause(self, poller: _Poller) -> float:
        """Seconds until the next poll is allowed and somebody waits for it."""
        period = max(self._settings.shortest_period_seconds, poller.period_seconds)
        allowed = poller.started + period - self._clock.monotonic()
        wanted = min(request.not_before for request in poller.waiting) - self._clock.now()
        return max(0.0, allowed, wanted.total_seconds())

    async def _describe(self, credentials: Credentials, names: Sequence[str]) -> Iterable[AlarmReading]:
        chunks = [names[start : start + NAMES_PER_CALL] for start in range(0, len(names), NAMES_PER_CALL)]
        parts = await asyncio.gather(*(self._describe_chunk(credentials, chunk) for chunk in chunks))
        return (reading for part in parts for reading in part)

    async def _describe_chunk(self, credentials: Credentials, names: Sequence[str]) -> list[AlarmReading]:
        read_at = self._clock.now()
        try:
            found = await self._states(credentials, names)
        except ActFailed as failure:
            problem = failure.problem
            if problem.reason is Reason.REJECTED_BY_SAGEMAKER and len(names) > 1:
                # One name that CloudWatch does not take must not blind the others: halve until it stands alone.
                half = len(names) // 2
                return [
                    *await self._describe_chunk(credentials, names[:half]),
                    *await self._describe_chunk(credentials, names[half:]),
                ]
            return [AlarmReading(name, UNREADABLE, read_at, problem.message[:512]) for name in names]
        missing = (MISSING, f"CloudWatch has no metric or composite alarm of this name in {credentials.region}")
        readings = []
        for name in names:
            state, message = found.get(name, missing)
            readings.append(AlarmReading(name, state, read_at, message))
        return readings

    async def _states(self, credentials: Credentials, names: Sequence[str]) -> dict[str, tuple[str, str | None]]:
        """State and reason by name. Raises ActFailed."""
        found: dict[str, tuple[str, str | None]] = {}
        token: dict[str, str] = {}
        while True:
            answer = await self._aws.call(
                credentials,
                "cloudwatch",
                "DescribeAlarms",
                AlarmNames=list(names),
                AlarmTypes=list(_ALARM_TYPES),
                MaxRecords=NAMES_PER_CALL,
                **token,
            )
            for group in ("MetricAlarms", "CompositeAlarms"):
                for alarm in answer.get(group, ()):
                    found[str(alarm["AlarmName"])] = (
                        str(alarm["StateValue"]),
                        alarm.get("StateReason", "")[:512] or None,
                    )
            if not answer.get("NextToken"):
                return found
            token = {"NextToken": answer["NextToken"]}
