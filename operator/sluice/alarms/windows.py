"""What requests of a fleet came to in the last seconds, from routers' counters that only grow, and what an alarm makes
of it. Pure: `now` is monotonic seconds.

A router that restarts counts from zero, and so do some of a fleet's numbers when its pods change; a router that is gone
takes nothing back. What a router counted before the fleet was watched counts only where all of it came within the
window, because the fleet's first requests did; it then counts as if it had come just now. A window that lacks something
else is not whole until that would have left it.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sluice.alarms.subjects import ALARM, INSUFFICIENT_DATA, OK, Traffic, holds, sign

Bucket = tuple[float, float]
"""Lower bound and width, milliseconds."""

SLOTS: Final = 60
"""Parts of a long window: it is exact to one of them."""
MAX_BUCKETS: Final = 2000
RESOLUTION_MILLISECONDS: Final = 1.0
"""What routers measure in."""
_TIMED_OUT: Final = "TimedOut"
"""No metric of the API: the share of requests that timed out."""
_WORST_FIRST: Final = (ALARM, OK, INSUFFICIENT_DATA)
_SLACK_SECONDS: Final = 2.0
"""An uptime is in whole seconds, and follows a clock that may be set."""


class NotUnderstoodError(Exception):
    """A router's answer is not what it should be."""


@dataclass(slots=True)
class Counts:
    """Requests that ended."""

    requests: int = 0
    errors_4xx: int = 0
    errors_5xx: int = 0
    timed_out: int = 0
    latency: dict[Bucket, int] = field(default_factory=dict)

    def add(self, other: "Counts", times: int = 1) -> None:
        """Add the other's, or with times = -1 take them away."""
        self.requests += times * other.requests
        self.errors_4xx += times * other.errors_4xx
        self.errors_5xx += times * other.errors_5xx
        self.timed_out += times * other.timed_out
        for bucket, number in other.latency.items():
            left = self.latency.get(bucket, 0) + times * number
            if left:
                self.latency[bucket] = left
            else:
                self.latency.pop(bucket, None)

    @property
    def others(self) -> int:
        """Answers that are neither 4xx nor 5xx."""
        return self.requests - self.errors_4xx - self.errors_5xx

    def since(self, before: "Counts") -> "Counts":
        """What came after `before`. What is less than before was counted from zero again, and each for itself: where
        its pods change, Envoy replaces a fleet's cluster and forgets its answers of a class and its latencies, except
        those of which some came while requests still ran on the old one; time-outs it keeps
        (https://github.com/envoyproxy/envoy/issues/43984)."""
        errors_4xx = _grown(before.errors_4xx, self.errors_4xx)
        errors_5xx = _grown(before.errors_5xx, self.errors_5xx)
        latency = {bucket: self.latency.get(bucket, 0) - number for bucket, number in before.latency.items()}
        is_whole = min(latency.values(), default=0) >= 0
        return Counts(
            _grown(before.others, self.others) + errors_4xx + errors_5xx,
            errors_4xx,
            errors_5xx,
            _grown(before.timed_out, self.timed_out),
            {bucket: number for bucket, number in (self.latency | (latency if is_whole else {})).items() if number},
        )


def _grown(before: int, now: int) -> int:
    return now - before if now >= before else now


@dataclass(frozen=True, slots=True)
class RouterCounts:
    """One answer of a router."""

    uptime_seconds: float
    fleets: Mapping[str, Counts]


def read_answer(answer: Any, fleets: Iterable[str]) -> RouterCounts:
    """The JSON of `GET /traffic`, as sluice.router.traffic makes it. Raises NotUnderstoodError."""
    try:
        found = {name: _counts(answer["fleets"][name]) for name in fleets}
        return RouterCounts(float(answer["uptimeSeconds"]), found)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise NotUnderstoodError(f"the answer is not understood: {type(error).__name__}: {error}") from error


