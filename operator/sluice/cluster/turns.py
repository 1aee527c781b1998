"""Routers are replaced one namespace at a time, and passes run side by side: between a pass's look at the other
namespaces' routers and its write, another pass writes. A look that is older than such a write is void. A router that
holds the others up for long is named in the log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from sluice.core.cluster.names import ROUTER
from sluice.ports.clock import Clock
from sluice.ports.kube import Conflict

logger = logging.getLogger(__name__)

LONG_SECONDS: Final = 600.0
"""Kubernetes too calls a rollout stuck that has come no further for so long (progressDeadlineSeconds)."""
_FORGOTTEN_SECONDS: Final = 120.0
"""Who waits looks once a minute at least: a router that was not found for longer is there."""


class RouterTurns:
    """Shared by looks and acts; belongs to the event loop."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._written = 0
        """How many routers were replaced."""
        self._writing = False
        self._free: dict[str, tuple[float, int]] = {}
        """Namespace -> when it looked, and how many there were before that look, which found all other routers at rest;
        -1: it found one that is being replaced."""

    @property
    def written(self) -> int:
        """To be asked before a look."""
        return self._written

    def looked(self, namespace: str, *, since: int, free: bool) -> None:
        """A pass of the namespace has looked at the others' routers. since: `written` before."""
        now = self._monotonic()
        # Namespaces come and go; no pass writes so long after its look.
        self._free = {place: look for place, look in self._free.items() if now - look[0] < LONG_SECONDS}
        self._free[namespace] = now, since if free else -1

    @contextmanager
    def write(self, namespace: str) -> Iterator[None]:
        """The namespace's router is replaced. Raises Conflict if another one was since its look, or is just now."""
        if self._writing or (namespace in self._free and self._free[namespace][1] != self._written):
            raise Conflict("another namespace's router was replaced since this one's turn was looked for")
        self._writing = True
        try:
            yield
        finally:
            self._writing = False
            self._written += 1
            self._free.pop(namespace, None)


@dataclass(slots=True)
class _Holding:
    """Since when, and until when, a router was found being replaced (monotonic seconds)."""

    since: float
    until: float
    told: bool = False


class Holdups:
    """Which routers keep the others from being replaced. No Endpoint says so: all serve, on the version before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[str, _Holding] = {}
        """By namespace."""

    def found(self, namespace: str, *, waiting: str) -> None:
        """A pass of namespace `waiting` has found the router of another one being replaced."""
        now = self._clock.monotonic()
        self._of = {place: one for place, one in self._of.items() if now - one.until < _FORGOTTEN_SECONDS}
        holding = self._of.setdefault(namespace, _Holding(now, now))
        holding.until = now
        if now - holding.since < LONG_SECONDS or holding.told:
            return
        holding.told = True
        logger.warning(
            "the router of namespace %s has been on its way for %d minutes, and those of other namespaces (%s) are not "
            "brought up to date before it is there: kubectl rollout status -n %s deployment/%s",
            namespace,
            (now - holding.since) // 60,
            waiting,
            namespace,
            ROUTER,
        )
