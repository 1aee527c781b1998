"""Time that a test steps, and a source that says what the test wants."""

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

from sluice.alarms.subjects import NamedAlarm, Query, Sight, Subject
from sluice.core.identity import Key
from sluice.core.observation import AlarmQuestion, AlarmWatch
from sluice.ports.clock import Clock

START = datetime(2026, 1, 1, tzinfo=UTC)


class Stepped:
    """A clock."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return 1000.0 + self.seconds


class Says:
    """Named alarms and queries as the test sets them; one that is not set cannot be read."""

    name = "CloudWatch"
    kinds: tuple[type[Subject], ...] = (NamedAlarm, Query)
    period_seconds = 1.0
    patience_seconds = 10.0
    at_once: int | None = None

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.states: dict[str, str] = {}
        self.asked: list[set[str]] = []
        self.closed = False
        self.forgot = asyncio.Event()

    async def read(self, subjects: Collection[Subject]) -> Mapping[Subject, Sight]:
        asked = {subject: _called(subject) for subject in subjects}
        self.asked.append(set(asked.values()))
        if not asked:
            self.forgot.set()
        at = self._clock.now()
        return {
            subject: Sight(self.states.get(called), at, "said so" if self.states else "away")
            for subject, called in asked.items()
        }

    async def close(self) -> None:
        self.closed = True


def _called(subject: Subject) -> str:
    assert isinstance(subject, (NamedAlarm, Query))
    return subject.name if isinstance(subject, NamedAlarm) else subject.expression


def key(name: str = "churn") -> Key:
    return Key("Endpoint", "team-a", name)


def watch(*alarms: str, endpoint: str = "churn") -> AlarmWatch:
    return AlarmWatch(tuple(AlarmQuestion("CloudWatch", name) for name in alarms), "team-a", endpoint)
