"""Deployment guardrails: DeploymentConfig with its policies, sizes, waits and alarms.

Admission checks what the configuration alone can show. What needs a variant's instance count (INSTANCE_COUNT against
the percent limits, the exact sum of waits) is checked when an Endpoint is resolved. Durations and sizes follow the
algorithms of SageMaker's deployment guardrails; see docs/reference/endpoint.md.
"""

from typing import Annotated, Literal

from pydantic import Field

from sluice.api.base import ApiModel, ListMap, Rule, Rules
from sluice.api.cel import both_or_neither, found, percent
from sluice.api.types import MAX_INT32, Int32

WaitInSeconds = Annotated[int, Field(ge=0, le=3600), Int32]
MaximumExecutionTimeoutInSeconds = Annotated[int | None, Field(ge=600, le=28800), Int32]


class CapacitySize(ApiModel):
    """A number of instances, or a share of them."""

    type: Literal["INSTANCE_COUNT", "CAPACITY_PERCENT"]
    """What value counts."""
    value: Annotated[int, Field(ge=1, le=MAX_INT32), Int32]
    """Instances, or percent of the variant's instances."""


class TrafficRoutingConfiguration(ApiModel):
    """How traffic moves to the new fleet."""

    rules = (
        both_or_neither("canarySize", "type is CANARY", "self.type == 'CANARY'"),
        both_or_neither("linearStepSize", "type is LINEAR", "self.type == 'LINEAR'"),
    )

    type: Literal["ALL_AT_ONCE", "CANARY", "LINEAR"]
    """All at once, a canary and then the rest, or equal steps."""
    wait_interval_in_seconds: WaitInSeconds
    """The bake after the canary and after each step. SageMaker requires it for ALL_AT_ONCE too."""
    canary_size: Annotated[CapacitySize | None, Rules(percent("canarySize", 1, 50))] = None
    """The canary: at most half of the variant. Required for CANARY."""
    linear_step_size: Annotated[CapacitySize | None, Rules(percent("linearStepSize", 10, 50))] = None
    """Each step: 10 to 50 percent of the variant. Required for LINEAR."""


def _steps(size: str) -> str:
    """CEL for the steps that a CAPACITY_PERCENT needs to reach 100, rounded up; 1 for other types and wrong values."""
    return f"({size}.type == 'CAPACITY_PERCENT' && {size}.value > 0 ? (99 + {size}.value) / {size}.value : 1)"


_ROUTING = "self.trafficRoutingConfiguration"
_TERMINATION_WAIT = "(has(self.terminationWaitInSeconds) ? self.terminationWaitInSeconds : 0)"
# CANARY bakes once; LINEAR bakes between its steps, at least once; ALL_AT_ONCE only has the final bake.
_LINEAR_BAKES = (
    f"(has({_ROUTING}.linearStepSize) && {_ROUTING}.linearStepSize.type == 'CAPACITY_PERCENT' ? "
    f"{_steps(_ROUTING + '.linearStepSize')} - 1 : 1)"
)
_BLUE_GREEN_WAITS = (
    f"({_ROUTING}.type == 'CANARY' ? {_ROUTING}.waitIntervalInSeconds : "
    f"{_ROUTING}.type == 'LINEAR' ? {_LINEAR_BAKES} * {_ROUTING}.waitIntervalInSeconds : 0) + {_TERMINATION_WAIT}"
)
_ROLLING_WAITS = f"{_steps('self.maximumBatchSize')} * self.waitIntervalInSeconds"


def _timeout(waits: str) -> Rule:
    return Rule(
        rule=f"!has(self.maximumExecutionTimeoutInSeconds) || self.maximumExecutionTimeoutInSeconds > {waits}",
        message="maximumExecutionTimeoutInSeconds must be greater than the sum of the waits: the deployment could "
        "never finish",
        message_expression=found(
            "maximumExecutionTimeoutInSeconds: found %s, allowed is more than the sum of the waits, which is at least "
            "%s: the deployment could never finish",
            "string(self.maximumExecutionTimeoutInSeconds)",
            f"string({waits})",
        ),
        field_path=".maximumExecutionTimeoutInSeconds",
    )


class BlueGreenUpdatePolicy(ApiModel):
    """A whole new fleet beside the old one, and traffic moved between them."""

    rules = (_timeout(_BLUE_GREEN_WAITS),)

    traffic_routing_configuration: TrafficRoutingConfiguration
    """How traffic moves to the new fleet."""
    termination_wait_in_seconds: Annotated[int | None, Field(ge=0, le=3600), Int32] = None
    """The final bake, before the old fleet goes. Absent: 0. Without it, ALL_AT_ONCE gives alarms no time to act."""
    maximum_execution_timeout_in_seconds: MaximumExecutionTimeoutInSeconds = None
    """The deadline of the deployment. It must be greater than the sum of the waits."""


class RollingUpdatePolicy(ApiModel):
    """Batches of new instances in place of old ones."""

    rules = (_timeout(_ROLLING_WAITS),)

    maximum_batch_size: Annotated[CapacitySize, Rules(percent("maximumBatchSize", 5, 50))]
    """Each batch: 5 to 50 percent of the variant."""
    wait_interval_in_seconds: WaitInSeconds
    """The bake after each batch."""
    maximum_execution_timeout_in_seconds: MaximumExecutionTimeoutInSeconds = None
    """The deadline of the deployment. It must be greater than the sum of the waits."""
    rollback_maximum_batch_size: Annotated[CapacitySize | None, Rules(percent("rollbackMaximumBatchSize", 1, 100))] = (
        None
    )
    """Each batch of a rollback. Absent: the whole old fleet at once."""


class Alarm(ApiModel):
    """A CloudWatch alarm in the endpoint's account and region."""

    alarm_name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^.*\S.*$")]
    """Metric, composite or log alarm."""


class AutoRollbackConfiguration(ApiModel):
    """Alarms that roll a deployment back."""

    alarms: Annotated[tuple[Alarm, ...] | None, ListMap("alarmName"), Field(min_length=1, max_length=10)] = None
    """Any of them in state ALARM, from the first traffic to the end of the final bake, rolls back."""


class DeploymentConfig(ApiModel):
    """How a new revision replaces the serving one. A change of it never deploys."""

    rules = (
        Rule(
            rule="has(self.blueGreenUpdatePolicy) != has(self.rollingUpdatePolicy)",
            message="exactly one of blueGreenUpdatePolicy and rollingUpdatePolicy must be set",
            message_expression=(
                "has(self.blueGreenUpdatePolicy) ? 'blueGreenUpdatePolicy, rollingUpdatePolicy: both are set, allowed "
                "is exactly one' : 'blueGreenUpdatePolicy, rollingUpdatePolicy: neither is set, exactly one is "
                "required; without deploymentConfig a deployment is all at once'"
            ),
        ),
    )

    blue_green_update_policy: BlueGreenUpdatePolicy | None = None
    """A whole new fleet beside the old one."""
    rolling_update_policy: RollingUpdatePolicy | None = None
    """Batches of new instances in place of old ones. On SageMaker only for one variant on instances."""
    auto_rollback_configuration: AutoRollbackConfiguration | None = None
    """Alarms that roll a deployment back."""
