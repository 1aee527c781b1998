"""UpdateEndpoint and UpdateEndpointWeightsAndCapacities: what they refuse, and what they start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import declared, deployments, failures, fleets, guardrails
from .activities import CapacityChange
from .endpoints import BUSY, find
from .errors import invalid
from .faults import FaultKind
from .names import Kind, in_progress
from .rolling import Rolling
from .state import Endpoint, Region, Variant, World

UPDATABLE = frozenset({"InService", "UpdateRollbackFailed"})
INSTANCE_DIMENSION = "sagemaker:variant:DesiredInstanceCount"


def _refuse_unless(endpoint: Endpoint, statuses: frozenset[str]) -> None:
    if endpoint.status in BUSY:
        raise in_progress(endpoint.arn)
    if endpoint.status not in statuses:
        raise invalid(
            f'Cannot update endpoint "{endpoint.arn}": its status is {endpoint.status}, '
            f"it must be {' or '.join(sorted(statuses))}."
        )


def _retain(endpoint: Endpoint, fleet: Mapping[str, Variant], request: Mapping[str, Any]) -> None:
    excluded = request.get("ExcludeRetainedVariantProperties", [])
    if excluded and not request.get("RetainAllVariantProperties", False):
        raise invalid("ExcludeRetainedVariantProperties requires RetainAllVariantProperties to be true.")
    if not request.get("RetainAllVariantProperties", False):
        return
    kinds = {item["VariantPropertyType"] for item in excluded}
    for name, variant in fleet.items():
        live = endpoint.variants.get(name)
        if live is None:
            continue
        if "DesiredInstanceCount" not in kinds and not live.serverless and not variant.serverless:
            variant.desired_count = live.desired_count
        if "DesiredWeight" not in kinds:
            variant.desired_weight = live.desired_weight
            variant.current_weight = live.desired_weight


def _check_scalable_targets(endpoint: Endpoint, fleet: Mapping[str, Variant]) -> None:
    for name, live in endpoint.variants.items():
        resource = f"endpoint/{endpoint.name}/variant/{name}"
        if (resource, INSTANCE_DIMENSION) not in endpoint.region.scalable_targets:
            continue
        if name not in fleet:
            raise invalid(
                f"Cannot remove variant {name}: it is registered as a scalable target. Deregister {resource} first."
            )
        before, after = live.spec.get("InstanceType"), fleet[name].spec.get("InstanceType")
        if before != after:
            raise invalid(
                f"Cannot change the instance type of variant {name} from {before} to {after}: it is registered as a "
                f"scalable target. Deregister {resource} first."
            )


def _check_serverless(endpoint: Endpoint, fleet: Mapping[str, Variant]) -> None:
    instances = any(not variant.serverless for variant in endpoint.variants.values())
    if instances and any(variant.serverless for variant in fleet.values()):
        raise invalid("Cannot update an instance-based endpoint to a serverless endpoint.")


def update_endpoint(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """UpdateEndpoint. The old EndpointConfig must still exist, or the update is refused."""
    endpoint = find(world, region, request["EndpointName"])
    _refuse_unless(endpoint, UPDATABLE)
    if endpoint.config.name not in region.configs:
        declared.use(world, region, Kind.ENDPOINT_CONFIG, endpoint.config.name)
    config = declared.use(world, region, Kind.ENDPOINT_CONFIG, request["EndpointConfigName"])
    fleet = fleets.launch(world, region, config)
    _retain(endpoint, fleet, request)
    deployment_config = request.get("DeploymentConfig")
    if request.get("RetainDeploymentConfig", False):
        if deployment_config is not None:
            raise invalid("DeploymentConfig must not be given when RetainDeploymentConfig is true.")
        deployment_config = endpoint.last_deployment_config
    policy = guardrails.policy(
        deployment_config, {one.name: one.desired_count for one in fleet.values() if not one.serverless}
    )
    _check_serverless(endpoint, fleet)
    _check_scalable_targets(endpoint, fleet)
    guardrails.check_variants(deployment_config, fleets.by_name(endpoint.config), fleets.by_name(config))
    needed = fleets.instances_by_type(fleet)
    if isinstance(policy, Rolling):
        needed = {kind: policy.batch.instances(count) for kind, count in needed.items()}
    fleets.check_quota(world, region, needed)
    endpoint.last_deployment_config = deployment_config
    deployments.begin(world, endpoint, config, fleet, policy, deployment_config)
    return {"EndpointArn": endpoint.arn}


def _check_changes(world: World, endpoint: Endpoint, changes: list[dict[str, Any]]) -> None:
    names = [change["VariantName"] for change in changes]
    for name in names:
        if name not in endpoint.variants:
            raise invalid(f'Could not find variant "{name}" of endpoint "{endpoint.arn}".')
        if names.count(name) > 1:
            raise invalid(f"VariantName must be unique in DesiredWeightsAndCapacities: '{name}' is given twice.")
    counted = [change for change in changes if "DesiredInstanceCount" in change]
    if len(counted) > 1 and world.settings.one_capacity_per_call:
        raise invalid("Cannot change the capacity of more than one variant in one call.")
    for change in changes:
        if "ServerlessUpdateConfig" in change and not endpoint.variants[change["VariantName"]].serverless:
            raise invalid(
                f"Variant {change['VariantName']} is not serverless: ServerlessUpdateConfig is not supported."
            )
    for change in counted:
        variant = endpoint.variants[change["VariantName"]]
        if variant.serverless:
            raise invalid(f"Variant {variant.name} is serverless: DesiredInstanceCount is not supported.")
        may_be_zero = "AsyncInferenceConfig" in endpoint.config.fields or "ModelName" not in variant.spec
        if change["DesiredInstanceCount"] == 0 and not may_be_zero:
            raise invalid(f"Variant {variant.name}: DesiredInstanceCount must be at least 1 for real-time endpoints.")


def update_weights_and_capacities(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """UpdateEndpointWeightsAndCapacities: a variant that is not named, and a property not given, stay as they are."""
    endpoint = find(world, region, request["EndpointName"])
    _refuse_unless(endpoint, frozenset({"InService"}))
    changes = request["DesiredWeightsAndCapacities"]
    _check_changes(world, endpoint, changes)
    more: dict[str, int] = {}
    for change in changes:
        variant = endpoint.variants[change["VariantName"]]
        delta = change.get("DesiredInstanceCount", variant.desired_count) - variant.desired_count
        if delta > 0 and "InstanceType" in variant.spec:
            more[variant.spec["InstanceType"]] = more.get(variant.spec["InstanceType"], 0) + delta
    fleets.check_quota(world, region, more)
    endpoint.activity = CapacityChange(
        {name: (one.desired_weight, one.desired_count) for name, one in endpoint.variants.items()}, world.now
    )
    endpoint.failure_reason = None
    for change in changes:
        variant = endpoint.variants[change["VariantName"]]
        variant.desired_weight = float(change.get("DesiredWeight", variant.desired_weight))
        variant.desired_count = change.get("DesiredInstanceCount", variant.desired_count)
        if "ServerlessUpdateConfig" in change:
            serverless = {**variant.spec["ServerlessConfig"], **change["ServerlessUpdateConfig"]}
            variant.spec = {**variant.spec, "ServerlessConfig": serverless}
    world.touch(endpoint, "Updating")
    counts = any(one.desired_count != one.current_count for one in endpoint.variants.values())
    seconds = world.settings.scale_seconds if counts else world.settings.weight_seconds
    world.after(endpoint, seconds, lambda: _change_over(world, endpoint, scaled=counts))
    return {"EndpointArn": endpoint.arn}


def _change_over(world: World, endpoint: Endpoint, *, scaled: bool) -> None:
    change = endpoint.activity
    if not isinstance(change, CapacityChange):
        raise TypeError(f"{endpoint.name}: a capacity change ends that is not under way")
    kinds = (
        (FaultKind.WEIGHT_UPDATE_FAILURE, FaultKind.CAPACITY_FAILURE) if scaled else (FaultKind.WEIGHT_UPDATE_FAILURE,)
    )
    failure = failures.strike(world, endpoint.name, endpoint.variants, *kinds)
    if failure is not None:
        for name, (weight, count) in change.before.items():
            endpoint.variants[name].desired_weight = weight
            endpoint.variants[name].desired_count = count
        endpoint.failure_reason = failure
        world.touch(endpoint, "RollingBack")
        world.after(endpoint, world.settings.weight_seconds, lambda: _settled(world, endpoint))
        return
    _settled(world, endpoint)


def _settled(world: World, endpoint: Endpoint) -> None:
    for variant in endpoint.variants.values():
        variant.current_weight = variant.desired_weight
        variant.current_count = variant.desired_count
    endpoint.activity = None
    world.touch(endpoint, "InService")
