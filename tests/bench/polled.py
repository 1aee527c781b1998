"""Endpoints whose alarms one poller reads, without an operator around it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sluice.alarms.poller import AlarmPoller, Source
from sluice.core.identity import Key
from sluice.core.observation import AlarmQuestion, AlarmWatch, WatchedFleet
from sluice.ports.clock import SystemClock

CLOCK = SystemClock()
WAIT_SECONDS = 120.0


@asynccontextmanager
async def polling(source: Source) -> AsyncIterator[AlarmPoller]:
    poller = AlarmPoller(CLOCK, (source,))
    running = asyncio.create_task(poller.run())
    yield poller
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def key_of(index: int) -> Key:
    return Key("Endpoint", "team-a", f"e{index}")


def alarms_of(index: int, each: int = 1) -> list[str]:
    """The names of one Endpoint's alarms, which no other has."""
    return [f"q{index}-{number}" for number in range(each)]


def watch_all(
    poller: AlarmPoller, source: Any, condition: Callable[[int], dict[str, Any]], number: int, each: int = 1
) -> asyncio.Queue[Key]:
    """So many alarms of each of so many Endpoints. Returns whom the poller wakes."""
    moved = asyncio.Queue[Key]()
    poller.on_moved(moved.put_nowait, moved.put_nowait)
    for index in range(number):
        questions = tuple(AlarmQuestion(source, name, condition(index)) for name in alarms_of(index, each))
        fleets = (WatchedFleet(f"f{index}", "a", "r-1-1"),)
        poller.watch(key_of(index), AlarmWatch(questions, "team-a", f"e{index}", new=fleets))
    return moved


async def all_read(moved: asyncio.Queue[Key], number: int) -> None:
    """Each has had its first reading; then some part of a period, so that no moment of it is preferred."""
    seen = set[Key]()
    async with asyncio.timeout(WAIT_SECONDS):
        while len(seen) < number:
            seen.add(await moved.get())
    await asyncio.sleep(random.random())  # noqa: S311 - spreads
