"""What a DeploymentConfig may say, and the policy it stands for. Limits: the CreateEndpoint reference and the guide's
exclusions page; a percentage is checked as written, an INSTANCE_COUNT against the variant's total."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .blue_green import BlueGreen, Routing
from .errors import invalid
from .rolling import Rolling
from .stages import Counts, Size

Policy = BlueGreen | Rolling


@dataclass(frozen=True, slots=True)
class Limits:
    """Percent of a variant's instances a size may be."""

    field: str
    least: int
    most: int


CANARY = Limits("CanarySize", 1, 50)
LINEAR = Limits("LinearStepSize", 10, 50)
BATCH = Limits("MaximumBatchSize", 5, 50)
ROLLBACK_BATCH = Limits("RollbackMaximumBatchSize", 5, 100)


def _size(given: Mapping[str, Any], limits: Limits, counts: Counts) -> Size:
    size = Size(given["Value"], given["Type"] == "CAPACITY_PERCENT")
    if size.percent:
        if not limits.least <= size.value <= limits.most:
            raise invalid(
                f"{limits.field} of {size.value} CAPACITY_PERCENT is not valid. It must be between {limits.least} and "
                f"{limits.most} percent of the variant's instance count."
            )
        return size
    for name, total in counts.items():
        if not limits.least * total <= size.value * 100 <= limits.most * total:
            raise invalid(
                f"{limits.field} of {size.value} INSTANCE_COUNT is not valid for variant {name} with {total} "
                f"instance(s). It must be between {limits.least} and {limits.most} percent of the variant's instance "
                "count."
            )
    return size


def _blue_green(given: Mapping[str, Any], counts: Counts) -> BlueGreen:
    traffic = given["TrafficRoutingConfiguration"]
    routing = Routing(traffic["Type"])
    limits = {Routing.CANARY: CANARY, Routing.LINEAR: LINEAR}.get(routing)
    for other in (CANARY, LINEAR):
        if other is limits and other.field not in traffic:
            raise invalid(f"{other.field} is required when TrafficRoutingConfiguration Type is {routing}.")
        if other is not limits and other.field in traffic:
            raise invalid(f"{other.field} is not allowed when TrafficRoutingConfiguration Type is {routing}.")
    return BlueGreen(
        routing=routing,
        wait_seconds=traffic["WaitIntervalInSeconds"],
        size=_size(traffic[limits.field], limits, counts) if limits else None,
        termination_wait_seconds=given.get("TerminationWaitInSeconds", 0),
        timeout_seconds=given.get("MaximumExecutionTimeoutInSeconds"),
    )


def _rolling(given: Mapping[str, Any], counts: Counts) -> Rolling:
    back = given.get("RollbackMaximumBatchSize")
    return Rolling(
        batch=_size(given["MaximumBatchSize"], BATCH, counts),
        wait_seconds=given["WaitIntervalInSeconds"],
        rollback_batch=_size(back, ROLLBACK_BATCH, counts) if back else None,
        timeout_seconds=given.get("MaximumExecutionTimeoutInSeconds"),
    )


def policy(config: Mapping[str, Any] | None, counts: Counts) -> Policy:
    """The policy of a DeploymentConfig for variants of these counts; none means all at once without a bake."""
    config = config or {}
    blue_green, rolling = config.get("BlueGreenUpdatePolicy"), config.get("RollingUpdatePolicy")
    if blue_green and rolling:
        raise invalid("DeploymentConfig must have only one of BlueGreenUpdatePolicy and RollingUpdatePolicy.")
    if rolling:
        return _rolling(rolling, counts)
    return _blue_green(blue_green, counts) if blue_green else BlueGreen()


def alarm_names(config: Mapping[str, Any] | None) -> list[str]:
    """The alarms of AutoRollbackConfiguration."""
    alarms = (config or {}).get("AutoRollbackConfiguration", {}).get("Alarms", [])
    return [alarm["AlarmName"] for alarm in alarms if "AlarmName" in alarm]


def guarded(config: Mapping[str, Any] | None) -> bool:
    """Whether a DeploymentConfig names a policy, and so the rules of deployment guardrails apply."""
    return bool(config and ("BlueGreenUpdatePolicy" in config or "RollingUpdatePolicy" in config))


def check_variants(config: Mapping[str, Any] | None, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Exclusions that depend on both sets of variants (each by name, with its entry in the EndpointConfig)."""
    if not guarded(config):
        return
    if set(old) != set(new):
        raise invalid(
            "Deployment guardrails require the new endpoint configuration to have the same variant names as the "
            f"existing one. Existing: [{', '.join(sorted(old))}], new: [{', '.join(sorted(new))}]."
        )
    if config and "RollingUpdatePolicy" in config:
        if len(new) > 1:
            raise invalid("RollingUpdatePolicy is not supported for endpoints with multiple variants.")
        if any("ServerlessConfig" in spec for spec in (*old.values(), *new.values())):
            raise invalid("RollingUpdatePolicy is not supported for serverless endpoints.")
