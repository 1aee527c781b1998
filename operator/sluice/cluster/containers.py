"""The parts of a model's container: environment, resources, probes, security. Pure."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from sluice.core import quantity
from sluice.core.instance_types import InstanceType

Object = dict[str, Any]

PIPELINE: Final = "pipeline"
"""The container that calls the Model's one after another."""
SHARED_MEMORY: Final = "shared-memory"
SHARED_MEMORY_PATH: Final = "/dev/shm"  # noqa: S108 - a volume of the container
# Of pods with accelerators. The container runtime's 64 MiB are too little for the worker processes of frameworks.
PING: Final = "/ping"
PING_TIMEOUT_SECONDS: Final = 2
_STARTUP_PERIOD_SECONDS: Final = 5
_SAFE_PORTS_PER_CONTAINER: Final = 100
_FIRST_SAFE_PORT: Final = 21000
_ACCELERATORS: Final = re.compile(
    r"nvidia\.com/(gpu(\.shared)?|mig-.+)"
    r"|amd\.com/(gpu|[sdqc]px_nps[0-9]+)"
    r"|aws\.amazon\.com/neuron(core|device)?"
    r"|gpu\.intel\.com/(i915|xe)"
    r"|habana\.ai/gaudi"
    r"|google\.com/tpu"
)
"""What the makers' device plugins call a device, or a part of one that a process has for itself. Beside them stand
resources of the same makers that are none: the monitoring of Intel's, network cards of NVIDIA's."""


def verbatim(value: str) -> str:
    """A value as it reaches the process: Kubernetes expands `$(NAME)` in values, and takes `$$` for one dollar."""
    return value.replace("$", "$$")


def environment(
    platform: Mapping[str, str], variables: Mapping[str, str], references: Iterable[Mapping[str, Any]]
) -> list[Object]:
    """The container's environment, by name: what the platform sets, unless the Model does, in either of its ways."""
    found: dict[str, Object] = {name: {"value": value} for name, value in platform.items()}
    found |= {name: {"value": verbatim(value)} for name, value in variables.items()}
    found |= {str(reference["name"]): {"valueFrom": plain(reference["valueFrom"])} for reference in references}
    return [{"name": name, **found[name]} for name in sorted(found)]


def platform_variables(
    resources: Mapping[str, Any], gpu_resource: str, *, region: str | None, port: int | None
) -> dict[str, str]:
    """What SageMaker sets, or what its toolkits would else guess from the node: the number of workers is that of the
    container's accelerators or CPUs, not of the node's. `gpu_resource`: see workers; `port`: where one of several
    containers listens."""
    found = {"SAGEMAKER_MODEL_SERVER_WORKERS": str(workers(resources, gpu_resource))}
    if region:
        # As SageMaker's containers show both of the first two: Python's SDK reads the second only.
        found |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region, "SAGEMAKER_REGION": region}
    if port is not None:
        first = _FIRST_SAFE_PORT + (port % 100) * _SAFE_PORTS_PER_CONTAINER
        found["SAGEMAKER_BIND_TO_PORT"] = str(port)
        found["SAGEMAKER_SAFE_PORT_RANGE"] = f"{first}-{first + _SAFE_PORTS_PER_CONTAINER - 1}"
    return found


def workers(resources: Mapping[str, Any], gpu_resource: str) -> int:
    """One worker for each accelerator, else for each CPU that the container asks for, at least one.

    Accelerators are what the instance type calls its `gpuResource`, whatever that is, and those that are known by name:
    a Model may ask for others than the type's. Other extended resources (network cards, licences) do no inference."""
    limits = resources.get("limits") or {}
    accelerators = int(
        sum(
            _amount(value)
            for name, value in limits.items()
            if name == gpu_resource or _ACCELERATORS.fullmatch(name) is not None
        )
    )
    if accelerators:
        return accelerators
    return max(1, math.ceil(_amount((resources.get("requests") or {}).get("cpu", 1))))


