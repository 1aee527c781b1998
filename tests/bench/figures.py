"""What every part of the benchmark returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, with the aim it stands against."""

    name: str
    value: str
    aim: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    zero: dict[str, int] = field(default_factory=dict)
    """What an aim leaves no room for, by its name: unless all of it is 0, the run has failed."""

    @property
    def wrong(self) -> str:
        """What is not 0 that has to be; else ""."""
        return ", ".join(f"{count} {name}" for name, count in self.zero.items() if count)
