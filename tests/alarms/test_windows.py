"""What counters come to over time: restarts, new routers, lost ones; and what an alarm makes of it."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.alarms.subjects import ALARM, INSUFFICIENT_DATA, OK, Traffic
from sluice.alarms.windows import (
    Counts,
    FleetWindows,
    NotUnderstoodError,
    judge,
    percentile,
    read_answer,
    verdict,
)

ERRORS = Traffic("team-a", "Invocation5XXErrors", "GreaterThanThreshold", 0.05, ())
LATENCY = Traffic("team-a", "ModelLatency", "GreaterThanThreshold", 100_000, (), percentile=99)
NOTHING = Counts()


def counts(requests: int, errors: int = 0, **rest: int) -> Counts:
    return Counts(requests, errors_5xx=errors, **rest)


def watched(*seconds: int, now: float = 0.0) -> FleetWindows:
    made = FleetWindows(now)
    made.keep(seconds, now)
    return made


def test_only_what_came_since_it_is_watched_counts() -> None:
    fleet = watched(60)
    fleet.take("r", counts(1000, 900), 500, 0)
    assert fleet.total(60, 0).requests == 0
    fleet.take("r", counts(1010, 901), 501, 1)
    assert (fleet.total(60, 1).requests, fleet.total(60, 1).errors_5xx) == (10, 1)


def test_a_window_forgets() -> None:
    fleet = watched(1, 10)
    fleet.take("r", counts(0), 500, 0)
    fleet.take("r", counts(5, 5), 505, 5)
    fleet.take("r", counts(7, 5), 506, 6)
    assert [fleet.total(seconds, 6).requests for seconds in (1, 10)] == [2, 7]
    assert [fleet.total(seconds, 15).requests for seconds in (1, 10)] == [0, 2]
    assert fleet.total(10, 100) == NOTHING


def test_a_restarted_router_counts_from_zero() -> None:
    fleet = watched(60)
    fleet.take("r", counts(100, 50), 500, 0)
    fleet.take("r", counts(130, 50), 501, 1)
    fleet.take("r", counts(4, 2), 0, 2)
    total = fleet.total(60, 2)
    assert (total.requests, total.errors_5xx) == (34, 2)


def test_a_restart_is_seen_even_when_more_has_come_since_than_before() -> None:
    fleet = watched(60)
    fleet.take("r", counts(1), 500, 0)
    fleet.take("r", counts(20, 20), 3, 4)
    assert fleet.total(60, 4).requests == 20


def test_a_router_that_restarts_twice_in_a_moment_is_known_by_what_it_counted() -> None:
    fleet = watched(60)
    fleet.take("r", counts(10), 1, 0)
    fleet.take("r", counts(2, 2), 1, 1)
    total = fleet.total(60, 1)
    assert (total.requests, total.errors_5xx) == (2, 2)


def test_a_cluster_that_was_replaced_takes_back_some_of_its_counters() -> None:
    """Envoy counts answers of a class from zero after a change of pods, unless one of that class came while both
    clusters stood; time-outs it never forgets. What was counted long ago is not new because of it."""
    fleet = watched(60)
    fleet.take("r", Counts(10_050, errors_5xx=50, timed_out=2, latency={(1.0, 0.1): 10_050}), 500, 0)
    fleet.take("r", Counts(10_070, errors_5xx=4, timed_out=2, latency={(1.0, 0.1): 24}), 501, 1)
    assert fleet.total(60, 1) == Counts(70, errors_5xx=4, latency={(1.0, 0.1): 24})


def test_errors_are_not_thinned_by_what_was_counted_before_a_change_of_pods() -> None:
    fleet = watched(60)
    fleet.take("r", counts(60_010, 10), 500, 0)
    fleet.take("r", counts(60_100, 40), 501, 1)
    fleet.take("r", counts(60_163, 3), 502, 2)  # 5xx from zero, the others not
    fleet.take("r", counts(60_260, 40), 503, 3)
    assert judge(ERRORS, fleet.total(60, 3), NOTHING)[0] == ALARM


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (counts(10_005, 5), counts(25, 5)),  # an answer of each class: only the 5xx of both clusters went on
        (
            Counts(10_000, timed_out=3, latency={(1.0, 0.1): 9_997}),
            Counts(20, timed_out=3, latency={(1.0, 0.1): 20}),
        ),
    ],
)
def test_old_errors_are_not_new_ones_after_a_change_of_pods(before: Counts, after: Counts) -> None:
    fleet = watched(60)
    fleet.take("r", before, 500, 0)
    fleet.take("r", after, 501, 1)
    for alarm in (ERRORS, LATENCY):
        assert judge(alarm, fleet.total(60, 1), NOTHING)[0] != ALARM


def test_each_latency_counts_once() -> None:
    fleet = watched(60)
    fleet.take("r", slow((1, 1, 1000), (200, 10, 50)), 500, 0)
    fleet.take("r", slow((1, 1, 1003), (200, 10, 50), (300, 10, 1)), 501, 1)
    assert fleet.total(60, 1).latency == {(1, 1): 3, (300, 10): 1}


def test_a_clock_that_is_set_back_is_no_restart() -> None:
    fleet = watched(60)
    fleet.take("r", counts(1000, 900), 500, 0)
    fleet.take("r", counts(1001, 900), 300, 1)
    assert fleet.total(60, 1).errors_5xx == 0


def test_a_young_router_is_counted_once() -> None:
    fleet = watched(60)
    for second in range(6):
        fleet.take("r", counts(10 * (second + 1)), second, second)
    assert fleet.total(60, 5).requests == 50


def test_a_young_router_that_answers_a_little_late_is_counted_once() -> None:
    """Uptimes are in whole seconds, and an answer takes its time."""
    fleet = watched(60)
    fleet.take("r", counts(3), 1, 1.0)
    fleet.take("r", counts(4, 1), 2, 3.9)
    assert fleet.total(60, 4).requests == 1


def test_a_new_router_counts_from_its_start() -> None:
    fleet = watched(60)
    fleet.take("old", counts(100), 500, 0)
    fleet.take("new", counts(7, 3), 4, 10)
    assert fleet.total(60, 10).requests == 7


def test_a_router_that_is_gone_takes_nothing_back_and_one_that_returns_late_adds_what_it_missed() -> None:
    fleet = watched(60)
    for router in ("a", "b"):
        fleet.take(router, counts(0), 500, 0)
    fleet.take("a", counts(10), 501, 1)
    fleet.drop_routers(["b"])
    assert fleet.total(60, 1).requests == 10
    fleet.take("b", counts(30), 520, 20)
    assert fleet.total(60, 20).requests == 40


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),
            st.integers(0, 50),  # requests since the last look
            st.floats(0.2, 30),  # seconds since the last look
            st.sampled_from(["", "", "", "restart", "gone"]),
        ),
        max_size=60,
    ),
    st.sampled_from([1, 5, 60, 600]),
)
def test_clean_traffic_never_raises_and_no_request_is_counted_twice(
    life: list[tuple[str, int, float, str]], seconds: int
) -> None:
    """Whatever restarts, goes or is late: without errors an alarm stays silent, also one that any error would raise."""
    fleet, now, total = watched(seconds, 3600), 0.0, 0
    running: dict[str, tuple[int, float]] = {}
    strictest = replace(ERRORS, threshold=0.0, window_seconds=seconds)
    for router, came, pause, event in life:
        now += pause
        number, begun = running.get(router, (0, now - 1000))
        if event == "gone":
            running.pop(router, None)
            fleet.drop_routers(running)
            continue
        if event == "restart":
            number, begun = 0, now
        running[router] = (number + came, begun)
        total += came
        fleet.take(router, counts(number + came), math.floor(now - begun), now)
        assert fleet.total(3600, now).requests <= total
        found = fleet.total(seconds, now)
        assert min(found.requests, found.errors_5xx) >= 0
        assert judge(strictest, found, NOTHING)[0] != ALARM


@pytest.mark.parametrize(
    ("total", "state"),
    [
        (counts(0), INSUFFICIENT_DATA),
        (counts(100, 5), OK),
        (counts(100, 6), ALARM),
        (counts(1, 1), ALARM),
    ],
)
def test_shares(total: Counts, state: str) -> None:
    assert judge(ERRORS, total, NOTHING)[0] == state


def test_too_few_requests_say_nothing() -> None:
    state, message = judge(replace(ERRORS, minimum_requests=20), counts(19, 19), NOTHING)
    assert state == INSUFFICIENT_DATA
    assert "19 requests in 60 s; at least 20 are needed" in message


def test_4xx_are_a_metric_of_their_own() -> None:
    total = Counts(10, errors_4xx=10)
    assert judge(replace(ERRORS, metric="Invocation4XXErrors"), total, NOTHING)[0] == ALARM
    assert judge(ERRORS, total, NOTHING)[0] == OK


@pytest.mark.parametrize(
    ("new", "serving", "state"),
    [
        (counts(100, 4), counts(900, 18), OK),  # exactly twice
        (counts(100, 5), counts(900, 18), ALARM),
        (counts(100, 50), counts(9, 0), INSUFFICIENT_DATA),  # too little to compare with
        (counts(1000, 2), counts(1000, 0), OK),  # none of a thousand is taken as one of a thousand
        (counts(1000, 3), counts(1000, 0), ALARM),
    ],
)
def test_relative_to_the_serving_revision(new: Counts, serving: Counts, state: str) -> None:
    twice = replace(ERRORS, relative=True, threshold=2.0, minimum_requests=10)
    assert judge(twice, new, serving)[0] == state


@pytest.mark.parametrize(
    ("variants", "state", "told"),
    [
        ([], INSUFFICIENT_DATA, "no new revision"),
        ([("a", counts(100), NOTHING), ("b", counts(10, 10), NOTHING)], ALARM, "variant b: 100 % of 10"),
        ([("a", counts(0), NOTHING), ("b", counts(10), NOTHING)], OK, "variant b"),
        ([("a", counts(0), NOTHING), ("b", counts(0), NOTHING)], INSUFFICIENT_DATA, "variant a"),
        ([("a", counts(10), NOTHING)], OK, "0 % of 10 requests"),
    ],
)
def test_one_bad_variant_is_not_hidden_by_the_others(
    variants: list[tuple[str, Counts, Counts]], state: str, told: str
) -> None:
    found = verdict(ERRORS, variants)
    assert found[0] == state
    assert told in found[1]


def slow(*buckets: tuple[float, float, int], timed_out: int = 0) -> Counts:
    latency = {(lower, width): number for lower, width, number in buckets}
    return Counts(sum(latency.values()) + timed_out, timed_out=timed_out, latency=latency)


@pytest.mark.parametrize(
    ("percent", "milliseconds"), [(0, 10), (25, 10.5), (50, 11), (90, 108), (99, 109.8), (100, 110)]
)
def test_percentiles_within_their_bucket(percent: float, milliseconds: float) -> None:
    assert percentile(slow((10, 1, 50), (100, 10, 50)), percent) == pytest.approx(milliseconds)


def test_latency_is_microseconds_and_a_time_out_is_slower_than_all() -> None:
    assert judge(LATENCY, slow((90, 1, 1000)), NOTHING)[0] == OK
    assert judge(LATENCY, slow((90, 1, 900), (200, 10, 100)), NOTHING)[0] == ALARM
    state, message = judge(LATENCY, slow((90, 1, 90), timed_out=10), NOTHING)
    assert state == ALARM
    assert "no answer in time" in message
    assert judge(LATENCY, counts(1000), NOTHING)[0] == INSUFFICIENT_DATA
    assert judge(LATENCY, slow(timed_out=10), NOTHING)[0] == ALARM, "a revision that answers nothing in time"


def test_latency_relative_to_one_below_what_routers_measure() -> None:
    twice = replace(LATENCY, relative=True, threshold=2.0)
    fast = slow((0, 0, 1000))
    assert judge(twice, slow((1.5, 0.1, 1000)), fast)[0] == OK
    assert judge(twice, slow((3, 0.1, 1000)), fast)[0] == ALARM


@pytest.mark.parametrize(
    ("new", "state"),
    [(slow((1, 1, 50), timed_out=50), ALARM), (slow((1, 1, 97), timed_out=3), OK), (slow((1, 1, 1000)), OK)],
)
def test_where_both_time_out_the_shares_of_what_did_are_compared(new: Counts, state: str) -> None:
    """No latency is more than one without an end."""
    twice = replace(LATENCY, relative=True, threshold=2.0)
    serving = slow((1, 1, 980), timed_out=20)
    found, message = judge(twice, new, serving)
    assert found == state
    assert "2 times the serving revision's" in message


GOOD = {"requests": 3, "errors4xx": 1, "errors5xx": 1, "timedOut": 0, "latency": [[1.0, 0.1, 2]]}


def test_an_answer() -> None:
    found = read_answer({"uptimeSeconds": 9, "fleets": {"f": GOOD}}, ["f"])
    assert found.uptime_seconds == 9
    assert found.fleets["f"] == Counts(3, 1, 1, 0, {(1.0, 0.1): 2})


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {"fleets": {"f": GOOD}},
        {"uptimeSeconds": 9, "fleets": {}},
        {"uptimeSeconds": 9, "fleets": {"f": {**GOOD, "requests": -1}}},
        {"uptimeSeconds": 9, "fleets": {"f": {**GOOD, "errors5xx": "many"}}},
        {"uptimeSeconds": 9, "fleets": {"f": {**GOOD, "timedOut": 10**400}}},
        {"uptimeSeconds": 9, "fleets": {"f": {**GOOD, "latency": [[1, 1, 1]] * 3000}}},
        {"uptimeSeconds": 9, "fleets": {"f": {**GOOD, "latency": [[1, 1]]}}},
    ],
)
def test_an_answer_that_is_none(answer: object) -> None:
    with pytest.raises(NotUnderstoodError):
        read_answer(answer, ["f"])
