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
