"""The queue never gives one key to two workers, loses nothing, and keeps the earliest deadline."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from tests.controller.clock import SteppedClock, settle

from sluice.controller.queue import (
    BACKOFF_LONGEST_SECONDS,
    LONGEST_DELAY_SECONDS,
    Schedule,
    WorkQueue,
)

KEYS = st.sampled_from("abcdef")


class ScheduleModel(RuleBasedStateMachine):
    """Compares Schedule with the promise that callers rely on: each request is followed by a pass in time."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.schedule = self.made()
        self.later: dict[str, list[float]] = {}
        self.running: set[str] = set()

    def made(self) -> Schedule[str]:
        return Schedule(urgent=lambda key: key in "abc")

    def may_wait(self, due: set[str]) -> set[str]:
        """Of the keys that are due, those that nobody has to get."""
        return set()

    def _note(self, key: str, when: float) -> None:
        self.later.setdefault(key, []).append(max(when, self.now))

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        self.schedule.add(key, self.now)
        self._note(key, self.now)

    @rule(key=KEYS)
    def add_first(self, key: str) -> None:
        self.schedule.add(key, self.now, first=True)
        self._note(key, self.now)

    @rule(key=KEYS, delay=st.floats(0, 30))
    def add_at(self, key: str, delay: float) -> None:
        self.schedule.add_at(key, self.now + delay, self.now)
        self._note(key, self.now + delay)

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=taken)
    def take(self) -> str:
        key = self.schedule.take(self.now)
        due = {key for key, times in self.later.items() if min(times) <= self.now} - self.running
        if key is None:
            due -= self.may_wait(due)
            assert not due, f"{due} were due at {self.now} and nobody got them"
            return ""
        assert key not in self.running, f"{key} was given to two workers"
        self.running.add(key)
        # A deadline that lost against an earlier one is answered by the pass at the earlier one: that pass sees the
        # object as it is now and sets its own deadline.
        self.later.pop(key, None)
        return key

    @rule(key=taken)
    def done(self, key: str) -> None:
        if key in self.running:
            self.running.discard(key)
            self.schedule.done(key, self.now)

    @invariant()
    def counts_what_runs(self) -> None:
        assert self.schedule.running == len(self.running)

    def teardown(self) -> None:
        for key in list(self.running):
            self.schedule.done(key, self.now)
        self.running.clear()
        self.now += 31
        seen = set()
        while (key := self.schedule.take(self.now)) is not None:
            seen.add(key)
            self.schedule.done(key, self.now)
        assert set(self.later) <= seen, "a request was lost"


TestSchedule = ScheduleModel.TestCase
TestSchedule.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_key_added_while_it_runs_gets_one_more_pass_afterwards() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("a", 0)
    assert schedule.take(0) == "a"
    schedule.add("a", 1)
    schedule.add("a", 2)
    assert schedule.take(3) is None
    schedule.done("a", 3)
    assert schedule.take(3) == "a"
    schedule.done("a", 4)
    assert schedule.take(100) is None


def test_the_earliest_deadline_wins_in_either_order() -> None:
    for times in ((5.0, 9.0), (9.0, 5.0)):
        schedule: Schedule[str] = Schedule()
        for when in times:
            schedule.add_at("a", when, 0)
        assert schedule.next_due() == 5
        assert schedule.take(4.9) is None
        assert schedule.take(5) == "a"


def test_urgent_keys_go_first_and_the_others_are_not_starved() -> None:
    schedule: Schedule[str] = Schedule(urgent=lambda key: key.startswith("Endpoint"))
    for n in range(20):
        schedule.add(f"Model{n}", 0)
        schedule.add(f"Endpoint{n}", 1)
    assert schedule.depth == 40
    assert schedule.oldest_ready() == 0
    taken = [schedule.take(2) or "" for _ in range(40)]
    assert sum(key.startswith("Endpoint") for key in taken[:16]) == 14
    assert sum(key.startswith("Model") for key in taken[:16]) == 2
    assert len(set(taken)) == 40


def test_first_keys_go_before_urgent_ones_that_wait_longer_and_starve_nobody() -> None:
    schedule: Schedule[str] = Schedule(urgent=lambda key: not key.startswith("Model"))
    for n in range(20):
        schedule.add(f"Model{n}", 0)
        schedule.add(f"Endpoint{n}", 0)
    for n in range(200):
        schedule.add(f"Fired{n}", 1, first=True)
    assert (schedule.depth, schedule.oldest_ready()) == (240, 0)
    taken = [schedule.take(2) or "" for _ in range(240)]
    kinds = [key.rstrip("0123456789") for key in taken]
    assert kinds[:63] == ["Fired"] * 63, "what follows a first key takes many times as long as the key"
    assert [at for at in range(203) if kinds[at] != "Fired"] == [63, 127, 191], "but they do not wait for ever"
    assert kinds[203:219].count("Model") == 2, "and then as ever"
    assert len(set(taken)) == 240


