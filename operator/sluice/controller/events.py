"""Kubernetes Events, in the background: a pass says what happened after its status was persisted and goes on.

Events are a courtesy: they are dropped when too many wait, and never hold a pass up."""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable

from sluice.core.decision import EventNote
from sluice.ports.kube import Kube, Object

logger = logging.getLogger(__name__)

MAX_WAITING = 5000
AT_ONCE = 8
MAX_MESSAGE_LENGTH = 1024
TOLD_EVERY_SECONDS = 60.0
"""How often the log says at most that events were dropped."""


class EventRecorder:
    """Keeps notes in order; those of one object are written one after the other."""

    def __init__(self, kube: Kube, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._monotonic = monotonic
        self._waiting: deque[tuple[Object, EventNote]] = deque()
        self._some = asyncio.Event()
        self.dropped = 0
        """Since this was last told."""
        self._tell_at = -math.inf

    def note(self, regarding: Object, notes: Iterable[EventNote]) -> None:
        """Record these about an object as it was persisted."""
        # The object may be large and is needed for its identity only.
        about: Object = {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "metadata": {key: regarding["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")},
        }
        for note in notes:
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append((about, note))
        if self._waiting:
            self._some.set()

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._some.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        while self._waiting:
            await asyncio.gather(*(self._write(about, note) for about, note in self._batch()))
            self._tell_dropped()
        self._some.clear()

    def _tell_dropped(self) -> None:
        """Not at the end only: while more come than can be written there is none."""
        now = self._monotonic()
        if not self.dropped or now < self._tell_at:
            return
        logger.warning("%d events were dropped: too many waited", self.dropped)
        self.dropped, self._tell_at = 0, now + TOLD_EVERY_SECONDS

    def _batch(self) -> list[tuple[Object, EventNote]]:
        """The next notes of different objects."""
        batch: dict[str, tuple[Object, EventNote]] = {}
        while self._waiting and len(batch) < AT_ONCE:
            uid = self._waiting[0][0]["metadata"]["uid"]
            if uid in batch:
                break
            batch[uid] = self._waiting.popleft()
        return list(batch.values())

    async def _write(self, about: Object, note: EventNote) -> None:
        await self._kube.event(about, type_=note.type, reason=note.reason, message=_cut(note.message))


def _cut(message: str) -> str:
    """The API server refuses notes over 1024 bytes."""
    if len(message.encode()) <= MAX_MESSAGE_LENGTH:
        return message
    return message.encode()[: MAX_MESSAGE_LENGTH - 3].decode(errors="ignore") + "..."
