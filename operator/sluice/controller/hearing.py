"""Whether the watches that only wake (pods, Deployments, routes, router reports) still tell what happens.

A pass reads these objects live, so nothing is decided from what a dead watch leaves out; but Endpoints then move by the
minute instead of at once, and a restart mends it. So the newest state of each object that a watch told of is remembered
by its resourceVersion alone and compared with a listing now and then; the health probe tells what came of it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from sluice.controller.cache import version_of
from sluice.controller.queue import Sleep
from sluice.controller.sweep import WATCH_GRACE_SECONDS
from sluice.ports.kube import Forbidden, Gone, Kube, KubeUnavailable, Object, Rejected

logger = logging.getLogger(__name__)

EVERY_SECONDS: Final = 60.0

Place = tuple[str, str, str]
"""Kind, namespace, name."""


class Hearing:
    """Told of every watch event; compares once a minute."""

    def __init__(
        self,
        kube: Kube,
        kinds: Mapping[str, str],
        namespaces: tuple[str, ...],
        *,
        lost: Callable[[str, str, str], None] = lambda _kind, _namespace, _name: None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """kinds: kind -> the label selector that it is watched with. lost: called for what is listed no more."""
        self._kube = kube
        self._kinds = kinds
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._lost = lost
        self._sleep = sleep
        self._told: dict[Place, int] = {}
        """What is gone is in it until the next comparison: the listing before may still have had it."""
        self.dead_watches: frozenset[str] = frozenset()

    def heard(self, item: Object) -> None:
        """A watch told that an object came, changed or went."""
        place = _place(item)
        self._told[place] = max(self._told.get(place, 0), version_of(item))

    async def run(self) -> None:
        """Compare for ever, first when the watches have had a minute to begin."""
        while True:
            await self._sleep(EVERY_SECONDS)
            try:
                await self.once()
            except (KubeUnavailable, Forbidden, Gone, Rejected) as error:
                logger.warning("the watches were not looked after: %s", error)

    async def once(self) -> None:
        """One comparison. What a watch does not tell within some seconds it does not tell."""
        late = await self._missed()
        if late:
            await self._sleep(WATCH_GRACE_SECONDS)
        late = {place: version for place, version in late.items() if self._told.get(place, 0) < version}
        dead = frozenset(kind for kind, _, _ in late)
        if dead:
            logger.error("dead watch: %s changed and the watch did not tell", ", ".join(sorted(dead)))
        self.dead_watches = dead

    async def _missed(self) -> dict[Place, int]:
        """What is listed in a newer state than the watch has told of. What is listed no more is forgotten, whether the
        watch told or not: deletions while a watch is opened anew are held against nobody."""
        missed: dict[Place, int] = {}
        for kind, selector in self._kinds.items():
            before = {place: version for place, version in self._told.items() if place[0] == kind}
            listed: dict[Place, int] = {}
            for namespace in self._namespaces:
                async for item in self._kube.list_metadata(kind, namespace, selector):
                    listed[_place(item)] = version_of(item)
            for place, version in before.items():
                if place not in listed and self._told.get(place) == version:  # else it was made anew meanwhile
                    del self._told[place]
                    self._lost(*place)
            missed |= {place: version for place, version in listed.items() if self._told.get(place, 0) < version}
        return missed


def _place(item: Object) -> Place:
    return item["kind"], item["metadata"]["namespace"], item["metadata"]["name"]
