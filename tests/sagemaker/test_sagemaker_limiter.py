"""The token bucket on a clock of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.sagemaker.limiter import RateLimiter


def taken_in(limiter: RateLimiter, start: float, seconds: float) -> int:
    """Calls that go out in this time when everybody who may, asks."""
    taken, now = 0, start
    while now < start + seconds:
        wait = limiter.reserve(now, longest_wait=0.0)
        if wait is None:
            now += 0.001
        else:
            taken += 1
    return taken


def test_a_burst_then_the_rate() -> None:
    limiter = RateLimiter(highest=10, burst=5)
    assert taken_in(limiter, 0.0, 2.0) == pytest.approx(25, abs=1)


def test_waits_line_up() -> None:
    limiter = RateLimiter(highest=10, burst=1)
    assert [limiter.reserve(0.0, 10.0) for _ in range(4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_who_would_wait_too_long_takes_no_place() -> None:
    limiter = RateLimiter(highest=1, burst=1)
    assert limiter.reserve(0.0, 0.5) == 0.0
    assert limiter.reserve(0.0, 0.5) is None
    assert limiter.free_in(0.0) == pytest.approx(1.0)


def test_what_cannot_wait_goes_ahead_of_a_queue_and_the_queue_pays() -> None:
    limiter = RateLimiter(highest=2, burst=1)
    for _ in range(41):  # looks, until the next would wait for 20 s
        assert limiter.reserve(0.0, 20.0) is not None
    assert limiter.reserve(0.0, 3.0) is None
    assert [limiter.reserve(0.0, 3.0, ahead=True) for _ in range(8)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, None]
    assert limiter.free_in(0.0) == pytest.approx((41 + 7) / 2)


def test_what_goes_ahead_keeps_the_rate_and_heeds_throttling() -> None:
    limiter = RateLimiter(highest=10, burst=1)
    sent = sum(limiter.reserve(moment / 100, 0.0, ahead=True) is not None for moment in range(1000))
    assert 90 <= sent <= 101
    limiter.throttled(10.0)
    assert limiter.free_in(10.0, ahead=True) > 0


def test_throttling_halves_the_rate_once_a_second() -> None:
    limiter = RateLimiter(highest=100)
    for moment in (0.0, 0.1, 0.9):
        limiter.throttled(moment)
    assert limiter.rate == 50
    limiter.throttled(1.0)
    assert limiter.rate == pytest.approx(25, abs=1)


def test_the_rate_comes_back() -> None:
    limiter = RateLimiter(highest=100, lowest=2, recovery_seconds=60)
    for second in range(20):
        limiter.throttled(float(second))
    assert limiter.rate == pytest.approx(2)
    limiter.reserve(50.0, 0.0)
    assert 2 < limiter.rate < 100
    limiter.reserve(90.0, 0.0)
    assert limiter.rate == 100


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["call", "throttled"])), max_size=60))
def test_never_more_than_the_highest_rate_and_a_burst(events: list[tuple[float, str]]) -> None:
    limiter = RateLimiter(highest=10, burst=5, lowest=1)
    now, starts = 0.0, []
    for pause, event in events:
        now += pause
        if event == "throttled":
            limiter.throttled(now)
        elif (wait := limiter.reserve(now, 60.0)) is not None:
            starts.append(now + wait)
        assert 1 <= limiter.rate <= 10
    for index, start in enumerate(starts):
        within = [other for other in starts[index:] if other - start <= 1.0]
        assert len(within) <= 10 + 5 + 1
