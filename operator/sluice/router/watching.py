"""One kind of one namespace, kept up to date: list, then watch on from there; list again where the history is lost.
While the API server is away, what is known stays known."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Final

from sluice.core.revision import LABEL_MANAGED_BY, MANAGED_BY
from sluice.ports.kube import Forbidden, Gone, Kube, KubeUnavailable, Object, Rejected
from sluice.router.together import Together

logger = logging.getLogger(__name__)

SELECTOR: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
BACKOFF_FIRST_SECONDS: Final = 0.25
BACKOFF_LONGEST_SECONDS: Final = 15.0


class Watched:
    """Calls `replace` with every listing, `put` and `drop` with every change, and `changed` after each; `lost` when a
    watch broke off, so that what is known may be old until the next listing."""

    def __init__(
        self,
        kube: Kube,
        kind: str,
        namespace: str,
        *,
        replace: Callable[[Iterable[Object]], None],
        put: Callable[[Object], None],
        drop: Callable[[Object], None],
        changed: Callable[[], None],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._kube, self._kind, self._namespace = kube, kind, namespace
        self._replace, self._put, self._drop, self._changed, self._lost = replace, put, drop, changed, lost
        self._failures = 0

    @classmethod
    def held(
        cls,
        together: Together,
        kube: Kube,
        kind: str,
        namespace: str,
        *,
        replace: Callable[[Iterable[Object]], None],
        put: Callable[[Object], None],
        drop: Callable[[Object], None],
        changed: Callable[[], None],
    ) -> "Watched":
        """One whose changes wait for those of the other kinds after a break."""
        return cls(
            kube,
            kind,
            namespace,
            replace=lambda items: together.found(kind, lambda: replace(items)),
            put=lambda item: together.take(lambda: put(item)),
            drop=lambda item: together.take(lambda: drop(item)),
            changed=changed,
            lost=lambda: together.lost(kind),
        )

    async def run(self) -> None:
        """Until it is cancelled. After a break it lists: the changes that were missed, one after the other, would be
        put in force as if it were still then."""
        while True:
            try:
                listing = await self._kube.list_at(self._kind, self._namespace, SELECTOR)
                self._replace(listing.items)
                self._changed()
                version = listing.resource_version
                while True:
                    version = await self._follow(version)
                    self._failures = 0
            except Gone as gone:
                logger.info("listing %s again: %s", self._kind, gone)
            except (KubeUnavailable, Forbidden, Rejected) as error:
                logger.warning("watching %s: %s; going on with what is known", self._kind, error)
            self._lost()
            await self._back_off()

    async def _follow(self, version: str) -> str:
        """One watch; the version that it reached."""
        async for event in self._kube.watch(self._kind, self._namespace, SELECTOR, version):
            self._failures = 0
            if event.type == "DELETED":
                self._drop(event.object)
            elif event.type != "BOOKMARK":
                self._put(event.object)
            version = event.resource_version
            if event.type != "BOOKMARK":
                self._changed()
        return version

    async def _back_off(self) -> None:
        self._failures += 1
        longest = min(BACKOFF_LONGEST_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(self._failures, 10))
        await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - spreads load, guards nothing
