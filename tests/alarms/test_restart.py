"""Who begins to watch a deployment under traffic, as an operator that was restarted does, knows what it has missed."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.alarms.routers import Operator, invoke
from tests.alarms.test_traffic import ERROR, ERRORS
from tests.alarms.test_windows import counts
from tests.router.harness.container import Container
from tests.router.harness.envoy import Envoy

from sluice.alarms.subjects import Traffic, VariantFleets, subject
from sluice.alarms.windows import FleetWindows
from sluice.core.observation import AlarmQuestion, AlarmWatch, WatchedFleet

BEFORE = 5000
"""What a router had counted when it was first asked."""


def begun(*seconds: int, at: float, began: float | None) -> FleetWindows:
    """Watched from `at` on; the fleet's first requests came at `began`, and a router has counted some."""
    made = FleetWindows(at)
    made.keep(seconds, at, began)
    made.take("r", counts(BEFORE, 50), 9000, at)
    return made


@pytest.mark.parametrize(
    ("began", "counted", "whole"),
    [
        (None, 0, True),  # nothing is known of it, as before the first traffic
        (970.0, BEFORE, True),  # all came within the window
        (939.0, 0, False),  # some of it is older, and nobody knows how much
    ],
)
def test_what_came_before_counts_where_all_of_it_came_within_the_window(
    began: float | None, counted: int, whole: bool
) -> None:
    fleet = begun(60, at=1000, began=began)
    assert fleet.total(60, 1000).requests == counted
    assert fleet.is_whole(60, 1000, began or 1000.0) is whole


def test_a_window_is_whole_when_what_it_lacks_would_have_left_it() -> None:
    fleet = begun(60, at=1000, began=900)
    fleet.take("r", counts(BEFORE + 3, 50), 9010, 1010)
    assert fleet.total(60, 1010).requests == 3
    assert [fleet.is_whole(60, now, 900) for now in (1010, 1059, 1060)] == [False, False, True]


def test_what_is_taken_over_leaves_the_window_in_its_time() -> None:
    fleet = begun(60, at=1000, began=990)
    assert [fleet.total(60, now).requests for now in (1000, 1059, 1061)] == [BEFORE, BEFORE, 0]


def test_a_window_that_is_asked_for_later_takes_over_what_routers_have_counted() -> None:
    fleet = begun(10, at=1000, began=900)
    fleet.keep((10, 300), 1005, 900)
    assert fleet.total(300, 1005).requests == BEFORE
    assert (fleet.is_whole(300, 1005, 900), fleet.is_whole(10, 1005, 900)) == (True, False)
    fleet.keep((50,), 1006, 900)
    assert (fleet.total(50, 1006).requests, fleet.is_whole(50, 1006, 900)) == (0, False)


def test_who_has_watched_from_the_start_lacks_nothing() -> None:
    fleet = begun(60, at=1000, began=None)
    fleet.keep((60,), 1200, 1150)
    fleet.take("r", counts(BEFORE + 7, 50), 9200, 1200)
    assert (fleet.total(60, 1200).requests, fleet.is_whole(60, 1200, 1150)) == (7, True)


@pytest.fixture
def restarted(envoy: Envoy) -> Iterator[Operator]:
    """A second process, which reads the same router."""
    made = Operator()
    made.add(envoy)
    yield made
    made.close()


def since(seconds_ago: float, window_seconds: int, minimum_requests: int = 10) -> Traffic:
    moment = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return replace(ERRORS, since=moment, window_seconds=window_seconds, minimum_requests=minimum_requests)


def test_errors_that_came_before_the_restart_still_alarm(
    envoy: Envoy,
    serve: Callable[..., Container],
    restarted: Operator,
) -> None:
    serve()
    invoke(envoy, "Churn", 20, ERROR)
    found = restarted.until(since(30, 60), "ALARM")
    assert found.message == "100 % of 20 requests in 60 s (alarm: > 5 %)"


def test_too_few_requests_tell_nothing_before_the_window_is_whole(
    envoy: Envoy,
    serve: Callable[..., Container],
    restarted: Operator,
) -> None:
    """A bake waits for a reading meanwhile, so it does not end on what a restart has hidden."""
    serve()
    invoke(envoy, "Churn", 20, ERROR)
    hidden = restarted.ask(since(90, 60))
    assert (hidden.state, "not for as long yet" in (hidden.message or "")) == (None, True)
    short = since(90, 1)
    assert restarted.ask(short).state is None
    assert "0 requests in 1 s" in (restarted.until(short, "INSUFFICIENT_DATA").message or "")


def test_enough_requests_tell_at_once(
    envoy: Envoy,
    serve: Callable[..., Container],
    restarted: Operator,
) -> None:
    serve()
    asked = since(90, 60)
    assert restarted.ask(asked).state is None
    invoke(envoy, "Churn", 20)
    assert restarted.until(asked, "OK").message == "0 % of 20 requests in 60 s (alarm: > 5 %)"


def test_a_comparison_waits_for_the_serving_revision_too(
    envoy: Envoy,
    serve: Callable[..., Container],
    restarted: Operator,
) -> None:
    serve()
    compared = replace(since(90, 60, 1), relative=True, threshold=2.0, variants=(VariantFleets("a", "new", ("old",)),))
    restarted.ask(compared)
    invoke(envoy, "Churn", 5)
    assert restarted.ask(compared).state is None


def test_the_subject_knows_since_when_there_is_traffic() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    condition = {"name": "errors", "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.05}}
    watch = AlarmWatch(
        (AlarmQuestion("Traffic", "errors", condition),),
        "team-a",
        "churn",
        new=(WatchedFleet("new", "a", "churn-2"),),
        traffic_since=moment,
    )
    asked = subject(watch, watch.alarms[0])
    assert isinstance(asked, Traffic)
    assert asked.since == moment
