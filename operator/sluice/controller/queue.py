"""Which object gets a pass next: a keyed, de-duplicating, delayed queue, and the workers that drain it.

`Schedule` is the rule book, without I/O and without a clock: a key is ready, running, or due later, and never runs
twice at the same time. `WorkQueue` is the asyncio shell around it. The semantics are those of Kubernetes' client-go
work queue, because they lose nothing: a key that is added while it runs gets another pass afterwards.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from sluice.ports.clock import Clock

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

Sleep = Callable[[float], Awaitable[None]]
"""Waits for so many seconds of the clock in use; tests step it."""

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_LONGEST_SECONDS = 60.0
LONGEST_DELAY_SECONDS = 600.0
"""No delay is longer than this, so that a wall clock that was set back cannot put a deadline off for ever."""


FIRST_AGAIN_SECONDS = 2.0
"""The longest backoff of a key that was to go first: an alarm has fired, and the API server may be back any moment."""
FIRST_WORKERS = 2
"""Workers for first keys alone: whatever the others wait for, as an AWS region that does not answer, alarms do not."""

LOOK_SECONDS = 0.1
"""Between two looks at whether the queue is idle, which is a state of many parts."""

FAIR_SHARE = 8
"""Of so many passes one goes to a key that can wait, however many urgent ones there are."""
FIRST_SHARE = 64
"""Of so many passes one goes to another key however many first ones there are. Seldom, as first keys are few and soon
done, and what follows them takes many times as long: a larger share of the passes would hold most of the workers."""


class Unfinished(float):
    """The seconds until the next pass, of a pass that could not do what it was for. A key that went first goes first
    then, too: else what the API server refuses at one moment would wait for all that has come meanwhile."""


class Schedule(Generic[K]):
    """The state of every key. All times are monotonic seconds, passed in.

    Urgent keys go before others: an Endpoint's pass moves traffic, a Model's writes a status. Before both go those that
    were added as first: an alarm that fires for many at once must not wait for what follows the first ones of them.
    Slow keys are urgent, too, but of them `most_slow` run at once: their passes wait for what may not answer."""

    def __init__(
        self, urgent: Callable[[K], bool] = lambda _key: True, slow: Callable[[K], bool] = lambda _key: False
    ) -> None:
        self._urgent = urgent
        self._slow = slow
        self.most_slow = 1
        self._first: dict[K, float] = {}
        self._ready: dict[K, float] = {}
        self._ready_slow: dict[K, float] = {}
        self._patient: dict[K, float] = {}
        self._running_slow: set[K] = set()
        self._taken = 0
        self._taken_at = 0.0
        """When a worker that takes any key last took one."""
        self._running: dict[K, float] = {}
        self._again: dict[K, bool] = {}
        """Keys that run and get one more pass; whether that goes first."""
        self._due: dict[K, float] = {}
        self._first_again: set[K] = set()
        """Keys whose next pass goes first when it is due, as the one before did and failed."""
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()

    def add(self, key: K, now: float, *, first: bool = False) -> None:
        """The key needs a pass now; if it is running, one more after that. `first`: before all that are not."""
        if key in self._running:
            self._again[key] = first or self._again.get(key, False)
        elif first:
            waits = self._waiting_in(key)
            since = waits.pop(key) if waits is not None else now
            self._first.setdefault(key, since)
        elif self._waiting_in(key) is None:
            self._queue_of(key)[key] = now

    def add_at(self, key: K, when: float, now: float) -> None:
        """The key needs a pass at `when`. Of several times the earliest wins."""
        if when <= now:
            self.add(key, now)
            return
        if self._due.get(key, when + 1) <= when:
            return
        self._due[key] = when
        heapq.heappush(self._heap, (when, next(self._order), key))
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [(due, next(self._order), late) for late, due in self._due.items()]
            heapq.heapify(self._heap)

    def first_again(self, key: K) -> None:
        """The key's next pass, whenever it is due, goes first, too."""
        self._first_again.add(key)

    def take(self, now: float, *, first_only: bool = False) -> K | None:
        """The key that waits longest among the first, else among the urgent, and now and then among the others. It runs
        from now on; None if none is ready.

        Its deadline, if it has one, is answered by this pass, which names the next one itself."""
        self.promote(now)
        urgent = self._next_urgent()
        if not self._first and (first_only or not (urgent or self._patient)):
            return None
        if first_only:
            return self._run(self._first, now)
        self._taken += 1
        self._taken_at = now
        queue = urgent or self._patient
        if self._first and (self._taken % FIRST_SHARE or not queue):
            queue = self._first
        elif self._patient and self._taken % FAIR_SHARE == 0 and not self._first:
            queue = self._patient
        return self._run(queue, now)

    def _run(self, queue: dict[K, float], now: float) -> K:
        key = next(iter(queue))
        del queue[key]
        if queue is self._ready_slow or self._slow(key):
            self._running_slow.add(key)
        self._due.pop(key, None)
        self._first_again.discard(key)
        self._running[key] = now
        return key

    def done(self, key: K, now: float) -> None:
        """The key's pass ended."""
        del self._running[key]
        self._running_slow.discard(key)
        first = self._again.pop(key, None)
        if first is not None:
            self.add(key, now, first=first)

    def drop_delay(self, key: K) -> None:
        """The key's object is gone: its deadline means nothing any more. A pass that is due now still runs."""
        self._due.pop(key, None)
        self._first_again.discard(key)

    def promote(self, now: float) -> None:
        """Make everything ready that is due."""
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == when:
                del self._due[key]
                self.add(key, now, first=key in self._first_again)

    def next_due(self) -> float | None:
        """When the earliest delayed key is due."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    @property
    def depth(self) -> int:
        """Keys that are ready and wait for a worker."""
        return sum(map(len, self._queues))

    @property
    def first(self) -> int:
        """Of these, those that go first."""
        return len(self._first)

    @property
    def running(self) -> int:
        """Keys in a worker's hands."""
        return len(self._running)

    @property
    def delayed(self) -> int:
        """Keys with a deadline in the future."""
        return len(self._due)

    def oldest_ready(self) -> float | None:
        """Since when the key waits that waits longest."""
        return min((since for queue in self._queues if (since := self._oldest(queue)) is not None), default=None)

    def stands_since(self) -> float | None:
        """Since when keys wait and none is taken. However long a key has waited, while others are taken the queue is
        long and does not stand: a restart, which adds every key again, would make it longer."""
        oldest = self.oldest_ready()
        return None if oldest is None else max(oldest, self._taken_at)

    @property
    def _queues(self) -> tuple[dict[K, float], ...]:
        return self._first, self._ready, self._ready_slow, self._patient

    @property
    def _may_run_slow(self) -> bool:
        return len(self._running_slow) < self.most_slow

    def _oldest(self, queue: dict[K, float]) -> float | None:
        """Since when the key waits that waits longest. Only first keys keep the time of a queue that they were in."""
        return min(queue.values(), default=None) if queue is self._first else next(iter(queue.values()), None)

    def _next_urgent(self) -> dict[K, float]:
        """The queue of the urgent key that waits longest, of those that may run; an empty one if there is none."""
        if not self._ready_slow or not self._may_run_slow:
            return self._ready
        if not self._ready or next(iter(self._ready_slow.values())) < next(iter(self._ready.values())):
            return self._ready_slow
        return self._ready

    def _queue_of(self, key: K) -> dict[K, float]:
        if self._slow(key):
            return self._ready_slow
        return self._ready if self._urgent(key) else self._patient

    def _waiting_in(self, key: K) -> dict[K, float] | None:
        """The queue that the key is in. What it is may have changed since it came into it."""
        return next((queue for queue in self._queues if key in queue), None)

    def oldest_running(self) -> float | None:
        """Since when the longest pass runs."""
        return min(self._running.values(), default=None)


