"""Model: what CreateModel takes, and what only Kubernetes knows under `kubernetes`.

A Model is a declaration. It may be edited in place; Endpoints that refer to it deploy the change.
"""

from typing import Annotated, Literal

from pydantic import Field

from sluice.api.base import ApiModel, IntOrString, ListAtomic, ListMap, Rule, Rules, Schema
from sluice.api.cel import at_most_one, exactly_one, found
from sluice.api.types import (
    Int32,
    MetricPublishFrequency,
    ModelDataUrl,
    ReservedTagKeys,
    RoleArn,
    SageMakerName,
    Tag,
    Url,
    VpcConfig,
)

ENVIRONMENT_KEY = r"^[a-zA-Z_][a-zA-Z0-9_]*$"
MAX_ENVIRONMENT_SIZE = 32768

_BAD_KEY = f"!key.matches('{ENVIRONMENT_KEY}') || size(key) > 1024"
EnvironmentKeys = Rules(
    Rule(
        rule=f"self.all(key, key.matches('{ENVIRONMENT_KEY}') && size(key) <= 1024)",
        message="environment keys are letters, digits and underscores, do not begin with a digit, and have at most "
        "1024 characters",
        message_expression=found(
            'environment: found the key "%s", allowed are letters, digits and underscores, not a digit first, at most '
            "1024 characters",
            f"self.filter(key, {_BAD_KEY})[0]",
        ),
    )
)


class RepositoryAuthConfig(ApiModel):
    """Credentials of a private registry in a VPC."""

    repository_credentials_provider_arn: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^.*$")]
    """The Lambda function that hands out the registry's credentials."""


class ImageConfig(ApiModel):
    """Where the image is pulled from: Amazon ECR, or a private registry in your VPC."""

    repository_access_mode: Literal["Platform", "Vpc"]
    """Platform: Amazon ECR. Vpc: a registry that only your VPC reaches."""
    repository_auth_config: RepositoryAuthConfig | None = None
    """For registries in a VPC that ask for credentials."""


class ModelAccessConfig(ApiModel):
    """Consent to the licence of a gated model."""

    accept_eula: bool
    """Must be true for models with an end-user licence agreement."""


class HubAccessConfig(ApiModel):
    """The hub content that the model data comes from."""

    hub_content_arn: Annotated[str, Field(max_length=255, pattern=r"^.*$")]
    """ARN of the hub content for which deployment is allowed."""


class S3DataSource(ApiModel):
    """Model data in S3: one object, or every object under a prefix."""

    rules = (
        Rule(
            rule="self.s3DataType != 'S3Prefix' || self.s3Uri.endsWith('/')",
            message="s3Uri must end with '/' when s3DataType is S3Prefix",
            message_expression=found(
                's3Uri: found "%s", allowed is a prefix that ends with "/", because s3DataType is S3Prefix',
                "self.s3Uri",
            ),
            field_path=".s3Uri",
        ),
    )

    s3_uri: Url
    """The object, or the prefix with its final slash."""
    s3_data_type: Literal["S3Prefix", "S3Object"]
    """Whether s3Uri names a prefix or one object."""
    compression_type: Literal["None", "Gzip"]
    """Gzip: a .tar.gz that is unpacked. None: files are laid out as they are."""
    model_access_config: ModelAccessConfig | None = None
    """Consent to the model's licence."""
    hub_access_config: HubAccessConfig | None = None
    """Set when the data comes from a SageMaker hub."""
    manifest_s3_uri: Url | None = None
    """A manifest that lists the locations of the artifacts."""
    e_tag: Annotated[str, Field(max_length=1024)] | None = None
    """The ETag that the object at s3Uri must have."""
    manifest_etag: Annotated[str, Field(max_length=1024)] | None = None
    """The ETag that the manifest must have."""


class ModelDataSource(ApiModel):
    """Model data that is not one .tar.gz."""

    s3_data_source: Annotated[S3DataSource | None, Field(alias="s3DataSource")] = None
    """Where in S3, and in which form."""


