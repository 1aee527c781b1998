"""Endpoint: what CreateEndpoint and UpdateEndpoint take, where it runs, and what only Sluice knows.

An Endpoint makes an EndpointConfig and its Models real, on SageMaker or in the cluster.
"""

from typing import Annotated, Literal

from pydantic import Field

from sluice.api.base import ApiModel, ListMap, Rule, Rules
from sluice.api.cel import both_or_neither, exactly_one, found, immutable
from sluice.api.deployment import DeploymentConfig
from sluice.api.types import MAX_INT32, Int32, ObjectName, ReservedTagKeys, RoleArn, SageMakerName, Tag

Comparison = Literal[
    "GreaterThanThreshold", "GreaterThanOrEqualToThreshold", "LessThanThreshold", "LessThanOrEqualToThreshold"
]
"""CloudWatch's words for how a value is compared with its threshold."""


class VariantProperty(ApiModel):
    """A property of the variants that is not retained."""

    variant_property_type: Literal["DesiredInstanceCount", "DesiredWeight", "DataCaptureConfig"]
    """Taken from the EndpointConfig although retainAllVariantProperties is true."""


class SageMakerPlacement(ApiModel):
    """Where in AWS the endpoint lives."""

    region: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z]{2,}(-[a-z0-9]+)+$")] | None = None
    """The region. Absent: the operator's. It can be set or changed only at creation."""
    assume_role_arn: RoleArn | None = None
    """The role that Sluice assumes for this Endpoint. Absent: the operator's own."""


class PrometheusAlert(ApiModel):
    """An alert of the cluster's Prometheus, by name."""

    alert_name: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:.\- ]*$")]
    """The alerting rule's name."""
    match_labels: Annotated[
        dict[str, Annotated[str, Field(max_length=256)]] | None,
        Rules(
            Rule(
                rule="self.all(label, label.matches('^[a-zA-Z_][a-zA-Z0-9_]*$'))",
                message="matchLabels: names of labels are letters, digits and underscores, not a digit first",
            )
        ),
        Field(max_length=16),
    ] = None
    """Labels that the alert must carry."""


class PromQL(ApiModel):
    """A condition that Sluice evaluates in the cluster's Prometheus."""

    expression: Annotated[str, Field(min_length=1, max_length=4096)]
    """An instant query with one value as its result."""
    comparison: Comparison
    """How the value is compared with the threshold."""
    threshold: float
    """In the unit of the expression."""
    for_seconds: Annotated[int | None, Field(ge=0, le=3600), Int32] = None
    """How long the condition must hold before the alarm is in state ALARM. Absent: 0."""


class TrafficCondition(ApiModel):
    """A condition on what the routers see of the new revision. It needs no Prometheus."""

    rules = (both_or_neither("percentile", "metric is ModelLatency", "self.metric == 'ModelLatency'"),)

    metric: Literal["Invocation4XXErrors", "Invocation5XXErrors", "ModelLatency"]
    """Share of invocations that failed (0 to 1), or latency in microseconds, as in CloudWatch."""
    percentile: Annotated[float | None, Field(ge=0, le=100)] = None
    """Which percentile of ModelLatency, for example 99."""
    threshold: float
    """A share, microseconds, or with relativeToServing a factor."""
    comparison: Comparison | None = None
    """How the value is compared with the threshold. Absent: GreaterThanThreshold."""
    window_seconds: Annotated[int | None, Field(ge=1, le=3600), Int32] = None
    """The window that is looked at. Absent: 60."""
    minimum_requests: Annotated[int | None, Field(ge=1, le=MAX_INT32), Int32] = None
    """Fewer requests in the window are INSUFFICIENT_DATA. Absent: 1."""
    relative_to_serving: bool | None = None
    """The threshold is a factor on the same metric of the serving revision."""
    variant_name: SageMakerName | None = None
    """A production variant of the new revision, which alone is looked at. Absent: each of them, by itself."""


class KubernetesAlarm(ApiModel):
    """An alarm that CloudWatch does not know."""

    rules = (exactly_one(["prometheusAlert", "promql", "traffic"], "an alarm has one source"),)

    name: SageMakerName
    """Unique among kubernetes.alarms."""
    prometheus_alert: PrometheusAlert | None = None
    """An alert of the cluster's Prometheus."""
    promql: PromQL | None = None
    """A condition in PromQL."""
    traffic: TrafficCondition | None = None
    """A condition on what the routers see."""
    on_insufficient_data: Literal["Hold", "Continue", "RollBack"] | None = None
    """Absent: holds if the alarm had data when the deployment started, else goes on with a warning."""


