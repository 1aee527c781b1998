"""Live reads that passes share.

When many Endpoints of a namespace move, their passes ask for the same things at the same time: the routers and their
reports, and each its own Deployments and pods. A pass is answered by a read that began after it asked, so it never sees
older than a read of its own would have shown it; what is asked for while a read is under way, the next one brings for
all who asked. Nothing is remembered."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from sluice.cluster.labels import endpoint_label, endpoints_selector
from sluice.core.revision import LABEL_ENDPOINT
from sluice.ports.kube import Kube, Object

HELD_UP_SECONDS: Final = 0.2
"""The next read waits for the one under way no longer than this."""
MOST_NAMES: Final = 50
"""Endpoints in one selector: it travels in the address, and proxies cut long ones off."""
BARE: Final = frozenset({"ReplicaSet", "Service"})
"""Kinds of which only the metadata is read: what they are called and whose they are. They are remembered for every
Endpoint, and a ReplicaSet holds its pods' whole template."""

A = TypeVar("A")


class Rounds(Generic[A]):
    """Reads of one place, one after the other. `read` is given all that was asked for."""

    def __init__(self, read: Callable[[frozenset[str]], Awaitable[A]]) -> None:
        self._read = read
        self._asked: set[str] = set()
        self._next: asyncio.Task[A] | None = None
        self._under_way: asyncio.Task[A] | None = None

    async def ask(self, what: str) -> A:
        """What a read brings that begins after this call."""
        self._asked.add(what)
        if self._next is None:
            self._next = asyncio.create_task(self._round(self._under_way))
            self._next.add_done_callback(_take_note)
        # A pass that is cut off takes no answer from the others.
        return await asyncio.shield(self._next)

    async def _round(self, before: asyncio.Task[A] | None) -> A:
        if before is not None:
            await asyncio.wait({before}, timeout=HELD_UP_SECONDS)
        mine = self._under_way = self._next
        self._next = None
        asked, self._asked = frozenset(self._asked), set()
        try:
            return await self._read(asked)
        finally:
            if self._under_way is mine:
                self._under_way = None

    @property
    def idle(self) -> bool:
        """Nobody waits."""
        return self._next is None and self._under_way is None


def _take_note(task: asyncio.Task[Any]) -> None:
    """All who asked may have been cut off: the failure is told to nobody then, and asyncio would complain."""
    if not task.cancelled():
        task.exception()


class SharedReads:
    """What passes over the Endpoints of one namespace read together."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._listings: dict[tuple[str, str, str], Rounds[list[Object]]] = {}
        self._of_endpoints: dict[tuple[str, str], Rounds[Mapping[str, list[Object]]]] = {}
        self._named: dict[tuple[str, str], Rounds[Mapping[str, Object | None]]] = {}

    async def selected(self, kind: str, namespace: str, selector: str = "") -> list[Object]:
        """All that a selector finds."""

        async def read(_: frozenset[str]) -> list[Object]:
            return await self._list(kind, namespace, selector)

        return await _ask(self._listings, (kind, namespace, selector), read, "")

    async def of_endpoint(self, kind: str, namespace: str, endpoint: str) -> list[Object]:
        """What bears the label of an Endpoint (and of those whose long names begin alike)."""

        async def read(labels: frozenset[str]) -> Mapping[str, list[Object]]:
            return await self._labelled(kind, namespace, labels)

        label = endpoint_label(endpoint)
        return (await _ask(self._of_endpoints, (kind, namespace), read, label))[label]

    async def named_after(self, kind: str, namespace: str, endpoint: str) -> Object | None:
        """The object that has the Endpoint's name; None if there is none, whatever its labels."""

        async def read(endpoints: frozenset[str]) -> Mapping[str, Object | None]:
            found: dict[str, Object] = {}
            if len(endpoints) > 1:
                labelled = await self._labelled(kind, namespace, frozenset(map(endpoint_label, endpoints)))
                found = {item["metadata"]["name"]: item for items in labelled.values() for item in items}
            others = sorted(endpoints - found.keys())
            live = await asyncio.gather(*(self._kube.get(kind, namespace, name) for name in others))
            return {**found, **dict(zip(others, live, strict=True))}

        return (await _ask(self._named, (kind, namespace), read, endpoint))[endpoint]

    async def _labelled(self, kind: str, namespace: str, labels: frozenset[str]) -> Mapping[str, list[Object]]:
        ordered = sorted(labels)
        parts = [ordered[at : at + MOST_NAMES] for at in range(0, len(ordered), MOST_NAMES)]
        listed = await asyncio.gather(*(self._list(kind, namespace, endpoints_selector(part)) for part in parts))
        found: dict[str, list[Object]] = {label: [] for label in labels}
        for item in (item for items in listed for item in items):
            found[item["metadata"]["labels"][LABEL_ENDPOINT]].append(item)
        return found

    async def _list(self, kind: str, namespace: str, selector: str) -> list[Object]:
        if kind not in BARE:
            return [item async for item in self._kube.list(kind, namespace, selector)]
        found = [item async for item in self._kube.list_metadata(kind, namespace, selector)]
        for item in found:
            item["metadata"].pop("managedFields", None)  # often larger than the rest
        return found


P = TypeVar("P")


async def _ask(places: dict[P, Rounds[A]], place: P, read: Callable[[frozenset[str]], Awaitable[A]], what: str) -> A:
    rounds = places.setdefault(place, Rounds(read))
    try:
        return await rounds.ask(what)
    finally:
        if rounds.idle and places.get(place) is rounds:
            del places[place]  # namespaces come and go
