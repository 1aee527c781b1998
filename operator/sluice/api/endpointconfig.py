"""EndpointConfig: what CreateEndpointConfig takes.

An EndpointConfig is a declaration. It may be edited in place; Endpoints that refer to it deploy the change, except
initialInstanceCount and initialVariantWeight, which are changed on the serving fleet.
"""

from typing import Annotated, Literal

from pydantic import Field

from sluice.api.base import ApiModel, ListAtomic, ListMap, ListSet, Rule
from sluice.api.cel import both_or_neither, exactly_one, found
from sluice.api.explainer import ExplainerConfig
from sluice.api.types import (
    MAX_INT32,
    DestinationS3Uri,
    InstanceType,
    Int32,
    KmsKeyId,
    MetricPublishFrequency,
    ObjectName,
    ReservedTagKeys,
    RoleArn,
    SageMakerName,
    SnsTopicArn,
    Tag,
    VpcConfig,
)


class InstancePool(ApiModel):
    """One of several instance types that a variant may get."""

    instance_type: InstanceType
    """The instance type of this pool."""
    model_name_override: ObjectName | None = None
    """A Model (metadata.name, same namespace) to run on this pool instead of the variant's."""
    priority: Annotated[int, Field(ge=1, le=5), Int32]
    """Pools are tried from 1 upwards."""


class CoreDumpConfig(ApiModel):
    """Where core dumps of the model's process go."""

    destination_s3_uri: DestinationS3Uri
    """The bucket and prefix."""
    kms_key_id: KmsKeyId | None = None
    """The key that encrypts them."""


class ServerlessConfig(ApiModel):
    """A variant that has no instances of its own."""

    rules = (
        Rule(
            rule="self.memorySizeInMB % 1024 == 0",
            message="memorySizeInMB is one of 1024, 2048, 3072, 4096, 5120 and 6144",
            message_expression=found(
                "memorySizeInMB: found %s, allowed are 1024, 2048, 3072, 4096, 5120 and 6144",
                "string(self.memorySizeInMB)",
            ),
            field_path=".memorySizeInMB",
        ),
        Rule(
            rule="!has(self.provisionedConcurrency) || self.provisionedConcurrency <= self.maxConcurrency",
            message="provisionedConcurrency may not exceed maxConcurrency",
            message_expression=found(
                "provisionedConcurrency: found %s, allowed is at most maxConcurrency, %s",
                "string(self.provisionedConcurrency)",
                "string(self.maxConcurrency)",
            ),
            field_path=".provisionedConcurrency",
        ),
    )

    memory_size_in_mb: Annotated[int, Field(alias="memorySizeInMB", ge=1024, le=6144), Int32]
    """Memory, in steps of 1024."""
    max_concurrency: Annotated[int, Field(ge=1, le=200), Int32]
    """Invocations at the same time; more are throttled."""
    provisioned_concurrency: Annotated[int | None, Field(ge=1, le=200), Int32] = None
    """Capacity that is kept warm; at most maxConcurrency."""


class ScaleInPolicy(ApiModel):
    """How managed scaling takes instances away."""

    strategy: Literal["IDLE_RELEASE", "CONSOLIDATION"]
    """Release idle instances, or also move work together to free some."""
    maximum_step_size: Annotated[int | None, Field(ge=1, le=100), Int32] = None
    """Instances that one step may take away. SageMaker's default is 1."""
    cooldown_in_minutes: Annotated[int | None, Field(ge=5, le=1440), Int32] = None
    """Time between two steps. SageMaker's default is 20."""


class ManagedInstanceScaling(ApiModel):
    """Instance counts that SageMaker itself scales."""

    rules = (
        Rule(
            rule="!has(self.minInstanceCount) || !has(self.maxInstanceCount) || "
            "self.minInstanceCount <= self.maxInstanceCount",
            message="minInstanceCount may not exceed maxInstanceCount",
            message_expression=found(
                "minInstanceCount: found %s, allowed is at most maxInstanceCount, %s",
                "string(self.minInstanceCount)",
                "string(self.maxInstanceCount)",
            ),
            field_path=".minInstanceCount",
        ),
    )

    status: Literal["ENABLED", "DISABLED"] | None = None
    """Whether SageMaker scales the instances."""
    min_instance_count: Annotated[int | None, Field(ge=0, le=MAX_INT32), Int32] = None
    """The fewest instances."""
    max_instance_count: Annotated[int | None, Field(ge=1, le=MAX_INT32), Int32] = None
    """The most instances."""
    scale_in_policy: ScaleInPolicy | None = None
    """How instances are taken away."""


