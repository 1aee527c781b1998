"""Deployment guardrails: what of a DeploymentConfig can only be judged with instance counts or another object.

Limits and durations: SageMaker's deployment guardrails (canary at most 50 % of the variant's instances, linear 10 to
50 %, rolling batches 5 to 50 %; the execution timeout exceeds the sum of the waits; variant names are kept; rolling
not with several variants). What one object shows alone is checked by the API server (CEL)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from sluice.api.reasons import Reason
from sluice.core.finding import Finding

ALL_AT_ONCE = "ALL_AT_ONCE"
ROLLING = "ROLLING"
_BLUE_GREEN = "spec.deploymentConfig.blueGreenUpdatePolicy"
_ROUTING = f"{_BLUE_GREEN}.trafficRoutingConfiguration"
_ROLLING = "spec.deploymentConfig.rollingUpdatePolicy"


def policy_name(deployment_config: Mapping[str, Any] | None) -> str:
    """ALL_AT_ONCE, CANARY, LINEAR or ROLLING; none given is ALL_AT_ONCE."""
    config = deployment_config or {}
    if config.get("rollingUpdatePolicy"):
        return ROLLING
    routing = (config.get("blueGreenUpdatePolicy") or {}).get("trafficRoutingConfiguration") or {}
    return str(routing.get("type") or ALL_AT_ONCE)


def alarm_names(deployment_config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The CloudWatch alarms of autoRollbackConfiguration."""
    rollback = (deployment_config or {}).get("autoRollbackConfiguration") or {}
    return tuple(alarm["alarmName"] for alarm in rollback.get("alarms") or () if alarm.get("alarmName"))


def instances(size: Mapping[str, Any], total: int) -> int:
    """Instances that a CapacitySize stands for: percent rounds down, at least one."""
    value = int(size["value"])
    return value if size["type"] == "INSTANCE_COUNT" else max(1, value * total // 100)


def linear_active(size: Mapping[str, Any], total: int, step: int) -> int:
    """Instances of the new fleet that take traffic after `step` linear steps (1-based)."""
    if size["type"] == "INSTANCE_COUNT":
        return min(total, step * int(size["value"]))
    return min(total, max(step, math.ceil(step * int(size["value"]) * total / 100)))


def step_count(deployment_config: Mapping[str, Any] | None, total: int) -> int:
    """How many times traffic moves."""
    config = deployment_config or {}
    policy = policy_name(config)
    if policy == ROLLING:
        return math.ceil(total / instances(config["rollingUpdatePolicy"]["maximumBatchSize"], total))
    routing = (config.get("blueGreenUpdatePolicy") or {}).get("trafficRoutingConfiguration") or {}
    if policy == "CANARY":
        return 2 if total > instances(routing["canarySize"], total) else 1
    if policy == "LINEAR":
        step = 1
        while linear_active(routing["linearStepSize"], total, step) < total:
            step += 1
        return step
    return 1


def wait_seconds(deployment_config: Mapping[str, Any] | None, total: int) -> int:
    """The sum of all waits of a deployment, seconds."""
    config = deployment_config or {}
    policy = policy_name(config)
    steps = step_count(config, total)
    if policy == ROLLING:
        return steps * int(config["rollingUpdatePolicy"]["waitIntervalInSeconds"])
    blue_green = config.get("blueGreenUpdatePolicy") or {}
    final = int(blue_green.get("terminationWaitInSeconds") or 0)
    wait = int((blue_green.get("trafficRoutingConfiguration") or {}).get("waitIntervalInSeconds") or 0)
    return (steps - 1) * wait + final if policy in {"CANARY", "LINEAR"} else final


def check(deployment_config: Mapping[str, Any] | None, counts: Mapping[str, int]) -> Finding | None:
    """Judge a DeploymentConfig with the instance counts of the new revision, by variant name (only
    instance-based ones; none: SageMaker falls back to all at once, nothing to judge)."""
    config = deployment_config or {}
    if not config or not counts:
        return None
    policy = policy_name(config)
    if policy == ROLLING:
        rolling = config["rollingUpdatePolicy"]
        return (
            _check_size(f"{_ROLLING}.maximumBatchSize", rolling["maximumBatchSize"], 5, 50, counts)
            or _check_waits(_ROLLING, rolling, config, counts)
        )  # fmt: skip
    blue_green = config.get("blueGreenUpdatePolicy") or {}
    routing = blue_green.get("trafficRoutingConfiguration") or {}
    finding = None
    if policy == "CANARY":
        finding = _check_size(f"{_ROUTING}.canarySize", routing["canarySize"], 0, 50, counts)
    if policy == "LINEAR":
        finding = _check_size(f"{_ROUTING}.linearStepSize", routing["linearStepSize"], 10, 50, counts)
    return finding or _check_waits(_BLUE_GREEN, blue_green, config, counts)


def check_variants(
    deployment_config: Mapping[str, Any] | None, now_serving: Iterable[str], wanted: Iterable[str]
) -> Finding | None:
    """SageMaker's exclusions: under a policy the variant names stay, and rolling takes one variant only."""
    if not deployment_config or not (
        deployment_config.get("blueGreenUpdatePolicy") or deployment_config.get("rollingUpdatePolicy")
    ):
        return None
    serving, asked = sorted(now_serving), sorted(wanted)
    if serving != asked:
        return Finding(
            Reason.INVALID_DEPLOYMENT_CONFIG,
            f"found variants {asked} while {serving} are in service; under a deployment policy SageMaker keeps the "
            "variant names: keep them, or remove the policy for this change",
            "spec.deploymentConfig",
        )
    if policy_name(deployment_config) == ROLLING and len(asked) > 1:
        return Finding(
            Reason.INVALID_DEPLOYMENT_CONFIG,
            f"found {len(asked)} variants {asked}; SageMaker rolls endpoints of one variant only: use "
            "blueGreenUpdatePolicy",
            _ROLLING,
        )
    return None


def _check_size(
    path: str, size: Mapping[str, Any], least_percent: int, most_percent: int, counts: Mapping[str, int]
) -> Finding | None:
    if size["type"] != "INSTANCE_COUNT":
        return None
    value = int(size["value"])
    for variant, total in sorted(counts.items()):
        least = max(1, math.ceil(total * least_percent / 100))
        most = total * most_percent // 100
        if not least <= value <= most:
            allowed = f"{least} to {most}" if most >= least else "no INSTANCE_COUNT (use CAPACITY_PERCENT)"
            bounds = f"{least_percent} to {most_percent} %" if least_percent else f"at most {most_percent} %"
            return Finding(
                Reason.INVALID_DEPLOYMENT_CONFIG,
                f"found {value} instances for variant {variant} of {total}; allowed is {bounds} of the variant's "
                f"instances, here {allowed}",
                f"{path}.value",
            )
    return None


def _check_waits(
    path: str, policy: Mapping[str, Any], config: Mapping[str, Any], counts: Mapping[str, int]
) -> Finding | None:
    timeout = policy.get("maximumExecutionTimeoutInSeconds")
    if timeout is None:
        return None
    longest, variant = max((wait_seconds(config, total), name) for name, total in counts.items())
    if int(timeout) > longest:
        return None
    return Finding(
        Reason.INVALID_DEPLOYMENT_CONFIG,
        f"found {timeout} s, but the waits alone take {longest} s (variant {variant} of {counts[variant]} instances); "
        f"allowed is more than {longest}",
        f"{path}.maximumExecutionTimeoutInSeconds",
    )
