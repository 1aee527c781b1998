"""Reads alerts and conditions from the cluster's Prometheus.

A hundred alerts are one call; a query is made once however many Endpoints ask it. Since when a condition with
forSeconds has held is asked of Prometheus' own history when it begins to, so that neither a restart of the operator nor
a time without answers makes it count anew. Answers are limited in size and time, because what Prometheus says is what
anybody in the cluster can make it say.
"""

import asyncio
import json
import math
import ssl
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import aiohttp

from sluice.alarms.subjects import (
    ALARM,
    INSUFFICIENT_DATA,
    MISSING,
    OK,
    UNFIT,
    UNREADABLE,
    Alert,
    Query,
    Sight,
    Subject,
    holds,
    sign,
)
from sluice.alarms.turns import Turns
from sluice.ports.clock import Clock

_NOT_SET: Final = "setting SLUICE_PROMETHEUS_URL is not set: the operator knows no Prometheus to ask"
_STALE_INTERVALS: Final = 3
_NAMES_OF_A_CALL: Final = 100
"""Each is a part of the address."""
_HISTORY_POINTS: Final = 60
"""How many moments of forSeconds are looked back at, at least a second apart."""
_STALE_SECONDS: Final = 30.0
"""A rule that was not evaluated for so many of its intervals, and for this long, says nothing about now."""


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """Which Prometheus, and how it is asked."""

    url: str | None = None
    token_file: Path | None = None
    """Read before each round: tokens are renewed."""
    ca_file: Path | None = None
    period_seconds: float = 1.0
    call_seconds: float = 2.0
    """The longest that one call may take."""
    round_seconds: float = 5.0
    """The longest that all calls of a round may take."""
    patience_seconds: float = 10.0
    concurrency: int = 16
    longest_answer_bytes: int = 16 << 20
    """Of rules: an old server sends all of them."""
    longest_value_bytes: int = 1 << 20
    """Of a query, which asks for one number: whoever writes an Endpoint chooses it."""


class _NotRead(Exception):
    """The call gave nothing to judge by. `unfit`: nor will it ever."""

    def __init__(self, message: str, *, unfit: bool = False) -> None:
        super().__init__(message)
        self.unfit = unfit


@dataclass(frozen=True, slots=True)
class _Answer:
    data: Any
    date: datetime | None
    """Prometheus' own clock."""
    lacks: str = ""
    """Why a part of the data is missing in it; empty: nothing is."""


@dataclass(slots=True)
class _Held:
    """A condition with forSeconds, which was true at its last reading."""

    since: datetime
    begun: float
    read_at: float
    """Both monotonic."""
    is_known: bool
    """Whether Prometheus' history told since when; else it is asked again with each reading."""


