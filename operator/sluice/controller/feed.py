"""The one way of every state into the cache, and of every change out of it to the queue."""

from collections.abc import Callable

from sluice.api import names
from sluice.controller.cache import Cache, Source, key_of
from sluice.core.identity import Key
from sluice.ports.kube import Kube, Object


class Feed:
    """Takes states in and wakes whom they concern. Until `connect` nobody is woken."""

    def __init__(self, cache: Cache, kube: Kube) -> None:
        self._cache = cache
        self._kube = kube
        self._wake: Callable[[Key], None] = lambda _key: None
        self._forget: Callable[[Key], None] = lambda _key: None

    def connect(self, wake: Callable[[Key], None], forget: Callable[[Key], None]) -> None:
        """Call wake(key) for each key that needs a pass, and forget(key) for each Endpoint that is gone."""
        self._wake, self._forget = wake, forget

    def seen(self, item: Object, source: Source) -> None:
        """A state of an object."""
        self._tell(item, self._cache.apply(item, source))

    def gone(self, item: Object, source: Source) -> None:
        """An object (this uid) is gone."""
        self._tell(item, self._cache.remove(item, source))

    async def read(self, key: Key) -> None:
        """Read an object anew from the API server."""
        # Before the read: what is created meanwhile, and told of by the watch, is not what it found gone.
        known = self._cache.get(key.kind, key.namespace, key.name)
        live = await self._kube.get(key.kind, key.namespace, key.name)
        if live is not None:
            self.seen(live, Source.LIST)
        elif known is not None:
            self.gone(known, Source.LIST)

    def _tell(self, item: Object, woken: frozenset[Key]) -> None:
        for key in woken:
            self._wake(key)
        if item["kind"] == names.ENDPOINT:
            key = key_of(item)
            if self._cache.get(key.kind, key.namespace, key.name) is None:
                self._forget(key)
