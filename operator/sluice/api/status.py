"""The status of the three kinds: the contract with people, scripts and Argo CD.

Shapes follow DescribeEndpoint where SageMaker has a word for it. Every wait is an absolute time. The size is bounded:
no per-pod data, short history. Times are RFC 3339, UTC, with milliseconds.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from sluice.api.base import ApiModel
from sluice.api.reasons import Cause, CommandResult, Outcome

FORMAT_VERSION = 1
"""Version of the status' own meaning; a reader that finds a larger one leaves the object alone."""


def _utc_milliseconds(value: datetime) -> datetime:
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    value = value.astimezone(UTC)
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def _rfc3339(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"


Time = Annotated[datetime, AfterValidator(_utc_milliseconds), PlainSerializer(_rfc3339, return_type=str)]
"""A moment, UTC, cut to milliseconds so that what is read back equals what was written."""

EndpointStatusWord = Literal[
    "OutOfService",
    "Creating",
    "Updating",
    "SystemUpdating",
    "RollingBack",
    "InService",
    "Deleting",
    "Failed",
    "UpdateRollbackFailed",
]
"""SageMaker's EndpointStatus, whole."""


class StatusModel(ApiModel):
    """Base of all status shapes. Unknown fields are dropped: a newer operator may have written more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Condition(StatusModel):
    """A Kubernetes condition (metav1.Condition)."""

    type: Annotated[str, Field(max_length=64)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=128)]
    message: Annotated[str, Field(max_length=4096)] = ""
    last_transition_time: Time
    observed_generation: int | None = None


OpenObject = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
"""JSON of another kind's, kept as it was written."""


class VariantStatus(StatusModel):
    """One entry of SageMaker's VariantStatus."""

    status: Annotated[str, Field(max_length=32)]
    status_message: Annotated[str, Field(max_length=1024)] | None = None
    start_time: Time | None = None


class DeployedImage(StatusModel):
    """An image as specified and as resolved to a digest."""

    specified_image: Annotated[str, Field(max_length=512)] | None = None
    resolved_image: Annotated[str, Field(max_length=512)] | None = None
    resolution_time: Time | None = None


class VariantSummary(StatusModel):
    """A production or shadow variant as it is now (ProductionVariantSummary), plus what Sluice last wrote."""

    variant_name: Annotated[str, Field(max_length=63)]
    current_weight: float | None = None
    desired_weight: float | None = None
    current_instance_count: int | None = None
    desired_instance_count: int | None = None
    instance_type: Annotated[str, Field(max_length=64)] | None = None
    deployed_images: Annotated[tuple[DeployedImage, ...], Field(max_length=15)] = ()
    variant_status: Annotated[tuple[VariantStatus, ...], Field(max_length=5)] = ()
    last_applied_count: int | None = None
    """The spec's count that was last written; the spec is written again only when it differs from this."""
    last_applied_weight: float | None = None
    """The spec's weight that was last written."""
    retained_weight: float | None = None
    """The live weight that a deployment retained in place of the spec's (retainAllVariantProperties)."""


class RevisionStatus(StatusModel):
    """A revision: closed, immutable content, stored as a ControllerRevision of this name."""

    name: Annotated[str, Field(max_length=253)]
    fleet_hash: Annotated[str, Field(max_length=80)]
    endpoint_config_name: Annotated[str, Field(max_length=63)] | None = None
    """The AWS EndpointConfig of this revision."""
    adopted: bool | None = None
    """The AWS EndpointConfig and Models were made by somebody else: never collected."""
    since: Time | None = None


class AlarmStatus(StatusModel):
    """An alarm as last read."""

    alarm_name: Annotated[str, Field(max_length=255)]
    state: Annotated[str, Field(max_length=32)]
    """OK, ALARM, INSUFFICIENT_DATA, Missing, Unreadable, Unfit or Refused."""
    message: Annotated[str, Field(max_length=512)] | None = None
    source: Annotated[str, Field(max_length=32)] | None = None
    """CloudWatch, PrometheusAlert, PromQL or Traffic."""


class WatchedAlarm(StatusModel):
    """An alarm that a deployment heeds, and what it remembers of it (backend Cluster)."""

    source: Annotated[str, Field(max_length=32)]
    alarm_name: Annotated[str, Field(max_length=255)]
    had_data: bool
    """It was OK or ALARM when the deployment started: having no data holds a bake from then on."""
    ignored: bool | None = None
    """It fired before the first traffic, and a person let the deployment go on: it counts once it has been OK."""
    counts_from: Time | None = None
    """When an ignored alarm was read as OK: it counts from then on."""


class PlannedCount(StatusModel):
    """Instances of one variant's fleet when a step is done."""

    variant_name: Annotated[str, Field(max_length=63)]
    count: int
    new: bool


class ScaledIn(StatusModel):
    """An old fleet that somebody scales in while a deployment needs it whole."""

    variant_name: Annotated[str, Field(max_length=63)]
    times: int
    last: Time
    """When it was undone last."""


class PlanStep(StatusModel):
    """One step of a deployment's plan: so much of the traffic on the new revision, then a bake."""

    traffic_percent: float
    wait_seconds: int
    instances: Annotated[tuple[PlannedCount, ...], Field(max_length=20)] = ()
    """Of a rolling deployment: the new fleets' before traffic moves, the old fleets' after the bake. Else: of the new
    fleets, which stand as a whole, those that the share of the traffic is for; the old fleets stand to the end."""


class RouteStatus(StatusModel):
    """The routes of an Endpoint in the cluster, as last written."""

    uid: Annotated[str, Field(max_length=64)]
    generation: int
    since: Time
    """When this generation was first seen: routers that have not confirmed it a while later are evicted."""


class DeploymentStatus(StatusModel):
    """A deployment while it runs. Field words are SageMaker's; the texts are for the printer columns."""

    revision: Annotated[str, Field(max_length=253)]
    fleet_hash: Annotated[str, Field(max_length=80)]
    endpoint_config_name: Annotated[str, Field(max_length=63)] | None = None
    policy: Annotated[str, Field(max_length=32)]
    """ALL_AT_ONCE, CANARY, LINEAR, ROLLING."""
    stage: Annotated[str, Field(max_length=32)]
    """Provisioning, Shifting, Baking, FinalBaking, CleaningUp, RollingBack."""
    step: int | None = None
    steps: int | None = None
    step_text: Annotated[str, Field(max_length=32)] | None = None
    traffic_percent: float | None = None
    """Share of the traffic that reaches the new revision."""
    traffic_text: Annotated[str, Field(max_length=32)] | None = None
    bake_until: Time | None = None
    start_time: Time | None = None
    deadline: Time | None = None
    retain_all_variant_properties: bool | None = None
    message: Annotated[str, Field(max_length=1024)] | None = None
    pending_variants: Annotated[tuple[VariantSummary, ...], Field(max_length=11)] = ()
    """The new revision's variants. In the cluster their currentWeight is the part of desiredWeight that is in force:
    trafficPercent of it."""
    old_variants: Annotated[tuple[VariantSummary, ...], Field(max_length=10)] = ()
    """The old revision's variants while they go, in stage CleaningUp (backend Cluster)."""
    plan: Annotated[tuple[PlanStep, ...], Field(max_length=100)] = ()
    """What was planned when it started; computed once (backend Cluster)."""
    stage_since: Time | None = None
    """When this stage began (backend Cluster)."""
    cause: Cause | None = None
    """Why it is being rolled back (backend Cluster)."""
    before: Annotated[tuple[PlannedCount, ...], Field(max_length=20)] = ()
    """The old fleets' instances when it started, which a rollback brings back, and the new fleets' as planned (backend
    Cluster)."""
    grown: Annotated[tuple[PlannedCount, ...], Field(max_length=20)] = ()
    """What a scaler or a person made of a fleet since then, where it is more (of an old fleet under a rolling policy:
    of the whole of it): nothing scales in before the old fleets go (backend Cluster)."""
    scaled_in: Annotated[tuple[ScaledIn, ...], Field(max_length=10)] = ()
    """Old fleets that were scaled in since then: it is undone, more and more rarely where it comes back (backend
    Cluster)."""
    replace_first: bool | None = None
    """Batches of a rolling deployment go before their successors come (backend Cluster)."""
    alarms: Annotated[tuple[WatchedAlarm, ...], Field(max_length=20)] = ()
    """The alarms that it started with (backend Cluster)."""
    traffic_since: Time | None = None
    """When the new revision got its first traffic: alarms count from then on (backend Cluster)."""
    paused_since: Time | None = None
    """Since when a person holds it: bakes stand still, the deadline does not (backend Cluster)."""
    promoted_step: int | None = None
    """The bakes up to this step's are skipped, because a person said promote (backend Cluster)."""


class LastDeployment(StatusModel):
    """How the last deployment ended."""

    revision: Annotated[str, Field(max_length=253)]
    fleet_hash: Annotated[str, Field(max_length=80)]
    outcome: Outcome
    cause: Cause = Cause.NONE
    message: Annotated[str, Field(max_length=1200)] | None = None
    start_time: Time | None = None
    end_time: Time
    images: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=30)] = ()
    """What a deployment that was rolled back brought: images as specified and as they resolved (backend Cluster)."""


