"""DescribeEndpoint: what can be seen of an endpoint while nothing, or something, is being done to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .activities import CapacityChange, Creation, Deployment
from .endpoints import find
from .stages import Capacity, Side, Stage
from .state import DeployedImage, Endpoint, Region, Variant, World

_ECHOED_SETTINGS = (
    "AsyncInferenceConfig",
    "ExplainerConfig",
    "MetricsConfig",
    "CrossRegionTrafficConfig",
)
_ECHOED_OF_VARIANT = ("ManagedInstanceScaling", "RoutingConfig", "AcceleratorPartitionLayouts")


def _images(images: Iterable[DeployedImage]) -> list[dict[str, Any]]:
    return [
        {
            "SpecifiedImage": image.specified,
            "ResolvedImage": image.resolved,
            "ResolutionTime": round(image.resolved_at, 3),
        }
        for image in images
    ]


def _status(status: str, message: str, since: float) -> list[dict[str, Any]]:
    return [{"Status": status, "StatusMessage": message, "StartTime": round(since, 3)}]


def _variant(variant: Variant, current_count: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "VariantName": variant.name,
        "CurrentWeight": variant.current_weight,
        "DesiredWeight": variant.desired_weight,
    }
    if variant.images:
        shown["DeployedImages"] = _images(variant.images)
    if variant.serverless:
        shown["CurrentServerlessConfig"] = shown["DesiredServerlessConfig"] = variant.spec["ServerlessConfig"]
    else:
        shown |= {"CurrentInstanceCount": current_count, "DesiredInstanceCount": variant.desired_count}
    return shown | {field: variant.spec[field] for field in _ECHOED_OF_VARIANT if field in variant.spec}


def _stage_status(stage: Stage, side: Side, name: str, since: float) -> dict[str, Any]:
    if stage.side is not side or name not in stage.amounts:
        return {}
    return {"VariantStatus": _status(stage.kind, stage.message(name), since)}


def _serving(endpoint: Endpoint, variant: Variant) -> dict[str, Any]:
    activity = endpoint.activity
    if isinstance(activity, Deployment):
        capacity = activity.stage.old.get(variant.name, Capacity(0, 0))
        return _variant(variant, capacity.up) | _stage_status(activity.stage, Side.OLD, variant.name, activity.entered)
    shown = _variant(variant, variant.current_count)
    if isinstance(activity, CapacityChange) and variant.desired_count != variant.current_count:
        way = "out" if variant.desired_count > variant.current_count else "in"
        message = f"Scaling {way} desired instance count to {variant.desired_count}."
        shown["VariantStatus"] = _status("Updating", message, activity.started)
    return shown


def _of_pending(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"InstanceType": spec["InstanceType"]} if "InstanceType" in spec else {}


def _pending(endpoint: Endpoint) -> dict[str, Any] | None:
    activity = endpoint.activity
    if isinstance(activity, Creation):
        rows = [
            (
                variant,
                _variant(variant, 0)
                | _of_pending(variant.spec)
                | {
                    "VariantStatus": _status(
                        "Creating", f"Launching {variant.desired_count} instance(s).", activity.started
                    )
                },
            )
            for variant in activity.variants.values()
        ]
    elif isinstance(activity, Deployment):
        rows = [
            (
                variant,
                _variant(variant, activity.stage.new[name].active)
                | _of_pending(variant.spec)
                | _stage_status(activity.stage, Side.NEW, name, activity.entered),
            )
            for name, variant in activity.variants.items()
        ]
    else:
        return None
    shown: dict[str, Any] = {
        "EndpointConfigName": activity.config.name,
        "StartTime": round(activity.started, 3),
        "ProductionVariants": [row for variant, row in rows if not variant.shadow],
    }
    shadows = [row for variant, row in rows if variant.shadow]
    return shown | ({"ShadowProductionVariants": shadows} if shadows else {})


def _data_capture(config: Mapping[str, Any]) -> dict[str, Any]:
    enabled = config.get("EnableCapture", True)
    return {
        "EnableCapture": enabled,
        "CaptureStatus": "Started" if enabled else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }


def describe_endpoint(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """DescribeEndpoint. During an update the top level keeps the old config and its variants."""
    endpoint = find(world, region, request["EndpointName"], reading=True)
    config = endpoint.config.fields
    shown: dict[str, Any] = {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": endpoint.config.name,
        "EndpointStatus": endpoint.status,
        "CreationTime": endpoint.created,
        "LastModifiedTime": round(endpoint.modified, 3),
    }
    if endpoint.failure_reason is not None:
        shown["FailureReason"] = endpoint.failure_reason[:1024]
    for field, shadow in (("ProductionVariants", False), ("ShadowProductionVariants", True)):
        rows = [_serving(endpoint, variant) for variant in endpoint.variants.values() if variant.shadow is shadow]
        if rows:
            shown[field] = rows
    if endpoint.last_deployment_config is not None:
        shown["LastDeploymentConfig"] = endpoint.last_deployment_config
    if "DataCaptureConfig" in config:
        shown["DataCaptureConfig"] = _data_capture(config["DataCaptureConfig"])
    shown |= {field: config[field] for field in _ECHOED_SETTINGS if field in config}
    pending = _pending(endpoint)
    return shown if pending is None else shown | {"PendingDeploymentSummary": pending}
