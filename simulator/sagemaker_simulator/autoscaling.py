"""Scalable targets of Application Auto Scaling, as far as SageMaker's own rules depend on them. Nothing is scaled."""

from __future__ import annotations

import re
from typing import Any

from .errors import ServiceError, invalid
from .state import Region, World

_RESOURCE = re.compile(r"endpoint/(?P<endpoint>[^/]+)/variant/(?P<variant>[^/]+)")
_SERVICE_ROLE = (
    "aws-service-role/sagemaker.application-autoscaling.amazonaws.com/"
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
)


def _arn(region: Region, number: int) -> str:
    return f"arn:aws:application-autoscaling:{region.name}:{region.account}:scalable-target/0ec5{number:028x}"


def register_scalable_target(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """RegisterScalableTarget: the variant must exist; minimum and maximum are required the first time."""
    resource, dimension = request["ResourceId"], request["ScalableDimension"]
    found = _RESOURCE.fullmatch(resource)
    if request["ServiceNamespace"] != "sagemaker" or found is None:
        raise invalid(f"ResourceId {resource} of namespace {request['ServiceNamespace']} is not simulated.")
    endpoint = region.endpoints.get(found["endpoint"].lower())
    if endpoint is None or endpoint.name != found["endpoint"] or found["variant"] not in endpoint.variants:
        raise invalid(f"The variant of ResourceId {resource} does not exist.")
    current = region.scalable_targets.get((resource, dimension), {})
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource,
        "ScalableDimension": dimension,
        "RoleARN": f"arn:aws:iam::{region.account}:role/{_SERVICE_ROLE}",
        "CreationTime": round(world.now, 3),
        "SuspendedState": {
            "DynamicScalingInSuspended": False,
            "DynamicScalingOutSuspended": False,
            "ScheduledScalingSuspended": False,
        },
        "ScalableTargetARN": _arn(region, len(region.scalable_targets) + 1),
        **current,
    }
    for field in ("MinCapacity", "MaxCapacity"):
        if field in request:
            target[field] = request[field]
        elif field not in target:
            raise invalid(f"{field} is required when a scalable target is registered for the first time.")
    if target["MinCapacity"] > target["MaxCapacity"]:
        raise invalid("Maximum capacity cannot be less than minimum capacity.")
    target["SuspendedState"] = {**target["SuspendedState"], **request.get("SuspendedState", {})}
    region.scalable_targets[resource, dimension] = target
    return {"ScalableTargetARN": target["ScalableTargetARN"]}


def describe_scalable_targets(_world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """DescribeScalableTargets, by resource ids and dimension; everything fits one page."""
    ids = request.get("ResourceIds")
    dimension = request.get("ScalableDimension")
    found = [
        target
        for (resource, its_dimension), target in sorted(region.scalable_targets.items())
        if request["ServiceNamespace"] == target["ServiceNamespace"]
        and (not ids or resource in ids)
        and dimension in (None, its_dimension)
    ]
    return {"ScalableTargets": found}


def deregister_scalable_target(_world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """DeregisterScalableTarget."""
    key = (request["ResourceId"], request["ScalableDimension"])
    if key not in region.scalable_targets:
        raise ServiceError("ObjectNotFoundException", f"No scalable target found for {key[0]} and {key[1]}.")
    del region.scalable_targets[key]
    return {}
