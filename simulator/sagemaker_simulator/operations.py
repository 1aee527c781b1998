"""Which function answers which operation of the sagemaker API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import autoscaling, describe, endpoint_configs, endpoints, listing, models, service_model, tags, updates
from .errors import ServiceError
from .state import Region, World

Handler = Callable[[World, Region, dict[str, Any]], dict[str, Any]]

SAGEMAKER: dict[str, Handler] = {
    "CreateModel": models.create_model,
    "DescribeModel": models.describe_model,
    "DeleteModel": models.delete_model,
    "ListModels": listing.list_models,
    "CreateEndpointConfig": endpoint_configs.create_endpoint_config,
    "DescribeEndpointConfig": endpoint_configs.describe_endpoint_config,
    "DeleteEndpointConfig": endpoint_configs.delete_endpoint_config,
    "ListEndpointConfigs": listing.list_endpoint_configs,
    "CreateEndpoint": endpoints.create_endpoint,
    "DescribeEndpoint": describe.describe_endpoint,
    "DeleteEndpoint": endpoints.delete_endpoint,
    "ListEndpoints": listing.list_endpoints,
    "UpdateEndpoint": updates.update_endpoint,
    "UpdateEndpointWeightsAndCapacities": updates.update_weights_and_capacities,
    "AddTags": tags.add_tags,
    "ListTags": tags.list_tags,
    "DeleteTags": tags.delete_tags,
}

AUTOSCALING: dict[str, Handler] = {
    "RegisterScalableTarget": autoscaling.register_scalable_target,
    "DescribeScalableTargets": autoscaling.describe_scalable_targets,
    "DeregisterScalableTarget": autoscaling.deregister_scalable_target,
}

_BY_SERVICE = {service_model.SAGEMAKER: SAGEMAKER, service_model.AUTOSCALING: AUTOSCALING}


def known(service: str, operation: str) -> bool:
    """Whether the simulator answers that operation."""
    return operation in _BY_SERVICE[service]


def handler(service: str, operation: str) -> Handler:
    """The function that answers an operation; refuses one that is not simulated."""
    if not known(service, operation):
        raise ServiceError("UnknownOperationException", f"{service}.{operation} is not simulated.")
    return _BY_SERVICE[service][operation]


def target_name(request: dict[str, Any]) -> str:
    """The name of the object a request is about, for faults and the request log."""
    for field in ("EndpointName", "EndpointConfigName", "ModelName"):
        if isinstance(request.get(field), str):
            return str(request[field])
    resource = request.get("ResourceArn", request.get("ResourceId", ""))
    return resource.rsplit("/", 1)[-1] if isinstance(resource, str) else ""
