"""Kubernetes objects for tests."""

import itertools
import json
from typing import Any

from sluice.api import names
from sluice.ports.kube import Object

_versions = itertools.count(1)


def meta(
    kind: str, name: str, *, namespace: str = "team", uid: str = "", version: int | None = None, **more: Any
) -> Object:
    return {
        "apiVersion": names.API_VERSION,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-{kind}-{name}",
            "resourceVersion": str(version if version is not None else next(_versions)),
            "generation": more.pop("generation", 1),
            **more,
        },
    }


def endpoint(name: str = "churn", config: str = "config", pin: str | None = None, **more: Any) -> Object:
    status = more.pop("status", None)
    if pin is not None:
        more.setdefault("annotations", {})[names.EXTERNAL] = json.dumps(
            {"accountId": "1", "region": "eu-west-1", "endpointName": pin}
        )
    item = meta(names.ENDPOINT, name, **more)
    item["spec"] = {"backend": "SageMaker", "endpointConfigName": config}
    if status is not None:
        item["status"] = status
    return item


def endpoint_config(name: str = "config", models: tuple[str, ...] = ("model",), **more: Any) -> Object:
    item = meta(names.ENDPOINT_CONFIG, name, **more)
    item["spec"] = {
        "productionVariants": [
            {"variantName": f"v{n}", "modelName": model, "instanceType": "ml.m5.large", "initialInstanceCount": 1}
            for n, model in enumerate(models)
        ]
    }
    return item


def model(name: str = "model", **more: Any) -> Object:
    item = meta(names.MODEL, name, **more)
    item["spec"] = {"primaryContainer": {"image": "registry.example/churn:1"}}
    return item


def revision(name: str, endpoint: str, number: int = 1, **more: Any) -> Object:
    item = meta(
        "ControllerRevision",
        name,
        labels={"sluice.dev/managed-by": "sluice"},
        annotations={"sluice.dev/endpoint": endpoint},
        **more,
    )
    item["apiVersion"] = "apps/v1"
    item["data"] = {
        "backend": "SageMaker",
        "fleetHash": "f",
        "contentHash": "c",
        "endpointConfig": {"productionVariants": [{"variantName": "a", "modelName": "m"}]},
        "models": {"m": {"primaryContainer": {"image": "repo/m:1"}}},
        "sagemaker": {"endpointConfigName": f"{name}-config", "modelNames": [f"{name}-model"]},
    }
    item["revision"] = number
    return item