class PrometheusSource:
    """Implements poller.Source."""

    name = "Prometheus"
    kinds: tuple[type[Subject], ...] = (Alert, Query)
    at_once: int | None = None

    def __init__(self, clock: Clock, settings: PrometheusSettings) -> None:
        self._clock = clock
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._held: dict[Query, _Held] = {}
        self._turns = Turns[str](settings.concurrency)
        """By expression. One that the end of a round cut off has not had its turn."""
        self._rule_turns = Turns[tuple[str, ...]](1)
        """The same of the alerts' names that one call asks for."""

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
        if self._session is not None:
            await self._session.close()

    async def read(self, subjects: Collection[Subject]) -> Mapping[Subject, Sight]:
        """See Source."""
        alerts = [subject for subject in subjects if isinstance(subject, Alert)]
        queries = [subject for subject in subjects if isinstance(subject, Query)]
        self._held = {query: held for query, held in self._held.items() if query in subjects}
        at = self._clock.now()  # a reading is no younger than what it tells
        if not subjects:
            return {}
        if self._settings.url is None:
            return {subject: Sight(UNREADABLE, self._clock.now(), _NOT_SET) for subject in subjects}
        end = self._clock.monotonic() + self._settings.round_seconds
        expressions = self._turns.order({query.expression for query in queries})
        tasks: dict[str, asyncio.Task[_Answer]] = {}
        rules: dict[str, asyncio.Task[_Answer]] = {}
        slots = asyncio.Semaphore(self._settings.concurrency)
        try:
            headers = self._headers()
            self._open()
            rules = self._ask_rules(headers, sorted({alert.name for alert in alerts}))
            tasks = {text: asyncio.create_task(self._query(slots, headers, text)) for text in expressions}
            await asyncio.wait({*tasks.values(), *rules.values()}, timeout=self._settings.round_seconds)
        except (OSError, ValueError) as error:  # of the files with token and certificates
            return dict.fromkeys(subjects, Sight(None, self._clock.now(), str(error)))
        finally:
            late = [task for task in {*tasks.values(), *rules.values()} if not task.done()]
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        found: dict[Subject, Sight] = {}
        found.update({alert: self._of_alert(alert, rules[alert.name], at) for alert in alerts})
        found.update({query: self._of_query(query, tasks[query.expression], at) for query in queries})
        begun = {query: tasks[query.expression].result().date for query in queries if self._begins(query, found[query])}
        await self._look_back(slots, headers, begun, end)
        for query in queries:
            if found[query].state == ALARM and query.for_seconds:
                found[query] = self._pending(query, found[query])
        return found

    # Calls ------------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._session is not None:
            return
        trusted: ssl.SSLContext | bool = True
        if self._settings.ca_file is not None:
            trusted = ssl.create_default_context(cafile=str(self._settings.ca_file))
        at_once = self._settings.concurrency + 1  # queries, and one call for alerts
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=at_once, ssl=trusted),
            timeout=aiohttp.ClientTimeout(total=self._settings.call_seconds),
        )

    def _headers(self) -> dict[str, str]:
        if self._settings.token_file is None:
            return {}
        return {"Authorization": f"Bearer {self._settings.token_file.read_text().strip()}"}

    def _ask_rules(self, headers: Mapping[str, str], names: Sequence[str]) -> dict[str, "asyncio.Task[_Answer]"]:
        """For each name the call that it is a part of."""
        turn = asyncio.Lock()
        rules: dict[str, asyncio.Task[_Answer]] = {}
        parts = [tuple(names[first : first + _NAMES_OF_A_CALL]) for first in range(0, len(names), _NAMES_OF_A_CALL)]
        for some in self._rule_turns.order(parts):
            rules |= dict.fromkeys(some, asyncio.create_task(self._rules(turn, headers, some)))
        return rules

    async def _rules(self, turn: asyncio.Lock, headers: Mapping[str, str], names: tuple[str, ...]) -> _Answer:
        # Servers before 2.44 do not know rule_name[] and send all rules: one such answer at a time is held. Not among
        # the queries: these may be slow enough to take a whole round.
        params = [("type", "alert"), *(("rule_name[]", name) for name in names)]
        async with turn:
            begun, longest = self._clock.monotonic(), self._settings.longest_answer_bytes
            try:
                answer = await self._call("GET", "/api/v1/rules", headers, longest=longest, params=params)
            except _NotRead:
                self._rule_turns.had(names, begun, in_vain=True)
                raise
            self._rule_turns.had(names, begun, in_vain=False)
            return replace(answer, data=rules_by_name(answer.data, names))

    async def _query(self, slots: asyncio.Semaphore, headers: Mapping[str, str], expression: str) -> _Answer:
        form = {"query": expression, "timeout": f"{self._settings.call_seconds:g}s"}
        async with slots:
            begun = self._clock.monotonic()
            try:
                answer = await self._call("POST", "/api/v1/query", headers, data=form)
            except _NotRead:
                self._turns.had(expression, begun, in_vain=True)
                raise
            self._turns.had(expression, begun, in_vain=False)
            # Of many answers that wait for the end of the round, no more than this is kept.
            return replace(answer, data=one_value(answer.data))

    async def _call(
        self, method: str, path: str, headers: Mapping[str, str], *, longest: int | None = None, **rest: Any
    ) -> _Answer:
        """Raises _NotRead."""
        assert self._session is not None and self._settings.url is not None  # noqa: S101, PT018 - read() opened it
        url = self._settings.url.rstrip("/") + path
        try:
            async with self._session.request(method, url, headers=headers, allow_redirects=False, **rest) as response:
                body = await _limited(response, longest or self._settings.longest_value_bytes)
                status, date = response.status, _date(response.headers.get("Date", ""))
        except TimeoutError:
            raise _NotRead(f"{url}: no answer within {self._settings.call_seconds:g} s") from None
        except aiohttp.ClientError as error:
            raise _NotRead(f"{url}: {error or type(error).__name__}") from error
        try:
            answer = json.loads(body)
            said = str(answer.get("error") or "") if isinstance(answer, dict) else ""
        except (ValueError, RecursionError):
            answer, said = None, ""
        if status == 200 and isinstance(answer, dict) and answer.get("status") == "success":
            return _Answer(answer.get("data"), date, _lacks(answer))
        if status == 400 and said:
            raise _NotRead(f"Prometheus refuses it: {said}", unfit=True)
        if status in {401, 403}:
            raise _NotRead(f"{url}: {status}; see settings SLUICE_PROMETHEUS_TOKEN_FILE and SLUICE_PROMETHEUS_URL")
        raise _NotRead(f"{url}: {status} {said or 'and no answer of a Prometheus'}")

    # Judgement --------------------------------------------------------------------------------------------------------

    def _of_alert(self, alert: Alert, asked: "asyncio.Task[_Answer]", at: datetime) -> Sight:
        try:
            answer = self._result(asked)
            state, message = judge_alert(alert, answer.data[alert.name], answer.date)
        except _NotRead as error:
            return Sight(None, at, str(error))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            return Sight(None, at, f"/api/v1/rules: not understood: {error!r}")
        if answer.lacks and state != ALARM:
            return Sight(None, at, answer.lacks)
        return Sight(state, at, message)

    def _of_query(self, query: Query, asked: "asyncio.Task[_Answer]", at: datetime) -> Sight:
        try:
            answer = self._result(asked)
        except _NotRead as error:
            return Sight(UNFIT if error.unfit else None, at, str(error))
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            return Sight(None, at, f"/api/v1/query: not understood: {error!r}")
        if answer.lacks:
            return Sight(None, at, answer.lacks)
        value: float | None = answer.data
        if value is None or math.isnan(value):
            self._held.pop(query, None)
            return Sight(INSUFFICIENT_DATA, at, "the expression has no value now")
        told = f"{value:g} (alarm: {sign(query.comparison)} {query.threshold:g})"
        if not holds(value, query.comparison, query.threshold):
            self._held.pop(query, None)
            return Sight(OK, at, told)
        return Sight(ALARM, at, told)

    def _begins(self, query: Query, sight: Sight) -> bool:
        """Whether it is not known since when the condition, which must hold for a while, does: it has just begun to, or
        it could not be read for too long."""
        if sight.state != ALARM or not query.for_seconds:
            return False
        held = self._held.get(query)
        return held is None or not held.is_known or self._is_old(held)

    def _is_old(self, held: _Held) -> bool:
        return self._clock.monotonic() - held.read_at >= self._settings.patience_seconds

    async def _look_back(
        self, slots: asyncio.Semaphore, headers: Mapping[str, str], begun: Mapping[Query, datetime | None], end: float
    ) -> None:
        """Since when these conditions have held, by Prometheus' history up to its own clock's time. As long as it does
        not tell, it counts from the first reading."""
        now, read_at = self._clock.now(), self._clock.monotonic()
        tasks = {
            query: asyncio.create_task(self._history(slots, headers, query, until or now))
            for query, until in begun.items()
        }
        if tasks:
            await asyncio.wait(tasks.values(), timeout=max(self._settings.call_seconds, end - read_at))
        late = [task for task in tasks.values() if not task.done()]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for query, task in tasks.items():
            is_known = not task.cancelled() and task.exception() is None
            held = self._held.get(query)
            if not is_known and held is not None and not self._is_old(held):
                continue
            lasted = task.result() if is_known else 0.0
            self._held[query] = _Held(now - timedelta(seconds=lasted), read_at - lasted, read_at, is_known)

    async def _history(
        self, slots: asyncio.Semaphore, headers: Mapping[str, str], query: Query, until: datetime
    ) -> float:
        """For how many seconds, at most forSeconds, the condition has held without a break. Raises _NotRead, and what a
        strange answer leads to."""
        step = max(1.0, query.for_seconds / _HISTORY_POINTS)
        points = math.ceil(query.for_seconds / step)
        form = {
            "query": query.expression,
            "start": f"{until.timestamp() - points * step:.3f}",
            "end": f"{until.timestamp():.3f}",
            "step": f"{step:.3f}",
            "timeout": f"{self._settings.call_seconds:g}s",
        }
        async with slots:
            answer = await self._call("POST", "/api/v1/query_range", headers, data=form)
        if answer.lacks:
            raise _NotRead(answer.lacks)
        return held_for(answer.data, query, until.timestamp(), step)

    def _pending(self, query: Query, sight: Sight) -> Sight:
        """The condition holds: for long enough?"""
        held, read_at = self._held[query], self._clock.monotonic()
        held.read_at = read_at
        if read_at - held.begun >= query.for_seconds:
            return sight
        pending = f"pending since {held.since:%H:%M:%S}, for {query.for_seconds} s to alarm"
        return Sight(OK, sight.at, f"{sight.message}, {pending}")

    def _result(self, task: "asyncio.Task[_Answer]") -> _Answer:
        """Raises _NotRead."""
        if task.cancelled():
            raise _NotRead(
                f"{self._settings.url}: no answer within {self._settings.round_seconds:g} s, all calls together"
            )
        return task.result()


