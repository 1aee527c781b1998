"""The pod of a fleet: one instance. The Model's containers under SageMaker's container contract, before them the loader
that brings the model data, and for a serial pipeline the process that calls the containers one after another.

Facts: containers are started with the one argument `serve`, listen on 8080 (or where SAGEMAKER_BIND_TO_PORT says),
answer GET /ping with 200 within 2 s, and get 30 s between SIGTERM and SIGKILL."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from sluice.cluster import containers as build
from sluice.cluster import modeldata
from sluice.cluster.labels import endpoint_labels
from sluice.core import quantity
from sluice.core.cluster.names import ANNOTATION_OWNER, ANNOTATION_VARIANT, CONTAINER_PORT, LABEL_FLEET
from sluice.core.identity import Owner
from sluice.core.instance_types import InstanceType

Object = dict[str, Any]
Mode = Literal["Single", "Serial", "Direct"]

ZONE: Final = "topology.kubernetes.io/zone"
HOST: Final = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class FleetDefaults:
    """What the installation adds to every fleet that it renders. A change shows as TemplateOutdated and touches none
    that stands."""

    image: str
    """The operator's own image: the loader and the pipeline run from it."""
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    """Secrets in the Endpoint's namespace with which the operator's own image is pulled."""
    region: str | None = None
    """The AWS region of Models that name none."""
    startup_seconds: int = 480
    """SageMaker's budget for the first good /ping."""
    download_seconds: int = 3600
    pre_stop_seconds: int = 15
    """How long a pod that is to go serves on before SIGTERM, so that every router has let go of it."""
    stop_seconds: int = 30
    """SageMaker's time between SIGTERM and SIGKILL."""
    user: int = 65532
    """The user of the operator's own image."""
    loader_resources: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
    )
    pipeline_resources: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    )
    isolated_egress_cidrs: tuple[str, ...] = ()
    """Where the download of the model data may go under enableNetworkIsolation; none: anywhere, on its ports."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of the Model, with its place in the pod."""

    name: str
    port: int
    spec: Mapping[str, Any]
    """The raw ContainerDefinition."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """One variant of one revision, in the users' raw JSON."""

    owner: Owner
    name: str
    fleet_hash: str
    variant: Mapping[str, Any]
    endpoint_config: Mapping[str, Any]
    model: Mapping[str, Any]

    @property
    def kubernetes(self) -> Mapping[str, Any]:
        """What the Model says under `kubernetes`."""
        return self.model.get("kubernetes") or {}

    @property
    def access(self) -> Mapping[str, Any]:
        """kubernetes.modelDataAccess."""
        return self.kubernetes.get("modelDataAccess") or {}

    @property
    def mode(self) -> Mode:
        """How the containers are called. Serial is SageMaker's default for several; one alone needs no pipeline."""
        count = len(self.model.get("containers") or ())
        if count and (self.model.get("inferenceExecutionConfig") or {}).get("mode") == "Direct":
            return "Direct"
        return "Serial" if count > 1 else "Single"

    @property
    def containers(self) -> tuple[Container, ...]:
        """The Model's containers. In a serial pipeline 8080 belongs to the pipeline, they follow from 8081."""
        if self.model.get("primaryContainer"):
            return (Container("model", CONTAINER_PORT, self.model["primaryContainer"]),)
        listed: list[Mapping[str, Any]] = list(self.model.get("containers") or ())
        if len(listed) == 1:
            return (Container("model", CONTAINER_PORT, listed[0]),)
        first = CONTAINER_PORT + (1 if self.mode == "Serial" else 0)
        return tuple(Container(f"container-{n + 1}", first + n, spec) for n, spec in enumerate(listed))

    @property
    def isolated(self) -> bool:
        """Whether the containers may make no network calls."""
        return bool(self.model.get("enableNetworkIsolation") or self.endpoint_config.get("enableNetworkIsolation"))

    @property
    def role_to_assume(self) -> str | None:
        """The role that the loader assumes."""
        if not self.access.get("assumeExecutionRole"):
            return None
        role = self.endpoint_config.get("executionRoleArn") or self.model.get("executionRoleArn")
        return str(role) if role else None

    @property
    def sources(self) -> tuple[modeldata.Source, ...]:
        """The model data of all containers."""
        several = len(self.containers) > 1
        return tuple(
            source
            for index, container in enumerate(self.containers)
            for source in modeldata.sources(index, container.spec, prefix=container.name if several else "")
        )

    @property
    def download_ports(self) -> tuple[int, ...]:
        """The ports that the loader calls: none if all model data lies in claims."""
        if not any(source.is_remote for source in self.sources):
            return ()
        ports = {443}
        if self.access.get("s3EndpointUrl"):
            parts = urlsplit(self.access["s3EndpointUrl"])
            ports.add(parts.port or (443 if parts.scheme == "https" else 80))
        for source in self.sources:
            if source.uri.startswith("https://") and (port := urlsplit(source.uri).port):
                ports.add(port)
        if self.kubernetes.get("serviceAccountName") and not self.access.get("credentialsSecretName"):
            # EKS Pod Identity hands credentials out over plain http, on an address of the node.
            ports.add(80)
        return tuple(sorted(ports))


