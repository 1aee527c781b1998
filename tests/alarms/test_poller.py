"""The poller: what is read for whom, what is remembered while a source fails, and who is woken."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.alarms.stepped import START, Says, Stepped, key, watch

from sluice.alarms.poller import AlarmPoller
from sluice.alarms.subjects import Sight, Subject
from sluice.core.identity import Key
from sluice.core.observation import AlarmQuestion, AlarmWatch, WatchedFleet
from sluice.ports.backend import ClusterAlarms
from sluice.ports.clock import SystemClock


@pytest.fixture
def clock() -> Stepped:
    return Stepped()


@pytest.fixture
def source(clock: Stepped) -> Says:
    return Says(clock)


@pytest.fixture
def woken() -> list[Key]:
    return []


@pytest.fixture
def poller(clock: Stepped, source: Says, woken: list[Key]) -> AlarmPoller:
    made = AlarmPoller(clock, (source,))
    made.on_moved(woken.append, woken.append)
    return made


def states(poller: ClusterAlarms, name: str = "churn") -> dict[str, str]:
    return {reading.name: reading.state for reading in poller.readings(key(name))}


async def test_nothing_is_known_before_the_first_reading_and_the_first_wakes(
    poller: AlarmPoller, source: Says, woken: list[Key]
) -> None:
    source.states = {"a": "OK", "b": "INSUFFICIENT_DATA"}
    poller.watch(key(), watch("a", "b"))
    assert poller.readings(key()) == ()
    await poller.poll(source)
    assert states(poller) == {"a": "OK", "b": "INSUFFICIENT_DATA"}
    assert woken == [key()]
    await poller.poll(source)
    assert woken == [key()]


async def test_a_change_wakes_whom_it_concerns_and_since_tells_when_it_began(
    poller: AlarmPoller, source: Says, woken: list[Key], clock: Stepped
) -> None:
    source.states = {"a": "OK", "b": "OK"}
    poller.watch(key(), watch("a"))
    poller.watch(key("other"), watch("b"))
    await poller.poll(source)
    woken.clear()
    for _ in range(3):
        clock.seconds += 1
        source.states["a"] = "ALARM"
        await poller.poll(source)
    assert woken == [key()]
    (reading,) = poller.readings(key())
    assert (reading.state, reading.since) == ("ALARM", START + timedelta(seconds=1))
    assert reading.read_at == START + timedelta(seconds=3)


async def test_who_has_an_alarm_that_comes_to_fire_is_told_from_the_others(clock: Stepped, source: Says) -> None:
    woken: list[str] = []
    poller = AlarmPoller(clock, (source,))
    poller.on_moved(lambda key: woken.append(f"woken {key.name}"), lambda key: woken.append(f"fired {key.name}"))
    source.states = {"a": "OK", "b": "OK"}
    poller.watch(key("both"), watch("a", "b"))
    poller.watch(key("one"), watch("b"))
    told = []
    for a, b in (("OK", "OK"), ("ALARM", "INSUFFICIENT_DATA"), ("ALARM", "OK"), ("OK", "OK"), ("OK", "ALARM")):
        clock.seconds += 1
        source.states = {"a": a, "b": b}
        woken.clear()
        await poller.poll(source)
        told.append(sorted(woken))
    assert told == [
        ["woken both", "woken one"],
        ["fired both", "woken one"],
        ["woken both", "woken one"],
        ["woken both"],
        ["fired both", "fired one"],
    ]


async def test_one_that_fires_since_just_before_the_first_traffic_is_told_when_it_counts(
    poller: AlarmPoller, source: Says, clock: Stepped, woken: list[Key]
) -> None:
    """The pass that moved the traffic did not know of it yet, and to the one that followed it was too old. No state
    changes any more, and nothing else is due before the end of the bake."""
    source.states = {"a": "OK"}
    poller.watch(key(), watch("a"))
    await poller.poll(source)
    source.states = {"a": "ALARM"}
    clock.seconds = 1
    await poller.poll(source)
    poller.watch(key(), replace(watch("a"), traffic_since=START + timedelta(seconds=1.5)))
    woken.clear()
    for second in range(2, 6):
        clock.seconds = second
        await poller.poll(source)
    assert woken == [key()]


async def test_one_that_fired_and_was_ok_before_the_first_traffic_wakes_nobody(
    poller: AlarmPoller, source: Says, clock: Stepped, woken: list[Key]
) -> None:
    """It counts for nothing, however often it is read."""
    poller.watch(key(), watch("a"))
    for state in ("ALARM", "OK"):
        clock.seconds += 1
        source.states = {"a": state}
        await poller.poll(source)
    poller.watch(key(), replace(watch("a"), traffic_since=START + timedelta(seconds=3)))
    woken.clear()
    for _ in range(3):
        clock.seconds += 1
        await poller.poll(source)
    assert woken == []


async def test_one_that_fired_and_is_ok_again_is_told(
    poller: AlarmPoller, source: Says, clock: Stepped, woken: list[Key]
) -> None:
    poller.watch(key(), watch("a"))
    for state in ("OK", "ALARM", "OK", "OK"):
        clock.seconds += 1
        source.states = {"a": state}
        await poller.poll(source)
    (reading,) = poller.readings(key())
    assert (reading.state, reading.alarmed_at) == ("OK", START + timedelta(seconds=2))
    assert woken == [key()] * 3


async def test_an_alarm_of_many_endpoints_is_asked_for_once(poller: AlarmPoller, source: Says) -> None:
    source.states = {"shared": "OK"}
    for index in range(50):
        poller.watch(key(f"e{index}"), watch("shared", endpoint=f"e{index}"))
    assert poller.watched() == {"CloudWatch": 1}
    await poller.poll(source)
    assert source.asked == [{"shared"}]
    assert states(poller, "e49") == {"shared": "OK"}


@given(
    st.lists(
        st.tuples(st.sampled_from(["one", "two", "three"]), st.none() | st.sets(st.sampled_from("abcd"), max_size=3)),
        max_size=20,
    )
)
def test_asked_for_is_what_the_watches_name_whoever_comes_and_goes(changes: list[tuple[str, set[str] | None]]) -> None:
    made, now = AlarmPoller(Stepped(), (Says(Stepped()),)), dict[str, set[str]]()
    for name, alarms in changes:
        now[name] = alarms or set()
        made.watch(key(name), None if alarms is None else watch(*sorted(alarms), endpoint=name))
        assert made.watched() == {"CloudWatch": len(set().union(*now.values()))}
        for endpoint in now:
            made.readings(key(endpoint))  # what is watched is known


async def test_a_reading_from_before_the_watch_is_none_of_it(poller: AlarmPoller, source: Says) -> None:
    source.states = {"shared": "ALARM"}
    poller.watch(key(), watch("shared"))
    await poller.poll(source)
    poller.watch(key("late"), watch("shared", endpoint="late"))
    assert states(poller, "late") == {}
    poller.watch(key("late"), watch("shared", "more", endpoint="late"))
    assert states(poller, "late") == {}
    await poller.poll(source)
    assert states(poller, "late") == {"shared": "ALARM"}


async def test_the_same_watch_again_changes_nothing_and_an_ended_one_is_not_read(
    poller: AlarmPoller, source: Says
) -> None:
    source.states = {"a": "OK", "b": "OK"}
    poller.watch(key(), watch("a"))
    await poller.poll(source)
    poller.watch(key(), watch("a"))
    assert states(poller) == {"a": "OK"}
    poller.watch(key(), watch("a", "b"))
    assert states(poller) == {"a": "OK"}
    poller.watch(key(), None)
    assert poller.readings(key()) == ()
    await poller.poll(source)
    assert source.asked == [{"a"}]


async def test_a_source_that_fails_for_a_moment_changes_nothing(
    poller: AlarmPoller, source: Says, clock: Stepped, woken: list[Key]
) -> None:
    source.states = {"a": "OK"}
    poller.watch(key(), watch("a"))
    for _ in range(2):
        clock.seconds += 60
        await poller.poll(source)
    woken.clear()
    source.states = {}
    for _ in range(9):
        clock.seconds += 1
        await poller.poll(source)
    (reading,) = poller.readings(key())
    assert (reading.state, reading.read_at) == ("OK", START + timedelta(seconds=120))
    assert woken == []


async def test_a_source_with_a_bug_ends_nobody_and_is_told(clock: Stepped) -> None:
    class Broken(Says):
        async def read(self, subjects: Collection[Subject]) -> Mapping[Subject, Sight]:
            if self.states.get("a") == "ALARM":
                raise OverflowError("int too large to convert to float")
            return await super().read(subjects)

    source = Broken(clock)
    poller = AlarmPoller(clock, (source,))
    source.states = {"a": "OK"}
    poller.watch(key(), watch("a"))
    await poller.poll(source)
    source.states = {"a": "ALARM"}
    clock.seconds += 5
    await poller.poll(source)
    assert states(poller) == {"a": "OK"}, "a moment changes nothing"
    clock.seconds += 10
    await poller.poll(source)
    (reading,) = poller.readings(key())
    assert (reading.state, reading.message) == (
        "Unreadable",
        "reading CloudWatch failed; the operator's log says why",
    )
    source.states = {"a": "OK"}
    await poller.poll(source)
    assert states(poller) == {"a": "OK"}


async def test_out_of_reach_for_45_minutes_and_back(
    poller: AlarmPoller, source: Says, clock: Stepped, woken: list[Key]
) -> None:
    source.states = {"a": "OK"}
    poller.watch(key(), watch("a"))
    await poller.poll(source)
    woken.clear()
    source.states = {}
    for _ in range(45 * 60):
        clock.seconds += 1
        await poller.poll(source)
    (reading,) = poller.readings(key())
    assert (reading.state, reading.message) == ("Unreadable", "away")
    assert (reading.since, reading.read_at) == (START + timedelta(seconds=10), clock.now())
    assert woken == [key()]
    source.states = {"a": "ALARM"}
    await poller.poll(source)
    assert states(poller) == {"a": "ALARM"}
    assert woken == [key(), key()]


async def test_a_source_that_never_answered_is_unreadable_after_a_while(
    poller: AlarmPoller, source: Says, clock: Stepped
) -> None:
    poller.watch(key(), watch("a"))
    await poller.poll(source)
    assert states(poller) == {}
    clock.seconds += 10
    await poller.poll(source)
    assert states(poller) == {"a": "Unreadable"}


def with_query(expression: str, *new: str) -> AlarmWatch:
    condition = {"promql": {"expression": expression, "comparison": "GreaterThanThreshold", "threshold": 1}}
    alarms = (AlarmQuestion("CloudWatch", "a"), AlarmQuestion("PromQL", "q", condition))
    fleets = tuple(WatchedFleet(f"churn-a-{revision}", "a", revision) for revision in new)
    return AlarmWatch(alarms, "team-a", "churn", new=fleets)


async def test_a_query_about_other_fleets_is_another_one(poller: AlarmPoller, source: Says) -> None:
    source.states = {"a": "OK", "-": "INSUFFICIENT_DATA", "r2": "ALARM"}
    poller.watch(key(), with_query("$revision"))
    await poller.poll(source)
    assert states(poller) == {"a": "OK", "q": "INSUFFICIENT_DATA"}
    poller.watch(key(), with_query("$revision", "r2"))
    assert states(poller) == {"a": "OK"}
    await poller.poll(source)
    assert states(poller) == {"a": "OK", "q": "ALARM"}


async def test_what_no_source_can_be_asked_is_unfit_at_once(poller: AlarmPoller) -> None:
    poller.watch(key(), with_query("$revison"))
    assert states(poller) == {"q": "Unfit"}


async def test_it_runs_reads_what_is_watched_and_rests_when_nothing_is() -> None:
    """With real time: what came to be watched is read without waiting for the next round."""
    source = Says(Stepped())
    source.period_seconds = 3600.0
    source.states = {"a": "OK", "b": "OK"}
    poller = AlarmPoller(SystemClock(), (source,))
    moved = asyncio.Queue[Key]()
    poller.on_moved(moved.put_nowait, moved.put_nowait)
    running = asyncio.create_task(poller.run())
    async with asyncio.timeout(60):
        poller.watch(key(), watch("a"))
        assert await moved.get() == key()
        poller.watch(key("other"), watch("b", endpoint="other"))
        assert await moved.get() == key("other")
    assert source.asked == [{"a"}, {"a", "b"}]
    assert poller.periods() == {"CloudWatch": 3600.0}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert source.closed


async def test_a_source_that_has_nothing_to_read_any_more_forgets() -> None:
    """Else it would take all that came until it is asked again for something new."""
    source = Says(Stepped())
    source.period_seconds = 0.0
    source.states = {"a": "OK"}
    poller = AlarmPoller(SystemClock(), (source,))
    moved = asyncio.Queue[Key]()
    poller.on_moved(moved.put_nowait, moved.put_nowait)
    running = asyncio.create_task(poller.run())
    async with asyncio.timeout(60):
        for _ in range(2):
            poller.watch(key(), watch("a"))
            assert await moved.get() == key()
            poller.watch(key(), None)
            await source.forgot.wait()
            source.forgot.clear()
    assert source.asked[0] == {"a"}, "and not before there was something"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_end_of_a_bake_wakes_once_with_the_first_reading_of_every_alarm_after_it(
    poller: AlarmPoller, source: Says, woken: list[Key], clock: Stepped
) -> None:
    source.states = {"a": "OK", "b": "OK"}
    poller.watch(key(), watch("a", "b"))
    await poller.poll(source)
    end = START + timedelta(seconds=2)
    poller.watch(key(), replace(watch("a", "b"), read_after=end))
    woken.clear()
    clock.seconds = 1.9
    await poller.poll(source)
    clock.seconds = 2.1
    del source.states["b"]
    await poller.poll(source)
    assert woken == [], "of one there is no reading yet"
    source.states["b"] = "OK"
    clock.seconds = 3.1
    for _ in range(3):
        await poller.poll(source)
        poller.watch(key(), replace(watch("a", "b"), read_after=end))
    assert woken == [key()]


async def test_at_the_end_of_a_bake_a_reading_is_taken_whatever_the_period() -> None:
    """Nothing else is due within the hour."""
    clock = SystemClock()
    source = Says(clock)
    source.period_seconds = 3600.0
    source.states = {"a": "OK"}
    poller = AlarmPoller(clock, (source,))
    moved = asyncio.Queue[Key]()
    poller.on_moved(moved.put_nowait, moved.put_nowait)
    running = asyncio.create_task(poller.run())
    async with asyncio.timeout(60):
        poller.watch(key(), watch("a"))
        await moved.get()
        end = clock.now() + timedelta(seconds=0.5)
        poller.watch(key(), replace(watch("a"), read_after=end))
        await moved.get()
    (reading,) = poller.readings(key())
    assert reading.read_at >= end
    assert len(source.asked) == 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class _Held(Says):
    """Every answer waits for the test; what it says was so when it was asked."""

    def __init__(self, clock: SystemClock) -> None:
        super().__init__(clock)
        self.was_asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def read(self, subjects: Collection[Subject]) -> Mapping[Subject, Sight]:
        found = await super().read(subjects)
        self.was_asked.set()
        await self.may_answer.wait()
        return found


async def test_what_a_part_of_a_round_brings_is_told_before_the_others_are_back(woken: list[Key]) -> None:
    class Parted(Says):
        at_once = 2
        may_answer = asyncio.Event()

        async def read(self, subjects: Collection[Subject]) -> Mapping[Subject, Sight]:
            found = await super().read(subjects)
            if "c" in self.asked[-1]:
                await self.may_answer.wait()
            return found

    clock = Stepped()
    source = Parted(clock)
    poller = AlarmPoller(clock, (source,))
    poller.on_moved(woken.append, woken.append)
    source.states = dict.fromkeys("abcde", "OK")
    poller.watch(key("first"), watch("a", "b"))
    poller.watch(key("second"), watch("c", "d", "e"))
    poller.watch(key("both"), watch("a", "e", "d"))
    round_ = asyncio.create_task(poller.poll(source))
    for _ in range(10):
        await asyncio.sleep(0)
    assert source.asked == [{"a", "b"}, {"c", "d"}, {"e"}], "an Endpoint's alarms stand together"
    assert (states(poller, "first"), states(poller, "second")) == ({"a": "OK", "b": "OK"}, {"e": "OK"})
    assert key("first") in woken
    assert not round_.done()
    woken.clear()
    source.may_answer.set()
    await round_
    assert states(poller, "second") == {"c": "OK", "d": "OK", "e": "OK"}
    assert set(woken) == {key("second"), key("both")}, "of the first nothing is new"


async def test_a_bake_that_ends_while_a_reading_is_under_way_gets_the_next_one_at_once() -> None:
    """Nothing else is due within the hour."""
    clock = SystemClock()
    source = _Held(clock)
    source.period_seconds = 0.0
    source.states = {"a": "OK"}
    source.may_answer.set()
    poller = AlarmPoller(clock, (source,))
    running = asyncio.create_task(poller.run())
    moved = asyncio.Queue[Key]()
    poller.on_moved(moved.put_nowait, moved.put_nowait)
    async with asyncio.timeout(60):
        poller.watch(key(), watch("a"))
        await moved.get()
        source.may_answer.clear()
        source.was_asked.clear()
        await source.was_asked.wait()
        source.period_seconds, asked = 3600.0, len(source.asked)
        end = clock.now() + timedelta(seconds=0.01)
        poller.watch(key(), replace(watch("a"), read_after=end))
        await asyncio.sleep((end - clock.now()).total_seconds() + 0.01)  # the bake itself
        source.may_answer.set()
        await moved.get()
    (reading,) = poller.readings(key())
    assert reading.read_at >= end
    assert len(source.asked) == asked + 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