def _counts(entry: Mapping[str, Any]) -> Counts:
    buckets = entry["latency"]
    if len(buckets) > MAX_BUCKETS:
        raise ValueError(f"{len(buckets)} buckets")
    return Counts(
        _number(entry["requests"]),
        _number(entry["errors4xx"]),
        _number(entry["errors5xx"]),
        _number(entry["timedOut"]),
        {(float(lower), float(width)): _number(count) for lower, width, count in buckets if count},
    )


def _number(value: Any) -> int:
    # Envoy counts in 64 bits. A router's word is hostile input: with larger ones not even a share can be told.
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise ValueError(f"{value!r} is no number of requests")
    return value


class Window:
    """The last `seconds`. since: when it began to be watched."""

    def __init__(self, seconds: int, since: float) -> None:
        self._seconds = seconds
        self.since = since
        self._slots: deque[tuple[float, Counts]] = deque()
        self.total = Counts()

    def add(self, counts: Counts, now: float) -> None:
        """They came just now."""
        if not counts.requests and not counts.latency and not counts.timed_out:
            return
        if self._slots and now - self._slots[-1][0] < self._seconds / SLOTS:
            self._slots[-1][1].add(counts)
        else:
            slot = Counts()
            slot.add(counts)
            self._slots.append((now, slot))
        self.total.add(counts)

    def expire(self, now: float) -> None:
        """Let go of what is older."""
        while self._slots and self._slots[0][0] <= now - self._seconds:
            self.total.add(self._slots.popleft()[1], -1)


@dataclass(slots=True)
class _Last:
    counts: Counts
    uptime_seconds: float
    at: float

    def restarted(self, uptime_seconds: float, now: float) -> bool:
        """Whether the router has started since, by its uptime alone. A clock that was set back must not look like it:
        all that was ever counted would be taken for new."""
        elapsed = now - self.at
        fell_back = uptime_seconds < self.uptime_seconds + elapsed - _SLACK_SECONDS
        return fell_back and uptime_seconds <= elapsed + _SLACK_SECONDS


class FleetWindows:
    """One fleet, over all routers."""

    def __init__(self, now: float) -> None:
        self._watched_since = now
        self._last: dict[str, _Last] = {}
        self._windows: dict[int, Window] = {}
        self._began: float | None = None

    def keep(self, windows_seconds: Iterable[int], now: float, began: float | None = None) -> None:
        """Which windows are asked for. began: when the fleet's first requests came, if it is known."""
        self._began = began
        fresh = {seconds: Window(seconds, now) for seconds in set(windows_seconds) - self._windows.keys()}
        for seconds, window in fresh.items():
            for last in self._last.values() if self._holds_all(seconds, window) else ():
                window.add(last.counts, now)
        kept = {seconds: window for seconds, window in self._windows.items() if seconds in set(windows_seconds)}
        self._windows = kept | fresh

    def take(self, router: str, counts: Counts, uptime_seconds: float, now: float) -> None:
        """What a router (its pod's UID) has counted by now."""
        last = self._last.get(router)
        self._last[router] = _Last(counts, uptime_seconds, now)
        if last is not None:
            came = counts if last.restarted(uptime_seconds, now) else counts.since(last.counts)
            for window in self._windows.values():
                window.add(came, now)
            return
        is_new = uptime_seconds < now - self._watched_since - _SLACK_SECONDS  # it counted while the fleet was watched
        for seconds, window in self._windows.items():
            if is_new or self._holds_all(seconds, window):
                window.add(counts, now)

    def drop_routers(self, existing: Iterable[str]) -> None:
        """Routers that are gone."""
        staying = set(existing)
        self._last = {router: last for router, last in self._last.items() if router in staying}

    def is_whole(self, seconds: int, now: float, since: float) -> bool:
        """Whether one of the windows has all that came in it since a moment."""
        window = self._windows[seconds]
        seen = window.since <= since + _SLACK_SECONDS or now - window.since >= seconds
        return seen or self._holds_all(seconds, window)

    def _holds_all(self, seconds: int, window: Window) -> bool:
        """Whether the fleet's first requests came within the window as it was when it began to be watched."""
        return self._began is not None and window.since - self._began <= seconds

    def total(self, seconds: int, now: float) -> Counts:
        """Of one of the windows."""
        window = self._windows[seconds]
        window.expire(now)
        return window.total


