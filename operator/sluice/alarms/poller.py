"""Reads the alarms of all Endpoints in the cluster, over and over, as long as somebody watches them.

Each source is asked once a round for everything that is watched of it, in parts where it answers them one after the
other: what a part brings is told at once. A source that fails for a moment changes
nothing: the last reading stays, with its old time, so that no bake can end on it. What could not be read for longer is
Unreadable. What an alarm's state means for a deployment is decided in core.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from sluice.alarms.subjects import MAX_MESSAGE, UNFIT, UNREADABLE, Sight, Subject, Unusable, subject
from sluice.core.identity import Key
from sluice.core.observation import AlarmReading, AlarmSource, AlarmWatch
from sluice.ports.clock import Clock

logger = logging.getLogger(__name__)

SHORTEST_ROUND_SECONDS: Final = 0.1
"""Between two rounds of a source when alarms come to be watched one after another."""

_LATER_SECONDS: Final = 0.005
"""A reading is begun so much after the end of the bake that it is for: clocks round."""

Place = tuple[AlarmSource, str]
"""An alarm of one Endpoint: where it is read, and its name there."""


class Source(Protocol):
    """One place where alarms are read."""

    @property
    def name(self) -> str:
        """In metrics and logs."""
        ...

    @property
    def kinds(self) -> tuple[type[Subject], ...]:
        """The subjects it can be asked."""
        ...

    @property
    def period_seconds(self) -> float:
        """The shortest time from the begin of a round to that of the next, as its quota allows now."""
        ...

    @property
    def patience_seconds(self) -> float:
        """How long it may fail until its alarms are Unreadable."""
        ...

    @property
    def at_once(self) -> int | None:
        """How many subjects one `read` is about, of those that run side by side in a round; None: one is about all."""
        ...

    async def read(self, subjects: Collection[Subject]) -> Mapping[Subject, Sight]:
        """What it says of these. Of others it keeps nothing, so it is asked for none at all when the last one is no
        longer watched. Ends within some seconds, and raises nothing."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


@dataclass(slots=True)
class _Memory:
    """What is known of a subject."""

    good_at: float
    """When it was last read, monotonic; before that, when it was first asked for."""
    state: str | None = None
    since: datetime | None = None
    at: datetime | None = None
    message: str | None = None
    alarmed_at: datetime | None = None
    """When it was last read in ALARM."""


@dataclass(slots=True)
class _Watched:
    """One Endpoint's watch."""

    watch: AlarmWatch
    subjects: dict[Place, Subject]
    untold: set[Place] = field(default_factory=set)
    """Alarms that were not read since they are watched."""
    waits: bool = False
    """No reading of every alarm from `watch.read_after` on has been told yet."""