class PrefixAwareRoutingConfig(ApiModel):
    """Requests with the same beginning go to the same instance."""

    prefix_length: Annotated[int | None, Field(ge=1024, le=65536), Int32] = None
    """How much of the request counts as its beginning. Required with PREFIX_AWARE."""
    concurrency_threshold: Annotated[int | None, Field(ge=1, le=1024), Int32] = None
    """Requests in flight above which another instance is taken. Required with PREFIX_AWARE."""


class RoutingConfig(ApiModel):
    """How requests are spread over the instances of a variant."""

    rules = (
        both_or_neither(
            "prefixAwareRoutingConfig", "routingStrategy is PREFIX_AWARE", "self.routingStrategy == 'PREFIX_AWARE'"
        ),
        Rule(
            rule="!has(self.prefixAwareRoutingConfig) || (has(self.prefixAwareRoutingConfig.prefixLength) && "
            "has(self.prefixAwareRoutingConfig.concurrencyThreshold))",
            message="prefixAwareRoutingConfig: prefixLength and concurrencyThreshold are required",
            field_path=".prefixAwareRoutingConfig",
            reason="FieldValueRequired",
        ),
    )

    routing_strategy: Literal["LEAST_OUTSTANDING_REQUESTS", "RANDOM", "PREFIX_AWARE", "KV_AWARE"]
    """SageMaker's default, without a routingConfig, is RANDOM."""
    prefix_aware_routing_config: PrefixAwareRoutingConfig | None = None
    """For PREFIX_AWARE."""


class CapacityReservationConfig(ApiModel):
    """Reserved capacity that the variant's instances come from."""

    capacity_reservation_preference: Literal["capacity-reservations-only"] | None = None
    """Instances only from the reservation, or none."""
    ml_reservation_arn: (
        Annotated[
            str,
            Field(
                min_length=20,
                max_length=258,
                pattern=r"^arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:[a-z0-9\-]{1,14}/.*$",
            ),
        ]
        | None
    ) = None
    """The reservation."""


class AcceleratorPartitionLayout(ApiModel):
    """How one accelerator is partitioned."""

    accelerator_partition_types: Annotated[
        tuple[Annotated[str, Field(max_length=32, pattern=r"^mig-[0-9]+g\.[0-9]+gb([+-][a-z0-9.]+)*$")], ...] | None,
        ListAtomic(),
        Field(max_length=32),
    ] = None
    """MIG profiles, for example mig-3g.40gb."""


AcceleratorType = Literal[
    "ml.eia1.medium", "ml.eia1.large", "ml.eia1.xlarge", "ml.eia2.medium", "ml.eia2.large", "ml.eia2.xlarge"
]
InferenceAmiVersion = Literal[
    "al2-ami-sagemaker-inference-gpu-2",
    "al2-ami-sagemaker-inference-gpu-2-1",
    "al2-ami-sagemaker-inference-gpu-3-1",
    "al2-ami-sagemaker-inference-neuron-2",
    "al2023-ami-sagemaker-inference-gpu-4-1",
]


class VariantKubernetes(ApiModel):
    """What SageMaker has no word for. Only backend Cluster reads it."""

    zone_spread: Literal["Preferred", "Required"] | None = None
    """How two or more instances are spread over zones. Required: a pod that would break the spread waits. Absent:
    Preferred, and condition ZoneSpreadUnmet tells when they are not spread."""
    max_concurrent_requests_per_instance: Annotated[int | None, Field(ge=1, le=100000), Int32] = None
    """Each router answers 503 to what exceeds this many requests at once, times the variant's instances. Absent: no
    limit."""