class AdditionalModelDataSource(ApiModel):
    """More model data, such as adapters or a draft model, under its own directory."""

    channel_name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9\.\-_]+$")]
    """The directory's name under /opt/ml/additional-model-data-sources."""
    s3_data_source: Annotated[S3DataSource, Field(alias="s3DataSource")]
    """Where in S3, and in which form."""


class MultiModelConfig(ApiModel):
    """Caching of models in a multi-model endpoint."""

    model_cache_setting: Literal["Enabled", "Disabled"] | None = None
    """Whether models stay in memory after a call. SageMaker's default is Enabled."""


class MetricsEndpoint(ApiModel):
    """A Prometheus endpoint of the container."""

    metrics_endpoint_path: Annotated[
        str,
        Field(max_length=256, pattern=r"^/(\.|\.?[a-zA-Z0-9/_\-]+(\.[a-zA-Z0-9/_\-]+)*\.?)$"),
    ]
    """The path, for example /metrics; it may not contain two dots in a row."""
    metric_publish_frequency_in_seconds: MetricPublishFrequency | None = None
    """How often the metrics are published. SageMaker's default is 60."""


class ContainerMetricsConfig(ApiModel):
    """Metrics that the container itself offers."""

    metrics_endpoints: Annotated[tuple[MetricsEndpoint, ...] | None, ListAtomic(), Field(max_length=1)] = None
    """At most one endpoint."""


class ContainerDefinition(ApiModel):
    """One container of a model: image, model data and environment."""

    rules = (
        at_most_one(["modelDataUrl", "modelDataSource"], "they name the same model data"),
        Rule(
            rule="has(self.image) || has(self.modelPackageName)",
            message="image is required unless modelPackageName names a model package that brings one",
            reason="FieldValueRequired",
        ),
        Rule(
            rule="!has(self.mode) || self.mode != 'MultiModel' || !has(self.modelDataSource)",
            message="modelDataSource: is set, allowed only when mode is SingleModel; a MultiModel container takes the "
            "prefix of its models in modelDataUrl",
            field_path=".modelDataSource",
            reason="FieldValueForbidden",
        ),
    )

    container_hostname: SageMakerName | None = None
    """The container's name in a pipeline, in logs and in requests to one container. Required for all in mode Direct."""
    image: Annotated[str, Field(max_length=255, pattern=r"^[\S]+$")] | None = None
    """The image with tag or digest. It is started with the argument `serve` and must answer /ping and /invocations."""
    image_config: ImageConfig | None = None
    """How SageMaker reaches the registry. In the cluster: kubernetes.imagePullSecrets."""
    mode: Literal["SingleModel", "MultiModel"] | None = None
    """Whether the container hosts one model or many. SageMaker's default is SingleModel."""
    model_data_url: ModelDataUrl | None = None
    """A .tar.gz in S3 that is unpacked into /opt/ml/model. In the cluster also `pvc://claim/path`: a .tar.gz in a
    PersistentVolumeClaim of the namespace, or with a final slash a directory that is copied."""
    model_data_source: ModelDataSource | None = None
    """Model data in another form than one .tar.gz. Excludes modelDataUrl."""
    additional_model_data_sources: Annotated[
        tuple[AdditionalModelDataSource, ...] | None, ListMap("channelName"), Field(max_length=5)
    ] = None
    """Further model data beside /opt/ml/model."""
    environment: Annotated[
        dict[str, Annotated[str, Field(max_length=1024, pattern=r"^[\S\s]*$")]] | None,
        EnvironmentKeys,
        Field(max_length=100),
    ] = None
    """Environment variables. No secrets: see kubernetes.env."""
    model_package_name: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=176,
                pattern=r"^(arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:[a-z\-]*\/)?"
                r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\/[0-9]{1,9})?$",
            ),
        ]
        | None
    ) = None
    """A model package (name or ARN) that brings image and model data."""
    inference_specification_name: Annotated[SageMakerName, Field(min_length=1)] | None = None
    """Which inference specification of the model package to use."""
    multi_model_config: MultiModelConfig | None = None
    """For mode MultiModel."""
    container_metrics_config: ContainerMetricsConfig | None = None
    """Metrics that the container itself offers."""


