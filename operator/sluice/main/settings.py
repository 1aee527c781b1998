"""The operator's settings: each is documented where it is defined, comes from one environment variable, and is refused
with its name, what was found and what is allowed. docs/reference/settings.md is generated from this module.

How AWS is reached (credentials, proxies, endpoint addresses, certificates) is not among them: that is boto3's own
environment (AWS_REGION, AWS_ENDPOINT_URL_SAGEMAKER, AWS_CA_BUNDLE, HTTPS_PROXY ...), which the operator leaves alone.
"""

import dataclasses
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sluice import __version__
from sluice.api.routes import DEFAULT_MAX_PAYLOAD_BYTES, DEFAULT_TIMEOUT_SECONDS, LONGEST_STREAM_SECONDS
from sluice.core import quantity

PREFIX = "SLUICE_"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMATS = ("json", "plain")


# Kubernetes puts addresses of Services into pods' environments; those of a Service `sluice-...` look like settings.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP)(_(PROTO|PORT|ADDR))?$")


# A refused address may hold a password, and the message about it ends up in a log.
_ADDRESS = re.compile(r"(?<=://).+")


class SettingsError(ValueError):
    """One or more settings are wrong; the message names each variable, what was found and what is allowed."""


class _RefusedError(ValueError):
    """What is allowed instead."""


Parse = Callable[[str], Any]


def _integer(low: int, high: int) -> tuple[Parse, str]:
    allowed = f"an integer from {low} to {high}"

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]+", text) or not low <= int(text) <= high:
            raise _RefusedError
        return int(text)

    return parse, allowed


def _number(low: float, high: float) -> tuple[Parse, str]:
    allowed = f"a number from {low:g} to {high:g}"

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or not low <= float(text) <= high:
            raise _RefusedError
        return float(text)

    return parse, allowed


def _boolean() -> tuple[Parse, str]:
    words = {"true": True, "1": True, "false": False, "0": False}

    def parse(text: str) -> bool:
        if text.lower() not in words:
            raise _RefusedError
        return words[text.lower()]

    return parse, "true, false, 1 or 0"


