"""The vocabulary of a deployment plan: stages, and how many instances run and take traffic in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class StageKind(StrEnum):
    """What happens in a stage, in the words of VariantStatus."""

    CREATE = "Creating"
    ACTIVATE = "ActivatingTraffic"
    BAKE = "Baking"
    CLEAN = "Deleting"


class Side(StrEnum):
    """Which fleet a stage acts on, and so where its VariantStatus shows: the serving one or the pending one."""

    OLD = "old"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Capacity:
    """Instances of one variant of one fleet: how many run, and how many of those take traffic."""

    up: int
    active: int


Fleet = Mapping[str, Capacity]
Counts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a plan. ``old`` and ``new`` hold while the stage runs, ``amounts`` is what its message names."""

    kind: StageKind
    side: Side
    seconds: float
    old: Fleet
    new: Fleet
    amounts: Counts
    scope: str = "full"
    """Which part of the capacity a flip or a bake is about: full, canary, linear step or batch."""
    wait: str = ""
    """The request field a bake's length comes from."""
    watched: bool = False
    """Whether an alarm in this stage rolls back: from the first traffic to the end of the last bake."""

    def message(self, variant: str) -> str:
        """The StatusMessage of one variant, in the sentences AWS documents for EventBridge."""
        amount = self.amounts.get(variant, 0)
        match self.kind:
            case StageKind.CREATE:
                return f"Launching {amount} instance(s)."
            case StageKind.CLEAN:
                return f"Terminating {amount} instance(s)."
            case StageKind.ACTIVATE:
                return f"Activating traffic on {self.scope} capacity of {amount} instance(s)."
            case StageKind.BAKE:
                return (
                    f"Baking for {self.seconds:g} seconds ({self.wait}) with traffic enabled on {self.scope} capacity "
                    f"of {amount} instance(s)."
                )


Plan = tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Durations:
    """How long the stages take that no request field sets, in simulated seconds."""

    provision: float
    flip: float
    cleanup: float


@dataclass(frozen=True, slots=True)
class Size:
    """A CapacitySize of a request."""

    value: int
    percent: bool

    def instances(self, total: int) -> int:
        """Instances of ``total`` this size means. A percentage is rounded down, but never to nothing (undocumented)."""
        return min(total, max(1, self.value * total // 100 if self.percent else self.value))


def full(counts: Counts) -> dict[str, Capacity]:
    """All instances run and take traffic."""
    return {name: Capacity(count, count) for name, count in counts.items()}


def idle(counts: Counts) -> dict[str, Capacity]:
    """All instances run and none takes traffic."""
    return {name: Capacity(count, 0) for name, count in counts.items()}


def none(counts: Counts) -> dict[str, Capacity]:
    """No instance runs."""
    return {name: Capacity(0, 0) for name in counts}


def displaced(old_total: int, new_total: int, new_active: int) -> int:
    """Old instances that give way to ``new_active`` of ``new_total`` new ones; all of them only to all."""
    return old_total if new_active >= new_total else old_total * new_active // new_total


@dataclass(frozen=True, slots=True)
class Standing:
    """Where both fleets stand between stages: the start of a plan, or of the way back."""

    old: Fleet = field(default_factory=dict)
    new: Fleet = field(default_factory=dict)
