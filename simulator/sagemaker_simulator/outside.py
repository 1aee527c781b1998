"""Changes nobody asked the simulator's client for: somebody else at the console, or the service itself."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from . import declared, deployments, endpoints, fleets, updates
from .errors import ServiceError
from .faults import Fault, FaultKind
from .names import Kind
from .service_model import SAGEMAKER, service
from .state import Endpoint, World

log = logging.getLogger(__name__)

STATUSES = tuple(service(SAGEMAKER).shape_for("EndpointStatus").metadata["enum"])
_KEYS = {
    *("endpointConfigName", "weights", "counts", "tags", "status", "failureReason", "maintenanceSeconds", "delete"),
    "overdue",
}


def _force(world: World, endpoint: Endpoint, body: Mapping[str, Any]) -> None:
    """Sets what stands there at once, without the API and its statuses."""
    if "endpointConfigName" in body:
        config = declared.use(world, endpoint.region, Kind.ENDPOINT_CONFIG, body["endpointConfigName"])
        endpoint.variants = fleets.launch(world, endpoint.region, config)
        for variant in endpoint.variants.values():
            variant.current_count = variant.desired_count
        endpoint.config = config
    for name, weight in body.get("weights", {}).items():
        endpoint.variants[name].current_weight = endpoint.variants[name].desired_weight = float(weight)
    for name, number in body.get("counts", {}).items():
        endpoint.variants[name].current_count = endpoint.variants[name].desired_count = int(number)


def _as_somebody_else(world: World, endpoint: Endpoint, body: Mapping[str, Any]) -> None:
    """The same through the API, with Updating in between."""
    if "endpointConfigName" in body:
        updates.update_endpoint(
            world,
            endpoint.region,
            {"EndpointName": endpoint.name, "EndpointConfigName": body["endpointConfigName"]},
        )
        return
    weights, counts = body.get("weights", {}), body.get("counts", {})
    changes = [
        {"VariantName": name}
        | ({"DesiredWeight": weights[name]} if name in weights else {})
        | ({"DesiredInstanceCount": counts[name]} if name in counts else {})
        for name in sorted({*weights, *counts})
    ]
    if changes:
        updates.update_weights_and_capacities(
            world, endpoint.region, {"EndpointName": endpoint.name, "DesiredWeightsAndCapacities": changes}
        )


def change(world: World, endpoint: Endpoint, body: Mapping[str, Any]) -> None:
    """Changes config, weights, counts, tags or status; ``immediate: true`` leaves out the Updating in between.
    ``overdue: true``: the deployment under way reaches its deadline now."""
    unknown = body.keys() - _KEYS - {"immediate"}
    if unknown:
        raise ValueError(f"unknown keys {sorted(unknown)}; known are {sorted(_KEYS)} and immediate")
    if "status" in body and body["status"] not in STATUSES:
        raise ValueError(f"status {body['status']!r} is unknown; known are {', '.join(STATUSES)}")
    if body.get("delete", False):
        endpoints.begin_deletion(world, endpoint)
        return
    if body.get("overdue", False):
        deployments.overdue(world, endpoint)
        return
    if body.get("immediate", False):
        _force(world, endpoint, body)
        world.touch(endpoint)
    else:
        _as_somebody_else(world, endpoint, body)
    if "tags" in body:
        endpoint.region.tags[endpoint.arn] = dict(body["tags"])
    if "maintenanceSeconds" in body:
        endpoints.begin_maintenance(world, endpoint, float(body["maintenanceSeconds"]))
    if "status" in body:
        endpoint.activity = None
        endpoint.step += 1
        endpoint.failure_reason = body.get("failureReason")
        world.touch(endpoint, body["status"])


def schedule(world: World, fault: Fault) -> None:
    """Maintenance or a change from outside, ``after`` seconds from now, on every endpoint the pattern matches then."""
    parameters = dict(fault.parameters)
    after = float(parameters.pop("after", 0.0))
    if fault.kind is FaultKind.MAINTENANCE:
        body = {"maintenanceSeconds": parameters.get("seconds", world.settings.maintenance_seconds)}
    else:
        body = parameters

    def strike() -> None:
        for region in world.regions.values():
            for endpoint in list(region.endpoints.values()):
                if endpoint.status == "InService" and fnmatchcase(endpoint.name, fault.target):
                    try:
                        change(world, endpoint, body)
                    except ServiceError as error:
                        log.warning("%s of %s is refused: %s", fault.kind, endpoint.name, error.message)

    if after > 0:
        world.timeline.plan(world.now + after, strike)
    else:
        strike()
