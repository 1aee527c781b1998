"""What exists: models, endpoint configs, endpoints, tags and scalable targets, per account and region.

``World`` is the whole simulator without a network: ``advance(now)`` lets time pass, operations act at ``now``.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .alarms import AlarmBoard
from .faults import FaultBoard
from .settings import Settings
from .timeline import Timeline

if TYPE_CHECKING:
    from .activities import Activity


@dataclass(slots=True)
class Declared:
    """A Model or an EndpointConfig: what was asked for, for ever the same."""

    name: str
    arn: str
    created: float
    fields: Mapping[str, Any]
    """The create request without its Tags."""


@dataclass(slots=True)
class DeployedImage:
    """An image as the model names it, and the digest it had when its fleet was launched."""

    specified: str
    resolved: str
    resolved_at: float


@dataclass(slots=True)
class Variant:
    """One variant of one fleet. ``desired_*`` is what was asked for last, ``current_*`` what is there now."""

    name: str
    spec: Mapping[str, Any]
    """Its entry in the EndpointConfig, as it was when the fleet was planned."""
    images: tuple[DeployedImage, ...]
    desired_weight: float
    desired_count: int
    current_weight: float
    current_count: int
    shadow: bool = False

    @property
    def serverless(self) -> bool:
        """Serverless variants have no instances; the simulator runs them as a fleet of one."""
        return "ServerlessConfig" in self.spec


@dataclass(slots=True)
class Endpoint:
    """An endpoint: what serves now, and what is being done to it."""

    name: str
    arn: str
    region: Region
    status: str
    config: Declared
    created: float
    modified: float
    variants: dict[str, Variant] = field(default_factory=dict)
    leftover: dict[str, Variant] = field(default_factory=dict)
    """Variants of another config that still serve after a failed rollback (UpdateRollbackFailed)."""
    leftover_config: Declared | None = None
    failure_reason: str | None = None
    last_deployment_config: Mapping[str, Any] | None = None
    activity: Activity | None = None
    step: int = 0
    """Number of the step that is planned; a step of another number was overtaken and does nothing."""


@dataclass(slots=True)
class Region:
    """Everything one account has in one region."""

    account: str
    name: str
    models: dict[str, Declared] = field(default_factory=dict)
    configs: dict[str, Declared] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    """By lower-cased name: endpoint names are unique without regard to case."""
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    """By ARN, of every object that exists."""
    scalable_targets: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """By resource id and scalable dimension."""


class World:
    """All state, moved only by ``advance`` and by operations."""

    def __init__(self, now: float, settings: Settings | None = None, seed: int = 0) -> None:
        self.now = now
        self.settings = settings or Settings()
        self.faults = FaultBoard(seed)
        self.alarms = AlarmBoard()
        self.dice = random.Random(seed)
        self.timeline = Timeline()
        self.image_digests: dict[str, str] = {}
        self.regions: dict[tuple[str, str], Region] = {}

    def region(self, account: str, name: str) -> Region:
        """The state of one account in one region; empty until something is created there."""
        return self.regions.setdefault((account, name), Region(account, name))

    def advance(self, now: float) -> None:
        """Lets time pass to ``now``: every planned step runs at its own time, in order."""
        while planned := self.timeline.next_due(now):
            due, step = planned
            self.now = max(self.now, due)
            step()
        self.now = max(self.now, now)

    def after(self, endpoint: Endpoint, seconds: float, step: Callable[[], None]) -> None:
        """Plans the endpoint's next step; whatever was planned for it before is overtaken."""
        endpoint.step += 1
        number = endpoint.step

        def run() -> None:
            if endpoint.step == number:
                step()

        self.timeline.plan(self.now + seconds, run)

    def touch(self, endpoint: Endpoint, status: str | None = None) -> None:
        """Records a change: LastModifiedTime moves forward every time, also for two changes within a millisecond."""
        if status is not None:
            endpoint.status = status
        endpoint.modified = max(self.now, endpoint.modified + 0.001)

    def resolve_image(self, image: str) -> DeployedImage:
        """The digest a tag stands for now: as set by a test, else one made up from the reference itself."""
        if "@sha256:" in image:
            return DeployedImage(image, image, self.now)
        last = image.rsplit("/", 1)[-1]
        repository = image[: len(image) - len(last)] + last.split(":", 1)[0]
        digest = self.image_digests.get(image) or hashlib.sha256(image.encode()).hexdigest()
        return DeployedImage(image, f"{repository}@sha256:{digest.removeprefix('sha256:')}"[:255], self.now)