def _choice(*choices: str) -> tuple[Parse, str]:
    def parse(text: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise _RefusedError

    return parse, "one of " + ", ".join(choices)


def _text(pattern: str, allowed: str) -> tuple[Parse, str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise _RefusedError
        return text

    return parse, allowed


_DNS_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


def _namespaces() -> tuple[Parse, str]:
    def parse(text: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
        if not all(re.fullmatch(_LABEL, word) for word in words):
            raise _RefusedError
        return words

    return parse, "namespace names, separated by commas; empty: all namespaces"


_IMAGE = r"[A-Za-z0-9][-A-Za-z0-9._/:@]{0,511}"


_FILE = r"/[^\x00]{1,4095}"
_HTTP_URL = r"https?://[^\s/@?#]+(/[^\s?#]*)?"


def _names(what: str) -> tuple[Parse, str]:
    def parse(text: str) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
        if not all(re.fullmatch(_DNS_NAME, word) for word in words):
            raise _RefusedError
        return words

    return parse, f"names of {what}, separated by commas"


def _networks() -> tuple[Parse, str]:
    def parse(text: str) -> tuple[str, ...]:
        try:
            # 10.0.0.1/8 is 10.0.0.0/8, as Kubernetes has it: the chart's schema cannot tell them apart.
            words = (word.strip() for word in text.split(","))
            return tuple(str(ipaddress.ip_network(word, strict=False)) for word in words if word)
        except ValueError:
            raise _RefusedError from None

    return parse, "networks (10.0.0.0/8), separated by commas"


def _directories() -> tuple[Parse, str]:
    def parse(text: str) -> tuple[str, ...]:
        found = tuple(word.strip() for word in text.split(",") if word.strip())
        if not all(word.startswith("/") and word != "/" and ".." not in word.split("/") for word in found):
            raise _RefusedError
        return found

    return parse, "absolute paths, separated by commas"


def _resources() -> tuple[Parse, str]:
    def parse(text: str) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(text)
            made = {kind: {name: str(amount) for name, amount in found[kind].items()} for kind in found}
            if not set(made) <= {"requests", "limits"}:
                raise _RefusedError
            for amount in (amount for amounts in made.values() for amount in amounts.values()):
                quantity.parse(amount)
        except (AttributeError, TypeError, ValueError):
            raise _RefusedError from None
        return made

    return parse, 'JSON of a container\'s resources: {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}'


def _setting(default: Any, how: tuple[Parse, str], *, default_text: str | None = None) -> Any:
    parse, allowed = how
    metadata = {"parse": parse, "allowed": allowed, "default": default_text}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting. The variable of `settle_seconds` is SLUICE_SETTLE_SECONDS, and so on."""

    installation_id: str | None = _setting(
        None,
        _text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "1 to 63 letters, digits, '.', '_' or '-'"),
        default_text="the UID of the kube-system namespace",
    )
    """The first part of every owner tag and of the ExternalId. Set it where endpoints must survive a rebuilt cluster;
    never change it afterwards."""

    operator_namespace: str = _setting("sluice-system", _text(_LABEL, "a namespace name"))
    """Where the Lease, the permission policy (ConfigMap sluice-permissions) and the instance types (ConfigMap
    sluice-instance-types) live: the operator's own namespace."""

    watch_namespaces: tuple[str, ...] = _setting((), _namespaces(), default_text="empty: all namespaces")
    """Namespaces whose objects the operator handles. One of several that may not be read at the start (it is gone, and
    the operator's Role with it) keeps the others from nothing; when it may be read, the operator starts anew."""

    identity: str = _setting(
        socket.gethostname, _text(r"[^\s/]{1,253}", "1 to 253 characters without spaces and '/'"),
        default_text="the host's name",
    )  # fmt: skip
    """Who holds the Lease: the pod's name. A restarted container of the same pod takes its own Lease back at once."""

    workers: int = _setting(16, _integer(1, 256))
    """Passes that may run at the same time."""

    settle_seconds: int = _setting(5, _integer(0, 30))
    """An endpoint that serves starts a deployment when nothing it references changed for this long."""

    read_only: bool = _setting(False, _boolean())
    """Observe and write status, but make no change in AWS or in the cluster."""

    lease_seconds: int = _setting(15, _integer(3, 300))
    """A pod that vanished gives the Lease up after this long; another pod does nothing before that."""

    sweep_seconds: int = _setting(60, _integer(5, 3600))
    """How often all objects are listed to find what a watch missed."""

    permissions_seconds: int = _setting(10, _integer(1, 300))
    """How often the permission policy and the instance types (ConfigMap sluice-instance-types) are read."""

    health_port: int = _setting(8080, _integer(0, 65535))
    """Port of /healthz, /readyz and /metrics. 0: any free port, which is logged."""

    stuck_seconds: int = _setting(300, _integer(10, 3600))
    """/healthz fails when keys wait and none was taken, or a pass ran, for longer than this."""

    stop_seconds: int = _setting(20, _integer(1, 600))
    """How long running passes may go on after SIGTERM."""

    kube_concurrency: int = _setting(32, _integer(1, 256))
    """Calls to the Kubernetes API at the same time."""

    sagemaker_sweep_seconds: float = _setting(30.0, _number(0.1, 3600))
    """How often the endpoints of an account and region that changed are listed."""

    sagemaker_full_list_seconds: float = _setting(300.0, _number(2, 86400))
    """How often all endpoints of an account and region are listed, which shows deletions."""

    sagemaker_moving_seconds: float = _setting(5.0, _number(0.1, 300))
    """How often an endpoint that is changing is described."""

    aws_calls_per_second: float = _setting(100.0, _number(0.1, 1000))
    """Most calls per second, account, region and service. Throttling by AWS lowers the rate by itself."""

    aws_threads: int = _setting(32, _integer(1, 256))
    """Threads that call AWS."""

    cloudwatch_seconds: float = _setting(1.0, _number(0.1, 300))
    """Time between two readings of CloudWatch alarms; many alarms lengthen it to half of what AWS allows. At the end of
    a bake in the cluster one more is taken."""

    cluster_backend: bool = _setting(True, _boolean())
    """Handle Endpoints with backend Cluster. Where the CRDs or the permissions for it are missing at the start, the
    operator says so and goes on without it; when they are there, it starts anew."""

    image: str = _setting(
        f"sluice/operator:{__version__}", _text(_IMAGE, "an image"), default_text="`sluice/operator:` and the version"
    )
    """The operator's own image. Model pods run the loader from it, and the process that calls a serial pipeline."""

    router_image: str = _setting(
        f"sluice/router:{__version__}", _text(_IMAGE, "an image"), default_text="`sluice/router:` and the version"
    )
    """The image of the routers: Envoy and the agent."""

    image_pull_policy: str | None = _setting(
        None, _choice("Always", "IfNotPresent", "Never"), default_text="Kubernetes' own"
    )
    """How kubelet pulls these two images."""

    image_pull_secrets: tuple[str, ...] = _setting((), _names("Secrets"), default_text="none")
    """Secrets in each Endpoint's namespace with which these two images are pulled."""

    router_replicas: int = _setting(2, _integer(1, 50))
    """Router pods of each namespace that has Cluster Endpoints."""

    router_threads: int = _setting(2, _integer(1, 64))
    """Worker threads of each Envoy."""

    router_access_log: bool = _setting(False, _boolean())
    """Whether routers write a JSON line for each request, with its inference id, variant and revision."""

    router_resources: Mapping[str, Mapping[str, str]] | None = _setting(
        None, _resources(), default_text="requests 250m CPU and 128Mi, limit 1Gi"
    )
    """Resources of each Envoy."""

    router_agent_resources: Mapping[str, Mapping[str, str]] | None = _setting(
        None, _resources(), default_text="requests 50m CPU and 128Mi, limit 512Mi"
    )
    """Resources of each router's agent."""

    router_relay_resources: Mapping[str, Mapping[str, str]] | None = _setting(
        None, _resources(), default_text="requests 10m CPU and 64Mi, limit 1Gi"
    )
    """Resources of each router's relay, which all streams go through."""

    router_stream_drain_seconds: int = _setting(LONGEST_STREAM_SECONDS, _integer(0, 3600))
    """How long a router pod that is to go lets streams go on, beyond what invocations may take. Streams that outlast it
    end with InternalStreamFailure. A router without requests goes within seconds."""

    loader_resources: Mapping[str, Mapping[str, str]] | None = _setting(
        None, _resources(), default_text="requests 100m CPU and 256Mi, limit 1Gi"
    )
    """Resources of the container that downloads a model pod's data."""

    invocation_timeout_seconds: int = _setting(DEFAULT_TIMEOUT_SECONDS, _integer(1, 3600))
    """kubernetes.invocationTimeoutSeconds of Endpoints with backend Cluster that name none."""

    max_payload_bytes: int = _setting(DEFAULT_MAX_PAYLOAD_BYTES, _integer(1, 1 << 30))
    """kubernetes.maxPayloadBytes of Endpoints with backend Cluster that name none."""

    router_priority_class: str | None = _setting(None, _text(_DNS_NAME, "a PriorityClass"), default_text="none")
    """PriorityClass of the router pods."""

    router_cluster_role: str = _setting("sluice-router", _text(_DNS_NAME, "a ClusterRole"))
    """The ClusterRole that the routers' agents are bound to, in their own namespace only. The chart ships it."""

    pod_pre_stop_seconds: int = _setting(15, _integer(1, 300))
    """How long a model's pod that is to go serves on before SIGTERM, so that every router has let go of it."""

    isolated_egress_networks: tuple[str, ...] = _setting((), _networks(), default_text="everywhere")
    """Where pods with enableNetworkIsolation may download their model data from."""

    model_cache_directories: tuple[str, ...] = _setting((), _directories(), default_text="none")
    """Directories of the nodes that Models may keep downloads in (kubernetes.modelDataAccess.cacheHostPath)."""

    max_concurrent_deployments: int = _setting(50, _integer(0, 10000))
    """Deployments of Cluster Endpoints that may run at the same time; the others wait, in the order of their changes.
    Creations and what a person brings back (sluice.dev/rollback) never wait. 0: any number."""

    max_concurrent_deployments_per_namespace: int = _setting(10, _integer(0, 10000))
    """The same, in each namespace."""

    max_rollbacks_of_one_image: int = _setting(3, _integer(0, 1000))
    """An image whose deployments were rolled back so many times for an alarm or bad health is deployed to no other
    Cluster Endpoint by itself. 0: no such brake."""

    rollback_window_seconds: int = _setting(86400, _integer(60, 604800))
    """How long a rollback counts against its image."""

    prometheus_url: str | None = _setting(
        None, _text(_HTTP_URL, "an http or https URL without user, query and fragment"), default_text="none"
    )
    """The Prometheus that alarms of `kubernetes.alarms` are read from. Absent: those alarms are Unreadable."""

    prometheus_token_file: str | None = _setting(None, _text(_FILE, "an absolute path"), default_text="none")
    """A file with the bearer token for it, read again before each use."""

    prometheus_ca_file: str | None = _setting(
        None, _text(_FILE, "an absolute path"), default_text="those of the system"
    )
    """Certificates to trust for it, PEM."""

    log_format: str = _setting("json", _choice(*LOG_FORMATS))
    """Log lines as JSON objects, or as plain text."""

    log_level: str = _setting("INFO", _choice(*LOG_LEVELS))
    """The least severe messages that are logged."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the SLUICE_ variables; an empty one counts as absent. Raises SettingsError."""
        known = {variable_name(item.name): item for item in dataclasses.fields(cls)}
        wrong, values = [], {}
        for variable, text in sorted(environ.items()):
            if not variable.startswith(PREFIX):
                continue
            if variable not in known and _SERVICE_LINK.search(variable):
                continue
            if variable not in known:
                wrong.append(f"{variable}: unknown; known are {', '.join(sorted(known))}")
                continue
            item = known[variable]
            if not text.strip():
                continue
            try:
                values[item.name] = item.metadata["parse"](text.strip())
            except _RefusedError:
                found = _ADDRESS.sub("***", text)
                wrong.append(f"{variable}: found {found!r}; allowed is {item.metadata['allowed']}")
        if wrong:
            raise SettingsError("\n".join(wrong))
        return cls(**values)


def variable_name(setting: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + setting.upper()


def reference() -> str:
    """docs/reference/settings.md."""
    return _reference(_descriptions())


def _descriptions() -> dict[str, str]:
    """The docstring under each setting, read from this module's source."""
    import ast
    import inspect

    body = ast.parse(inspect.getsource(Settings)).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - narrows the type for the checker
    texts = {}
    for item, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and isinstance(after, ast.Expr):
            texts[item.target.id] = inspect.cleandoc(ast.literal_eval(after.value)).replace("\n", " ")
    return texts


def _reference(texts: Mapping[str, str]) -> str:
    lines = [
        "# Settings of the operator",
        "",
        "<!-- Generated by `python -m sluice.main.settings` from operator/sluice/main/settings.py. -->",
        "",
        "Each setting is an environment variable of the operator. An unknown `SLUICE_` variable, or a value that is",
        "not allowed, stops the operator at its start with a message that names it. How AWS is reached is boto3's own",
        "environment: `AWS_REGION` (the region of Endpoints that name none), `AWS_ENDPOINT_URL_SAGEMAKER`,",
        "`AWS_CA_BUNDLE`, `HTTPS_PROXY` and so on. `KUBECONFIG` names a cluster outside of a pod.",
        "",
        "| variable | default | allowed | meaning |",
        "|---|---|---|---|",
    ]
    for item in dataclasses.fields(Settings):
        default = item.metadata["default"] or f"`{str(item.default).lower()}`"
        lines.append(f"| `{variable_name(item.name)}` | {default} | {item.metadata['allowed']} | {texts[item.name]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")  # noqa: T201 - this is the output
