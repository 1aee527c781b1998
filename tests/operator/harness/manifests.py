"""The manifests that most scenarios start from: one Model, one EndpointConfig with variants, one Endpoint."""

from typing import Any

from sluice.api.names import API_VERSION

Manifest = dict[str, Any]

ROLE = "arn:aws:iam::111122223333:role/churn"
NAME = "churn"


def manifest(kind: str, name: str, spec: Manifest, annotations: dict[str, str] | None = None) -> Manifest:
    """An object of that kind."""
    metadata: Manifest = {"name": name} | ({"annotations": annotations} if annotations else {})
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def model(image: str = "registry.example/churn:1", name: str = NAME, **spec: Any) -> Manifest:
    """A Model with one container."""
    return manifest("Model", name, {"primaryContainer": {"image": image}, "executionRoleArn": ROLE, **spec})


def variant(name: str = "a", *, model: str = NAME, count: int = 1, weight: float = 1, **fields: Any) -> Manifest:
    """A production variant on instances."""
    return {
        "variantName": name,
        "modelName": model,
        "instanceType": "ml.m5.large",
        "initialInstanceCount": count,
        "initialVariantWeight": weight,
        **fields,
    }


def config(*variants: Manifest, name: str = NAME, **spec: Any) -> Manifest:
    """An EndpointConfig; one variant on one instance unless some are given."""
    return manifest("EndpointConfig", name, {"productionVariants": list(variants) or [variant()], **spec})


def endpoint(
    deployment: Manifest | None = None,
    *,
    name: str = NAME,
    alarms: tuple[str, ...] = (),
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Manifest:
    """An Endpoint on SageMaker, under a DeploymentConfig if one is given."""
    wanted: Manifest = {"backend": "SageMaker", "endpointConfigName": NAME, **spec}
    if deployment is not None:
        watched = {"autoRollbackConfiguration": {"alarms": [{"alarmName": alarm} for alarm in alarms]}}
        wanted["deploymentConfig"] = {**deployment, **(watched if alarms else {})}
    return manifest("Endpoint", name, wanted, annotations)


def all_at_once(final_wait: int = 20) -> Manifest:
    """Blue/green, all traffic in one step."""
    return _blue_green({"type": "ALL_AT_ONCE", "waitIntervalInSeconds": 0}, final_wait)


def canary(percent: int = 25, wait: int = 20, final_wait: int = 10) -> Manifest:
    """Blue/green, a canary and then the rest."""
    size = {"type": "CAPACITY_PERCENT", "value": percent}
    return _blue_green({"type": "CANARY", "canarySize": size, "waitIntervalInSeconds": wait}, final_wait)


def linear(percent: int = 50, wait: int = 20, final_wait: int = 10) -> Manifest:
    """Blue/green, equal steps."""
    size = {"type": "CAPACITY_PERCENT", "value": percent}
    return _blue_green({"type": "LINEAR", "linearStepSize": size, "waitIntervalInSeconds": wait}, final_wait)


def rolling(percent: int = 50, wait: int = 20) -> Manifest:
    """Batches."""
    size = {"type": "CAPACITY_PERCENT", "value": percent}
    return {"rollingUpdatePolicy": {"maximumBatchSize": size, "waitIntervalInSeconds": wait}}


def _blue_green(routing: Manifest, final_wait: int) -> Manifest:
    return {
        "blueGreenUpdatePolicy": {
            "trafficRoutingConfiguration": routing,
            "terminationWaitInSeconds": final_wait,
            "maximumExecutionTimeoutInSeconds": 3600,
        }
    }
