"""Remembers what this process wrote in the last minute: SageMaker's reads may not show it yet (semantics section 10).

Memory only: after a restart the operator merely asks once more, and "already existing" answers."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

VISIBLE_AFTER_SECONDS: Final = 60.0
"""What was written longer ago and is not shown does not exist."""

_NAME: Final = re.compile(r"[a-z0-9-]+")
_DELAYS_SECONDS: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

Written = tuple[str, str, str, str]
"""Account, region, kind (endpoint, endpoint-config, model), name."""


@dataclass(slots=True)
class _Note:
    at: float
    misses: int = 0


@dataclass(slots=True)
class RecentWrites:
    """Own creations by account, region, kind and name. `monotonic` is the clock, in seconds."""

    monotonic: Callable[[], float]
    _notes: dict[Written, _Note] = field(default_factory=dict)

    def created(self, written: Written) -> None:
        """We created it, or were told that it exists, now."""
        now = self.monotonic()
        self._notes = {key: note for key, note in self._notes.items() if now - note.at <= VISIBLE_AFTER_SECONDS}
        self._notes.setdefault(written, _Note(now))

    def forget(self, written: Written) -> None:
        """It was seen, or deleted: from now on "not found" means what it says."""
        self._notes.pop(written, None)

    def __contains__(self, written: Written) -> bool:
        """True while reads may not show it."""
        note = self._notes.get(written)
        return note is not None and self.monotonic() - note.at <= VISIBLE_AFTER_SECONDS

    def retry_after(self, written: Written) -> float | None:
        """It was not found: seconds to the next try, longer each time. None: not written lately, so it is missing."""
        note = self._notes.get(written)
        if note is None or written not in self:
            return None
        delay = _DELAYS_SECONDS[min(note.misses, len(_DELAYS_SECONDS) - 1)]
        note.misses += 1
        return delay

    def named_in(self, account_id: str, region: str, kind: str, text: str) -> Written | None:
        """A recent write of this kind whose name stands in the text. ARNs may carry names in lower case."""
        words = set(_NAME.findall(text.lower()))
        for written in self._notes:
            if written[:3] == (account_id, region, kind) and written[3].lower() in words and written in self:
                return written
        return None

    def names(self, account_id: str, region: str, kind: str) -> frozenset[str]:
        """The recent writes of one kind."""
        return frozenset(
            written[3] for written in self._notes if written[:3] == (account_id, region, kind) and written in self
        )