class WantedVariant(StatusModel):
    """One item of UpdateEndpointWeightsAndCapacities."""

    variant_name: Annotated[str, Field(max_length=63)]
    desired_weight: float | None = None
    desired_instance_count: int | None = None


class Intent(StatusModel):
    """An AWS call that is about to be made or was made, stored before it. Lost responses are resolved from it."""

    operation: Literal["CreateEndpoint", "UpdateEndpoint", "UpdateEndpointWeightsAndCapacities", "DeleteEndpoint"]
    endpoint_config_name: Annotated[str, Field(max_length=63)] | None = None
    revision: Annotated[str, Field(max_length=253)] | None = None
    variants: Annotated[tuple[WantedVariant, ...], Field(max_length=10)] = ()
    variants_before: Annotated[tuple[WantedVariant, ...], Field(max_length=10)] = ()
    """What `variants` were before the call: a variant that has these again was rolled back by SageMaker, one that has
    others was changed by somebody since."""
    commanded: bool | None = None
    """A person brings this revision back: made again, the call has no deploymentConfig and no alarms either."""
    baseline: Time | None = None
    """The endpoint's LastModifiedTime before the call: unchanged means that the call had no effect yet."""
    attempt: int = 1
    time: Time
    accepted: Time | None = None
    """When the service was seen to have taken the call (its answer, or the endpoint in the state it leads to)."""
    not_before: Time | None = None
    """It had no effect: since then what an update asks before its start is asked again, for the next attempt."""


