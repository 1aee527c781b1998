"""Reads CloudWatch alarms by name: one poller for all Endpoints with the same credentials.

Requests that come while a poll runs share the next one, a hundred names a call, and each is answered as soon as its own
names are known. The period is one second, or what half of the account's quota for DescribeAlarms allows, whichever is
longer; while AWS throttles, it doubles. For Endpoints in the cluster the alarms that composite ones ask for are looked
up too, now and then, at the cost of the same quota. Says what the alarms are; what that means for a deployment is
decided in core."""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from sluice.alarms import fitness
from sluice.alarms.fitness import Alarm, Fitness
from sluice.alarms.subjects import MAX_MESSAGE, MISSING, UNFIT, UNREADABLE, NamedAlarm, Sight, Subject
from sluice.api.reasons import Reason
from sluice.core.cluster.rights import AlarmPlace
from sluice.core.identity import Credentials, Target
from sluice.core.observation import AlarmReading
from sluice.ports.aws import Aws
from sluice.ports.backend import ActFailed
from sluice.ports.clock import Clock

logger = logging.getLogger(__name__)

NAMES_PER_CALL: Final = 100
LONGEST_PERIOD_SECONDS: Final = 60.0
"""Throttling makes no period longer than this, or than what the quota asks for."""
# Without AlarmTypes only metric alarms come back, and others would look missing.
_OLDER_TYPES: Final = ("MetricAlarm", "CompositeAlarm")
_ALARM_TYPES: Final = (*_OLDER_TYPES, "LogAlarm")
REFUSED_SECONDS: Final = 300.0
OLDER_SECONDS: Final = 600.0
"""A place that does not know the newest type refuses the call: for so long it is asked for the others only."""
_FAILED: Final = "reading CloudWatch failed; the operator's log says why"


@dataclass(frozen=True, slots=True)
class CloudWatchSettings:
    """How often alarms are read."""

    shortest_period_seconds: float = 1.0
    shortest_pause_seconds: float = 0.25
    """Between two polls of which the second is for an Endpoint in the cluster: it asks in that rhythm by itself, and
    out of it at the end of a bake, which need not wait for the rhythm."""
    calls_per_second: float = 4.5
    """Half of DescribeAlarms' default quota, 9 per second in an account and region."""
    longest_read_seconds: float = 10.0
    """A pass waits no longer than this, or than two periods; then its alarms are Unreadable."""
    children_seconds: float = 30.0
    """How long what was found of an alarm that composite ones ask for is taken to be so."""


@dataclass(frozen=True, slots=True)
class Described:
    """An alarm that was read."""

    reading: AlarmReading
    alarm: Alarm | None = None
    """As DescribeAlarms has it; None: it is missing or could not be read."""
    fitness: Fitness = field(default_factory=Fitness)


@dataclass(frozen=True, slots=True)
class _Child:
    """An alarm that composite ones ask for."""

    at: float
    """When it was last asked for, monotonic."""
    is_known: bool = False
    alarm: Alarm | None = None
    """None: there is none."""


@dataclass(slots=True, eq=False)
class _Request:
    names: tuple[str, ...]
    not_before: datetime
    is_judged: bool
    answer: asyncio.Future[tuple[Described, ...]]


@dataclass(slots=True)
class _Poller:
    waiting: list[_Request] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    started: float = -math.inf
    """When the last poll was started, monotonic."""
    period_seconds: float = 0.0
    slowed: float = 1.0
    """How many times the period while AWS throttles."""
    older_until: float = -math.inf
    """Until when only the older types are asked for, monotonic."""
    children: dict[str, _Child] = field(default_factory=dict)
    refused: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Names that CloudWatch does not take, though it took others: until when they are not asked for (monotonic), and
    what it said. To find each among a hundred takes a dozen calls."""

    def known(self, read: Mapping[str, Alarm | None]) -> dict[str, Alarm | None]:
        """These, and what was found of the alarms that rules ask for."""
        return {name: child.alarm for name, child in self.children.items() if child.is_known} | dict(read)


@dataclass(slots=True)
class _Round:
    """What one poll has brought so far."""

    due: list[_Request]
    found: dict[str, Described] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Names that CloudWatch did not take, with what it said."""
    is_throttled: bool = False

    def read(self) -> dict[str, Alarm | None]:
        """What is known by now of the alarms that were asked for; None: there is none of this name."""
        return {name: one.alarm for name, one in self.found.items() if one.alarm or one.reading.state == MISSING}