def _amount(value: str | int) -> Fraction:
    """An amount of the Model's own, none if it is none (negative, or an exponent of three digits): the schema lets it
    through, and the API server refuses the Deployment with the field. Every pass renders what is asked for, so an
    error here would end them all, those of what serves too."""
    try:
        return quantity.parse(value)
    except ValueError:
        return Fraction(0)


def resource_shares(instance_type: InstanceType, overrides: Mapping[str, Any], count: int) -> list[Object]:
    """Requests and limits of each of `count` containers of one instance.

    CPU and memory are shared evenly; accelerators cannot be shared, the first containers get those that are left over.
    Memory has a limit, so that one model cannot take a node's; CPU has none, so that none is left idle. The Model's
    overrides count for each container: a limit is also the request, and a request of anything but CPU also the limit,
    unless both are given."""
    wanted = {kind: dict(overrides.get(kind) or {}) for kind in ("requests", "limits")}
    made = []
    for index in range(count):
        requests: Object = {
            "cpu": quantity.cpu(quantity.parse(instance_type.cpu) / count),
            "memory": quantity.memory(quantity.parse(instance_type.memory) / count),
        }
        accelerators = instance_type.gpu // count + (1 if index < instance_type.gpu % count else 0)
        if accelerators:
            requests[instance_type.gpu_resource] = str(accelerators)
        requests |= {name: str(value) for name, value in (wanted["limits"] | wanted["requests"]).items()}
        limits = {name: value for name, value in requests.items() if name != "cpu"}
        limits |= {name: str(value) for name, value in wanted["limits"].items()}
        made.append({"requests": requests, "limits": {name: limits[name] for name in sorted(limits)}})
    return made


def probes(port: int, startup_seconds: int) -> Object:
    """Startup, readiness and liveness of a model's container.

    Until /ping was good once, it has startup_seconds; then it gets requests while /ping answers in 2 s. It is restarted
    only when it has not answered for three minutes: a busy server is no dead one."""
    return {
        "startupProbe": {
            **_ping(port),
            "periodSeconds": _STARTUP_PERIOD_SECONDS,
            "failureThreshold": math.ceil(startup_seconds / _STARTUP_PERIOD_SECONDS),
        },
        "readinessProbe": readiness(port),
        "livenessProbe": {**_ping(port), "timeoutSeconds": 10, "periodSeconds": 30, "failureThreshold": 6},
    }


def readiness(port: int) -> Object:
    """Three answers in a row that are not 200 in 2 s take the pod out."""
    return {**_ping(port), "periodSeconds": 5, "failureThreshold": 3}


def _ping(port: int) -> Object:
    return {"httpGet": {"path": PING, "port": port}, "timeoutSeconds": PING_TIMEOUT_SECONDS}


def pre_stop(seconds: int) -> Object:
    """The container serves on for that long before SIGTERM. Kubelet itself sleeps: images have no shell at times."""
    return {"preStop": {"sleep": {"seconds": seconds}}}


def pod_security(switches: Mapping[str, Any]) -> Object:
    """The pod's security context: restricted, unless the Model says runAsRoot."""
    made: Object = {"seccompProfile": {"type": "RuntimeDefault"}}
    if switches.get("fsGroup"):
        made["fsGroup"] = switches["fsGroup"]
    return made


def container_security(switches: Mapping[str, Any]) -> Object:
    """A model container's security context. The root file system stays writable: model servers write to /tmp and to
    the home directory. With runAsRoot the image's own user and default capabilities count, as on SageMaker."""
    if switches.get("runAsRoot"):
        return {"allowPrivilegeEscalation": False}
    made: Object = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    made |= {name: switches[name] for name in ("runAsUser", "runAsGroup") if switches.get(name)}
    return made


def pipeline_request(ports: Sequence[int]) -> str:
    """SLUICE_PIPELINE: the containers' ports, in their order."""
    return json.dumps({"ports": list(ports)})


def plain(value: Any) -> Any:
    """Mappings and sequences as dicts and lists, for manifests."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
