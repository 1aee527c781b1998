"""Plain boto3 clients and short ways to create what a test needs; what a test is about stands in the test."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sagemaker_simulator.testing import Simulator

ROLE = "arn:aws:iam::111122223333:role/models"
ONCE = Config(retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=10, read_timeout=30)


def variant(name: str = "a", model: str = "m1", count: int = 4, **more: Any) -> dict[str, Any]:
    return {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": count,
        **more,
    }


def serverless(name: str = "a", model: str = "m1", **more: Any) -> dict[str, Any]:
    return {
        "VariantName": name,
        "ModelName": model,
        "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 5, **more},
    }


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def instances(value: int) -> dict[str, Any]:
    return {"Type": "INSTANCE_COUNT", "Value": value}


def blue_green(
    routing: str = "ALL_AT_ONCE", wait: int = 0, bake: int = 0, alarms: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    traffic = {"Type": routing, "WaitIntervalInSeconds": wait}
    policy: dict[str, Any] = {"TerminationWaitInSeconds": bake}
    for field, value in more.items():
        (traffic if field in ("CanarySize", "LinearStepSize") else policy)[field] = value
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": traffic, **policy}} | _alarms(alarms)


def rolling(batch: dict[str, Any], wait: int = 0, alarms: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {"RollingUpdatePolicy": {"MaximumBatchSize": batch, "WaitIntervalInSeconds": wait, **more}} | _alarms(alarms)


def _alarms(names: tuple[str, ...]) -> dict[str, Any]:
    return {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in names]}} if names else {}


class Hosting:
    """Clients of one simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.sagemaker = simulator.client("sagemaker", config=ONCE)
        self.runtime = simulator.client("sagemaker-runtime", config=ONCE)
        self.autoscaling = simulator.client("application-autoscaling", config=ONCE)

    def model(self, name: str = "m1", image: str | None = None) -> None:
        self.sagemaker.create_model(
            ModelName=name,
            PrimaryContainer={"Image": image or f"registry.example/team/{name}:1"},
            ExecutionRoleArn=ROLE,
        )

    def config(self, name: str, *variants: dict[str, Any], **more: Any) -> None:
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=list(variants) or [variant()], **more
        )

    def endpoint(self, *variants: dict[str, Any], name: str = "churn", **more: Any) -> None:
        """Models m1 and m2, config c1, and an endpoint that is InService on it."""
        self.model("m1")
        self.model("m2")
        self.config("c1", *variants)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="c1", **more)
        self.simulator.advance(20)

    def next_config(self, *variants: dict[str, Any], **more: Any) -> None:
        """Config c2, by default with the other model."""
        self.config("c2", *(variants or (variant(model="m2"),)), **more)

    def update(self, deployment: dict[str, Any] | None = None, name: str = "churn", **more: Any) -> None:
        if deployment is not None:
            more["DeploymentConfig"] = deployment
        self.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName="c2", **more)

    def describe(self, name: str = "churn") -> dict[str, Any]:
        return dict(self.sagemaker.describe_endpoint(EndpointName=name))

    def status(self, name: str = "churn") -> str:
        return str(self.describe(name)["EndpointStatus"])

    def live(self, field: str = "ProductionVariants", name: str = "churn") -> dict[str, dict[str, Any]]:
        """Serving variants by name."""
        return {one["VariantName"]: one for one in self.describe(name).get(field, [])}

    def pending(self, name: str = "churn") -> dict[str, dict[str, Any]]:
        """Variants of the pending deployment by name; empty when there is none."""
        rows = self.describe(name).get("PendingDeploymentSummary", {}).get("ProductionVariants", [])
        return {one["VariantName"]: one for one in rows}

    def refusal(self, operation: str, **request: Any) -> tuple[str, str]:
        """Code and message of a call that must be refused."""
        with pytest.raises(ClientError) as caught:
            getattr(self.sagemaker, operation)(**request)
        error = caught.value.response["Error"]
        return error["Code"], error["Message"]
