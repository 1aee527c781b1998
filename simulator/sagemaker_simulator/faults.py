"""What goes wrong, where, how often: the faults that are set, and the decision whether one strikes now."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import count
from typing import Any


class FaultKind(StrEnum):
    """Faults of a call strike while it is answered; faults of an endpoint strike while it changes."""

    THROTTLING = "throttling"
    SERVER_ERROR = "server_error"
    LOST_RESPONSE = "lost_response"
    LATENCY = "latency"
    ACCESS_DENIED = "access_denied"
    QUOTA = "quota"

    CAPACITY_FAILURE = "capacity_failure"
    HEALTH_FAILURE = "health_failure"
    DOWNLOAD_FAILURE = "download_failure"
    ZONE_FAILURE = "zone_failure"
    INTERNAL_FAILURE = "internal_failure"
    FAILED_CREATION = "failed_creation"
    STUCK_CREATING = "stuck_creating"
    SILENT_ROLLBACK = "silent_rollback"
    UPDATE_ROLLBACK_FAILED = "update_rollback_failed"
    WEIGHT_UPDATE_FAILURE = "weight_update_failure"

    MAINTENANCE = "maintenance"
    EXTERNAL_CHANGE = "external_change"


@dataclass(slots=True)
class Fault:
    """One fault. Patterns are shell-style and match the operation, the object's name and the caller's role."""

    kind: FaultKind
    operation: str = "*"
    target: str = "*"
    role: str = "*"
    count: int | None = None
    """How often it may still strike; None is without end."""
    skip: int = 0
    """How many matching moments pass before the first strike."""
    probability: float = 1.0
    parameters: dict[str, Any] = field(default_factory=dict)
    id: int = 0
    fired: int = 0

    def matches(self, operation: str, target: str, role: str) -> bool:
        """Whether this fault is meant for that call or change."""
        return (
            fnmatchcase(operation, self.operation) and fnmatchcase(target, self.target) and fnmatchcase(role, self.role)
        )


def parse(body: Mapping[str, Any]) -> Fault:
    """A fault from its JSON form; every key that is not a fault's own is a parameter of the fault."""
    own = {"kind", "operation", "target", "role", "count", "skip", "probability", "parameters"}
    kind = body.get("kind")
    if kind not in set(FaultKind):
        raise ValueError(f"fault kind {kind!r} is unknown; known are {', '.join(FaultKind)}")
    fault = Fault(kind=FaultKind(kind), **{key: body[key] for key in own - {"kind", "parameters"} if key in body})
    fault.parameters = {**body.get("parameters", {}), **{key: body[key] for key in body.keys() - own}}
    if not 0 <= fault.probability <= 1:
        raise ValueError(f"fault probability {fault.probability}: must be between 0 and 1")
    return fault


class FaultBoard:
    """The faults that are set, in order; the first that matches and whose dice fall so strikes."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._faults: dict[int, Fault] = {}
        self._ids = count(1)
        self._dice = random.Random(seed)

    def set(self, fault: Fault) -> Fault:
        """Adds a fault and gives it its id."""
        fault.id = next(self._ids)
        self._faults[fault.id] = fault
        return fault

    def clear(self, fault_id: int | None = None) -> None:
        """Takes one fault away, or all; raises KeyError for an id that is not set."""
        if fault_id is None:
            self._faults.clear()
            self._dice = random.Random(self._seed)
        else:
            del self._faults[fault_id]

    def strike(self, *kinds: FaultKind, target: str, operation: str = "", role: str = "") -> Fault | None:
        """The fault of these kinds that strikes this call or change now; counts it."""
        for fault in self._faults.values():
            if fault.kind not in kinds or fault.count == 0 or not fault.matches(operation, target, role):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            if fault.probability < 1 and self._dice.random() >= fault.probability:
                continue
            fault.fired += 1
            if fault.count is not None:
                fault.count -= 1
            return fault
        return None

    def as_list(self) -> list[dict[str, Any]]:
        """Every fault with how often it has struck."""
        return [asdict(fault) for fault in self._faults.values()]