class Latch(StatusModel):
    """A fleet hash that is not deployed again until another hash is asked for or a person says retry."""

    fleet_hash: Annotated[str, Field(max_length=80)]
    reason: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=1200)] | None = None
    time: Time
    asked_variants: Annotated[tuple[WantedVariant, ...], Field(max_length=10)] = ()
    """The weights and counts that what is kept out was deployed with, or that the spec asked for later and that were
    brought into force since: only what differs from them is an edit for the revision that serves."""


class Settle(StatusModel):
    """A change that waits until nothing it references changes any more."""

    fleet_hash: Annotated[str, Field(max_length=80)]
    content_hash: Annotated[str, Field(max_length=80)]
    since: Time
    until: Time


class CommandAck(StatusModel):
    """A command annotation and what became of it. A value is acted on once."""

    command: Annotated[str, Field(max_length=32)]
    value: Annotated[str, Field(max_length=253)]
    result: CommandResult
    reason: Annotated[str, Field(max_length=64)] | None = None
    message: Annotated[str, Field(max_length=512)] | None = None
    time: Time


class Problem(StatusModel):
    """What keeps the operator from going on, as AWS or the operator put it."""

    operation: Annotated[str, Field(max_length=64)]
    reason: Annotated[str, Field(max_length=64)]
    """A Reason: AccessDenied, Throttled, QuotaExceeded, NoCredentials, Unreachable, RejectedBySageMaker ..."""
    code: Annotated[str, Field(max_length=64)] | None = None
    message: Annotated[str, Field(max_length=1024)]
    since: Time
    count: int = 1
    next_attempt: Time | None = None


