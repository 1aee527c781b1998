"""Routers are replaced one namespace at a time, and passes run side by side: between a pass's look at the other
namespaces' routers and its write, another pass writes. A look that is older than such a write is void."""

from collections.abc import Iterator
from contextlib import contextmanager

from sluice.ports.kube import Conflict


class RouterTurns:
    """Shared by looks and acts; belongs to the event loop."""

    def __init__(self) -> None:
        self._written = 0
        """How many routers were replaced."""
        self._writing = False
        self._free: dict[str, int] = {}
        """Namespace -> how many there were before the look that found all other routers at rest; -1: it found one that
        is being replaced."""

    @property
    def written(self) -> int:
        """To be asked before a look."""
        return self._written

    def looked(self, namespace: str, *, since: int, free: bool) -> None:
        """A pass of the namespace has looked at the others' routers. since: `written` before."""
        self._free[namespace] = since if free else -1

    @contextmanager
    def write(self, namespace: str) -> Iterator[None]:
        """The namespace's router is replaced. Raises Conflict if another one was since its look, or is just now."""
        if self._writing or self._free.get(namespace, self._written) != self._written:
            raise Conflict("another namespace's router was replaced since this one's turn was looked for")
        self._writing = True
        try:
            yield
        finally:
            self._writing = False
            self._written += 1
            self._free.pop(namespace, None)
