"""Keys that go first, as alarms have fired for them: nothing that others wait for, and no backoff, holds them up."""

import asyncio

from tests.controller.clock import SteppedClock, settle
from tests.controller.test_work_queue import make_queue

from sluice.controller.queue import BACKOFF_LONGEST_SECONDS, FIRST_AGAIN_SECONDS, Schedule, Unfinished, WorkQueue


async def test_whatever_the_other_passes_wait_for_a_first_key_gets_a_worker() -> None:
    """As for an AWS region that does not answer: each pass waits for it, and an alarm in the cluster must not."""
    clock, hang, begun = SteppedClock(), asyncio.Event(), list[str]()

    async def handle(key: str) -> None:
        begun.append(key)
        if not key.startswith("fired"):
            await hang.wait()

    queue: WorkQueue[str] = WorkQueue(clock, handle, lambda *_: None, sleep=clock.sleep)
    queue.start(2)
    for key in ("a", "b", "c", "d"):
        queue.add(key)
    await settle()
    assert begun == ["a", "b"], "nor do others get one that is for first keys"
    queue.add_first("fired")
    await settle()
    queue.add_first("fired too")
    await settle()
    assert begun == ["a", "b", "fired", "fired too"]
    hang.set()
    await settle()
    assert sorted(begun[4:]) == ["c", "d"], "no wake-up was lost"
    assert await queue.stop(1)


async def test_a_first_key_that_fails_is_tried_again_soon_and_first() -> None:
    """The API server was away for minutes and the alarm fires meanwhile: the rollback must not wait out the backoff."""
    clock, passes, broken = SteppedClock(), list[str](), {"fired", "a"}

    def handle(key: str) -> None:
        passes.append(key)
        if key in broken:
            raise ValueError

    queue, errors = make_queue(handle, clock)
    queue.start(1)
    queue.add("fired")
    queue.add("a")
    await clock.step(300)
    assert max(delay for _, delay in errors) == BACKOFF_LONGEST_SECONDS
    errors.clear()
    queue.add_first("fired")
    await clock.step(20)
    delays = [delay for key, delay in errors if key == "fired"]
    assert len(delays) >= 10
    assert set(delays) == {FIRST_AGAIN_SECONDS}
    broken.discard("fired")
    await clock.step(FIRST_AGAIN_SECONDS)
    assert passes[-1] == "fired"
    broken.add("fired")
    errors.clear()
    passes.clear()
    queue.add("fired")
    await clock.step(20)
    assert [delay for key, delay in errors if key == "fired"][:4] == [0.5, 1, 2, 4], "it has had its turn"
    assert await queue.stop(1)


async def test_a_first_key_whose_pass_was_void_goes_first_again() -> None:
    """The Lease was not held for a moment, or somebody else had written: the rollback must not queue behind all that
    has come meanwhile."""
    clock, passes, void = SteppedClock(), list[str](), True

    async def handle(key: str) -> float | None:
        passes.append(key)
        return Unfinished(1.0) if key == "fired" and void else None

    queue: WorkQueue[str] = WorkQueue(clock, handle, lambda *_: None, sleep=clock.sleep)
    queue.start(1)
    for turn in range(3):
        passes.clear()
        for number in range(100):
            queue.add(f"{turn}-{number}")
        if turn == 0:
            queue.add_first("fired")
        clock.skip(1.0)  # it is due when they wait
        await settle()
        assert "fired" in passes[:3], passes[:5]
        await clock.step(0.1)
    void = False
    await clock.step(2.0)
    passes.clear()
    for number in range(100):
        queue.add(f"at last {number}")
    queue.add("fired")
    await settle()
    assert passes[-1] == "fired", "it has had its turn"
    assert await queue.stop(1)


def test_a_key_that_goes_first_again_does_when_it_is_due() -> None:
    schedule: Schedule[str] = Schedule()
    schedule.first_again("fired")
    schedule.add_at("fired", 2.0, 0.0)
    schedule.add("a", 0.0)
    schedule.add("b", 0.0)
    assert schedule.take(1.0) == "a"
    assert schedule.take(2.0) == "fired"
    schedule.done("fired", 2.0)
    schedule.add_at("fired", 3.0, 2.0)
    assert schedule.take(3.0) == "b", "once"
