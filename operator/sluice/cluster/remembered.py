"""Listings of what a fleet has for life: its Service, its record, and whose its ReplicaSets are. Once they were found
complete for these very Deployments they are believed for a minute; whatever they do not explain is listed anew.

Nothing that says how many pods or routers there are is remembered."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

from sluice.ports.clock import Clock
from sluice.ports.kube import Object

REMEMBERED_SECONDS: Final = 60.0

Place = tuple[str, str, str]
"""(kind, namespace, label selector)."""


@dataclass(frozen=True, slots=True)
class _Listing:
    at: float
    deployments: frozenset[str]
    items: list[Object]


class Remembered:
    """What was listed within the last minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._listings: dict[Place, _Listing] = {}
        self._swept = clock.monotonic()

    async def list(
        self,
        place: Place,
        read: Callable[[], Awaitable[list[Object]]],
        *,
        deployments: Collection[str],
        explains: Callable[[list[Object]], bool],
    ) -> list[Object]:
        """The listing of a place, if it is remembered for all these Deployments (UIDs) and `explains` what was seen of
        them; else what `read` brings."""
        now = self._clock.monotonic()
        known = self._listings.get(place)
        if (
            known is not None
            and now - known.at < REMEMBERED_SECONDS
            and known.deployments.issuperset(deployments)
            and explains(known.items)
        ):
            return known.items
        self._sweep(now)
        items = await read()
        self._listings[place] = _Listing(now, frozenset(deployments), items)
        return items

    def _sweep(self, now: float) -> None:
        """Drop what is too old, once a minute: Endpoints come and go."""
        if now - self._swept >= REMEMBERED_SECONDS:
            self._swept = now
            self._listings = {p: one for p, one in self._listings.items() if now - one.at < REMEMBERED_SECONDS}
