"""CreateModel, DescribeModel, DeleteModel: what a Model must say beyond the shapes of the service model."""

from __future__ import annotations

from typing import Any

from . import declared
from .errors import invalid
from .names import Kind
from .state import Region, World

ENVIRONMENT_BYTES = 32 * 1024


def _check_container(container: dict[str, Any], what: str) -> None:
    declared.require_one(container, "Image", "ModelPackageName", what=what)
    if "ModelDataUrl" in container and "ModelDataSource" in container:
        raise invalid(f"{what} must not have both ModelDataUrl and ModelDataSource.")
    source = container.get("ModelDataSource", {}).get("S3DataSource", {})
    if source.get("S3DataType") == "S3Prefix" and not source["S3Uri"].endswith("/"):
        raise invalid(f"{what}: S3Uri '{source['S3Uri']}' must end with a slash when S3DataType is S3Prefix.")
    if container.get("Mode") == "MultiModel" and "ModelDataUrl" not in container and not source:
        raise invalid(f"{what}: Mode MultiModel needs ModelDataUrl or ModelDataSource.")


def _check_containers(containers: list[dict[str, Any]], mode: str) -> None:
    hostnames = [one["ContainerHostname"] for one in containers if "ContainerHostname" in one]
    if len(set(hostnames)) != len(hostnames):
        raise invalid(f"ContainerHostname must be unique within a model; found [{', '.join(hostnames)}].")
    if (mode == "Direct" or hostnames) and len(hostnames) != len(containers):
        raise invalid("ContainerHostname must be set on every container, or with mode Serial on none.")
    if sum(one.get("Mode") == "MultiModel" for one in containers) > 1:
        raise invalid("Only one container of a model may have Mode MultiModel.")


def create_model(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """CreateModel."""
    declared.require_one(request, "PrimaryContainer", "Containers", what="The model")
    containers = request.get("Containers", [request.get("PrimaryContainer")])
    if not containers:
        raise invalid("Containers must have at least one container.")
    for index, container in enumerate(containers, 1):
        what = f"Container {index}" if "Containers" in request else "PrimaryContainer"
        _check_container(container, what)
    _check_containers(containers, request.get("InferenceExecutionConfig", {}).get("Mode", "Serial"))
    environment = sum(
        len(key.encode()) + len(value.encode())
        for container in containers
        for key, value in container.get("Environment", {}).items()
    )
    if environment > ENVIRONMENT_BYTES:
        raise invalid(
            f"The environment variables of all containers together have {environment} bytes; "
            f"at most {ENVIRONMENT_BYTES} are allowed."
        )
    return {"ModelArn": declared.create(world, region, Kind.MODEL, request["ModelName"], request).arn}


def _shown(container: dict[str, Any]) -> dict[str, Any]:
    return {"Mode": "SingleModel", **container}


def describe_model(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """DescribeModel: the request's fields, and the service's defaults for Mode and EnableNetworkIsolation."""
    record = declared.read(world, region, Kind.MODEL, request["ModelName"])
    shown = {"EnableNetworkIsolation": False, **record.fields, "ModelArn": record.arn, "CreationTime": record.created}
    if "PrimaryContainer" in shown:
        shown["PrimaryContainer"] = _shown(shown["PrimaryContainer"])
    if "Containers" in shown:
        shown["Containers"] = [_shown(one) for one in shown["Containers"]]
    return shown


def delete_model(_world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteModel: also while in use."""
    declared.delete(region, Kind.MODEL, request["ModelName"])
    return {}
