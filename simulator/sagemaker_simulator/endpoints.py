"""CreateEndpoint and DeleteEndpoint, from the request to the end of what they start."""

from __future__ import annotations

from typing import Any

from . import declared, failures, fleets, guardrails
from .activities import Creation, Deletion, Maintenance
from .errors import invalid, limit_exceeded
from .faults import FaultKind
from .names import Kind, already_exists, arn, in_progress, not_found
from .state import Endpoint, Region, World
from .tags import as_map

BUSY = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
_STUCK_SECONDS = 3600.0


def find(world: World, region: Region, name: str, *, reading: bool = False) -> Endpoint:
    """The endpoint of exactly that name; reads may lag behind its creation. Another case is another name here."""
    endpoint = region.endpoints.get(name.lower())
    stale = world.settings.read_after_create_seconds if reading else 0.0
    if endpoint is None or endpoint.name != name or world.now - endpoint.created < stale:
        raise not_found(Kind.ENDPOINT, arn(Kind.ENDPOINT, region.account, region.name, name))
    return endpoint


def create_endpoint(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """CreateEndpoint: a DeploymentConfig is checked and stored, and does not alter the creation."""
    name = request["EndpointName"]
    endpoint_arn = arn(Kind.ENDPOINT, region.account, region.name, name)
    if name.lower() in region.endpoints:
        raise already_exists(Kind.ENDPOINT, endpoint_arn)
    config = declared.use(world, region, Kind.ENDPOINT_CONFIG, request["EndpointConfigName"])
    variants = fleets.launch(world, region, config)
    deployment_config = request.get("DeploymentConfig")
    guardrails.policy(deployment_config, {one.name: one.desired_count for one in variants.values()})
    guardrails.check_variants(deployment_config, fleets.by_name(config), fleets.by_name(config))
    tags = as_map(request.get("Tags", []))
    limit = world.settings.quotas.get("endpoints")
    if limit is not None and len(region.endpoints) >= limit:
        raise limit_exceeded("Number of endpoints", limit, len(region.endpoints), 1, "endpoints")
    fleets.check_quota(world, region, fleets.instances_by_type(variants))
    now = round(world.now, 3)
    endpoint = Endpoint(name, endpoint_arn, region, "Creating", config, created=now, modified=now)
    endpoint.last_deployment_config = deployment_config
    endpoint.activity = Creation(config, variants, now)
    region.endpoints[name.lower()] = endpoint
    region.tags[endpoint_arn] = tags
    world.after(endpoint, world.settings.create_seconds, lambda: _created(world, endpoint))
    return {"EndpointArn": endpoint_arn}


def _created(world: World, endpoint: Endpoint) -> None:
    creation = endpoint.activity
    if not isinstance(creation, Creation):
        raise TypeError(f"{endpoint.name}: a creation ends that is not under way")
    stuck = world.faults.strike(FaultKind.STUCK_CREATING, target=endpoint.name)
    if stuck is not None:
        reason = str(stuck.parameters.get("reason", "Request to service failed."))
        seconds = float(stuck.parameters.get("seconds", _STUCK_SECONDS))
        world.after(endpoint, seconds, lambda: _failed(world, endpoint, reason))
        return
    failure = failures.strike(
        world, endpoint.name, creation.variants, FaultKind.FAILED_CREATION, *failures.FLEET_FAILURES
    )
    if failure is not None:
        _failed(world, endpoint, failure)
        return
    for variant in creation.variants.values():
        variant.current_count = variant.desired_count
    endpoint.variants = creation.variants
    endpoint.activity = None
    world.touch(endpoint, "InService")


def _failed(world: World, endpoint: Endpoint, reason: str) -> None:
    endpoint.activity = None
    endpoint.failure_reason = reason
    world.touch(endpoint, "Failed")


def delete_endpoint(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteEndpoint: refused while anything is under way."""
    endpoint = find(world, region, request["EndpointName"])
    if endpoint.status in BUSY:
        raise in_progress(endpoint.arn)
    begin_deletion(world, endpoint)
    return {}


def begin_deletion(world: World, endpoint: Endpoint) -> None:
    """Deleting, then gone with its tags and scalable targets; models and configs stay."""
    endpoint.activity = Deletion(world.now)
    world.touch(endpoint, "Deleting")
    world.after(endpoint, world.settings.delete_seconds, lambda: remove(endpoint))


def remove(endpoint: Endpoint) -> None:
    """Takes the endpoint away at once."""
    region = endpoint.region
    region.endpoints.pop(endpoint.name.lower(), None)
    region.tags.pop(endpoint.arn, None)
    endpoint.step += 1
    prefix = f"endpoint/{endpoint.name}/variant/"
    for key in [key for key in region.scalable_targets if key[0].startswith(prefix)]:
        del region.scalable_targets[key]


def begin_maintenance(world: World, endpoint: Endpoint, seconds: float | None = None) -> None:
    """SystemUpdating for a while; changes nothing a customer set. Only an endpoint in service is patched."""
    if endpoint.status != "InService":
        raise invalid(f"Endpoint {endpoint.name} is {endpoint.status}: maintenance starts from InService only.")

    def done() -> None:
        endpoint.activity = None
        world.touch(endpoint, "InService")

    endpoint.activity = Maintenance(world.now)
    world.touch(endpoint, "SystemUpdating")
    world.after(endpoint, world.settings.maintenance_seconds if seconds is None else seconds, done)