def rules_by_name(
    data: Mapping[str, Any], names: Collection[str]
) -> Mapping[str, Sequence[tuple[float, Mapping[str, Any]]]]:
    """The rules of each of these names, as /api/v1/rules has them, each with its group's interval (seconds)."""
    found: dict[str, list[tuple[float, Mapping[str, Any]]]] = {name: [] for name in names}
    for group in data["groups"]:
        for rule in group["rules"]:
            if rule["name"] in found:
                found[rule["name"]].append((float(group.get("interval") or 0.0), rule))
    return found


def judge_alert(
    alert: Alert, rules: Sequence[tuple[float, Mapping[str, Any]]], now: datetime | None
) -> tuple[str | None, str | None]:
    """State and message of an alert, from the rules of its name with their groups' intervals (seconds), as
    /api/v1/rules has them; now: Prometheus' clock. A pending alert is OK: its rule says for how long it may be."""
    if not rules:
        return MISSING, "Prometheus has no alerting rule of this name"
    firing = [found for _, rule in rules for found in rule.get("alerts") or () if _is(found, alert)]
    if firing:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(firing[0]["labels"].items()) if key != "alertname")
        return ALARM, f"firing since {firing[0].get('activeAt')} with {labels or 'no labels'}"
    for interval, rule in rules:
        health = rule.get("health")
        if health == "err":
            return None, f"Prometheus cannot evaluate the rule: {rule.get('lastError')}"
        if health != "ok":
            said = "" if health == "unknown" else f" (health {health})"
            return INSUFFICIENT_DATA, f"Prometheus has not evaluated the rule yet{said}"
        evaluated = _moment(str(rule.get("lastEvaluation") or ""))
        if now is None or evaluated is None:
            return None, "the answer does not say how long ago the rule was evaluated"
        late = (now - evaluated).total_seconds()
        if late > max(_STALE_SECONDS, _STALE_INTERVALS * interval):
            return None, f"Prometheus has not evaluated the rule for {late:.0f} s"
    return OK, None


