"""One pass over a Model or an EndpointConfig: says in its status whether it is accepted and where it is in service.

Nothing is done for a declaration; an Endpoint makes it real. So a lost status costs nothing."""

import logging

from pydantic import ValidationError

from sluice.api import names
from sluice.api.status import DeclarationStatus, EndpointConfigStatus, ModelStatus
from sluice.controller.cache import Cache, Source
from sluice.controller.context import about
from sluice.controller.feed import Feed
from sluice.controller.metrics import Metrics
from sluice.core.declaration import can_wait, decide_declaration
from sluice.core.identity import Key
from sluice.ports.clock import Clock
from sluice.ports.kube import Conflict, Gone, Kube, NotHeld, Object

logger = logging.getLogger(__name__)

STATUSES: dict[str, type[DeclarationStatus]] = {names.MODEL: ModelStatus, names.ENDPOINT_CONFIG: EndpointConfigStatus}


class DeclarationReconciler:
    """Runs passes over Models and EndpointConfigs."""

    def __init__(
        self, kube: Kube, cache: Cache, feed: Feed, clock: Clock, metrics: Metrics, *, patience_seconds: float
    ) -> None:
        """patience_seconds: how long a declaration that was rolled out waits until its status says so."""
        self._kube = kube
        self._cache = cache
        self._feed = feed
        self._clock = clock
        self._metrics = metrics
        self._patience = patience_seconds
        self._waiting: dict[Key, float] = {}
        """Declarations that wait without saying so yet, since when; a lost one only waits anew."""

    async def reconcile(self, key: Key) -> float | None:
        """One pass. Returns the seconds until the next is due (None: when something happens)."""
        started, outcome, again = self._clock.monotonic(), "failed", None
        with about(object=str(key)):
            try:
                outcome, again = await self._pass(key)
            finally:
                self._metrics.pass_ended(key.kind, outcome, self._clock.monotonic() - started)
        return again

    async def _pass(self, key: Key) -> tuple[str, float | None]:
        item = self._cache.get(key.kind, key.namespace, key.name)
        if item is None:
            self._waiting.pop(key, None)
            return "gone", None
        if item["metadata"].get("deletionTimestamp"):
            return "unchanged", None
        before = _status(item, STATUSES[key.kind])
        users = self._cache.users(key.kind, key.namespace, key.name)
        after = decide_declaration(item, before, users, self._clock.now())
        left = self._patience_left(key) if can_wait(before, after) else 0.0
        if left > 0:
            return "unchanged", left
        self._waiting.pop(key, None)
        if after == before:
            return "unchanged", None
        status = after.to_manifest()
        self._cache.writing(key, status)
        try:
            persisted = await self._kube.replace_status(key.kind, key.namespace, {**item, "status": status})
        except (Conflict, Gone):
            await self._feed.read(key)
            return "dropped", 0.2
        except NotHeld as fenced:
            logger.info("pass dropped: %s", fenced)
            return "dropped", 1.0
        finally:
            self._cache.written(key)
        self._feed.seen(persisted, Source.OWN)
        return "persisted", None

    def _patience_left(self, key: Key) -> float:
        now = self._clock.monotonic()
        return self._waiting.setdefault(key, now) + self._patience - now


def _status(item: Object, model: type[DeclarationStatus]) -> DeclarationStatus:
    try:
        return model.from_manifest(item.get("status") or {})
    except ValidationError as error:
        logger.warning("its status cannot be read and is written anew: %s", error)
        return model()
