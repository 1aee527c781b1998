"""The reasons a new fleet does not come up, with the FailureReason texts users report from the real service."""

from __future__ import annotations

from collections.abc import Mapping

from .faults import Fault, FaultKind
from .state import Variant, World

FLEET_FAILURES = (
    FaultKind.CAPACITY_FAILURE,
    FaultKind.HEALTH_FAILURE,
    FaultKind.DOWNLOAD_FAILURE,
    FaultKind.ZONE_FAILURE,
    FaultKind.INTERNAL_FAILURE,
)


def _reason(fault: Fault, variant: Variant) -> str:
    instance_type = variant.spec.get("InstanceType", "serverless")
    url = fault.parameters.get("url", "s3://models/model.tar.gz")
    match fault.kind:
        case FaultKind.CAPACITY_FAILURE:
            return (
                f"Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. "
                f"Please retry using a different ML instance type or after some time. ({instance_type})"
            )
        case FaultKind.DOWNLOAD_FAILURE:
            return (
                f'Failed to download model data for container "container_1" from URL: "{url}". Please ensure that '
                "there is an object located at the URL and that the role passed to CreateModel has permissions to "
                "download the object."
            )
        case FaultKind.ZONE_FAILURE:
            return (
                f"Unable to locate at least 2 availability zone(s) with the requested instance type {instance_type} "
                "that overlap with SageMaker subnets"
            )
        case FaultKind.INTERNAL_FAILURE:
            return "Request to service failed. If failure persists after retry, contact customer support."
        case _:
            return (
                f"The primary container for production variant {variant.name} did not pass the ping health check. "
                "Please check CloudWatch logs for this endpoint."
            )


def strike(world: World, endpoint: str, fleet: Mapping[str, Variant], *kinds: FaultKind) -> str | None:
    """The FailureReason if one of these faults strikes the fleet now, else None. A fault may bring its own text."""
    fault = world.faults.strike(*kinds, target=endpoint)
    if fault is None:
        return None
    named = fault.parameters.get("variant")
    variant = fleet.get(named) if named else None
    return str(fault.parameters.get("reason", _reason(fault, variant or next(iter(fleet.values())))))