class ProductionVariant(ApiModel):
    """One model at one size, and its share of the traffic."""

    rules = (
        exactly_one(
            ["instanceType", "instancePools", "serverlessConfig"], "a variant runs on instances or is serverless"
        ),
        Rule(
            rule="has(self.initialInstanceCount) || has(self.serverlessConfig)",
            message="initialInstanceCount is required for a variant that runs on instances",
            reason="FieldValueRequired",
        ),
        Rule(
            rule="!has(self.serverlessConfig) || (!has(self.initialInstanceCount) && "
            "!has(self.managedInstanceScaling) && !has(self.acceleratorType))",
            message="initialInstanceCount, managedInstanceScaling, acceleratorType: set beside serverlessConfig, "
            "allowed only for a variant that runs on instances",
            reason="FieldValueForbidden",
        ),
        Rule(
            rule="has(self.modelName) || !has(self.instancePools) || "
            "!self.instancePools.exists(pool, has(pool.modelNameOverride))",
            message="instancePools: modelNameOverride is set without a modelName that it overrides",
            field_path=".instancePools",
            reason="FieldValueForbidden",
        ),
    )

    variant_name: SageMakerName
    """Unique among production and shadow variants."""
    model_name: ObjectName | None = None
    """A Model (metadata.name) in the same namespace. Absent: the variant hosts inference components."""
    initial_instance_count: Annotated[int | None, Field(ge=1, le=MAX_INT32), Int32] = None
    """Instances. A change is made on the serving fleet, unless somebody else scales it."""
    instance_type: InstanceType | None = None
    """For example ml.m5.large. In the cluster it stands for resources and nodes."""
    instance_pools: Annotated[tuple[InstancePool, ...] | None, ListAtomic(), Field(min_length=1, max_length=5)] = None
    """Several instance types, tried by priority."""
    variant_instance_provision_timeout_in_seconds: Annotated[int | None, Field(ge=300, le=3600), Int32] = None
    """How long to look for capacity."""
    initial_variant_weight: Annotated[float | None, Field(ge=0)] = None
    """Share of the traffic: this weight by the sum of all weights. Absent: 1. A change is made on the serving fleet."""
    accelerator_type: AcceleratorType | None = None
    """Elastic Inference. SageMaker no longer offers it."""
    core_dump_config: CoreDumpConfig | None = None
    """Where core dumps of the model's process go."""
    serverless_config: ServerlessConfig | None = None
    """Makes the variant serverless."""
    volume_size_in_gb: Annotated[int | None, Field(alias="volumeSizeInGB", ge=1, le=512), Int32] = None
    """Size of the instance's volume, for instance types without a local disk."""
    model_data_download_timeout_in_seconds: Annotated[int | None, Field(ge=60, le=3600), Int32] = None
    """How long the download of the model data may take."""
    container_startup_health_check_timeout_in_seconds: Annotated[int | None, Field(ge=60, le=3600), Int32] = None
    """How long the container may take to pass /ping."""
    enable_ssm_access: Annotated[bool | None, Field(alias="enableSSMAccess")] = None
    """Lets AWS Systems Manager into the instances."""
    managed_instance_scaling: ManagedInstanceScaling | None = None
    """Instance counts that SageMaker itself scales."""
    routing_config: RoutingConfig | None = None
    """How requests are spread over the instances."""
    inference_ami_version: InferenceAmiVersion | None = None
    """The machine image of GPU and Neuron instances."""
    capacity_reservation_config: CapacityReservationConfig | None = None
    """Reserved capacity that the instances come from."""
    accelerator_partition_layouts: Annotated[
        tuple[AcceleratorPartitionLayout, ...] | None, ListAtomic(), Field(min_length=1, max_length=32)
    ] = None
    """How the accelerators are partitioned."""
    kubernetes: VariantKubernetes | None = None
    """What SageMaker has no word for. Only backend Cluster reads it."""


class CaptureOption(ApiModel):
    """What is captured."""

    capture_mode: Literal["Input", "Output", "InputAndOutput"]
    """Requests, responses, or both."""