class InferenceExecutionConfig(ApiModel):
    """How the containers of a pipeline are called."""

    mode: Literal["Serial", "Direct"]
    """Serial: each container gets the answer of the one before. Direct: the request names one container."""


class LocalObjectReference(ApiModel):
    """An object in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    """Its metadata.name."""


class KeyReference(LocalObjectReference):
    """One key of a Secret or ConfigMap in the same namespace."""

    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
    """The key within its data."""


class EnvironmentSource(ApiModel):
    """Where the value of an environment variable comes from."""

    rules = (exactly_one(["secretKeyRef", "configMapKeyRef"], "a variable has one source"),)

    secret_key_ref: KeyReference | None = None
    """A key of a Secret. Its value never leaves the Secret: revisions store the reference."""
    config_map_key_ref: KeyReference | None = None
    """A key of a ConfigMap."""


class EnvironmentReference(ApiModel):
    """An environment variable whose value stands in a Secret or ConfigMap."""

    name: Annotated[str, Field(min_length=1, max_length=1024, pattern=ENVIRONMENT_KEY)]
    """The variable's name; it may not also stand in a container's environment."""
    value_from: EnvironmentSource
    """Where its value comes from."""


Quantity = Annotated[
    int | str,
    IntOrString(),
    Schema(
        pattern=r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|"
        r"(\.[0-9]+))))?$",
        maxLength=32,
    ),
]
"""A Kubernetes quantity such as 500m, 2 or 4Gi."""


class Resources(ApiModel):
    """Resources of each container of the model."""

    requests: Annotated[dict[str, Quantity] | None, Field(max_length=16)] = None
    """What the scheduler sets aside, by resource name."""
    limits: Annotated[dict[str, Quantity] | None, Field(max_length=16)] = None
    """What the container may use at most, by resource name."""


UserId = Annotated[int, Field(ge=1, le=2147483647), Schema(format="int64")]


class SecurityContext(ApiModel):
    """How far the pod departs from the restricted default (not root, no privileges, seccomp RuntimeDefault)."""

    rules = (
        Rule(
            rule="!has(self.runAsRoot) || !self.runAsRoot || (!has(self.runAsUser) && !has(self.runAsGroup))",
            message="runAsUser, runAsGroup: set beside runAsRoot true, allowed only without it",
            reason="FieldValueForbidden",
        ),
    )

    run_as_root: bool | None = None
    """Lets the containers run as root, as SageMaker does. Absent or false: an image that starts as root is refused."""
    run_as_user: UserId | None = None
    """The user to run as, if the image does not name one."""
    run_as_group: UserId | None = None
    """The group to run as."""
    fs_group: UserId | None = None
    """The group that owns the model data."""


class SampleInvocation(ApiModel):
    """A request that a pod must answer before it gets traffic, because /ping can say yes while the model fails."""

    rules = (
        Rule(
            rule="!has(self.periodSeconds) || !has(self.timeoutSeconds) || self.timeoutSeconds <= self.periodSeconds",
            message="timeoutSeconds may not exceed periodSeconds",
            message_expression=found(
                "timeoutSeconds: found %s, allowed is at most periodSeconds, %s",
                "string(self.timeoutSeconds)",
                "string(self.periodSeconds)",
            ),
            field_path=".timeoutSeconds",
        ),
    )

    body: Annotated[str, Field(max_length=16384)]
    """The body of the POST to /invocations."""
    content_type: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+( *; *[!-~]+)*$")] | None = None
    """The Content-Type header. Absent: application/json."""
    expected_status: Annotated[int, Field(ge=100, le=599), Int32] | None = None
    """The HTTP status that counts as healthy. Absent: 200."""
    timeout_seconds: Annotated[int, Field(ge=1, le=60), Int32] | None = None
    """How long the answer may take. Absent: 5."""
    period_seconds: Annotated[int, Field(ge=1, le=3600), Int32] | None = None
    """How often serving pods are asked again. Absent: only before the first traffic."""


ResourceName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""metadata.name of an object of Kubernetes."""


