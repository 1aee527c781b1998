"""How long things take, how stale reads are and which quotas apply; every value may change while running.

SageMaker takes minutes where these defaults say seconds: the ratios, not the values, are like the real service.
Values that AWS documents nowhere (see README, "What is a guess") are settings too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(slots=True)
class Settings:
    """All durations are simulated seconds."""

    create_seconds: float = 20.0
    """CreateEndpoint until InService or Failed."""
    provision_seconds: float = 10.0
    """Launching a new fleet, or one rolling batch, until it is healthy."""
    flip_seconds: float = 2.0
    """One activation of traffic."""
    cleanup_seconds: float = 5.0
    """Terminating an old fleet or batch."""
    scale_seconds: float = 10.0
    """An UpdateEndpointWeightsAndCapacities that changes a count."""
    weight_seconds: float = 2.0
    """An UpdateEndpointWeightsAndCapacities that changes weights only, and the way back of a failed one."""
    delete_seconds: float = 5.0
    """DeleteEndpoint until the endpoint is gone."""
    maintenance_seconds: float = 60.0
    """SystemUpdating, unless the fault says otherwise."""

    read_after_create_seconds: float = 0.0
    """Describe and List do not know a new object before this has passed."""
    use_after_create_seconds: float = 0.0
    """Operations that reference a new Model or EndpointConfig do not find it before this has passed."""

    default_execution_timeout_seconds: float = 28800.0
    """Deadline of a deployment whose policy names none (undocumented)."""
    ignore_alarms_firing_at_start: bool = False
    """Whether an alarm already in ALARM when the update starts counts only after it has been OK (undocumented)."""
    one_capacity_per_call: bool = True
    """Whether UpdateEndpointWeightsAndCapacities refuses counts of several variants in one call, as documented."""

    quotas: dict[str, int] = field(default_factory=dict)
    """Limits by instance type (instances in use), and "endpoints", "models", "endpoint-configs" (objects)."""

    def change(self, values: Mapping[str, Any]) -> None:
        """Sets named values; raises ValueError naming an unknown setting or a value of another type."""
        known = {one.name for one in fields(self)}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"setting '{name}' is unknown; known are {', '.join(sorted(known))}")
            current = getattr(self, name)
            wanted = type(current)
            if wanted is float and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if type(value) is not wanted:
                raise ValueError(f"setting '{name}' is {value!r}; it takes a {wanted.__name__}")
        for name, value in values.items():
            setattr(self, name, float(value) if isinstance(getattr(self, name), float) else value)

    def as_dict(self) -> dict[str, Any]:
        """Every setting by name."""
        return asdict(self)
