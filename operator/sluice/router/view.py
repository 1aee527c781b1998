"""What Envoy has in force, what it refused, and how much is under way, as values."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Refusal:
    """Envoy refused an update; it keeps what it had."""

    version: str
    """Of the resources that it was to have."""
    names: frozenset[str]
    """The resources that the update changed: one of them is why."""
    reason: str


@dataclass(frozen=True, slots=True)
class View:
    """What Envoy has in force."""

    clusters: str
    """The version of its clusters; UNKNOWN's: Envoy is not connected, or has not answered yet."""
    scopes: str
    warming: frozenset[str] = frozenset()
    """Clusters whose newest definition is not in use yet."""
    clusters_refused: Refusal | None = None
    """Its last answer, if that was a refusal."""
    scopes_refused: Refusal | None = None
    connection: int = 0
    """Counts Envoy's connections: another one may be another process."""

    @property
    def known(self) -> bool:
        """Whether it is known what routes are in force."""
        return self.scopes != UNKNOWN.scopes


UNKNOWN: Final = View("?", "?")


@dataclass(frozen=True, slots=True)
class Activity:
    """Per fleet, over its clusters."""

    healthy: dict[str, int]
    running: dict[str, int]
    """Requests under way."""
    known: bool = True
    """False: it was not asked for, or Envoy does not answer."""


UNKNOWN_ACTIVITY: Final = Activity({}, {}, known=False)
