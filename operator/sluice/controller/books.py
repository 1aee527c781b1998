"""The books on stored revisions: what became of each is noted on its ControllerRevision, and those that nothing needs
go. What Kubernetes refuses of that is told to people, with an Event, and tried again later; deployments do not wait."""

import logging
from dataclasses import dataclass

from sluice.controller.cache import CONTROLLER_REVISION, Cache, Source
from sluice.controller.events import EventRecorder
from sluice.controller.feed import Feed
from sluice.core.actions import DropRevision, MarkRevision
from sluice.core.decision import EventNote
from sluice.core.identity import Key
from sluice.core.revision import ANNOTATION_OUTCOME, ANNOTATION_OUTCOME_MESSAGE
from sluice.ports.clock import Clock
from sluice.ports.kube import Gone, Kube, KubeUnavailable, Object
from sluice.ports.refusals import LATER_SECONDS, REFUSALS, Refusal, refused

logger = logging.getLogger(__name__)

TELL_AGAIN_SECONDS = 3600.0
"""An API server keeps Events for an hour."""
LONGEST_SECONDS = 600.0
"""Between two attempts at what is refused; each pause is twice as long as the one before."""
PATIENCE = 3
"""So often an API server may be away at an entry before that is told."""

Entry = MarkRevision | DropRevision


@dataclass(frozen=True, slots=True)
class _Refused:
    """An entry that Kubernetes refuses. Times are monotonic seconds."""

    times: int
    again_at: float
    told_at: float | None


class Books:
    """Makes entries; remembers which are refused, in memory only: after a restart it is told once more."""

    def __init__(self, kube: Kube, cache: Cache, feed: Feed, clock: Clock, events: EventRecorder) -> None:
        self._kube = kube
        self._cache = cache
        self._feed = feed
        self._clock = clock
        self._events = events
        self._refused: dict[Key, dict[tuple[type[Entry], str], _Refused]] = {}

    async def enter(self, entry: Entry, endpoint: Object) -> None:
        """Make an entry. Raises what Kubernetes refuses it with (refusals.REFUSALS)."""
        match entry:
            case MarkRevision():
                await self._mark(entry, endpoint)
            case DropRevision():
                await self._drop(entry, endpoint)

    async def try_to(self, entry: Entry, endpoint: Object) -> float | None:
        """Make an entry that nothing waits for. None: it is made. Else it is refused, which is told, and so many
        seconds are left until it is tried again."""
        metadata = endpoint["metadata"]
        key, now = Key(endpoint["kind"], metadata["namespace"], metadata["name"]), self._clock.monotonic()
        known, which = self._refused.setdefault(key, {}), (type(entry), entry.name)
        before = known.get(which)
        if before is not None and now < before.again_at:
            return before.again_at - now
        try:
            await self.enter(entry, endpoint)
        except REFUSALS as refusal:
            found = known[which] = self._tell(entry, endpoint, refusal, before, now)
            return found.again_at - now
        known.pop(which, None)
        return None

    def _tell(self, entry: Entry, endpoint: Object, refusal: Refusal, before: _Refused | None, now: float) -> _Refused:
        operation = type(entry).__name__
        logger.warning("%s %s was refused: %s", operation, entry.name, refusal)
        times, told_at = (before.times + 1, before.told_at) if before is not None else (1, None)
        # An API server that is away for a moment is nobody's business; a webhook that stays away is somebody's.
        passing = isinstance(refusal, KubeUnavailable) and times < PATIENCE
        if not passing and (told_at is None or now - told_at >= TELL_AGAIN_SECONDS):
            self._events.note(endpoint, [_note(entry, endpoint, refusal)])
            told_at = now
        first = refused(operation, refusal).retry_after_seconds or LATER_SECONDS
        return _Refused(times, now + min(LONGEST_SECONDS, first * 2.0 ** min(times - 1, 20)), told_at)

    def forget(self, key: Key) -> None:
        """The Endpoint is gone."""
        self._refused.pop(key, None)

    async def _mark(self, entry: MarkRevision, endpoint: Object) -> None:
        key = Key(CONTROLLER_REVISION, endpoint["metadata"]["namespace"], entry.name)
        notes = {ANNOTATION_OUTCOME: entry.outcome, ANNOTATION_OUTCOME_MESSAGE: entry.message or None}
        try:
            marked = await self._kube.patch_metadata(
                key.kind, key.namespace, key.name, resource_version=None, annotations=notes
            )
        except Gone:
            await self._feed.read(key)
            return
        self._feed.seen(marked, Source.OWN)

    async def _drop(self, entry: DropRevision, endpoint: Object) -> None:
        namespace = endpoint["metadata"]["namespace"]
        await self._kube.delete(CONTROLLER_REVISION, namespace, entry.name)
        known = self._cache.get(CONTROLLER_REVISION, namespace, entry.name)
        if known is not None:
            self._feed.gone(known, Source.OWN)


def _note(entry: Entry, endpoint: Object, refusal: Refusal) -> EventNote:
    """The object, what was refused, what that costs, what to do; the reason last, as an Event is cut at its end."""
    name = f"ControllerRevision {endpoint['metadata']['namespace']}/{entry.name}"
    remedy = "It is tried again by itself: let the operator {} it (its ClusterRole, admission webhooks and policies)."
    match entry:
        case MarkRevision():
            text = (
                f"{name} cannot be marked {entry.outcome}. Deployments go on; but should this Endpoint's status be "
                f"lost, what became of the revision is not known then. {remedy.format('patch')}"
            )
            return EventNote("Warning", "RevisionNotMarked", f"{text} Kubernetes says: {refusal}")
        case DropRevision():
            text = (
                f"{name}, which nothing needs any more, cannot be deleted. Deployments go on; but it stays, and on "
                f"SageMaker those that come after it do. {remedy.format('delete')}"
            )
            return EventNote("Warning", "RevisionNotDeleted", f"{text} Kubernetes says: {refusal}")