class CloudWatchReader:
    """Implements AlarmReader with DescribeAlarms."""

    def __init__(self, aws: Aws, clock: Clock, settings: CloudWatchSettings | None = None) -> None:
        self._aws = aws
        self._clock = clock
        self._settings = settings or CloudWatchSettings()
        self._pollers: dict[Credentials, _Poller] = {}

    async def read(self, target: Target, names: tuple[str, ...], not_before: datetime) -> tuple[AlarmReading, ...]:
        """See AlarmReader. A not_before in the future is waited for."""
        return tuple(found.reading for found in await self._ask(target.credentials, names, not_before, is_judged=False))

    async def judge(
        self, credentials: Credentials, names: tuple[str, ...], not_before: datetime
    ) -> tuple[Described, ...]:
        """As `read`, with what the alarms can tell of an Endpoint in the cluster."""
        return await self._ask(credentials, names, not_before, is_judged=True)

    async def _ask(
        self, credentials: Credentials, names: tuple[str, ...], not_before: datetime, *, is_judged: bool
    ) -> tuple[Described, ...]:
        names = tuple(dict.fromkeys(names))
        if not names:
            return ()
        poller = self._pollers.setdefault(credentials, _Poller())
        request = _Request(names, not_before, is_judged, asyncio.get_running_loop().create_future())
        poller.waiting.append(request)
        if poller.task is None or poller.task.done():
            poller.task = asyncio.create_task(self._poll(credentials, poller), name="cloudwatch alarms")
        longest = max(self._settings.longest_read_seconds, 2 * self._period(poller))
        longest += max(0.0, (not_before - self._clock.now()).total_seconds())
        try:
            async with asyncio.timeout(longest):
                return await request.answer
        except TimeoutError:
            return self._unreadable(names, f"DescribeAlarms gave no answer within {longest:.0f} s")
        finally:
            if request in poller.waiting:
                poller.waiting.remove(request)

    def period_seconds(self, credentials: Credentials) -> float:
        """The computed time between two polls with these credentials: how late an alarm can be seen."""
        return self._period(self._pollers.get(credentials) or _Poller())

    async def stop(self) -> None:
        """End the polls; who still waits is told so."""
        tasks = [poller.task for poller in self._pollers.values() if poller.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for poller in self._pollers.values():
            self._give_up(poller, poller.waiting, "the operator stops, no alarm is read any more")

    async def _poll(self, credentials: Credentials, poller: _Poller) -> None:
        """Polls while somebody waits."""
        while poller.waiting:
            await asyncio.sleep(self._pause(poller))
            due = [request for request in poller.waiting if request.not_before <= self._clock.now()]
            if not due:
                continue
            try:
                await self._round(credentials, poller, due)
            except Exception:
                # A bug, or an answer that nobody thought of, must leave nobody waiting.
                logger.exception("CloudWatch alarms in %s cannot be read", credentials.region)
                self._give_up(poller, due, _FAILED)

    async def _round(self, credentials: Credentials, poller: _Poller, due: list[_Request]) -> None:
        """One look at everything that is due. A request's names stand together, so that few chunks hold them all."""
        names = tuple(dict.fromkeys(name for request in due for name in request.names))
        now = poller.started = self._clock.monotonic()
        poller.period_seconds = math.ceil(len(names) / NAMES_PER_CALL) / self._settings.calls_per_second
        poller.refused = {name: known for name, known in poller.refused.items() if known[0] > now}
        this = _Round(due)
        for name in names:
            if name in poller.refused:
                (this.found[name],) = self._unreadable((name,), poller.refused[name][1])
        async with asyncio.TaskGroup() as group:
            for some in _chunks([name for name in names if name not in poller.refused]):
                group.create_task(self._read_chunk(credentials, poller, this, some))
        if any(one.reading.state != UNREADABLE for name, one in this.found.items() if name not in poller.refused):
            until = self._clock.monotonic() + REFUSED_SECONDS  # else it is not the names
            poller.refused |= {name: (until, message) for name, message in this.refused.items()}
        judged = {name for request in due if request.is_judged for name in request.names}
        if judged:
            await self._look_up_children(credentials, poller, this, judged)
        if not this.is_throttled:
            poller.slowed = max(1.0, poller.slowed * 0.8)
        self._answer(credentials, poller, this)

    async def _read_chunk(self, credentials: Credentials, poller: _Poller, this: _Round, names: Sequence[str]) -> None:
        found: Sequence[Described]
        try:
            found = await self._describe_chunk(credentials, poller, this, names)
        except Exception:
            # As for a whole round; it must not blind the other chunks either.
            logger.exception("CloudWatch alarms in %s cannot be read", credentials.region)
            found = self._unreadable(names, _FAILED)
        this.found |= {one.reading.name: one for one in found}
        self._answer(credentials, poller, this, frozenset(names))

    def _answer(
        self, credentials: Credentials, poller: _Poller, this: _Round, new: frozenset[str] | None = None
    ) -> None:
        """Answer those who wait for a name that has just come, if it is the last one and of their rules nothing is to
        be looked up any more; or, when the round is over (None), all."""
        complete = [
            request
            for request in this.due
            if not request.answer.done()
            and (new is None or not new.isdisjoint(request.names))
            and all(name in this.found for name in request.names)
        ]
        read = this.read() if any(request.is_judged for request in complete) else {}
        known = poller.known(read)
        for request in complete:
            found = tuple(this.found[name] for name in request.names)
            if request.is_judged:
                children = _descendants(request.names, known) - read.keys()
                if new is not None and self._unheard_of(poller, children):
                    continue
                found = tuple(
                    replace(one, fitness=fitness.judge(one.reading.name, known, credentials.region)) for one in found
                )
            request.answer.set_result(found)
            if request in poller.waiting:
                poller.waiting.remove(request)

    def _give_up(self, poller: _Poller, requests: Iterable[_Request], message: str) -> None:
        for request in tuple(requests):
            if not request.answer.done():
                request.answer.set_result(self._unreadable(request.names, message))
            if request in poller.waiting:
                poller.waiting.remove(request)

    def _unreadable(self, names: Iterable[str], message: str) -> tuple[Described, ...]:
        at = self._clock.now()
        return tuple(Described(AlarmReading(name, UNREADABLE, at, message)) for name in names)

    def _throttled(self, poller: _Poller, this: _Round) -> None:
        """Twice as slow at each round in which AWS refuses, and back in steps: a quota which others use up too is found
        from above."""
        if not this.is_throttled:
            poller.slowed = min(poller.slowed * 2, LONGEST_PERIOD_SECONDS)
        this.is_throttled = True

    def _pause(self, poller: _Poller) -> float:
        """Seconds until the next poll is allowed and somebody waits for it."""
        allowed = poller.started + self._shortest_pause(poller) - self._clock.monotonic()
        wanted = min(request.not_before for request in poller.waiting) - self._clock.now()
        # Not in one sleep: the clock may be set while it lasts.
        return max(0.0, allowed, min(wanted.total_seconds(), self._settings.longest_read_seconds))

    def _shortest_pause(self, poller: _Poller) -> float:
        period = self._period(poller)
        if any(request.is_judged for request in poller.waiting) and poller.slowed <= 1:
            return min(period, max(self._settings.shortest_pause_seconds, poller.period_seconds))
        return period

    def _period(self, poller: _Poller) -> float:
        by_quota = max(self._settings.shortest_period_seconds, poller.period_seconds)
        return max(by_quota, min(by_quota * poller.slowed, LONGEST_PERIOD_SECONDS))

    async def _describe_chunk(
        self, credentials: Credentials, poller: _Poller, this: _Round, names: Sequence[str]
    ) -> list[Described]:
        read_at = self._clock.now()
        try:
            found = await self._alarms(credentials, poller, names)
        except ActFailed as failure:
            problem = failure.problem
            if problem.reason is Reason.REJECTED_BY_SAGEMAKER and len(names) > 1:
                # One name that CloudWatch does not take must not blind the others: halve until it stands alone.
                half = len(names) // 2
                return [
                    *await self._describe_chunk(credentials, poller, this, names[:half]),
                    *await self._describe_chunk(credentials, poller, this, names[half:]),
                ]
            if problem.reason is Reason.THROTTLED:
                self._throttled(poller, this)
            message = problem.message[:MAX_MESSAGE]
            if problem.reason is Reason.REJECTED_BY_SAGEMAKER:
                this.refused[names[0]] = message
            return [Described(AlarmReading(name, UNREADABLE, read_at, message)) for name in names]
        kinds = "metric, composite or log alarm"
        if self._clock.monotonic() < poller.older_until:
            kinds = "metric or composite alarm (it knows no log alarms)"
        missing = f"CloudWatch has no {kinds} of this name in {credentials.region}"
        described = []
        for name in names:
            alarm = found.get(name)
            if alarm is None:
                described.append(Described(AlarmReading(name, MISSING, read_at, missing)))
                continue
            why = str(alarm.get("StateReason") or "")[:MAX_MESSAGE] or None
            described.append(Described(AlarmReading(name, str(alarm["StateValue"]), read_at, why), alarm))
        return described

    async def _look_up_children(
        self, credentials: Credentials, poller: _Poller, this: _Round, judged: Iterable[str]
    ) -> None:
        """Look up what rules of these ask for, a level of them at a time."""
        read, tried = this.read(), set[str]()
        while True:
            wanted = _descendants(judged, poller.known(read)) - read.keys()
            names = sorted(self._unheard_of(poller, wanted) - tried)
            if not names:
                break
            await self._look_up(credentials, poller, this, names)
            tried.update(names)
        # What no rule asks for any more is forgotten.
        poller.children = {name: child for name, child in poller.children.items() if name in wanted}

    def _unheard_of(self, poller: _Poller, names: Iterable[str]) -> set[str]:
        """Those that were never asked for, or too long ago."""
        now = self._clock.monotonic()
        return {
            name
            for name in names
            if name not in poller.children or now - poller.children[name].at >= self._settings.children_seconds
        }

    async def _look_up(self, credentials: Credentials, poller: _Poller, this: _Round, names: Sequence[str]) -> None:
        """Ask for children. One that cannot be read stays what it was, or unknown."""
        now = self._clock.monotonic()
        chunks = _chunks(names)
        poller.period_seconds += len(chunks) / self._settings.calls_per_second

        async def look(some: Sequence[str]) -> None:
            try:
                found = await self._alarms(credentials, poller, some)
            except ActFailed as failure:
                if failure.problem.reason is Reason.THROTTLED:
                    self._throttled(poller, this)  # They are asked for again next time.
                    return
                for name in some:
                    poller.children[name] = replace(poller.children.get(name) or _Child(now), at=now)
                return
            poller.children |= {name: _Child(now, is_known=True, alarm=found.get(name)) for name in some}

        await asyncio.gather(*(look(some) for some in chunks))

    async def _alarms(self, credentials: Credentials, poller: _Poller, names: Sequence[str]) -> dict[str, Alarm]:
        """Alarms by name, of every type that the place knows. Raises ActFailed."""
        if self._clock.monotonic() < poller.older_until:
            return await self._alarms_of(credentials, names, _OLDER_TYPES)
        try:
            return await self._alarms_of(credentials, names, _ALARM_TYPES)
        except ActFailed as failure:
            if failure.problem.reason is not Reason.REJECTED_BY_SAGEMAKER:
                raise
        found = await self._alarms_of(credentials, names, _OLDER_TYPES)  # else it is a name that was refused
        poller.older_until = self._clock.monotonic() + OLDER_SECONDS
        return found

    async def _alarms_of(
        self, credentials: Credentials, names: Sequence[str], types: Sequence[str]
    ) -> dict[str, Alarm]:
        """Alarms of these types by name. Raises ActFailed."""
        found: dict[str, Alarm] = {}
        token: dict[str, str] = {}
        while True:
            answer = await self._aws.call(
                credentials,
                "cloudwatch",
                "DescribeAlarms",
                AlarmNames=list(names),
                AlarmTypes=list(types),
                MaxRecords=NAMES_PER_CALL,
                **token,
            )
            for group in ("MetricAlarms", "CompositeAlarms", "LogAlarms"):
                found |= {str(alarm["AlarmName"]): alarm for alarm in answer.get(group, ())}
            if not answer.get("NextToken"):
                return found
            token = {"NextToken": answer["NextToken"]}


class OwnPlace:
    """Implements AlarmPlaces: the account of the operator's own credentials, which is asked for when it first matters.

    From then on it is asked for whenever somebody looks: our own identity can be moved to another account while we run,
    and whoever answers (Aws.account) knows how long an answer is good for. What the policy permits in the account of
    before is judged anew then."""

    def __init__(self, aws: Aws, region: str | None, known: Callable[[], None]) -> None:
        self._aws = aws
        self._known = known
        self._place = AlarmPlace(region)
        self._asking: asyncio.Task[None] | None = None

    def now(self) -> AlarmPlace:
        """See AlarmPlaces."""
        if self._place.account_id is not None:
            self.ask()
        return self._place

    def ask(self) -> None:
        """See AlarmPlaces. Without a region nothing is read anyway."""
        if self._place.region is not None and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._find(self._place.region), name="account of the alarms")

    async def _find(self, region: str) -> None:
        before = self._place
        try:
            account = await self._aws.account(Credentials(region))
            self._place = AlarmPlace(region, account.account_id)
        except ActFailed as failure:
            self._place = AlarmPlace(region, problem=failure.problem.message)
        if self._place != before:
            self._known()


