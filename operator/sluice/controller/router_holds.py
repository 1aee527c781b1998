"""Routers that stay as they are because an Endpoint of their own namespace moves traffic. Its status says that it
does, and nobody's says that the router waits for it: one whose rollback failed would keep an old version unseen."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sluice.core.identity import Key
from sluice.ports.clock import Clock

logger = logging.getLogger(__name__)

LONG_SECONDS: Final = 600.0
"""As long as another namespace's router may hold one up before that is told (cluster/turns.py)."""


@dataclass(slots=True)
class _Hold:
    """Since when a namespace's router waits (monotonic seconds)."""

    since: float
    told: bool = False


class RouterHolds:
    """What each Endpoint's last pass saw. Belongs to the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holder: dict[Key, str] = {}
        """Endpoint whose pass saw its router held -> the one that holds it."""
        self._of: dict[str, _Hold] = {}
        """By namespace."""

    def saw(self, key: Key, holder: str) -> None:
        """A pass has seen which Endpoint of its namespace keeps the router as it is; "": none does."""
        if not holder:
            self.forget(key)
            return
        self._holder[key] = holder
        now = self._clock.monotonic()
        hold = self._of.setdefault(key.namespace, _Hold(now))
        if now - hold.since <= LONG_SECONDS or hold.told:
            return
        hold.told = True
        logger.warning(
            "the router of namespace %s has waited for %d minutes to be brought up to date (another version, another "
            "setting): it is not while an Endpoint of the namespace moves traffic, now Endpoint %s: kubectl describe "
            "endpoints.sluice.dev -n %s %s",
            key.namespace,
            (now - hold.since) // 60,
            holder,
            key.namespace,
            holder,
        )

    def forget(self, key: Key) -> None:
        """The Endpoint is gone, or its router waits for none."""
        if self._holder.pop(key, None) is None:
            return
        if not any(other.namespace == key.namespace for other in self._holder):
            self._of.pop(key.namespace, None)

    def holders(self) -> Iterable[tuple[str, str]]:
        """(namespace, Endpoint that keeps its router as it is), each once."""
        return sorted({(key.namespace, holder) for key, holder in self._holder.items()})