def test_a_key_that_waits_or_runs_already_can_come_first() -> None:
    schedule: Schedule[str] = Schedule()
    for key in ("a", "b", "c", "d"):
        schedule.add(key, 0)
    schedule.add("c", 1, first=True)
    schedule.add("c", 2)
    assert schedule.depth == 4
    assert schedule.take(3) == "c"
    schedule.add("c", 4)
    schedule.add("c", 4, first=True)
    schedule.add("c", 4)
    schedule.done("c", 5)
    assert schedule.take(5) == "c", "what fired while it ran is looked at next"
    schedule.add("c", 6)
    schedule.done("c", 6)
    assert schedule.take(7) == "a", "and only that"


def test_how_long_the_oldest_waits_is_told_of_first_keys_too() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.add("late", 5, first=True)
    schedule.add("early", 2)
    schedule.add("early", 6, first=True)
    assert schedule.oldest_ready() == 2


def test_a_long_queue_does_not_stand_while_keys_are_taken_from_it() -> None:
    """A restart would only make it longer."""
    schedule: Schedule[str] = Schedule()
    for key in ("a", "b", "c"):
        schedule.add(key, 0)
    assert schedule.stands_since() == 0
    assert schedule.take(400) == "a"
    assert (schedule.oldest_ready(), schedule.stands_since()) == (0, 400)
    schedule.add("fired", 600, first=True)
    assert schedule.take(600, first_only=True) == "fired"
    assert schedule.stands_since() == 400, "the workers that take any key may hang all the same"


def test_many_moved_deadlines_do_not_grow_the_heap() -> None:
    schedule: Schedule[int] = Schedule()
    for round_ in range(5000):
        schedule.add_at(round_ % 3, 10_000.0 - round_, 0)
    assert len(schedule._heap) < 200


def make_queue(handle: Callable[[str], object], clock: SteppedClock) -> tuple[WorkQueue[str], list[tuple[str, float]]]:
    errors: list[tuple[str, float]] = []

    async def run(key: str) -> float | None:
        result = handle(key)
        if asyncio.iscoroutine(result):
            result = await result
        assert result is None or isinstance(result, float)
        return result

    queue: WorkQueue[str] = WorkQueue(
        clock, run, lambda key, _error, delay: errors.append((key, delay)), sleep=clock.sleep
    )
    return queue, errors


async def test_keys_wait_until_the_workers_start_and_their_age_counts_from_then() -> None:
    clock = SteppedClock()
    passes: list[str] = []
    queue, _ = make_queue(passes.append, clock)
    queue.add("a")
    queue.add("a")
    await clock.step(100)
    assert (passes, queue.depth, queue.oldest_ready_age_seconds()) == ([], 1, 0.0)
    queue.start(2)
    await clock.step(0)
    assert passes == ["a"]
    assert await queue.stop(1)


async def test_workers_take_first_keys_first() -> None:
    clock = SteppedClock()
    passes: list[str] = []
    queue, _ = make_queue(passes.append, clock)
    queue.start(1)
    await settle()
    queue.add("a")
    queue.add("b")
    queue.add_first("fired")
    await settle()
    assert passes == ["fired", "a", "b"]
    assert await queue.stop(1)


async def test_a_pass_names_its_next_deadline_and_an_earlier_wake_up_is_not_lost() -> None:
    clock = SteppedClock()
    times: list[float] = []

    def handle(_key: str) -> float:
        times.append(clock.monotonic() - 1000)
        return 10.0

    queue, _ = make_queue(handle, clock)
    queue.start(1)
    queue.add("a")
    await clock.step(4)
    queue.add_after("a", 2)
    await clock.step(17)
    assert times == [0, 6, 16]
    assert await queue.stop(1)


async def test_a_pass_answers_the_deadline_that_was_set_before_it() -> None:
    clock = SteppedClock()
    times: list[float] = []

    def handle(_key: str) -> float:
        times.append(clock.monotonic() - 1000)
        return 5.0

    queue, _ = make_queue(handle, clock)
    queue.start(1)
    queue.add("a")
    await clock.step(4)
    queue.add("a")
    await clock.step(10)
    assert times == [0, 4, 9, 14]
    assert await queue.stop(1)


async def test_no_deadline_is_put_off_for_longer_than_the_longest_delay() -> None:
    """A pass computes it from the wall clock: where that was set back by a day, it would come a day late."""
    clock = SteppedClock()
    times: list[float] = []

    def handle(_key: str) -> float:
        times.append(clock.monotonic() - 1000)
        return 86_400.0

    queue, _ = make_queue(handle, clock)
    queue.start(1)
    queue.add("a")
    await clock.step(2 * LONGEST_DELAY_SECONDS)
    assert times == [0, LONGEST_DELAY_SECONDS, 2 * LONGEST_DELAY_SECONDS]
    assert await queue.stop(1)


