"""The form of a rule's cases: manifests that keep it and manifests that break it."""

from dataclasses import dataclass

from .manifests import Manifest


@dataclass(frozen=True, slots=True)
class Broken:
    """A manifest that breaks one rule, the field the API server must name, and what its message must say."""

    manifest: Manifest
    field: str
    message: str
    old: Manifest | None = None
    """The stored object that the manifest would replace; None for a creation."""


@dataclass(frozen=True, slots=True)
class RuleCases:
    """One rule."""

    kind: str
    path: str
    rule: str
    """How its fixed message begins."""
    kept: tuple[Manifest | tuple[Manifest, Manifest], ...]
    """Manifests that are accepted, or pairs of a stored object and what may replace it."""
    broken: tuple[Broken, ...]