def one_value(data: Mapping[str, Any]) -> float | None:
    """The value of an instant query; None: it has none now. Raises _NotRead if it is not one number."""
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        return float(result[1])
    if kind != "vector":
        raise _NotRead(f"the expression is a {kind}; one number is needed, for example sum(rate(...[1m]))", unfit=True)
    if not result:
        return None
    if len(result) > 1:
        raise _NotRead(
            f"the expression has {len(result)} values; one is needed: aggregate it, for example with sum(...) or "
            "max(...), or select one series by its labels",
            unfit=True,
        )
    return float(result[0]["value"][1])


def held_for(data: Mapping[str, Any], query: Query, end: float, step: float) -> float:
    """For how many seconds up to `end` (of the epoch) the condition has held at every step, by a range query's answer.
    A moment without one value is none at which it held."""
    values: dict[int, list[float]] = {}
    for series in data["result"]:
        for at, value in series["values"]:
            values.setdefault(round((end - float(at)) / step), []).append(float(value))
    back = 0
    while len(found := values.get(back, [])) == 1 and holds(found[0], query.comparison, query.threshold):
        back += 1
    return max(0, back - 1) * step


def _is(found: Mapping[str, Any], alert: Alert) -> bool:
    labels = found["labels"]
    return found.get("state") == "firing" and all(labels.get(key, "") == value for key, value in alert.labels)


async def _limited(response: aiohttp.ClientResponse, longest: int) -> bytes:
    """The body. Raises _NotRead beyond the limit, without having read more."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > longest:
            raise _NotRead(f"{response.url.path}: the answer is longer than {longest >> 20} MiB")
    return bytes(body)


def _lacks(answer: Mapping[str, Any]) -> str:
    """Why a part of the data is missing: what federates several servers (Thanos, a remote read, VictoriaMetrics)
    answers by those that it reached. What PromQL warns of is the expression's, not the data's."""
    warnings = answer.get("warnings") or ()
    missing = [str(one) for one in warnings if not str(one).startswith("PromQL ")]
    if answer.get("isPartial"):
        missing.append("isPartial")
    return f"a part of the data is missing in the answer: {'; '.join(missing)}" if missing else ""


def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None


def _moment(text: str) -> datetime | None:
    """RFC 3339 with nanoseconds, as Go writes it."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