class Drift(StatusModel):
    """What somebody else changed in SageMaker."""

    fields: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=20)] = ()
    since: Time | None = None
    corrections: Annotated[tuple[Time, ...], Field(max_length=5)] = ()
    """When a foreign change was mended (driftPolicy Correct), newest last."""
    stopped: bool | None = None
    """A second foreign change came within an hour of a correction: hands off until a person says retry."""


class AppliedTags(StatusModel):
    """The tag keys Sluice wrote on one AWS resource; only those are ever removed."""

    resource: Annotated[str, Field(max_length=128)]
    """endpoint, endpoint-config/<name> or model/<name>."""
    digest: Annotated[str, Field(max_length=80)]
    keys: Annotated[tuple[Annotated[str, Field(max_length=128)], ...], Field(max_length=50)] = ()


class ObservedReference(StatusModel):
    """A referenced object as it was when the desired revision was resolved."""

    kind: Annotated[str, Field(max_length=32)]
    name: Annotated[str, Field(max_length=253)]
    uid: Annotated[str, Field(max_length=64)]
    generation: int


class EndpointStatus(StatusModel):
    """Status of an Endpoint."""

    format_version: int = FORMAT_VERSION
    observed_generation: int | None = None
    endpoint_status: EndpointStatusWord | None = None
    failure_reason: Annotated[str, Field(max_length=1024)] | None = None
    endpoint_arn: Annotated[str, Field(max_length=2048)] | None = None
    address: Annotated[str, Field(max_length=2048)] | None = None
    creation_time: Time | None = None
    last_modified_time: Time | None = None
    """SageMaker's LastModifiedTime as last described: an equal one in a listing means that nothing moved."""
    production_variants: Annotated[tuple[VariantSummary, ...], Field(max_length=10)] = ()
    shadow_production_variants: Annotated[tuple[VariantSummary, ...], Field(max_length=1)] = ()
    adopted: bool | None = None
    """Somebody else made the endpoint: unless deletionPolicy says otherwise, it stays when this object goes."""
    revision: RevisionStatus | None = None
    """The revision in service."""
    previous_revision: RevisionStatus | None = None
    desired_revision: RevisionStatus | None = None
    """What the spec resolves to now."""
    deployment: DeploymentStatus | None = None
    last_deployment: LastDeployment | None = None
    last_deployment_config: OpenObject | None = None
    """The DeploymentConfig that was used last (backend Cluster)."""
    history: Annotated[tuple[LastDeployment, ...], Field(max_length=5)] = ()
    """Newest first; the last deployment included."""
    intent: Intent | None = None
    latch: Latch | None = None
    live_latch: Annotated[str, Field(max_length=80)] | None = None
    """Digest of a set of weights and counts that SageMaker refused or rolled back."""
    settle: Settle | None = None
    alarms: Annotated[tuple[AlarmStatus, ...], Field(max_length=20)] = ()
    alarms_text: Annotated[str, Field(max_length=64)] | None = None
    commands: Annotated[tuple[CommandAck, ...], Field(max_length=16)] = ()
    problem: Problem | None = None
    drift: Drift | None = None
    applied_tags: Annotated[tuple[AppliedTags, ...], Field(max_length=64)] = ()
    route: RouteStatus | None = None
    """What the routers are to apply (backend Cluster)."""
    observed_references: Annotated[tuple[ObservedReference, ...], Field(max_length=64)] = ()
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] = ()


class DeclarationStatus(StatusModel):
    """Status of a Model or an EndpointConfig: accepted or not, and whether what uses it runs it."""

    observed_generation: int | None = None
    used_by: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=50)] = ()
    """Endpoints that name this object (the first fifty, sorted)."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=8)] = ()


class ModelStatus(DeclarationStatus):
    """Status of a Model."""


class EndpointConfigStatus(DeclarationStatus):
    """Status of an EndpointConfig."""