class AlarmPoller:
    """Implements ports.backend.ClusterAlarms."""

    def __init__(self, clock: Clock, sources: Sequence[Source]) -> None:
        self._clock = clock
        self._sources = tuple(sources)
        self._watches: dict[Key, _Watched] = {}
        self._memories: dict[Subject, _Memory] = {}
        self._askers: Counter[Subject] = Counter()
        """How many alarms of watched Endpoints ask a subject: with hundreds of Endpoints none is looked for in all."""
        self._news = {source.name: asyncio.Event() for source in sources}
        self._retimed = {source.name: asyncio.Event() for source in sources}
        """Set when the end of a bake comes to be waited for: a round may be due earlier."""
        self._rounds: dict[str, float] = {}
        self._wake: Callable[[Key], None] = lambda key: None
        self._fired: Callable[[Key], None] = lambda key: None

    def watch(self, key: Key, watch: AlarmWatch | None) -> None:
        """See ClusterAlarms. An alarm whose subject is the same as before keeps what was read of it."""
        before = self._watches.get(key)
        if watch is None or not watch.alarms:
            if before is not None:
                del self._watches[key]
                self._no_longer(before)
            return
        if before is not None and before.watch == watch:
            return
        subjects = {(question.source, question.name): subject(watch, question) for question in watch.alarms}
        known = {} if before is None else before.subjects
        untold = set() if before is None else before.untold
        fresh = {place for place, asked in subjects.items() if known.get(place) != asked or place in untold}
        again = before is not None and before.watch.read_after == watch.read_after
        waits = before.waits if before is not None and again else watch.read_after is not None
        self._watches[key] = _Watched(watch, subjects, fresh, waits)
        self._askers.update(subjects.values())
        now = self._clock.monotonic()
        for place, about in subjects.items():
            if place in fresh:
                self._memories.setdefault(about, _Memory(good_at=now))
        if before is not None:
            self._no_longer(before)
        for source in self._sources:
            if any(isinstance(subjects[place], source.kinds) for place in fresh):
                self._news[source.name].set()
            elif waits:
                self._retimed[source.name].set()

    def readings(self, key: Key) -> tuple[AlarmReading, ...]:
        """See ClusterAlarms."""
        watched = self._watches.get(key)
        if watched is None:
            return ()
        found = []
        for place, asked in watched.subjects.items():
            if isinstance(asked, Unusable):
                found.append(AlarmReading(place[1], UNFIT, self._clock.now(), asked.message[:MAX_MESSAGE], place[0]))
                continue
            memory = self._memories[asked]
            if place not in watched.untold and memory.state is not None and memory.at is not None:
                message = memory.message and memory.message[:MAX_MESSAGE]
                found.append(
                    AlarmReading(place[1], memory.state, memory.at, message, place[0], memory.since, memory.alarmed_at)
                )
        return tuple(found)

    def on_moved(self, wake: Callable[[Key], None], fired: Callable[[Key], None]) -> None:
        """See ClusterAlarms."""
        self._wake, self._fired = wake, fired

    def watched(self) -> Mapping[str, int]:
        """Source -> how many alarms it is asked for, each once however many Endpoints name it."""
        return {source.name: len(self._subjects_of(source)) for source in self._sources}

    def periods(self) -> Mapping[str, float]:
        """Source -> seconds from one reading of its alarms to the next: how late one can be seen."""
        return {
            source.name: max(source.period_seconds, self._rounds.get(source.name, 0.0))
            for source in self._sources
            if self._subjects_of(source)
        }

    async def run(self) -> None:
        """For ever."""
        try:
            async with asyncio.TaskGroup() as group:
                for source in self._sources:
                    group.create_task(self._keep_reading(source))
        finally:
            await asyncio.gather(*(source.close() for source in self._sources))

    async def poll(self, source: Source) -> None:
        """One round: everything that is watched of a source."""
        asked = tuple(self._subjects_of(source))
        if not asked:
            return
        begun, size = self._clock.monotonic(), source.at_once or len(asked)
        parts = (asked[start : start + size] for start in range(0, len(asked), size))
        await asyncio.gather(*(self._read(source, dict.fromkeys(part).keys()) for part in parts))
        self._rounds[source.name] = self._clock.monotonic() - begun

    async def _read(self, source: Source, asked: Set[Subject]) -> None:
        """Ask a source for these, and tell whom it concerns."""
        try:
            sights = await source.read(asked)
        except Exception:
            # A bug, or an answer that nobody thought of, of one source must not end the alarms of the others.
            logger.exception("alarms of %s cannot be read", source.name)
            failed = Sight(None, self._clock.now(), f"reading {source.name} failed; the operator's log says why")
            sights = dict.fromkeys(asked, failed)
        alarmed = {about: memory.alarmed_at for about, memory in self._memories.items()}
        moved = {about for about, sight in sights.items() if self._remember(about, sight, source)}
        firing = {about for about in moved if self._memories[about].state == "ALARM"}
        for key, watched in list(self._watches.items()):
            if asked.isdisjoint(watched.subjects.values()):
                continue
            told = {
                place
                for place in watched.untold
                if watched.subjects[place] in asked and self._memories[watched.subjects[place]].state is not None
            }
            watched.untold -= told
            arrived = watched.waits and self._is_read(watched)
            watched.waits = watched.waits and not arrived
            if not firing.isdisjoint(watched.subjects.values()) or self._comes_to_count(watched, alarmed):
                self._fired(key)
            elif told or arrived or not moved.isdisjoint(watched.subjects.values()):
                self._wake(key)

    async def _keep_reading(self, source: Source) -> None:
        news = self._news[source.name]
        while True:
            if not self._subjects_of(source):
                if source.name in self._rounds:
                    await source.read(())
                await news.wait()
            news.clear()
            begun = self._clock.monotonic()
            await self.poll(source)
            await asyncio.sleep(SHORTEST_ROUND_SECONDS)
            await self._until_due(source, begun)

    async def _until_due(self, source: Source, begun: float) -> None:
        """Until the source's period is over, or earlier: what came to be watched meanwhile is read at once, and at the
        end of a bake the reading that it waits for. A source with a quota paces itself."""
        news, retimed = self._news[source.name], self._retimed[source.name]
        while not news.is_set():
            retimed.clear()
            left = min(begun + source.period_seconds - self._clock.monotonic(), self._until_bake_ends(source, begun))
            waits = [asyncio.create_task(event.wait()) for event in (news, retimed)]
            done, pending = await asyncio.wait(waits, timeout=max(left, 0.0), return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            if not done:
                return

    def _until_bake_ends(self, source: Source, begun: float) -> float:
        """Seconds until the next end of a bake that waits for readings of this source, which the last round, `begun`
        before it, could not give; infinity: there is none."""
        past = begun - self._clock.monotonic()
        ends = (
            (watched.watch.read_after - self._clock.now()).total_seconds() + _LATER_SECONDS
            for watched in self._watches.values()
            if watched.waits
            and watched.watch.read_after is not None
            and any(isinstance(about, source.kinds) for about in watched.subjects.values())
        )
        return min((left for left in ends if left > past), default=math.inf)

    def _is_read(self, watched: _Watched) -> bool:
        """Whether every alarm was read since the moment that is waited for."""
        after = watched.watch.read_after
        memories = [self._memories.get(about) for about in watched.subjects.values()]
        return after is None or all(m is not None and m.at is not None and m.at >= after for m in memories)

    def _comes_to_count(self, watched: _Watched, before: Mapping[Subject, datetime | None]) -> bool:
        """Whether an alarm was read in ALARM for the first time since the first traffic, though not for the first time:
        a reading from the moment before counts for nothing, and the state has not changed since."""
        since = watched.watch.traffic_since
        if since is None:
            return False
        readings = ((before.get(about), self._memories.get(about)) for about in watched.subjects.values())
        return any(
            memory is not None
            and memory.alarmed_at is not None
            and memory.alarmed_at >= since
            and (last is None or last < since)
            for last, memory in readings
        )

    def _remember(self, about: Subject, sight: Sight, source: Source) -> bool:
        """Whether the state is another one now."""
        memory = self._memories.get(about)
        if memory is None:
            return False  # Nobody watches it any more.
        now, before = self._clock.monotonic(), memory.state
        if sight.state is not None:
            memory.good_at = now
            memory.state, memory.at, memory.message = sight.state, sight.at, sight.message
            memory.alarmed_at = sight.at if sight.state == "ALARM" else memory.alarmed_at
        elif now - memory.good_at >= source.patience_seconds:
            memory.state, memory.at, memory.message = UNREADABLE, sight.at, sight.message
        if memory.state == before:
            return False
        memory.since = memory.at
        logger.info("alarm %s is %s: %s", about, memory.state, memory.message)
        return True

    def _subjects_of(self, source: Source) -> Set[Subject]:
        """Those of one Endpoint stand together."""
        return dict.fromkeys(about for about in self._memories if isinstance(about, source.kinds)).keys()

    def _no_longer(self, watched: _Watched) -> None:
        """Of what nobody else asks, nothing is remembered."""
        self._askers.subtract(watched.subjects.values())
        for about in set(watched.subjects.values()):
            if not self._askers[about]:
                del self._askers[about]
                self._memories.pop(about, None)