async def test_an_object_that_is_gone_leaves_no_deadline_and_no_backoff() -> None:
    clock = SteppedClock()

    def handle(_key: str) -> None:
        raise ValueError

    queue, errors = make_queue(handle, clock)
    queue.start(1)
    queue.add("a")
    await clock.step(20)
    assert queue.delayed == 1
    passes = len(errors)
    queue.forget("a")
    assert queue.delayed == 0
    await clock.step(LONGEST_DELAY_SECONDS)
    assert len(errors) == passes
    queue.add("a")
    await clock.step(0)
    assert errors[-1] == ("a", 0.5), "another of its name"
    assert await queue.stop(1)


async def test_failures_back_off_per_key_and_a_success_resets() -> None:
    clock = SteppedClock()
    broken = True

    def handle(key: str) -> None:
        if broken and key == "bad":
            raise ValueError

    queue, errors = make_queue(handle, clock)
    queue.start(1)
    queue.add("bad")
    queue.add("good")
    await clock.step(400)
    delays = [delay for _, delay in errors]
    assert delays[:4] == [0.5, 1, 2, 4]
    assert max(delays) == BACKOFF_LONGEST_SECONDS
    broken = False
    await clock.step(60)
    broken = True
    errors.clear()
    queue.add("bad")
    await clock.step(0)
    assert errors == [("bad", 0.5)]
    assert await queue.stop(1)


async def test_stop_lets_running_passes_end_and_starts_no_more() -> None:
    clock = SteppedClock()
    gate = asyncio.Event()
    begun: list[str] = []
    ended: list[str] = []

    async def handle(key: str) -> None:
        begun.append(key)
        await gate.wait()
        ended.append(key)

    queue, _ = make_queue(handle, clock)
    queue.start(2)
    for key in "abc":
        queue.add(key)
    await settle()
    stopping = asyncio.create_task(queue.stop(5))
    await settle()
    gate.set()
    assert await stopping
    assert (begun, ended) == (["a", "b"], ["a", "b"])


async def test_stop_cancels_a_pass_that_outlives_its_bound() -> None:
    clock = SteppedClock()
    queue, _ = make_queue(lambda _key: asyncio.Event().wait(), clock)
    queue.start(1)
    queue.add("a")
    await settle()
    assert not await queue.stop(0.01)


async def test_a_dead_worker_is_told(caplog: pytest.LogCaptureFixture) -> None:
    clock = SteppedClock()

    def handle(_key: str) -> None:
        raise SystemError

    def explode(*_args: object) -> None:
        raise RuntimeError("the error handler is broken")

    async def run(key: str) -> float | None:
        handle(key)
        return None

    queue: WorkQueue[str] = WorkQueue(clock, run, explode, sleep=clock.sleep)
    queue.start(1)
    queue.add("a")
    await settle()
    assert queue.problems() == ("queue: worker 0 is dead",)
    assert "worker 0 is dead" in caplog.text
    await queue.stop(0.1)


async def test_age_and_running_time_are_measured_for_the_probe() -> None:
    clock = SteppedClock()
    queue, _ = make_queue(lambda _key: asyncio.Event().wait(), clock)
    queue.start(1)
    queue.add("a")
    queue.add("b")
    await clock.step(7)
    assert queue.oldest_ready_age_seconds() == 7
    assert queue.longest_pass_seconds() == 7
    assert not await queue.stop(0.01)


async def test_a_thousand_keys_on_many_workers_each_run_once() -> None:
    clock = SteppedClock()
    seen: list[str] = []

    async def handle(key: str) -> None:
        await asyncio.sleep(0)
        seen.append(key)

    queue, _ = make_queue(handle, clock)
    queue.start(16)
    for n in range(1000):
        queue.add(str(n))
    for _ in range(1000):
        if queue.idle:
            break
        await asyncio.sleep(0)
    assert sorted(seen) == sorted(map(str, range(1000)))
    assert await queue.stop(1)


async def test_a_round_is_waited_for_as_long_as_it_comes_on() -> None:
    """After a start the watches wait for the passes: on a slow machine longer, but not for one that hangs."""
    clock = SteppedClock()

    async def handle(key: int) -> float | None:
        await clock.sleep(1_000.0 if key == 7 else 2.0)
        return None

    async def waited(keys: range, patience: float, longest: float) -> float:
        """How many seconds the wait takes, with two workers and passes of two seconds."""
        queue = WorkQueue(clock, handle, lambda *_: None, sleep=clock.sleep)
        for key in keys:
            queue.add(key)
        queue.start(2)
        began = clock.monotonic()
        task = asyncio.create_task(queue.until_idle(patience_seconds=patience, longest_seconds=longest))
        while not task.done():
            await settle()
            await clock.step(0.1)
        await task
        took = clock.monotonic() - began
        await queue.stop(0.0)
        return took

    assert await waited(range(0), 5, 30) <= 0.2
    assert 10 <= await waited(range(10, 20), 5, 30) <= 10.5, "five rounds, longer than the patience"
    assert 5 <= await waited(range(7, 9), 5, 30) <= 5.5, "one hangs: nobody else waits"
    assert 30 <= await waited(range(10, 100), 5, 30) <= 30.5