class EndpointKubernetes(ApiModel):
    """What SageMaker has no word for. Only backend Cluster reads it."""

    alarms: Annotated[tuple[KubernetesAlarm, ...] | None, ListMap("name"), Field(max_length=10)] = None
    """Alarms beside those of deploymentConfig.autoRollbackConfiguration."""
    invocation_timeout_seconds: Annotated[int | None, Field(ge=1, le=3600), Int32] = None
    """How long an invocation may take, from the request to the last byte of the answer. Absent: as the
    installation's administrator says, else 60, as in SageMaker."""
    max_payload_bytes: Annotated[int | None, Field(ge=1, le=1 << 30), Int32] = None
    """The largest body of a request. Absent: as the installation's administrator says, else 6291456, as in
    SageMaker."""
    replace_first: bool | None = None
    """In a rolling deployment the instances that a batch replaces go before the new ones come, for pools that have no
    room for one batch more. One batch less serves meanwhile. Needs two instances of each variant. Absent: false."""


_REGION = "(has({0}.sagemaker) && has({0}.sagemaker.region) ? {0}.sagemaker.region : '')"


class EndpointSpec(ApiModel):
    """What CreateEndpoint and UpdateEndpoint take, where it runs, and how Sluice deals with what others change."""

    rules = (
        Rule(
            rule="self.backend == 'SageMaker' || !has(self.sagemaker)",
            message="sagemaker: is set, allowed only when backend is SageMaker",
            message_expression=found(
                "sagemaker: is set with backend %s, allowed only when backend is SageMaker", "self.backend"
            ),
            field_path=".sagemaker",
            reason="FieldValueForbidden",
        ),
        Rule(
            rule=f"{_REGION.format('self')} == {_REGION.format('oldSelf')}",
            message="sagemaker.region is immutable: it can neither be changed nor added nor removed; create another "
            "Endpoint",
            message_expression=found(
                'sagemaker.region: found "%s", allowed is "%s", because it is immutable: create another Endpoint',
                _REGION.format("self"),
                _REGION.format("oldSelf"),
            ),
            field_path=".sagemaker.region",
        ),
        Rule(
            rule="!has(self.excludeRetainedVariantProperties) || size(self.excludeRetainedVariantProperties) == 0 || "
            "(has(self.retainAllVariantProperties) && self.retainAllVariantProperties)",
            message="excludeRetainedVariantProperties: is set, allowed only when retainAllVariantProperties is true",
            field_path=".excludeRetainedVariantProperties",
            reason="FieldValueForbidden",
        ),
    )

    backend: Annotated[
        Literal["Cluster", "SageMaker"], Rules(immutable("backend", "create another Endpoint for another backend"))
    ]
    """Where the endpoint runs. Immutable."""
    endpoint_name: SageMakerName | None = None
    """The name in SageMaker, case preserved. Absent: metadata.name. Immutable."""
    endpoint_config_name: ObjectName
    """An EndpointConfig (metadata.name) in the same namespace."""
    deployment_config: DeploymentConfig | None = None
    """How a new revision replaces the serving one. Absent: all at once."""
    retain_all_variant_properties: bool | None = None
    """A deployment keeps live instance counts and weights. Absent: true if an autoscaler is registered, else false."""
    exclude_retained_variant_properties: Annotated[
        tuple[VariantProperty, ...] | None, ListMap("variantPropertyType"), Field(max_length=3)
    ] = None
    """What is taken from the EndpointConfig although retainAllVariantProperties is true."""
    retain_deployment_config: bool | None = None
    """Use the DeploymentConfig of the last deployment."""
    tags: Annotated[tuple[Tag, ...] | None, ListMap("key"), ReservedTagKeys, Field(max_length=49)] = None
    """Tags of the AWS endpoint. SageMaker takes 50; one of them says whose it is."""
    sagemaker: SageMakerPlacement | None = None
    """Where in AWS the endpoint lives. Only with backend SageMaker."""
    drift_policy: Literal["Report", "Correct"] | None = None
    """What happens when somebody else changes the endpoint in AWS. Absent: Report."""
    deletion_policy: Literal["Delete", "Retain"] | None = None
    """Whether the endpoint goes with this object. Absent: Delete, for adopted endpoints Retain."""
    kubernetes: EndpointKubernetes | None = None
    """What SageMaker has no word for. Only backend Cluster reads it."""


_EFFECTIVE = "(has({0}.spec.endpointName) ? {0}.spec.endpointName : {0}.metadata.name)"

# A rule of the whole object: absent endpointName means metadata.name, so neither adding nor removing it may change it.
ENDPOINT_NAME_RULE = Rule(
    rule=f"{_EFFECTIVE.format('self')} == {_EFFECTIVE.format('oldSelf')}",
    message="spec.endpointName is immutable: create another Endpoint for another name",
    message_expression=found(
        'spec.endpointName: found "%s", allowed is "%s", because it is immutable: create another Endpoint',
        _EFFECTIVE.format("self"),
        _EFFECTIVE.format("oldSelf"),
    ),
    field_path=".spec.endpointName",
)