class ModelDataAccess(ApiModel):
    """How the download of the model data reaches its source, and whether a node keeps what it has downloaded."""

    rules = (at_most_one(["credentialsSecretName", "assumeExecutionRole"], "they are two identities for one download"),)

    credentials_secret_name: ResourceName | None = None
    """A Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_SESSION_TOKEN. Only the download sees it.
    Absent: the identity of the ServiceAccount (IRSA, Pod Identity)."""
    assume_execution_role: bool | None = None
    """The ServiceAccount's identity assumes executionRoleArn for the download. Absent: it reads the data itself."""
    s3_endpoint_url: Annotated[str, Field(max_length=1024, pattern=r"^https?://[^/?#]+(/[^?#]*)?$")] | None = None
    """The address of another S3 service than Amazon's."""
    region: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")] | None = None
    """The region of the bucket, and AWS_REGION of the containers. Absent: the operator's default."""
    cache_host_path: Annotated[str, Field(max_length=1024, pattern=r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$")] | None = None
    """A directory of the node that keeps downloads for later pods. A hostPath volume: the pod then departs from the
    restricted pod security standard, and the administrator must have allowed the directory."""


class ModelKubernetes(ApiModel):
    """What SageMaker has no word for. Only backend Cluster reads it."""

    service_account_name: ResourceName | None = None
    """The ServiceAccount of the model's pods; it carries the cloud identity. Absent: default."""
    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...] | None, ListMap("name"), Field(max_length=10)] = None
    """Secrets with the credentials of private registries."""
    env: Annotated[tuple[EnvironmentReference, ...] | None, ListMap("name"), Field(max_length=50)] = None
    """Environment variables from Secrets and ConfigMaps, for every container of the model."""
    resources: Resources | None = None
    """Overrides the resources that the variant's instanceType stands for."""
    security_context: SecurityContext | None = None
    """How far the pod departs from the restricted default."""
    sample_invocation: SampleInvocation | None = None
    """A request that a pod must answer before it gets traffic."""
    model_data_access: ModelDataAccess | None = None
    """How the download of the model data reaches its source."""
    priority_class_name: ResourceName | None = None
    """The PriorityClass of the model's pods."""
    pre_stop_seconds: Annotated[int, Field(ge=1, le=3600), Int32] | None = None
    """How long a pod that is to go serves on before SIGTERM, which SIGKILL follows 30 s later. As long as the longest
    invocation or stream, where rolling batches or lowered counts take instances out of a fleet that has requests; a
    fleet that goes as a whole waits for its requests before. Absent, or less: the installation's, 15."""


def _environment_size(container: str) -> str:
    variables = f"{container}.environment"
    return f"(has({variables}) ? {variables}.map(key, size(key) + size({variables}[key])).sum() : 0)"


def _environment_rule(field: str, present: str, size: str) -> Rule:
    return Rule(
        rule=f"!{present} || {size} <= {MAX_ENVIRONMENT_SIZE}",
        message=f"environment of {field}: keys and values together are at most {MAX_ENVIRONMENT_SIZE} characters",
        message_expression=found(
            f"environment of {field}: found %s characters in keys and values, allowed are at most "
            f"{MAX_ENVIRONMENT_SIZE}",
            f"string({size})",
        ),
    )


_HAS_CONTAINERS = "(has(self.containers) && size(self.containers) > 0)"
_HOSTNAMES = "self.containers.filter(c, has(c.containerHostname))"


