"""The policies of a deployment, each with the same waits and sizes."""

from __future__ import annotations

from typing import Any


def policies(wait: int, percent: int) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """By name: DeploymentConfig, and the Endpoint's `kubernetes`. Every bake lasts `wait` seconds; `percent` of the
    instances are a canary, a step or a batch."""
    size = {"type": "CAPACITY_PERCENT", "value": percent}

    def blue_green(**routing: Any) -> dict[str, Any]:
        routing["waitIntervalInSeconds"] = wait
        policy = {"trafficRoutingConfiguration": routing, "terminationWaitInSeconds": wait}
        return {"blueGreenUpdatePolicy": policy}

    rolling = {"rollingUpdatePolicy": {"maximumBatchSize": size, "waitIntervalInSeconds": wait}}
    return {
        "ALL_AT_ONCE": (blue_green(type="ALL_AT_ONCE"), {}),
        "CANARY": (blue_green(type="CANARY", canarySize=size), {}),
        "LINEAR": (blue_green(type="LINEAR", linearStepSize=size), {}),
        "ROLLING": (rolling, {}),
        "ROLLING, replaceFirst": (rolling, {"replaceFirst": True}),
    }
