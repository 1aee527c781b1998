"""The places of deployments that run at the same time: who has one, and who is woken when one is free.

What counts is in the Endpoints' statuses. Here is only what no status shows yet: passes run side by side, and between a
pass's decision to deploy and the status that says so others decide too. Such a pass claims its place in the same turn
of the event loop in which it decides, and gives the claim up when the cache has what became of it."""

from collections.abc import Callable
from dataclasses import replace

from sluice.api import names
from sluice.api.reasons import ConditionType, Reason
from sluice.api.status import EndpointStatus
from sluice.controller.cache import Cache
from sluice.core import conditions
from sluice.core.cluster import limits
from sluice.core.cluster.peers import Bounds, Peer
from sluice.core.identity import Key


class Slots:
    """Belongs to the event loop, like the cache."""

    def __init__(self, cache: Cache, bounds: Bounds, wake: Callable[[Key], None]) -> None:
        self._cache = cache
        self._bounds = bounds
        self._wake = wake
        self._claims: set[Key] = set()

    def peers(self, key: Key) -> tuple[Peer, ...]:
        """What the others are about, with what their passes have just decided. Nothing may be awaited between this and
        the decision's `claim`."""
        others = {other: peer for other, peer in self._cache.peers().items() if other != key}
        for other in self._claims - {key}:
            known = others.get(other, Peer(other.namespace, other.name))
            others[other] = replace(known, deploying=True, waiting_since=None)
        return tuple(others.values())

    def claim(self, key: Key, status: EndpointStatus) -> None:
        """A pass has decided this status and is about to write it."""
        if status.deployment is not None:
            self._claims.add(key)

    def settled(self, key: Key, *, written: bool) -> None:
        """The cache has what became of the claim."""
        if key in self._claims:
            self._claims.discard(key)
            if not written:
                self.wake_next()

    def moved(self, before: EndpointStatus, after: EndpointStatus) -> None:
        """An Endpoint went from one status to the other: where that made room, who is next is woken."""
        ended = before.deployment is not None and after.deployment is None
        if ended or (_waits(before) and not _waits(after)):
            self.wake_next()

    def forget(self, key: Key) -> None:
        """The Endpoint is gone, with the place that it had."""
        self._claims.discard(key)
        self.wake_next()

    def wake_next(self) -> None:
        """Wake those whose turn it is."""
        for peer in limits.admitted(self._cache.peers().values(), self._bounds):
            self._wake(Key(names.ENDPOINT, peer.namespace, peer.name))


def _waits(status: EndpointStatus) -> bool:
    found = conditions.find(status.conditions, ConditionType.RECONCILING)
    return found is not None and (found.status, found.reason) == ("True", Reason.DEPLOYMENT_QUEUED)
