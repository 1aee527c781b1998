"""One process acts at a time, by its own clock; the others wait, and nobody compares clocks."""

import asyncio

import pytest
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube
from tests.controller.waiting import until

from sluice.controller.lease import LEASE_NAME, LeaseHolder, LeaseLostError
from sluice.kube.client import KubeClient
from sluice.ports.clock import SystemClock
from sluice.ports.kube import Object


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def memory() -> MemoryKube:
    return MemoryKube()


def holder(kube: MemoryKube, clock: SteppedClock, identity: str) -> LeaseHolder:
    return LeaseHolder(kube, clock, namespace="ns", identity=identity, duration_seconds=15, sleep=clock.sleep)


def record(kube: MemoryKube) -> Object:
    return kube.objects["Lease", "ns", LEASE_NAME]


async def test_the_first_takes_it_and_renews_every_third_of_its_duration(
    memory: MemoryKube, clock: SteppedClock
) -> None:
    lease = holder(memory, clock, "a")
    assert not lease.held()
    await lease.acquire()
    assert lease.held()
    assert record(memory)["spec"]["holderIdentity"] == "a"
    keeping = asyncio.create_task(lease.keep())
    await clock.step(61)
    assert lease.held()
    assert [call[0] for call in memory.calls].count("replace") == 12
    keeping.cancel()


async def test_it_is_held_by_the_own_clock_only_until_a_margin_before_its_end(
    memory: MemoryKube, clock: SteppedClock
) -> None:
    lease = holder(memory, clock, "a")
    await lease.acquire()
    await clock.step(11.9)
    assert lease.held()
    await clock.step(0.2)
    assert not lease.held(), "15 s less a margin of 3 s without a renewal"


@pytest.mark.parametrize("verb", ["create", "replace"])
async def test_it_counts_from_before_the_call_whose_answer_was_slow(
    memory: MemoryKube, clock: SteppedClock, verb: str
) -> None:
    """The API server may have written it at once: a challenger counts from then."""
    lease = holder(memory, clock, "a")
    if verb == "replace":
        await lease.acquire()
        keeping = asyncio.create_task(lease.keep())
        memory.before["replace"] = [lambda: clock.skip(4)]
        await clock.step(9)  # the renewal is due after 5
        keeping.cancel()
    else:
        memory.before["create"] = [lambda: clock.skip(4)]
        await lease.acquire()
    await clock.step(7.9)
    assert lease.held()
    await clock.step(0.2)
    assert not lease.held(), "12 s since the call was made"


