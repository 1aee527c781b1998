"""What the watches missed: every object's resourceVersion is listed now and then and compared with the cache.

Differences are healed at once. A new state that the watch still has not delivered some seconds later means that the
watch is dead, which the health probe tells. Deletions that happened while a watch was being opened anew are a known gap
of the watching framework; they are healed and held against nobody."""

import asyncio
import logging

from sluice.controller.cache import CONTROLLER_REVISION, KINDS, Cache, Source, key_of
from sluice.controller.feed import Feed
from sluice.controller.queue import Sleep
from sluice.core.identity import Key
from sluice.core.revision import LABEL_MANAGED_BY, MANAGED_BY
from sluice.ports.kube import Forbidden, Gone, Kube, KubeUnavailable, Object, Rejected

logger = logging.getLogger(__name__)

WATCH_GRACE_SECONDS = 15.0
SOON_SECONDS = 2.0
MOST_SOON_WAITS = 10
"""Watches that go on listing put a sweep off, but not for ever."""


class HistoryWentBackError(Exception):
    """The API server shows older states than before: it was restored from a backup. Everything known is void."""


def selector(kind: str) -> str:
    """The label selector of a watched kind."""
    return f"{LABEL_MANAGED_BY}={MANAGED_BY}" if kind == CONTROLLER_REVISION else ""


class Sweep:
    """The first listing and all later ones."""

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        *,
        feed: Feed,
        namespaces: tuple[str, ...],
        every_seconds: float,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._feed = feed
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._every = every_seconds
        self._sleep = sleep
        self._soon = asyncio.Event()
        self.synced = False
        self.dead_watches: frozenset[str] = frozenset()

    async def sync(self) -> None:
        """List everything in full. A cluster that is not ready is waited for."""
        for kind in KINDS:
            delay, told = 0.2, ""
            while True:
                try:
                    for namespace in self._namespaces:
                        async for item in self._kube.list(kind, namespace, selector(kind)):
                            self._feed.seen(item, Source.LIST)
                    break
                except Gone:
                    problem = f"{kind} is not served; install the CRDs (crds/) of this version"
                except (KubeUnavailable, Forbidden, Rejected) as error:
                    problem = f"cannot list {kind}: {error}"
                if problem != told:
                    told = problem
                    logger.warning("waiting: %s", problem)
                await self._sleep(delay)
                delay = min(delay * 2, 5.0)
        self.synced = True
        logger.info("synced: %s", ", ".join(f"{self._cache.count(kind)} {kind}" for kind in KINDS))

    def soon(self) -> None:
        """A watch was opened anew with a listing, which tells what is there and not what is gone: sweep soon."""
        self._soon.set()

    async def run(self) -> None:
        """Sweep for ever, first soon after the start: between the first listing and the watches lies a gap. Raises
        HistoryWentBackError."""
        self.soon()
        while True:
            await self._rest()
            try:
                await self.once()
            except (KubeUnavailable, Forbidden, Gone, Rejected) as error:
                logger.warning("the sweep was given up: %s", error)

    async def _rest(self) -> None:
        """Until the next sweep is due."""
        waits = {asyncio.ensure_future(self._sleep(self._every)), asyncio.ensure_future(self._soon.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        for _ in range(MOST_SOON_WAITS):
            if not self._soon.is_set():
                break
            self._soon.clear()
            await self._sleep(SOON_SECONDS)

    async def once(self) -> None:
        """One sweep over all kinds."""
        missed: dict[Key, int] = {}
        for kind in KINDS:
            missed.update(await self._one_kind(kind))
        if missed:
            await self._sleep(WATCH_GRACE_SECONDS)
        late = {key.kind for key, version in missed.items() if not self._cache.watch_saw(key, version)}
        if late:
            logger.error("dead watch: %s changed and the watch did not tell", ", ".join(sorted(late)))
        self.dead_watches = frozenset(late)

    async def _one_kind(self, kind: str) -> dict[Key, int]:
        mark = self._cache.mark()
        listed: dict[tuple[str, str], Object] = {}
        for namespace in self._namespaces:
            async for item in self._kube.list_metadata(kind, namespace, selector(kind)):
                listed[item["metadata"]["namespace"], item["metadata"]["name"]] = item
        found = self._cache.compare(kind, listed, mark)
        if found.behind:
            raise HistoryWentBackError(
                f"{found.behind[0]} (and {len(found.behind) - 1} more) is older in the API server than what was read "
                "before; it was restored from a backup, so the operator starts anew"
            )
        for key in found.newer:
            await self._feed.read(key)
        for known in found.absent:
            logger.info("%s is gone and the watch did not tell", key_of(known))
            self._feed.gone(known, Source.LIST)
        return dict(found.newer)
