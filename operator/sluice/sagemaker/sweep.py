"""Decides when to list an account and region's endpoints and which Endpoints to wake: what makes polling cost nothing.

One sweep serves all Endpoints with the same credentials. It asks ListEndpoints for what changed since the last sweep
(every 30 s; every 2.5 s while one of them is moving) and for everything every five minutes, because what was deleted is
in no list of changes. Endpoints that move are woken for a close look besides: their stages do not touch
LastModifiedTime."""

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sluice.api.reasons import Reason
from sluice.core.identity import Credentials, Key
from sluice.core.observation import CallProblem, Listed
from sluice.ports.aws import Aws
from sluice.ports.backend import ActFailed
from sluice.ports.clock import Clock
from sluice.sagemaker.listing import Listing
from sluice.sagemaker.recent import RecentWrites
from sluice.sagemaker.shapes import listed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """Seconds between calls."""

    steady_seconds: float = 30.0
    moving_seconds: float = 2.5
    full_seconds: float = 300.0
    look_seconds: float = 5.0
    """Between close looks at one endpoint that moves."""
    looks_per_second: float = 10.0
    """Close looks in all; with many endpoints moving each is looked at less often."""
    overlap_seconds: float = 15.0
    """A change that a sweep could not see yet is found by the next if it is no older than this."""
    stale_seconds: float = 45.0
    """An older listing decides nothing."""
    backoff_seconds: float = 5.0
    """After a first failure; doubled after each other, up to a minute."""
    denied_backoff_seconds: float = 30.0
    """The same where a person has to allow it, up to five minutes."""


@dataclass(slots=True)
class _Watched:
    name: str
    next_look: float = math.inf


