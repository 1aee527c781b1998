"""What can be going on at an endpoint; exactly one thing at a time, and each is a plain value that a view can show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .guardrails import Policy
from .stages import Plan, Stage
from .state import Declared, Variant


@dataclass(slots=True)
class Creation:
    """CreateEndpoint is running."""

    config: Declared
    variants: dict[str, Variant]
    started: float


@dataclass(slots=True)
class Deployment:
    """UpdateEndpoint is running: a plan, where it stands, and the way back once there is a cause for it."""

    config: Declared
    variants: dict[str, Variant]
    """The new fleet's variants, by name; they become the endpoint's own when the deployment succeeds."""
    policy: Policy
    plan: Plan
    started: float
    deadline: float
    alarms: list[str]
    index: int = -1
    entered: float = 0.0
    """When the current stage began."""
    going_back: bool = False
    cause: str = ""
    """Why it went back; becomes the FailureReason."""
    back_fails: bool = False
    """Whether the way back ends in UpdateRollbackFailed."""
    ignored_alarms: set[str] = field(default_factory=set)
    """Alarms that were firing at the start and have not been OK since."""
    awaits_reading: bool = False
    """Whether a bake is over and waits for a reading of the alarms taken after its end."""

    @property
    def stage(self) -> Stage:
        """The stage that runs."""
        return self.plan[self.index]


@dataclass(slots=True)
class CapacityChange:
    """UpdateEndpointWeightsAndCapacities is running, or going back after it failed."""

    before: Mapping[str, tuple[float, int]]
    """Desired weight and count of each variant before the change."""
    started: float


@dataclass(slots=True)
class Maintenance:
    """The service patches the endpoint (SystemUpdating)."""

    started: float


@dataclass(slots=True)
class Deletion:
    """DeleteEndpoint is running."""

    started: float


Activity = Creation | Deployment | CapacityChange | Maintenance | Deletion


def as_dict(activity: Activity | None) -> dict[str, Any] | None:
    """A short form for the control endpoint's dump."""
    if activity is None:
        return None
    shown: dict[str, Any] = {"activity": type(activity).__name__, "started": activity.started}
    if isinstance(activity, Deployment):
        shown |= {
            "endpointConfigName": activity.config.name,
            "stage": activity.stage.kind,
            "scope": activity.stage.scope,
            "stageIndex": activity.index,
            "stages": len(activity.plan),
            "goingBack": activity.going_back,
            "cause": activity.cause,
            "deadline": activity.deadline,
            "alarms": activity.alarms,
        }
    return shown
