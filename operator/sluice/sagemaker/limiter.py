"""Decides when the next call to one service in one account and region may go out: a token bucket whose rate follows
the service's throttling.

The rate halves (at most once a second: one burst of refusals is one piece of news) and grows back.

Some calls cannot wait long: a write goes out soon or not at all. They go ahead of those that can, or a queue of looks
at what moves would starve them for as long as the rate is low. What they take, the others wait for."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class RateLimiter:
    """Times are monotonic seconds, rates calls per second."""

    highest: float
    """The rate when nothing is throttled."""
    lowest: float = 2.0
    burst: float = 20.0
    """Calls that may go out at once after a quiet time."""
    recovery_seconds: float = 60.0
    """From the lowest rate back to the highest without throttling."""
    rate: float = field(init=False)
    _tokens: float = field(init=False)
    _ahead: float = field(init=False, default=1.0)
    """The bucket of those that go ahead: filled at the same rate, and holding one."""
    _refilled: float | None = field(init=False, default=None)
    _throttled: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.lowest = min(self.lowest, self.highest)
        self.rate = self.highest
        self._tokens = self.burst

    def reserve(self, now: float, longest_wait: float, *, ahead: bool = False) -> float | None:
        """Takes a place in the queue: seconds to wait before the call. None: longer than longest_wait, no place.
        ahead: only others that go ahead are before it."""
        wait = self.free_in(now, ahead=ahead)
        if wait > longest_wait:
            return None
        self._tokens -= 1.0
        if ahead:
            self._ahead -= 1.0
        return wait

    def free_in(self, now: float, *, ahead: bool = False) -> float:
        """Seconds until a call could go out."""
        self._refill(now)
        tokens = max(self._tokens, self._ahead) if ahead else self._tokens
        return max(0.0, (1.0 - tokens) / self.rate)

    def throttled(self, now: float) -> None:
        """The service refused a call because there were too many."""
        self._refill(now)
        if self._throttled is not None and now - self._throttled < 1.0:
            return
        self._throttled = now
        self.rate = max(self.lowest, self.rate / 2.0)
        self._tokens = min(self._tokens, 0.0)
        self._ahead = min(self._ahead, 0.0)

    def _refill(self, now: float) -> None:
        last = self._refilled if self._refilled is not None else now
        self._refilled = max(now, last)
        elapsed = max(0.0, now - last)
        self._tokens = min(self.burst, self._tokens + elapsed * self.rate)
        self._ahead = min(1.0, self._ahead + elapsed * self.rate)
        if self._throttled is not None and self.rate < self.highest:
            growing = max(0.0, now - max(last, self._throttled + 1.0))
            grown = self.rate + growing * (self.highest - self.lowest) / self.recovery_seconds
            self.rate = min(self.highest, grown)
