"""A clock that only moves when a test steps it."""

import asyncio
from datetime import UTC, datetime, timedelta


class SteppedClock:
    """Wall and monotonic time in step; `sleep` ends when `step` passes its end."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return 1000.0 + self._elapsed

    @property
    def sleeping(self) -> int:
        """How many sleep."""
        return len(self._sleepers)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._elapsed + seconds, future)
        self._sleepers.append(entry)
        try:
            await future
        finally:
            self._sleepers.remove(entry)

    def skip(self, seconds: float) -> None:
        """Time jumps while nobody runs, as when the process is paused."""
        self._elapsed += seconds

    async def step(self, seconds: float) -> None:
        """Move time on, stopping at every sleep's end on the way so that what wakes can sleep again."""
        end = self._elapsed + seconds
        await settle()
        while True:
            due = [until for until, future in self._sleepers if until <= end and not future.done()]
            if not due:
                break
            self._elapsed = max(self._elapsed, min(due))
            for until, future in list(self._sleepers):
                if until <= self._elapsed and not future.done():
                    future.set_result(None)
            await settle()
        self._elapsed = end
        await settle()


async def settle() -> None:
    """Let every task that can run, run until it waits for time or I/O."""
    for _ in range(30):
        await asyncio.sleep(0)
