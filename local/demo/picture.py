"""What a person is shown of an Endpoint at one moment: its status in the words of the resource, nothing invented."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

STAGES = ("Provisioning", "Shifting", "Baking", "FinalBaking", "CleaningUp")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition."""

    status: str = "Unknown"
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment that runs."""

    revision: str
    policy: str
    stage: str
    step: str
    traffic_percent: float
    bake_until: datetime | None
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """A production variant in service."""

    name: str
    weight: float | None
    instances: int | None


@dataclass(frozen=True, slots=True)
class Picture:
    """An Endpoint as its object says it is."""

    exists: bool = False
    uid: str = ""
    deleting: bool = False
    generation: int = 0
    observed_generation: int = 0
    endpoint_status: str = ""
    failure_reason: str = ""
    config: str = ""
    revision: str = ""
    desired_revision: str = ""
    images: tuple[str, ...] = ()
    """The images that serve, as specified, without their registry."""
    variants: tuple[Variant, ...] = ()
    address: str = ""
    """Where to invoke it (backend Cluster)."""
    deployment: Deployment | None = None
    outcome: str = ""
    cause: str = ""
    alarms: tuple[tuple[str, str], ...] = ()
    ready: Condition = Condition()
    reconciling: Condition = Condition()
    stalled: Condition = Condition()
    serving: Condition = Condition()

    @property
    def is_ready(self) -> bool:
        """Whether the revision asked for is in service, judged for the spec as it is now."""
        return self.ready.status == "True" and self.observed_generation == self.generation

    def words(self) -> str:
        """One line that says it all: for a screen without a table, and for errors."""
        if not self.exists:
            return "no Endpoint"
        said = [self.endpoint_status or "-", f"Ready={self.ready.status} {self.ready.reason}".strip()]
        if self.revision:
            said.append(f"serves {self.revision} ({', '.join(self.images) or 'image unknown'})")
        if len(self.variants) > 1:
            said.append(", ".join(f"{one.name} {one.weight:g}" for one in self.variants if one.weight is not None))
        if (going := self.deployment) is not None:
            said.append(
                f"{going.policy} to {going.revision}: {going.stage} {going.step}, {going.traffic_percent:g} % new"
            )
        if self.stalled.status == "True":
            said.append(f"Stalled {self.stalled.reason}")
        said.extend(f"{name} {state}" for name, state in self.alarms)
        return " | ".join(said)


def picture(endpoint: Mapping[str, Any] | None) -> Picture:
    """The picture of an Endpoint object; None: there is none."""
    if endpoint is None:
        return Picture()
    metadata, status = endpoint["metadata"], endpoint.get("status") or {}
    conditions = {
        one["type"]: Condition(one["status"], one.get("reason", ""), one.get("message", ""))
        for one in status.get("conditions") or ()
    }
    last = status.get("lastDeployment") or {}
    return Picture(
        exists=True,
        uid=metadata["uid"],
        deleting="deletionTimestamp" in metadata,
        generation=metadata["generation"],
        observed_generation=status.get("observedGeneration", 0),
        endpoint_status=status.get("endpointStatus", ""),
        failure_reason=status.get("failureReason", ""),
        config=endpoint["spec"]["endpointConfigName"],
        revision=(status.get("revision") or {}).get("name", ""),
        desired_revision=(status.get("desiredRevision") or {}).get("name", ""),
        images=_images(status.get("productionVariants") or ()),
        variants=tuple(
            Variant(one["variantName"], one.get("currentWeight"), one.get("currentInstanceCount"))
            for one in status.get("productionVariants") or ()
        ),
        address=status.get("address", ""),
        deployment=_deployment(status.get("deployment")),
        outcome=last.get("outcome", ""),
        cause=last.get("cause", ""),
        alarms=tuple((one["alarmName"], one["state"]) for one in status.get("alarms") or ()),
        ready=conditions.get("Ready", Condition()),
        reconciling=conditions.get("Reconciling", Condition()),
        stalled=conditions.get("Stalled", Condition()),
        serving=conditions.get("Serving", Condition()),
    )


def _images(variants: Any) -> tuple[str, ...]:
    found = (image.get("specifiedImage") for variant in variants for image in variant.get("deployedImages") or ())
    return tuple(dict.fromkeys(short(image) for image in found if image))


def short(image: str) -> str:
    """An image without its registry: what a person reads."""
    return image.rpartition("/")[2]


def _deployment(status: Mapping[str, Any] | None) -> Deployment | None:
    if not status:
        return None
    until = status.get("bakeUntil")
    return Deployment(
        revision=status["revision"],
        policy=status["policy"],
        stage=status["stage"],
        step=status.get("stepText", ""),
        traffic_percent=float(status.get("trafficPercent") or 0),
        bake_until=datetime.fromisoformat(until) if until else None,
        images=_images(status.get("pendingVariants") or ()),
    )