class Sweep:
    """The listing of one set of credentials, kept young, and the Endpoints that watch it."""

    def __init__(
        self, credentials: Credentials, aws: Aws, recent: RecentWrites, clock: Clock, settings: SweepSettings
    ) -> None:
        self.listing = Listing()
        self._credentials = credentials
        self._aws = aws
        self._recent = recent
        self._clock = clock
        self._settings = settings
        self._wake: Callable[[Key], None] = lambda key: None
        self._watched: dict[Key, _Watched] = {}
        self._by_name: dict[str, set[Key]] = {}
        self._moving: set[Key] = set()
        self._told: dict[str, Listed | None] = {}
        """What passes saw last, by endpoint name; None: no such endpoint."""
        self._woken: dict[str, Listed | None] = {}
        """What watchers were woken for and have not looked at yet."""
        self._in_the_dark: set[str] = set()
        """Names whose passes saw nothing; the next sweep that succeeds wakes them."""
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._started = -math.inf
        self._succeeded: float | None = None
        self._full: float | None = None
        self._next = -math.inf
        self._marks: list[tuple[float, datetime]] = []
        """The newest LastModifiedTime known after each of the last sweeps, with the sweep's start; oldest first."""
        self._crowded: datetime | None = None
        """A moment in which so much changed that asking for it again takes more than a page, all of it known."""
        self._failures = 0
        self._problem: CallProblem | None = None
        self._account_id: str | None = None

    def on_moved(self, wake: Callable[[Key], None]) -> None:
        """Call wake(key) from now on."""
        self._wake = wake

    def watch(self, key: Key, name: str, *, moving: bool) -> None:
        """Keep the Endpoint in the sweep."""
        watched = self._watched.get(key)
        if watched is None or watched.name != name:
            self.forget(key)
            watched = self._watched[key] = _Watched(name)
            self._by_name.setdefault(name, set()).add(key)
            self._changed.set()
        if not moving:
            self._moving.discard(key)
            watched.next_look = math.inf
        elif key not in self._moving:
            self._moving.add(key)
            watched.next_look = self._clock.monotonic() + self._look_period()
            if not self._failures:
                self._next = min(self._next, self._started + self._settings.moving_seconds)
            self._changed.set()

    def forget(self, key: Key) -> None:
        """Take the Endpoint out of the sweep."""
        watched = self._watched.pop(key, None)
        if watched is None:
            return
        self._moving.discard(key)
        self._by_name[watched.name].discard(key)
        if not self._by_name[watched.name]:
            for remembered in (self._by_name, self._told, self._woken):
                remembered.pop(watched.name, None)
            self._in_the_dark.discard(watched.name)

    def told(self, name: str, item: Listed | None, asked: float | None = None) -> None:
        """A pass saw this. `asked`: when the call was started that showed it; None: it came from the listing."""
        if asked is not None:
            if item is None:
                self.listing.gone(name, asked)
            else:
                self.listing.seen(item, asked)
            for key in self._by_name.get(name, set()) & self._moving:
                self._watched[key].next_look = asked + self._look_period()
        self._told[name] = item
        self._in_the_dark.discard(name)

    def in_the_dark(self, name: str) -> None:
        """A pass could see nothing for want of credentials or of a listing: the next sweep that succeeds wakes it."""
        self._in_the_dark.add(name)

    async def ensure(self, name: str) -> CallProblem | None:
        """Waits until the listing is young enough to decide by it; the problem if it cannot be had."""
        if self._fresh(self._clock.monotonic()):
            return None
        async with self._lock:
            now = self._clock.monotonic()
            if not self._fresh(now) and not (self._failures and now < self._next):
                await self._sweep()
            now = self._clock.monotonic()
            if self._fresh(now) or self._problem is None:
                return None
            self.in_the_dark(name)
            return replace(self._problem, retry_after_seconds=round(max(1.0, self._next - now), 1))

    async def tick(self) -> float:
        """Does what is due. Returns the seconds until something is due again."""
        if not self._watched:
            return 3600.0
        async with self._lock:
            if self._clock.monotonic() >= self._next:
                await self._sweep()
        now = self._clock.monotonic()
        next_look = math.inf
        for key, watched in list(self._watched.items()):
            if watched.next_look <= now:
                watched.next_look = now + self._look_period()
                self._wake(key)
            next_look = min(next_look, watched.next_look)
        return max(0.05, min(self._next, next_look) - now)

    async def run(self) -> None:
        """Ticks for ever."""
        while True:
            try:
                delay = await self.tick()
            except Exception:
                log.exception("The sweep of %s failed", self._credentials.region)
                delay = self._settings.steady_seconds
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._changed.wait()

    def _fresh(self, now: float) -> bool:
        return self._succeeded is not None and now - self._succeeded <= self._settings.stale_seconds

    def _look_period(self) -> float:
        period = max(self._settings.look_seconds, len(self._moving) / self._settings.looks_per_second)
        return period * random.uniform(0.8, 1.2)  # noqa: S311 - spreads calls, hides nothing

    async def _sweep(self) -> None:
        """One listing, whole or of what changed; the lock is held."""
        settings = self._settings
        started = self._started = self._clock.monotonic()
        full = self._full is None or started - self._full >= settings.full_seconds - 1.0
        try:
            account = await self._aws.account(self._credentials)
            full |= self._another_account(account.account_id)
            await self._list(account.account_id, None if full else self._changed_after(), started)
        except ActFailed as failure:
            self._failed(failure.problem)
            return
        self._failures = 0
        self._problem = None
        self._succeeded = started
        self._mark(started)
        if full:
            self._full = started
        period = settings.steady_seconds
        if self._moving:  # slower where a listing takes long, or it would never end
            took = self._clock.monotonic() - started
            period = min(period, max(settings.moving_seconds, 5.0 * took))
        self._next = min(started + period, (self._full or started) + settings.full_seconds)
        self._wake_moved(again=full)
        self._wake_in_the_dark()

    def _another_account(self, account_id: str) -> bool:
        """Whether our own identity has been moved to another account since the sweep before, or back: what was listed
        is another account's then, and whoever watches must judge its place anew."""
        before, self._account_id = self._account_id, account_id
        if before is None or before == account_id:
            return False
        for key in tuple(self._watched):
            self._wake(key)
        return True

    def _changed_after(self) -> datetime | None:
        """From when on changes are asked for; None: from the beginning.

        In the service's own times, so that no clock of ours matters: the newest change that was known `overlap_seconds`
        before the previous sweep. What a sweep could not see yet is thus in the next one."""
        if not self._marks:
            return None
        oldest = self._marks[0][1] - timedelta(seconds=self._settings.overlap_seconds)
        known = [newest for started, newest in self._marks if started <= self._settled_before()]
        after = known[-1] if known else oldest
        # The API takes whole seconds, so a second is asked for whole, or, once it costs pages, not again.
        return after + timedelta(seconds=1) * (1 if after == self._crowded else -1)

    def _mark(self, started: float) -> None:
        newest = self.listing.newest()
        if newest is None:
            return
        self._marks.append((started, newest.last_modified))
        settled = [mark for mark in self._marks if mark[0] <= self._settled_before()]
        self._marks = settled[-1:] + [mark for mark in self._marks if mark[0] > self._settled_before()]

    def _settled_before(self) -> float:
        """Sweeps that were started before this saw all that the previous sweep's listing could be late with."""
        return (self._succeeded if self._succeeded is not None else -math.inf) - self._settings.overlap_seconds

    async def _list(self, account_id: str, changed_after: datetime | None, started: float) -> None:
        """Lists into the listing. Raises ActFailed."""
        request: dict[str, Any] = {"MaxResults": 100, "SortBy": "CreationTime", "SortOrder": "Ascending"}
        if changed_after is not None:
            request["LastModifiedTimeAfter"] = changed_after
        items: list[Listed] = []
        pages, news = 0, False
        while True:
            asked = self._clock.monotonic()
            answer = await self._aws.call(self._credentials, "sagemaker", "ListEndpoints", **request)
            page = [listed(item) for item in answer.get("Endpoints", ())]
            for item in page:
                news |= self.listing.seen(item, asked)
            items += page
            pages += 1
            if not answer.get("NextToken"):
                break
            request["NextToken"] = answer["NextToken"]
        if changed_after is None:
            keep = self._recent.names(account_id, self._credentials.region, "endpoint")
            self.listing.replace(items, started, keep)
        elif pages > 1 and not news:
            self._crowded = changed_after + timedelta(seconds=1)

    def _failed(self, problem: CallProblem) -> None:
        self._failures += 1
        self._problem = problem
        denied = problem.reason is Reason.ACCESS_DENIED
        base, longest = (
            (self._settings.denied_backoff_seconds, 300.0) if denied else (self._settings.backoff_seconds, 60.0)
        )
        delay = min(longest, base * 2.0 ** min(self._failures - 1, 10))
        self._next = self._clock.monotonic() + delay * random.uniform(0.8, 1.2)  # noqa: S311 - spreads calls
        log.warning(
            "Listing endpoints in %s failed, again in %.0f s: %s", self._credentials.region, delay, problem.message
        )

    def _wake_moved(self, *, again: bool) -> None:
        """Wakes watchers of what differs from what they saw, once per difference; at a whole listing once more."""
        for name, keys in list(self._by_name.items()):
            if name not in self._told:
                continue
            shown = self.listing.get(name)
            if shown == self._told[name]:
                self._woken.pop(name, None)
            elif again or name not in self._woken or self._woken[name] != shown:
                self._woken[name] = shown
                for key in tuple(keys):
                    self._wake(key)

    def _wake_in_the_dark(self) -> None:
        names, self._in_the_dark = self._in_the_dark, set()
        for name in names:
            for key in tuple(self._by_name.get(name, ())):
                self._wake(key)