ContentType = Annotated[
    str,
    Field(min_length=1, max_length=256, pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*\/[a-zA-Z0-9](-*[a-zA-Z0-9.])*$"),
]
ContentTypes = Annotated[tuple[ContentType, ...] | None, ListAtomic(), Field(min_length=1, max_length=10)]


class CaptureContentTypeHeader(ApiModel):
    """How captured bodies are written; other content types are encoded in base64."""

    csv_content_types: ContentTypes = None
    """Content types that are captured as CSV."""
    json_content_types: ContentTypes = None
    """Content types that are captured as JSON."""


class DataCaptureConfig(ApiModel):
    """Copies of requests and responses in S3."""

    enable_capture: bool | None = None
    """SageMaker's default is true."""
    initial_sampling_percentage: Annotated[int, Field(ge=0, le=100), Int32]
    """The share of requests that is captured."""
    destination_s3_uri: DestinationS3Uri
    """The bucket and prefix."""
    kms_key_id: KmsKeyId | None = None
    """The key that encrypts the copies."""
    capture_options: Annotated[tuple[CaptureOption, ...], ListAtomic(), Field(min_length=1, max_length=32)]
    """What is captured."""
    capture_content_type_header: CaptureContentTypeHeader | None = None
    """How bodies are written."""


class AsyncClientConfig(ApiModel):
    """How SageMaker calls the container of an asynchronous endpoint."""

    max_concurrent_invocations_per_instance: Annotated[int | None, Field(ge=1, le=1000), Int32] = None
    """Requests at the same time on one instance. Absent: SageMaker chooses."""


class AsyncNotificationConfig(ApiModel):
    """SNS topics that hear of results."""

    success_topic: SnsTopicArn | None = None
    """Hears of results."""
    error_topic: SnsTopicArn | None = None
    """Hears of failures."""
    include_inference_response_in: Annotated[
        tuple[Literal["SUCCESS_NOTIFICATION_TOPIC", "ERROR_NOTIFICATION_TOPIC"], ...] | None,
        ListSet(),
        Field(max_length=2),
    ] = None
    """The notifications that carry the response itself, if it is small."""


class AsyncOutputConfig(ApiModel):
    """Where results and failures go."""

    kms_key_id: KmsKeyId | None = None
    """The key that encrypts the results."""
    s3_output_path: DestinationS3Uri | None = None
    """Where results go."""
    notification_config: AsyncNotificationConfig | None = None
    """SNS topics that hear of results."""
    s3_failure_path: DestinationS3Uri | None = None
    """Where failures go."""


class AsyncInferenceConfig(ApiModel):
    """Makes the endpoint asynchronous: it takes only InvokeEndpointAsync."""

    client_config: AsyncClientConfig | None = None
    """How the container is called."""
    output_config: AsyncOutputConfig
    """Where results and failures go."""


class MetricsConfig(ApiModel):
    """Utilization metrics."""

    enable_enhanced_metrics: bool | None = None
    """Metrics per instance and container."""
    enable_detailed_observability: bool | None = None
    """Container, GPU and placement metrics."""
    metric_publish_frequency_in_seconds: MetricPublishFrequency | None = None
    """How often metrics are published. SageMaker's default is 60."""


class CrossRegionTrafficConfig(ApiModel):
    """The cap on requests that come from inference routers in other regions."""

    max_invocations_per_second_per_instance: Annotated[int, Field(ge=1, le=10000), Int32]
    """What one instance can take."""
    max_cross_region_percent_per_endpoint: Annotated[int, Field(ge=1, le=100), Int32]
    """The share of it that other regions may use."""


UniqueNamesRule = Rule(
    rule="!has(self.shadowProductionVariants) || self.shadowProductionVariants.all(s, "
    "!self.productionVariants.exists(p, p.variantName == s.variantName))",
    message="variantName must be unique among productionVariants and shadowProductionVariants",
    message_expression=found(
        'shadowProductionVariants: found the variantName "%s" also in productionVariants, allowed are unique names',
        "self.shadowProductionVariants.filter(s, "
        "self.productionVariants.exists(p, p.variantName == s.variantName))[0].variantName",
    ),
    field_path=".shadowProductionVariants",
)

_SERVERLESS = "self.productionVariants.exists(v, has(v.serverlessConfig))"


class EndpointConfigSpec(ApiModel):
    """What CreateEndpointConfig takes. EndpointConfigName is metadata.name."""

    rules = (
        UniqueNamesRule,
        Rule(
            rule="!has(self.shadowProductionVariants) || "
            "(size(self.shadowProductionVariants) == 1 && size(self.productionVariants) == 1)",
            message="shadowProductionVariants needs exactly one shadow and one production variant",
            message_expression=found(
                "shadowProductionVariants: found %s shadow and %s production variants, allowed is one of each",
                "string(size(self.shadowProductionVariants))",
                "string(size(self.productionVariants))",
            ),
            field_path=".shadowProductionVariants",
        ),
        Rule(
            rule="self.productionVariants.exists(v, !has(v.initialVariantWeight) || v.initialVariantWeight > 0.0)",
            message="initialVariantWeight: found 0 for every production variant, at least one must be greater, or no "
            "request could be routed",
            field_path=".productionVariants",
        ),
        Rule(
            rule=f"!{_SERVERLESS} || (size(self.productionVariants) == 1 && !has(self.shadowProductionVariants))",
            message="productionVariants: a serverless variant must be the only variant",
            field_path=".productionVariants",
        ),
        Rule(
            rule=f"!{_SERVERLESS} || (!has(self.dataCaptureConfig) && !has(self.vpcConfig) && "
            "!(has(self.enableNetworkIsolation) && self.enableNetworkIsolation))",
            message="dataCaptureConfig, vpcConfig, enableNetworkIsolation: set beside a serverless variant, which "
            "supports none of them",
            reason="FieldValueForbidden",
        ),
        Rule(
            rule=f"!has(self.crossRegionTrafficConfig) || (!{_SERVERLESS} && !has(self.asyncInferenceConfig))",
            message="crossRegionTrafficConfig: is set beside a serverless variant or asyncInferenceConfig, allowed "
            "only for real-time endpoints on instances",
            field_path=".crossRegionTrafficConfig",
            reason="FieldValueForbidden",
        ),
        Rule(
            rule="self.productionVariants.all(v, has(v.modelName)) || has(self.executionRoleArn)",
            message="executionRoleArn is required when a variant has no modelName",
            reason="FieldValueRequired",
        ),
    )

    production_variants: Annotated[
        tuple[ProductionVariant, ...], ListMap("variantName"), Field(min_length=1, max_length=10)
    ]
    """The variants that share the traffic by their weights."""
    shadow_production_variants: Annotated[
        tuple[ProductionVariant, ...] | None, ListMap("variantName"), Field(min_length=1, max_length=10)
    ] = None
    """A variant that gets copies of requests and whose answers are dropped. At most one."""
    data_capture_config: DataCaptureConfig | None = None
    """Copies of requests and responses in S3."""
    async_inference_config: AsyncInferenceConfig | None = None
    """Makes the endpoint asynchronous."""
    explainer_config: ExplainerConfig | None = None
    """Explanations with each inference."""
    kms_key_id: KmsKeyId | None = None
    """The key that encrypts the instances' volumes."""
    execution_role_arn: RoleArn | None = None
    """The role of an endpoint with inference components."""
    vpc_config: VpcConfig | None = None
    """The VPC of an endpoint with inference components."""
    enable_network_isolation: bool | None = None
    """No network calls into or out of the containers, except invocations."""
    metrics_config: MetricsConfig | None = None
    """Utilization metrics."""
    cross_region_traffic_config: CrossRegionTrafficConfig | None = None
    """The cap on requests from other regions."""
    tags: Annotated[tuple[Tag, ...] | None, ListMap("key"), ReservedTagKeys, Field(max_length=49)] = None
    """Tags of the AWS endpoint config. SageMaker takes 50; one of them says whose it is."""