Handle = Callable[[K], Awaitable[float | None]]
"""One pass: returns after how many seconds the key wants the next one (None: only when something happens)."""
OnError = Callable[[K, Exception, float], None]
"""A pass raised; the key gets another in so many seconds."""


class WorkQueue(Generic[K]):
    """Runs `handle` for keys on a fixed number of workers. Everything but `run` and `stop` may be called before the
    workers start: keys wait."""

    def __init__(
        self,
        clock: Clock,
        handle: Handle[K],
        on_error: OnError[K],
        *,
        urgent: Callable[[K], bool] = lambda _key: True,
        slow: Callable[[K], bool] = lambda _key: False,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`slow`: keys whose passes have half of the workers at most, as they may hang for long."""
        self._clock = clock
        self._handle = handle
        self._on_error = on_error
        self._sleep = sleep
        self._schedule: Schedule[K] = Schedule(urgent, slow)
        self._failures: dict[K, int] = {}
        self._free: list[asyncio.Future[None]] = []
        self._free_for_first: list[asyncio.Future[None]] = []
        self._hasty: set[K] = set()
        """Keys that were to go first, and had no pass since that did not fail."""
        self._sleeper: asyncio.Future[None] | None = None
        self._rearmed = asyncio.Event()
        self._started_at: float | None = None
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, key: K) -> None:
        """The key needs a pass now."""
        self._schedule.add(key, self._clock.monotonic())
        self._wake()

    def add_first(self, key: K) -> None:
        """The key needs a pass now, before all others that were not added so."""
        self._hasty.add(key)
        self._schedule.add(key, self._clock.monotonic(), first=True)
        self._wake()

    def add_after(self, key: K, seconds: float) -> None:
        """The key needs a pass in so many seconds, or earlier if it already was to get one."""
        now = self._clock.monotonic()
        before = self._schedule.next_due()
        self._schedule.add_at(key, now + min(seconds, LONGEST_DELAY_SECONDS), now)
        self._wake()
        after = self._schedule.next_due()
        if after is not None and (before is None or after < before):
            self._rearm()

    def forget(self, key: K) -> None:
        """The key's object is gone: no deadline, no backoff."""
        self._schedule.drop_delay(key)
        self._failures.pop(key, None)
        self._hasty.discard(key)

    def start(self, workers: int) -> None:
        """Begin to work, with so many workers and those for first keys. Called once."""
        self._started_at = self._clock.monotonic()
        self._schedule.most_slow = max(1, workers // 2)
        self._tasks = [asyncio.create_task(self._promote_due(), name="queue: deadlines")]
        self._tasks += [asyncio.create_task(self._work(), name=f"queue: worker {n}") for n in range(workers)]
        self._tasks += [
            asyncio.create_task(self._work(first_only=True), name=f"queue: worker {n} for first keys")
            for n in range(FIRST_WORKERS)
        ]
        for task in self._tasks:
            task.add_done_callback(self._say_dead)

    async def stop(self, within_seconds: float) -> bool:
        """Take no more keys, let the running passes end. False: some did not end in time and were cancelled."""
        self._stopping = True
        for free in (*self._free, *self._free_for_first):
            if not free.done():
                free.set_result(None)
        if not self._tasks:
            return True
        self._tasks[0].cancel()
        _, late = await asyncio.wait(self._tasks, timeout=within_seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return not late

    async def until_idle(self, *, patience_seconds: float, longest_seconds: float) -> None:
        """Until nothing is ready and nothing runs. Given up when the keys that wait have become no fewer for so long,
        or after the longest time."""
        begun = progressed = self._clock.monotonic()
        fewest = self.depth
        while not self.idle:
            now = self._clock.monotonic()
            if self.depth < fewest:
                fewest, progressed = self.depth, now
            if now - progressed >= patience_seconds or now - begun >= longest_seconds:
                return
            await self._sleep(LOOK_SECONDS)

    def problems(self) -> tuple[str, ...]:
        """Workers that ended though nobody stopped them."""
        if self._stopping:
            return ()
        return tuple(f"{task.get_name()} is dead" for task in self._tasks if task.done())

    @staticmethod
    def _say_dead(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.critical("%s is dead; /healthz tells", task.get_name(), exc_info=error)

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return self._schedule.depth

    @property
    def running(self) -> int:
        """Passes under way."""
        return self._schedule.running

    @property
    def delayed(self) -> int:
        """Keys with a deadline."""
        return self._schedule.delayed

    @property
    def idle(self) -> bool:
        """Nothing is ready and nothing runs."""
        return not self._schedule.depth and not self._schedule.running

    def oldest_ready_age_seconds(self) -> float:
        """How long the key has waited that waits longest, counted from the workers' start."""
        return self._age(self._schedule.oldest_ready())

    def stands_seconds(self) -> float:
        """How long keys have waited of which none was taken."""
        return self._age(self._schedule.stands_since())

    def longest_pass_seconds(self) -> float:
        """How long the longest running pass has been running."""
        return self._age(self._schedule.oldest_running())

    def _age(self, since: float | None) -> float:
        if since is None or self._started_at is None or self._stopping:
            return 0.0
        return max(0.0, self._clock.monotonic() - max(since, self._started_at))

    def _wake(self) -> None:
        """Wake one free worker for each ready key, and for first keys those that wait for them alone, too."""
        for free in (*self._free[: self._schedule.depth], *self._free_for_first[: self._schedule.first]):
            if not free.done():
                free.set_result(None)

    def _rearm(self) -> None:
        self._rearmed.set()
        if self._sleeper is not None:
            self._sleeper.cancel()

    async def _promote_due(self) -> None:
        while True:
            self._rearmed.clear()
            due = self._schedule.next_due()
            if due is None:
                await self._rearmed.wait()
                continue
            delay = due - self._clock.monotonic()
            if delay > 0:
                self._sleeper = asyncio.ensure_future(self._sleep(delay))
                try:
                    await asyncio.wait({self._sleeper})
                finally:
                    self._sleeper.cancel()
                    self._sleeper = None
            self._schedule.promote(self._clock.monotonic())
            self._wake()

    async def _work(self, *, first_only: bool = False) -> None:
        idle = self._free_for_first if first_only else self._free
        while not self._stopping:
            key = self._schedule.take(self._clock.monotonic(), first_only=first_only)
            if key is None:
                free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                idle.append(free)
                try:
                    await free
                finally:
                    idle.remove(free)
                continue
            await self._pass(key)

    async def _pass(self, key: K) -> None:
        hasty = key in self._hasty
        self._hasty.discard(key)
        try:
            again = await self._handle(key)
        except Exception as error:  # noqa: BLE001 - one key's bug must not stop the others; it is reported and retried
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            longest = FIRST_AGAIN_SECONDS if hasty else BACKOFF_LONGEST_SECONDS
            delay = min(longest, BACKOFF_FIRST_SECONDS * 2.0 ** min(failures - 1, 20))
            if hasty:
                self._go_first_again(key)
            self._on_error(key, error, delay)
            again = delay
        else:
            self._failures.pop(key, None)
            if hasty and isinstance(again, Unfinished):
                self._go_first_again(key)
        finally:
            self._schedule.done(key, self._clock.monotonic())
            self._wake()
        if again is not None:
            self.add_after(key, again)

    def _go_first_again(self, key: K) -> None:
        self._hasty.add(key)
        self._schedule.first_again(key)