def verdict(traffic: Traffic, found: Sequence[tuple[str, Counts, Counts]]) -> tuple[str, str]:
    """State and message of an alarm, from what each variant, and what it is compared with, came to in its window. One
    bad variant is enough, and one that has too few requests takes nothing away from the others."""
    if not found:
        return INSUFFICIENT_DATA, "there is no new revision yet"
    judged = [(variant, *judge(traffic, new, serving)) for variant, new, serving in found]
    variant, state, message = min(judged, key=lambda one: _WORST_FIRST.index(one[1]))
    return state, f"variant {variant}: {message}" if len(judged) > 1 else message


def judge(traffic: Traffic, new: Counts, serving: Counts) -> tuple[str, str]:
    """State and message for one variant."""
    number = _measured(traffic, new)
    if number < traffic.minimum_requests:
        least = f"at least {traffic.minimum_requests} are needed"
        return INSUFFICIENT_DATA, f"{number} requests in {traffic.window_seconds} s; {least}"
    value, threshold, compared = _value(traffic, new), traffic.threshold, ""
    if traffic.relative:
        others = _measured(traffic, serving)
        if others < traffic.minimum_requests:
            least = f"at least {traffic.minimum_requests} are needed to compare with"
            return INSUFFICIENT_DATA, f"the serving revision had {others} requests; {least}"
        base = _value(traffic, serving)
        if math.isinf(value) and math.isinf(base):
            # Neither is more than the other: how many timed out tells them apart.
            traffic = replace(traffic, metric=_TIMED_OUT)
            value, base = _value(traffic, new), _value(traffic, serving)
        base = max(base, RESOLUTION_MILLISECONDS * 1000 if traffic.metric == "ModelLatency" else 1 / others)
        threshold = traffic.threshold * base
        compared = f", {traffic.threshold:g} times the serving revision's {_told(traffic, base)}"
    state = ALARM if holds(value, traffic.comparison, threshold) else OK
    what = " timed out" if traffic.metric == _TIMED_OUT else ""
    told = f"{_told(traffic, value)} of {number} requests{what} in {traffic.window_seconds} s"
    return state, f"{told} (alarm: {sign(traffic.comparison)} {_told(traffic, threshold)}{compared})"


def percentile(counts: Counts, percent: float) -> float:
    """Milliseconds: within its bucket a latency is taken to be spread evenly. inf: that request timed out."""
    rank = percent / 100 * (sum(counts.latency.values()) + counts.timed_out)
    before = 0
    for (lower, width), number in sorted(counts.latency.items()):
        if before + number >= rank:
            return lower + width * max(0.0, rank - before) / number
        before += number
    return math.inf


def _measured(traffic: Traffic, counts: Counts) -> int:
    if traffic.metric in {"ModelLatency", _TIMED_OUT}:
        return sum(counts.latency.values()) + counts.timed_out
    return counts.requests


def _value(traffic: Traffic, counts: Counts) -> float:
    """A share, or microseconds."""
    match traffic.metric:
        case "Invocation4XXErrors":
            return counts.errors_4xx / counts.requests
        case "Invocation5XXErrors":
            return counts.errors_5xx / counts.requests
        case "TimedOut":
            return counts.timed_out / _measured(traffic, counts)
        case _:
            return percentile(counts, 99.0 if traffic.percentile is None else traffic.percentile) * 1000


def _told(traffic: Traffic, value: float) -> str:
    if traffic.metric != "ModelLatency":
        return f"{100 * value:.4g} %"
    return "no answer in time" if math.isinf(value) else f"{value:.0f} us"