def ports_of(fleet: Fleet) -> tuple[tuple[str, int], ...]:
    """The ports that routers call, with their names: one, or in mode Direct one for each container."""
    if fleet.mode == "Direct" and len(fleet.containers) > 1:
        return tuple((container.name, container.port) for container in fleet.containers)
    return (("http", CONTAINER_PORT),)


def pod_template(fleet: Fleet, instance_type: InstanceType, defaults: FleetDefaults) -> Object:
    """The template of a fleet's pods."""
    return {
        "metadata": {
            "labels": {**endpoint_labels(fleet.owner.name), LABEL_FLEET: fleet.name},
            "annotations": {
                ANNOTATION_OWNER: str(fleet.owner),
                ANNOTATION_VARIANT: str(fleet.variant["variantName"]),
                "kubectl.kubernetes.io/default-container": fleet.containers[0].name,
            },
        },
        "spec": _pod(fleet, instance_type, defaults),
    }


def _pod(fleet: Fleet, instance_type: InstanceType, defaults: FleetDefaults) -> Object:
    loaded = bool(fleet.sources)
    spec: Object = {
        # A Service's variables are no part of the contract, and every Service of the namespace would add its own.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _pre_stop(fleet, defaults) + defaults.stop_seconds,
        "securityContext": build.pod_security(fleet.kubernetes.get("securityContext") or {}),
        "topologySpreadConstraints": _spread(fleet),
        "containers": _containers(fleet, instance_type, defaults),
    }
    if loaded:
        spec["initContainers"] = [_loader(fleet, defaults)]
    # Data, record, claims and cache of the loader; shared memory of accelerators.
    volumes = modeldata.volumes(fleet.name, fleet.sources, fleet.variant, fleet.access) if loaded else []
    if instance_type.gpu:
        volumes.append({"name": build.SHARED_MEMORY, "emptyDir": {"medium": "Memory"}})
    if volumes:
        spec["volumes"] = volumes
    account = fleet.kubernetes.get("serviceAccountName")
    if account:
        spec["serviceAccountName"] = account
    else:
        # Without an identity of its own a model has no business at the API server.
        spec["automountServiceAccountToken"] = False
    if fleet.kubernetes.get("priorityClassName"):
        spec["priorityClassName"] = fleet.kubernetes["priorityClassName"]
    secrets = [secret["name"] for secret in fleet.kubernetes.get("imagePullSecrets") or ()]
    if loaded or fleet.mode == "Serial":
        secrets += defaults.image_pull_secrets
    if secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in dict.fromkeys(secrets)]
    if instance_type.node_selector:
        spec["nodeSelector"] = dict(instance_type.node_selector)
    if instance_type.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in instance_type.tolerations]
    hostnames = [c.spec["containerHostname"].lower() for c in fleet.containers if c.spec.get("containerHostname")]
    if hostnames and len(fleet.containers) > 1:
        spec["hostAliases"] = [{"ip": "127.0.0.1", "hostnames": hostnames}]
    return spec


def _pre_stop(fleet: Fleet, defaults: FleetDefaults) -> int:
    """Never less than routers need to let go of a pod."""
    return max(int(fleet.kubernetes.get("preStopSeconds") or 0), defaults.pre_stop_seconds)


def _spread(fleet: Fleet) -> list[Object]:
    """Over zones as the variant says, and over nodes where there is a choice. It stands in every template, because the
    count of instances changes without a new one."""
    required = (fleet.variant.get("kubernetes") or {}).get("zoneSpread") == "Required"
    return [
        {
            "topologyKey": key,
            "maxSkew": 1,
            "whenUnsatisfiable": "DoNotSchedule" if strict else "ScheduleAnyway",
            # Zones whose nodes this pod may not use do not count, or an uneven GPU pool would hold pods up.
            "nodeTaintsPolicy": "Honor",
            "labelSelector": {"matchLabels": {LABEL_FLEET: fleet.name}},
        }
        for key, strict in ((ZONE, required), (HOST, False))
    ]


