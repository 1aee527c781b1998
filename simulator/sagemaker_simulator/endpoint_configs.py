"""CreateEndpointConfig, DescribeEndpointConfig, DeleteEndpointConfig: what a config must say beyond its shapes."""

from __future__ import annotations

from typing import Any

from . import declared
from .errors import invalid
from .names import Kind
from .state import Region, World

_SERVERLESS_MEMORY_STEP = 1024


def _check_serverless(variant: dict[str, Any], config: dict[str, Any], variants: int) -> None:
    name, serverless = variant["VariantName"], variant["ServerlessConfig"]
    if serverless["MemorySizeInMB"] % _SERVERLESS_MEMORY_STEP:
        raise invalid(
            f"Variant {name}: MemorySizeInMB {serverless['MemorySizeInMB']} must be a multiple of "
            f"{_SERVERLESS_MEMORY_STEP}."
        )
    if serverless.get("ProvisionedConcurrency", 0) > serverless["MaxConcurrency"]:
        raise invalid(f"Variant {name}: ProvisionedConcurrency must not exceed MaxConcurrency.")
    for field in ("InitialInstanceCount", "VolumeSizeInGB"):
        if field in variant:
            raise invalid(f"Variant {name}: {field} is not supported for serverless variants.")
    for field in ("DataCaptureConfig", "AsyncInferenceConfig", "CrossRegionTrafficConfig"):
        if field in config:
            raise invalid(f"{field} is not supported for serverless variants.")
    if variants > 1:
        raise invalid("Serverless endpoints support a single production variant.")


def _check_variant(variant: dict[str, Any], config: dict[str, Any], variants: int) -> None:
    name = variant["VariantName"]
    declared.require_one(variant, "InstanceType", "ServerlessConfig", "InstancePools", what=f"Variant {name}")
    if "AcceleratorType" in variant:
        raise invalid(f"Variant {name}: AcceleratorType is no longer supported.")
    if "ServerlessConfig" in variant:
        _check_serverless(variant, config, variants)
    elif "InitialInstanceCount" not in variant:
        raise invalid(f"Variant {name}: InitialInstanceCount is required for instance-based variants.")
    if "ModelName" not in variant and "ExecutionRoleArn" not in config:
        raise invalid(f"Variant {name} has no ModelName: ExecutionRoleArn is required in the endpoint configuration.")
    routing = variant.get("RoutingConfig", {})
    prefix = routing.get("PrefixAwareRoutingConfig", {})
    if routing.get("RoutingStrategy") == "PREFIX_AWARE" and {"PrefixLength", "ConcurrencyThreshold"} - prefix.keys():
        raise invalid(f"Variant {name}: PREFIX_AWARE routing needs PrefixLength and ConcurrencyThreshold.")
    scaling = variant.get("ManagedInstanceScaling", {})
    if scaling.get("MinInstanceCount", 0) > scaling.get("MaxInstanceCount", float("inf")):
        raise invalid(f"Variant {name}: MinInstanceCount must not exceed MaxInstanceCount.")


def create_endpoint_config(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """CreateEndpointConfig. Models must exist; a Model created a moment ago may not be found yet."""
    production, shadow = request["ProductionVariants"], request.get("ShadowProductionVariants", [])
    if shadow and (len(shadow), len(production)) != (1, 1):
        raise invalid(
            "A shadow variant needs exactly one ShadowProductionVariant and one ProductionVariant; "
            f"found {len(shadow)} and {len(production)}."
        )
    names = [variant["VariantName"] for variant in (*production, *shadow)]
    for name in names:
        if names.count(name) > 1:
            raise invalid(f"VariantName must be unique within an endpoint configuration: '{name}' is given twice.")
    for variant in (*production, *shadow):
        _check_variant(variant, request, len(production))
    for variant in (*production, *shadow):
        if "ModelName" in variant:
            declared.use(world, region, Kind.MODEL, variant["ModelName"])
    record = declared.create(world, region, Kind.ENDPOINT_CONFIG, request["EndpointConfigName"], request)
    return {"EndpointConfigArn": record.arn}


def _shown(variant: dict[str, Any]) -> dict[str, Any]:
    return {"InitialVariantWeight": 1.0, **variant}


def describe_endpoint_config(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """DescribeEndpointConfig: the request's fields, and the service's defaults for weights and network isolation."""
    record = declared.read(world, region, Kind.ENDPOINT_CONFIG, request["EndpointConfigName"])
    shown = {"EnableNetworkIsolation": False, **record.fields}
    for field in ("ProductionVariants", "ShadowProductionVariants"):
        if field in shown:
            shown[field] = [_shown(variant) for variant in shown[field]]
    return {**shown, "EndpointConfigArn": record.arn, "CreationTime": record.created}


def delete_endpoint_config(_world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteEndpointConfig: also while an endpoint uses it, which then cannot be updated any more."""
    declared.delete(region, Kind.ENDPOINT_CONFIG, request["EndpointConfigName"])
    return {}
