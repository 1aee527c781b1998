"""The newest known listing of one account and region, put together from sweeps and close looks. Pure: no I/O, no clock.

A listing page and a DescribeEndpoint may cross, and pages may be stale. The newer LastModifiedTime wins; at the same
one, the call that was started later."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sluice.core.observation import Listed


@dataclass(slots=True)
class _Entry:
    listed: Listed
    asked: float
    """When the call that showed it was started (monotonic seconds)."""


@dataclass(slots=True)
class Listing:
    """Endpoints by exact name."""

    _entries: dict[str, _Entry] = field(default_factory=dict)
    _exact: dict[str, str] = field(default_factory=dict)
    """Exact name by lower-case name: SageMaker's names are unique without regard to case."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: str) -> Listed | None:
        """The endpoint of exactly this name."""
        entry = self._entries.get(name)
        return None if entry is None else entry.listed

    def other_case(self, name: str) -> str | None:
        """The exact name of an endpoint that differs from `name` in case only."""
        exact = self._exact.get(name.lower())
        return None if exact == name else exact

    def newest(self) -> Listed | None:
        """The endpoint with the latest LastModifiedTime."""
        return max(
            (entry.listed for entry in self._entries.values()), key=lambda item: item.last_modified, default=None
        )

    def seen(self, item: Listed, asked: float) -> bool:
        """A call that was started at `asked` showed the endpoint. Returns whether that was news."""
        entry = self._entries.get(item.name)
        if entry is None:
            self._entries[item.name] = _Entry(item, asked)
            self._exact[item.name.lower()] = item.name
            return True
        newer = item.last_modified > entry.listed.last_modified
        if newer or (item.last_modified == entry.listed.last_modified and asked >= entry.asked):
            self._entries[item.name] = _Entry(item, asked)
            return item != entry.listed
        return False

    def gone(self, name: str, asked: float) -> None:
        """A call that was started at `asked` did not find the endpoint."""
        entry = self._entries.get(name)
        if entry is not None and asked >= entry.asked:
            del self._entries[name]
            if self._exact.get(name.lower()) == name:
                del self._exact[name.lower()]

    def replace(self, items: Iterable[Listed], asked: float, keep: frozenset[str] = frozenset()) -> None:
        """A whole listing that was started at `asked`. What it does not show is gone, but for `keep` (our own recent
        creations, which reads may not show yet) and what a later call showed."""
        items = tuple(items)
        shown = {item.name for item in items}
        for name in [name for name in self._entries if name not in shown and name not in keep]:
            self.gone(name, asked)
        for item in items:
            self.seen(item, asked)