def _containers(fleet: Fleet, instance_type: InstanceType, defaults: FleetDefaults) -> list[Object]:
    """The Model's containers; in a serial pipeline the process that calls them stands behind them."""
    shares = build.resource_shares(instance_type, fleet.kubernetes.get("resources") or {}, len(fleet.containers))
    several = len(fleet.containers) > 1
    startup = fleet.variant.get("containerStartupHealthCheckTimeoutInSeconds") or defaults.startup_seconds
    made = []
    for index, (container, resources) in enumerate(zip(fleet.containers, shares, strict=True)):
        variables = build.platform_variables(
            resources,
            instance_type.gpu_resource,
            region=fleet.access.get("region") or defaults.region,
            port=container.port if several else None,
        )
        item: Object = {
            "name": container.name,
            "image": container.spec["image"],
            "args": ["serve"],
            "ports": [{"name": "http" if not several else f"http-{index + 1}", "containerPort": container.port}],
            "env": build.environment(
                variables, container.spec.get("environment") or {}, fleet.kubernetes.get("env") or ()
            ),
            "resources": resources,
            "securityContext": build.container_security(fleet.kubernetes.get("securityContext") or {}),
            **build.probes(container.port, int(startup)),
            "lifecycle": build.pre_stop(_pre_stop(fleet, defaults)),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        mounts = modeldata.model_mounts(index, fleet.sources)
        if instance_type.gpu:
            mounts.append({"name": build.SHARED_MEMORY, "mountPath": build.SHARED_MEMORY_PATH})
        if mounts:
            item["volumeMounts"] = mounts
        made.append(item)
    if fleet.mode == "Serial":
        made.append(_pipeline(fleet, defaults))
    return made


def _pipeline(fleet: Fleet, defaults: FleetDefaults) -> Object:
    variables = [{"name": "SLUICE_PIPELINE", "value": build.pipeline_request([c.port for c in fleet.containers])}]
    if limit := defaults.pipeline_resources.get("limits", {}).get("memory"):
        variables.append({"name": "SLUICE_PIPELINE_MEMORY_BYTES", "value": str(int(quantity.parse(limit)))})
    return _own(
        defaults,
        {
            "name": build.PIPELINE,
            "command": ["python", "-m", "sluice.pipeline"],
            "env": variables,
            "ports": [{"name": "http", "containerPort": CONTAINER_PORT}],
            "resources": build.plain(defaults.pipeline_resources),
            "readinessProbe": build.readiness(CONTAINER_PORT),
            # Its /ping fails when a container's does; restarting the pipeline would mend nothing then.
            "livenessProbe": {"tcpSocket": {"port": CONTAINER_PORT}, "periodSeconds": 10, "failureThreshold": 6},
            "lifecycle": build.pre_stop(_pre_stop(fleet, defaults)),
        },
    )


def _loader(fleet: Fleet, defaults: FleetDefaults) -> Object:
    timeout = fleet.variant.get("modelDataDownloadTimeoutInSeconds") or defaults.download_seconds
    request = modeldata.request(
        fleet.sources,
        fleet.variant,
        fleet.access,
        timeout_seconds=int(timeout),
        region=fleet.access.get("region") or defaults.region,
        role=fleet.role_to_assume,
        external_id=fleet.owner.external_id,
    )
    return _own(
        defaults,
        {
            "name": "loader",
            "command": ["python", "-m", "sluice.loader"],
            "env": [{"name": "SLUICE_LOADER", "value": build.verbatim(request)}, *modeldata.credentials(fleet.access)],
            "resources": build.plain(defaults.loader_resources),
            "volumeMounts": modeldata.loader_mounts(fleet.sources, fleet.access),
        },
    )


def _own(defaults: FleetDefaults, container: Object) -> Object:
    """A container of the operator's own image: restricted, whatever the Model's containers need."""
    made = {**container, "image": defaults.image, "terminationMessagePolicy": "FallbackToLogsOnError"}
    if defaults.image_pull_policy:
        made["imagePullPolicy"] = defaults.image_pull_policy
    made["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": defaults.user,
        "runAsGroup": defaults.user,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return made