class ModelSpec(ApiModel):
    """What CreateModel takes. ModelName is metadata.name."""

    rules = (
        Rule(
            rule=f"{_HAS_CONTAINERS} != has(self.primaryContainer)",
            message="exactly one of containers and primaryContainer must be set",
            message_expression=(
                "has(self.primaryContainer) ? 'containers, primaryContainer: both are set, allowed is exactly one' "
                ": 'containers, primaryContainer: neither is set, exactly one is required'"
            ),
        ),
        Rule(
            rule="!has(self.inferenceExecutionConfig) || self.inferenceExecutionConfig.mode != 'Direct' || "
            f"({_HAS_CONTAINERS} && self.containers.all(c, has(c.containerHostname)))",
            message="inferenceExecutionConfig.mode Direct needs containers, each with a containerHostname that "
            "requests can name",
            field_path=".inferenceExecutionConfig.mode",
        ),
        Rule(
            rule=f"!has(self.containers) || {_HOSTNAMES}.size() == 0 || {_HOSTNAMES}.size() == size(self.containers)",
            message="containers: if one container has a containerHostname, all must have one",
            message_expression=found(
                "containers: found a containerHostname on %s of %s containers, allowed is on all or on none",
                f"string({_HOSTNAMES}.size())",
                "string(size(self.containers))",
            ),
            field_path=".containers",
        ),
        Rule(
            rule=f"!has(self.containers) || {_HOSTNAMES}.all(c, "
            "self.containers.exists_one(d, has(d.containerHostname) && d.containerHostname == c.containerHostname))",
            message="containers: each containerHostname may stand only once",
            field_path=".containers",
        ),
        _environment_rule("primaryContainer", "has(self.primaryContainer)", _environment_size("self.primaryContainer")),
        _environment_rule(
            "containers", "has(self.containers)", f"self.containers.map(c, {_environment_size('c')}).sum()"
        ),
        Rule(
            rule="!has(self.kubernetes) || !has(self.kubernetes.modelDataAccess) || "
            "!has(self.kubernetes.modelDataAccess.assumeExecutionRole) || "
            "!self.kubernetes.modelDataAccess.assumeExecutionRole || has(self.executionRoleArn)",
            message="kubernetes.modelDataAccess.assumeExecutionRole: is true, allowed only with an executionRoleArn",
            field_path=".kubernetes.modelDataAccess.assumeExecutionRole",
            reason="FieldValueForbidden",
        ),
        Rule(
            rule="!has(self.kubernetes) || !has(self.kubernetes.env) || self.kubernetes.env.all(e, "
            "!(has(self.primaryContainer) && has(self.primaryContainer.environment) && "
            "e.name in self.primaryContainer.environment) && "
            "!(has(self.containers) && self.containers.exists(c, has(c.environment) && e.name in c.environment)))",
            message="kubernetes.env: a variable stands also in a container's environment, allowed is one of the two",
            field_path=".kubernetes.env",
        ),
    )

    primary_container: ContainerDefinition | None = None
    """The one container of a model that has one."""
    containers: Annotated[tuple[ContainerDefinition, ...] | None, ListAtomic(), Field(max_length=15)] = None
    """The containers of a pipeline, in their order."""
    inference_execution_config: InferenceExecutionConfig | None = None
    """How the containers are called. SageMaker's default is Serial."""
    execution_role_arn: RoleArn | None = None
    """The role that SageMaker assumes to read the image and the model data."""
    vpc_config: VpcConfig | None = None
    """The VPC that the model's instances are attached to."""
    enable_network_isolation: bool | None = None
    """No network calls into or out of the container, except invocations."""
    tags: Annotated[tuple[Tag, ...] | None, ListMap("key"), ReservedTagKeys, Field(max_length=49)] = None
    """Tags of the AWS model. SageMaker takes 50; one of them says whose it is."""
    kubernetes: ModelKubernetes | None = None
    """What SageMaker has no word for. Only backend Cluster reads it."""