class CloudWatchSource:
    """Implements poller.Source: the alarms of Endpoints in the cluster, with the operator's own credentials, by the
    same reader as those of Endpoints on SageMaker."""

    name = "CloudWatch"
    kinds: tuple[type[Subject], ...] = (NamedAlarm,)
    at_once: int | None = NAMES_PER_CALL

    def __init__(self, reader: CloudWatchReader, clock: Clock, region: str | None) -> None:
        self._reader = reader
        self._clock = clock
        self._credentials = None if region is None else Credentials(region)

    @property
    def period_seconds(self) -> float:
        """See Source: as the reader computed it."""
        return 1.0 if self._credentials is None else self._reader.period_seconds(self._credentials)

    @property
    def patience_seconds(self) -> float:
        """See Source."""
        return max(10.0, 3 * self.period_seconds)

    async def close(self) -> None:
        """See Source: the reader is others' too."""

    async def read(self, subjects: Collection[Subject]) -> Mapping[Subject, Sight]:
        """See Source."""
        if self._credentials is None:
            message = "the operator knows no region to read CloudWatch alarms in: set AWS_REGION"
            return {subject: Sight(UNREADABLE, self._clock.now(), message) for subject in subjects}
        names = tuple(subject.name for subject in subjects if isinstance(subject, NamedAlarm))
        found = await self._reader.judge(self._credentials, names, self._clock.now())
        return {NamedAlarm(alarm.reading.name): self._sight(alarm) for alarm in found}

    def _sight(self, alarm: Described) -> Sight:
        reading, period = alarm.reading, self.period_seconds
        if reading.state == UNREADABLE:
            return Sight(None, reading.read_at, reading.message)
        if alarm.fitness.unfit:
            return Sight(UNFIT, reading.read_at, alarm.fitness.unfit)
        message = "; ".join(part for part in (alarm.fitness.note, reading.message) if part)
        if period > 2:
            message = f"read every {period:.0f} s; {message}"
        return Sight(reading.state, reading.read_at, message or None)


def _chunks(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + NAMES_PER_CALL] for start in range(0, len(names), NAMES_PER_CALL)]


def _descendants(names: Iterable[str], known: Mapping[str, Alarm | None]) -> set[str]:
    """The names of what rules of these alarms ask for, as deep as they are known."""
    found: set[str] = set()
    for _ in range(fitness.DEEPEST):
        parents = (alarm for name in names if (alarm := known.get(name)) is not None)
        names = {child for parent in parents for child in fitness.children(parent)} - found
        if not names:
            break
        found |= names
    return found