async def test_another_waits_the_full_duration_that_it_has_watched_itself(
    memory: MemoryKube, clock: SteppedClock
) -> None:
    first = holder(memory, clock, "a")
    await first.acquire()
    record(memory)["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"  # a clock that is years behind
    second = holder(memory, clock, "b")
    acquiring = asyncio.create_task(second.acquire())
    await clock.step(14)
    assert not acquiring.done()
    await clock.step(4)
    assert acquiring.done()
    assert second.held()
    assert not first.held()
    assert record(memory)["spec"]["holderIdentity"] == "b"
    assert record(memory)["spec"]["leaseTransitions"] == 1


async def test_another_waits_as_long_as_the_record_says(memory: MemoryKube, clock: SteppedClock) -> None:
    """The holder may be of another version, with another setting, and acts for as long as its own lasts."""
    first = holder(memory, clock, "a")
    await first.acquire()
    record(memory)["spec"]["leaseDurationSeconds"] = 60
    acquiring = asyncio.create_task(holder(memory, clock, "b").acquire())
    await clock.step(59)
    assert not acquiring.done()
    await clock.step(5)
    assert acquiring.done()


async def test_a_holder_that_renews_is_never_replaced(memory: MemoryKube, clock: SteppedClock) -> None:
    first = holder(memory, clock, "a")
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    second = holder(memory, clock, "b")
    acquiring = asyncio.create_task(second.acquire())
    await clock.step(300)
    assert not acquiring.done()
    assert first.held()
    acquiring.cancel()
    keeping.cancel()


async def test_a_released_lease_is_taken_without_waiting(memory: MemoryKube, clock: SteppedClock) -> None:
    first = holder(memory, clock, "a")
    await first.acquire()
    await first.release()
    assert not first.held()
    second = holder(memory, clock, "b")
    await second.acquire()
    assert second.held()


async def test_a_renewal_that_was_cut_off_does_not_hinder_the_release(memory: MemoryKube, clock: SteppedClock) -> None:
    first = holder(memory, clock, "a")
    await first.acquire()
    memory.put(record(memory))
    await first.release()
    assert record(memory)["spec"]["holderIdentity"] == ""


async def test_a_lease_that_another_took_is_not_released(memory: MemoryKube, clock: SteppedClock) -> None:
    first = holder(memory, clock, "a")
    await first.acquire()
    taken = record(memory)
    taken["spec"]["holderIdentity"] = "b"
    memory.put(taken)
    await first.release()
    assert record(memory)["spec"]["holderIdentity"] == "b"


async def test_a_restarted_container_takes_its_pods_lease_back_at_once_and_the_old_process_learns_it(
    memory: MemoryKube, clock: SteppedClock
) -> None:
    before = holder(memory, clock, "pod")
    await before.acquire()
    keeping = asyncio.create_task(before.keep())
    after = holder(memory, clock, "pod")
    await after.acquire()
    assert after.held()
    await clock.step(6)
    with pytest.raises(LeaseLostError, match="pod"):
        await keeping
    assert not before.held()
    assert after.held()


async def test_an_api_server_that_is_away_suspends_and_does_not_end_it(memory: MemoryKube, clock: SteppedClock) -> None:
    lease = holder(memory, clock, "a")
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    memory.away = True
    await clock.step(120)
    assert not lease.held()
    assert not keeping.done()
    memory.away = False
    await clock.step(2)
    assert lease.held()
    keeping.cancel()


async def test_a_renewal_that_fails_once_takes_nothing_away(memory: MemoryKube, clock: SteppedClock) -> None:
    lease = holder(memory, clock, "a")
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    memory.away = True
    await clock.step(11)
    assert lease.held()
    await clock.step(2)
    assert not lease.held()
    keeping.cancel()


class Silent(MemoryKube):
    """Writes are never answered."""

    async def replace(self, kind: str, namespace: str, body: Object) -> Object:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_write_without_an_answer_is_not_waited_for_for_ever(clock: SteppedClock) -> None:
    """The process could neither renew nor end."""
    lease = LeaseHolder(Silent(), clock, namespace="ns", identity="a", duration_seconds=3, sleep=clock.sleep)
    await lease.acquire()
    async with asyncio.timeout(60):
        await lease.release()
    assert not lease.held()


async def test_a_record_taken_by_another_after_it_ran_out_is_lost(memory: MemoryKube, clock: SteppedClock) -> None:
    lease = holder(memory, clock, "a")
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    taken = record(memory)
    taken["spec"]["holderIdentity"] = "b"
    memory.put(taken)
    await clock.step(6)
    with pytest.raises(LeaseLostError, match="taken by b"):
        await keeping


async def test_a_lost_answer_and_a_persons_edit_are_no_loss(memory: MemoryKube, clock: SteppedClock) -> None:
    lease = holder(memory, clock, "a")
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    edited = record(memory)
    edited["metadata"]["labels"] = {"edited": "by hand"}
    memory.put(edited)
    await clock.step(7)
    assert lease.held()
    assert not keeping.done()
    keeping.cancel()


async def test_a_deleted_record_is_made_anew(memory: MemoryKube, clock: SteppedClock) -> None:
    lease = holder(memory, clock, "a")
    await lease.acquire()
    keeping = asyncio.create_task(lease.keep())
    memory.objects.clear()
    await clock.step(7)
    assert lease.held()
    assert record(memory)["spec"]["holderIdentity"] == "a"
    keeping.cancel()


async def test_release_by_one_that_never_held_it_writes_nothing(memory: MemoryKube, clock: SteppedClock) -> None:
    await holder(memory, clock, "a").release()
    assert memory.calls == []


@pytest.mark.apiserver
async def test_two_holders_on_a_real_api_server(kube: KubeClient, namespace: str) -> None:
    def real(identity: str) -> LeaseHolder:
        return LeaseHolder(kube, SystemClock(), namespace=namespace, identity=identity, duration_seconds=3)

    first, second = real("a"), real("b")
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    waiting = asyncio.create_task(second.acquire())
    await until(lambda: second.holder == "a", 120)
    assert first.held()
    keeping.cancel()
    await first.release()
    await until(waiting.done, 120)
    assert second.held()
    third = real("c")
    await asyncio.wait_for(third.acquire(), 120)
    assert third.held()
    assert not second.held()
    with pytest.raises(LeaseLostError, match="taken by c"):
        await asyncio.wait_for(second.keep(), 120)
