"""Passes that wait for AWS have half of the workers at most: a region that does not answer holds up nobody in the
cluster."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings
from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry
from tests.controller.clock import SteppedClock, settle
from tests.controller.objects import endpoint
from tests.controller.test_work_queue import ScheduleModel

from sluice.api import names
from sluice.controller.cache import Source
from sluice.controller.metrics import Metrics
from sluice.controller.queue import Schedule, WorkQueue
from sluice.core.identity import Key
from sluice.kube.client import KubeClient
from sluice.main.settings import Settings
from sluice.main.wiring import Operator
from sluice.ports.kube import KubeUnavailable, NotHeld


class BulkheadModel(ScheduleModel):
    """The same promises, but for slow keys while as many of them run as may."""

    MOST = 2

    def made(self) -> Schedule[str]:
        schedule: Schedule[str] = Schedule(urgent=lambda key: key in "abc", slow=lambda key: key in "bcd")
        schedule.most_slow = self.MOST
        return schedule

    def may_wait(self, due: set[str]) -> set[str]:
        return due & set("bcd") if len(self.running & set("bcd")) >= self.MOST else set()


TestBulkhead = BulkheadModel.TestCase
TestBulkhead.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def aws(key: str) -> bool:
    return key.startswith("aws")


def test_slow_keys_have_their_share_and_wait_in_order_with_the_others() -> None:
    schedule: Schedule[str] = Schedule(slow=aws)
    schedule.most_slow = 2
    for at, key in enumerate(("aws1", "a", "aws2", "aws3", "b")):
        schedule.add(key, at)
    assert [schedule.take(9) for _ in range(5)] == ["aws1", "a", "aws2", "b", None]
    assert schedule.depth == 1
    assert schedule.oldest_ready() == 3, "it waits all the same"
    schedule.done("a", 10)
    assert schedule.take(10) is None
    schedule.done("aws2", 10)
    assert schedule.take(10) == "aws3"


def test_a_slow_key_that_is_to_go_first_does() -> None:
    schedule: Schedule[str] = Schedule(slow=aws)
    schedule.most_slow = 1
    for key in ("aws1", "aws2"):
        schedule.add(key, 0)
    assert schedule.take(0) == "aws1"
    schedule.add("aws2", 1, first=True)
    assert schedule.depth == 1, "once"
    assert schedule.take(1) == "aws2"


def test_a_key_that_is_slow_no_more_is_in_no_worker_twice() -> None:
    """An Endpoint is deleted, and one of its name is made for the other backend."""
    slow = {"a"}
    schedule: Schedule[str] = Schedule(slow=slow.__contains__)
    schedule.most_slow = 1
    schedule.add("a", 0)
    slow.clear()
    schedule.add("a", 1)
    assert schedule.depth == 1
    assert [schedule.take(1), schedule.take(1)] == ["a", None]
    slow.add("b")
    schedule.add("b", 2)
    assert schedule.take(2) is None, "it was slow when it was taken"
    schedule.done("a", 3)
    assert schedule.take(3) == "b"


def test_whose_turn_does_not_come_because_slow_ones_run_is_not_stuck() -> None:
    """A restart would mend nothing. That nothing has come on for as long would."""
    schedule: Schedule[str] = Schedule(slow=aws)
    schedule.most_slow = 1
    for key in ("aws1", "aws2"):
        schedule.add(key, 0)
    assert schedule.take(100) == "aws1"
    assert (schedule.oldest_ready(), schedule.stands_since()) == (0, 100)
    schedule.done("aws1", 140)
    schedule.add("a", 150)
    assert schedule.take(160) == "aws2"
    assert schedule.stands_since() == 160


@pytest.fixture
async def hung() -> AsyncIterator[tuple[WorkQueue[str], list[str], asyncio.Event]]:
    """Four workers, and a region that answers nobody until the event is set."""
    clock, answers, begun = SteppedClock(), asyncio.Event(), list[str]()

    async def handle(key: str) -> None:
        begun.append(key)
        if aws(key):
            await answers.wait()

    queue: WorkQueue[str] = WorkQueue(clock, handle, lambda *_: None, slow=aws, sleep=clock.sleep)
    queue.start(4)
    yield queue, begun, answers
    answers.set()
    assert await queue.stop(1)


async def test_a_region_that_does_not_answer_holds_half_of_the_workers(
    hung: tuple[WorkQueue[str], list[str], asyncio.Event],
) -> None:
    queue, begun, answers = hung
    for number in range(20):
        queue.add(f"aws{number}")
    await settle()
    assert begun == ["aws0", "aws1"]
    for number in range(20):
        queue.add(str(number))
    await settle()
    assert begun[2:] == [str(number) for number in range(20)], "as if nothing hung"
    answers.set()
    await settle()
    assert len(begun) == 40, "no wake-up was lost"
    assert queue.idle


async def test_one_worker_alone_takes_slow_keys_too() -> None:
    clock, done = SteppedClock(), list[str]()

    async def handle(key: str) -> None:
        done.append(key)

    queue: WorkQueue[str] = WorkQueue(clock, handle, lambda *_: None, slow=aws, sleep=clock.sleep)
    queue.start(1)
    queue.add("aws")
    queue.add("a")
    await settle()
    assert sorted(done) == ["a", "aws"]
    assert await queue.stop(1)


async def test_no_write_of_the_operator_goes_out_without_the_lease() -> None:
    kube = KubeClient(Configuration(host="https://kubernetes.invalid"), identity="test")
    operator = Operator(Settings(), kube, Metrics(CollectorRegistry(), "test"), "prod", in_cluster=False)
    try:
        with pytest.raises(NotHeld):
            await kube.create("ControllerRevision", "team", {"metadata": {"name": "x"}})
        operator._lease._renewed = operator._clock.monotonic()
        with pytest.raises(KubeUnavailable):
            await kube.create("ControllerRevision", "team", {"metadata": {"name": "x"}})
    finally:
        await kube.close()


@pytest.mark.parametrize("in_cluster", [True, False])
async def test_endpoints_of_sagemaker_are_those_who_wait_for_aws(in_cluster: bool) -> None:
    """Where nobody is in the cluster they may have all workers."""
    kube = KubeClient(Configuration(), identity="test")
    operator = Operator(Settings(), kube, Metrics(CollectorRegistry(), "test"), "prod", in_cluster=in_cluster)
    try:
        for name, backend in (("far", names.BACKEND_SAGEMAKER), ("near", names.BACKEND_CLUSTER)):
            item = endpoint(name)
            item["spec"]["backend"] = backend
            operator._cache.apply(item, Source.WATCH)
        slow = operator._queue._schedule._slow
        assert slow(Key(names.ENDPOINT, "team", "far")) is in_cluster
        assert not slow(Key(names.ENDPOINT, "team", "near"))
        assert not slow(Key(names.ENDPOINT, "team", "gone"))
        assert not slow(Key(names.MODEL, "team", "far"))
    finally:
        await kube.close()
