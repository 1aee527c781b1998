"""Reads what the routers counted, for alarms on the requests of a revision. No Prometheus is needed.

Every router of a namespace is asked once a round for all fleets that are watched there. One that does not answer takes
nothing away from what the others say; its requests are counted when it answers again. Only so many are asked at once:
where many do not answer, as when a zone is lost, a round ends without some of them, and they come later.
"""

import asyncio
import json
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

import aiohttp

from sluice.alarms.subjects import INSUFFICIENT_DATA, Sight, Subject, Traffic
from sluice.alarms.turns import Turns
from sluice.alarms.windows import Counts, FleetWindows, NotUnderstoodError, RouterCounts, read_answer, verdict
from sluice.core.cluster.names import ROUTER_HEALTH_PORT
from sluice.ports.clock import Clock
from sluice.ports.kube import Forbidden, KubeUnavailable, Rejected
from sluice.ports.routers import RouterAddress, RouterPods

logger = logging.getLogger(__name__)

FLEETS_PER_CALL: Final = 100

Place = tuple[str, str]
"""A router: namespace and UID."""


@dataclass(frozen=True, slots=True)
class TrafficSettings:
    """How routers are asked."""

    period_seconds: float = 1.0
    call_seconds: float = 1.0
    round_seconds: float = 3.0
    """No router is asked in a round after this time."""
    patience_seconds: float = 10.0
    concurrency: int = 64
    """Routers that are asked at once: each takes a connection, and memory for its answer."""
    listed_seconds: float = 5.0
    """How long a listing of a namespace's routers is believed. The next is waited for no longer than a call: while the
    API server is slow, those that were there are asked."""
    silent_seconds: float = 3.0
    """A router that has not answered for this long is named."""
    longest_answer_bytes: int = 4 << 20
    port: int = ROUTER_HEALTH_PORT


@dataclass(slots=True)
class _Routers:
    """The routers of one namespace."""

    listed_at: float = float("-inf")
    addresses: tuple[RouterAddress, ...] = ()
    problem: str = ""
    answered_at: dict[str, float] = field(default_factory=dict)
    """By UID; before the first answer, when it was first asked."""
    listing: asyncio.Future[tuple[RouterAddress, ...]] | None = None
    """Under way."""

    @property
    def reached(self) -> tuple[RouterAddress, ...]:
        """Those that have an address."""
        return tuple(router for router in self.addresses if router.address)


class TrafficSource:
    """Implements poller.Source."""

    name = "Traffic"
    kinds: tuple[type[Subject], ...] = (Traffic,)
    at_once: int | None = None

    def __init__(self, clock: Clock, pods: RouterPods, settings: TrafficSettings | None = None) -> None:
        self._clock = clock
        self._pods = pods
        self._settings = settings or TrafficSettings()
        self._routers: dict[str, _Routers] = {}
        self._fleets: dict[tuple[str, str], FleetWindows] = {}
        self._session: aiohttp.ClientSession | None = None
        self._turns = Turns[Place](self._settings.concurrency)

    @property
    def period_seconds(self) -> float:
        """See Source."""
        return self._settings.period_seconds

    @property
    def patience_seconds(self) -> float:
        """See Source."""
        return self._settings.patience_seconds

    async def close(self) -> None:
        """See Source."""
        listings = [one.listing for one in self._routers.values() if one.listing is not None]
        for listing in listings:
            listing.cancel()
        await asyncio.gather(*listings, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def read(self, subjects: Collection[Subject]) -> Mapping[Subject, Sight]:
        """See Source."""
        by_namespace: dict[str, list[Traffic]] = {}
        for subject in subjects:
            if isinstance(subject, Traffic):
                by_namespace.setdefault(subject.namespace, []).append(subject)
        self._prepare(by_namespace)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Turns are waited for outside, where waiting does not count as the call's time.
                connector=aiohttp.TCPConnector(limit=self._settings.concurrency),
                timeout=aiohttp.ClientTimeout(total=self._settings.call_seconds),
            )
        await asyncio.gather(*(self._list(namespace, self._routers[namespace]) for namespace in by_namespace))
        at = self._clock.now()  # a reading is no younger than what it tells
        problems = await self._ask_all(by_namespace)
        found: dict[Subject, Sight] = {}
        for namespace, about in by_namespace.items():
            found.update(self._judge(namespace, about, problems[namespace], at))
        return found

    async def _ask_all(self, wanted: Mapping[str, list[Traffic]]) -> Mapping[str, list[str | None]]:
        """Ask the routers of all namespaces; of each that can be reached: why it did not say, None: it did."""
        slots = asyncio.Semaphore(self._settings.concurrency)
        end = self._clock.monotonic() + self._settings.round_seconds
        reached = {
            (namespace, router.uid): router for namespace in wanted for router in self._routers[namespace].reached
        }
        fleets = {
            namespace: sorted({fleet for subject in subjects for fleet in _fleets(subject)})
            for namespace, subjects in wanted.items()
        }

        async def ask(place: Place) -> str | None:
            namespace, uid = place
            async with slots:
                begun = self._clock.monotonic()
                if begun >= end:
                    return "too many others do not"
                answer = await self._ask(reached[place], fleets[namespace])
            self._turns.had(place, begun, in_vain=isinstance(answer, str))
            if isinstance(answer, str):
                return answer
            answered, said = answer
            self._routers[namespace].answered_at[uid] = answered
            for fleet, counts in said.fleets.items():
                self._fleets[namespace, fleet].take(uid, counts, said.uptime_seconds, answered)
            return None

        places = [place for place in self._turns.order(reached) if fleets[place[0]]]
        problems = dict(zip(places, await asyncio.gather(*map(ask, places)), strict=True))
        return {
            namespace: [problems.get((namespace, router.uid)) for router in self._routers[namespace].reached]
            for namespace in wanted
        }

    def _prepare(self, wanted: Mapping[str, list[Traffic]]) -> None:
        """Keep the windows that are asked for, and no others."""
        windows: dict[tuple[str, str], set[int]] = {}
        began: dict[tuple[str, str], float] = {}
        now = self._clock.monotonic()
        for namespace, subjects in wanted.items():
            for subject in subjects:
                for fleet in _fleets(subject):
                    windows.setdefault((namespace, fleet), set()).add(subject.window_seconds)
                if subject.since is not None:
                    moment = self._monotonic(subject.since)
                    began.update({(namespace, one.new): moment for one in subject.variants})
        self._fleets = {place: self._fleets.get(place) or FleetWindows(now) for place in windows}
        for place, seconds in windows.items():
            self._fleets[place].keep(seconds, now, began.get(place))
        for namespace, routers in self._routers.items():
            if namespace not in wanted and routers.listing is not None:
                routers.listing.cancel()
        self._routers = {namespace: self._routers.get(namespace) or _Routers() for namespace in wanted}

    def _judge(
        self, namespace: str, subjects: list[Traffic], unanswered: Sequence[str | None], at: datetime
    ) -> Mapping[Subject, Sight]:
        """`unanswered`: see _ask_all."""
        routers, now = self._routers[namespace], self._clock.monotonic()
        problems = []
        for router, problem in zip(routers.reached, unanswered, strict=True):
            if problem is not None:
                silent = now - routers.answered_at.setdefault(router.uid, now)
                problems.append((silent, f"router {router.pod} has not answered for {silent:.0f} s: {problem}"))
        if len(problems) == len(routers.reached) and any(_fleets(subject) for subject in subjects):
            none = f"namespace {namespace} has no router"
            if not math.isfinite(routers.listed_at):
                none = f"the routers of namespace {namespace} have not been listed yet"
            why = routers.problem or (problems[0][1] if problems else none)
            return dict.fromkeys(subjects, Sight(None, at, why))
        silent_ones = [text for silent, text in problems if silent >= self._settings.silent_seconds]
        found: dict[Subject, Sight] = {}
        for subject in subjects:
            state: str | None
            state, message = verdict(
                subject,
                [
                    (one.variant, self._total(subject, (one.new,), now), self._total(subject, one.serving, now))
                    for one in subject.variants
                ],
            )
            if state == INSUFFICIENT_DATA and not self._is_whole(subject, now):
                state, message = None, f"{message} since it is watched, which is not for as long yet"
            found[subject] = Sight(state, at, "; ".join([message, *silent_ones[:1]]))
        return found

    def _is_whole(self, subject: Traffic, now: float) -> bool:
        """Whether nothing is missing of the window. Too few requests tell nothing while something is."""
        if subject.since is None:
            return True
        since, places = self._monotonic(subject.since), ((subject.namespace, fleet) for fleet in _fleets(subject))
        return all(self._fleets[place].is_whole(subject.window_seconds, now, since) for place in places)

    def _monotonic(self, moment: datetime) -> float:
        return self._clock.monotonic() - (self._clock.now() - moment).total_seconds()

    def _total(self, subject: Traffic, fleets: tuple[str, ...], now: float) -> Counts:
        total = Counts()
        for fleet in fleets:
            total.add(self._fleets[subject.namespace, fleet].total(subject.window_seconds, now))
        return total

    async def _list(self, namespace: str, routers: _Routers) -> None:
        """Which routers there are. While the API server is away or slow, those that were there."""
        if routers.listing is None:
            if self._clock.monotonic() - routers.listed_at < self._settings.listed_seconds:
                return
            routers.listing = asyncio.ensure_future(self._pods(namespace))
        await asyncio.wait({routers.listing}, timeout=self._settings.call_seconds)
        if not routers.listing.done():
            return
        listing, routers.listing = routers.listing, None
        try:
            routers.addresses = listing.result()
            routers.problem = ""
        except (KubeUnavailable, Forbidden, Rejected) as error:
            routers.problem = f"the routers of namespace {namespace} cannot be listed: {error}"
            logger.warning("%s", routers.problem)
        routers.listed_at = self._clock.monotonic()
        existing = {router.uid for router in routers.addresses}
        routers.answered_at = {uid: at for uid, at in routers.answered_at.items() if uid in existing}
        for (place, _), fleet in self._fleets.items():
            if place == namespace:
                fleet.drop_routers(existing)

    async def _ask(self, router: RouterAddress, fleets: list[str]) -> tuple[float, RouterCounts] | str:
        """When a router answered, and what it had counted by then; or why it did not say."""
        uptime, found = 0.0, dict[str, Counts]()
        limit = asyncio.timeout(self._settings.patience_seconds)  # a slow one holds up the others of the round
        try:
            async with limit:
                for start in range(0, len(fleets), FLEETS_PER_CALL):
                    names = fleets[start : start + FLEETS_PER_CALL]
                    answer = read_answer(json.loads(await self._get(router, names)), names)
                    if answer.uptime_seconds < uptime:
                        raise NotUnderstoodError("it has started anew between two answers")
                    uptime = answer.uptime_seconds
                    found.update(answer.fleets)
        except TimeoutError:
            seconds = self._settings.patience_seconds if limit.expired() else self._settings.call_seconds
            return f"no answer within {seconds:g} s"
        except (aiohttp.ClientError, NotUnderstoodError, ValueError, RecursionError) as error:
            return f"{error or type(error).__name__}"
        return self._clock.monotonic(), RouterCounts(uptime, found)

    async def _get(self, router: RouterAddress, fleets: list[str]) -> bytes:
        """The body. Raises TimeoutError, aiohttp.ClientError, NotUnderstoodError."""
        assert self._session is not None  # noqa: S101 - read() opened it
        host = f"[{router.address}]" if ":" in router.address else router.address
        url = f"http://{host}:{self._settings.port}/traffic?{urlencode([('fleet', name) for name in fleets])}"
        async with self._session.get(url, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > self._settings.longest_answer_bytes:
                    raise NotUnderstoodError(f"the answer is longer than {self._settings.longest_answer_bytes} bytes")
            if response.status != 200:
                raise NotUnderstoodError(f"{response.status} {body[:200].decode(errors='replace').strip()}")
            return bytes(body)


def _fleets(subject: Traffic) -> tuple[str, ...]:
    """All that it is about."""
    return tuple(fleet for one in subject.variants for fleet in (one.new, *one.serving))
