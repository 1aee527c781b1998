"""A namespace's router as Kubernetes objects: an Envoy Deployment with relay and agent beside it, and what belongs to
it. Pure builders. It is made with the first Cluster Endpoint of the namespace and goes with the last.

None of the objects has an ownerReference: whatever is deleted in the foreground, traffic flows until it is drained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from sluice.api.names import INVOKE, INVOKE_ALLOWED
from sluice.api.routes import LONGEST_STREAM_SECONDS
from sluice.core import quantity
from sluice.core.cluster.names import (
    ANNOTATION_OWNER,
    ANNOTATION_REPLICAS,
    ANNOTATION_TEMPLATE,
    LABEL_ROUTER,
    ROUTER,
    ROUTER_HEALTH_PORT,
    ROUTER_METRICS_PORT,
    ROUTER_PORT,
)
from sluice.core.hashing import digest
from sluice.core.revision import LABEL_MANAGED_BY, MANAGED_BY

Object = dict[str, Any]

BOOTSTRAP: Final = "/etc/envoy/bootstrap.json"
RUN_DIRECTORY: Final = "/var/run/sluice/envoy"
"""The sockets between Envoy, agent and relay, and what the agent keeps for its next process: only the containers of the
pod reach it."""
_TOKEN_DIRECTORY: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - where every client looks
_TOKEN_SECONDS: Final = 3607
_HUNG_RELAY_SECONDS: Final = 5
"""What it has to end when its probe fails: nobody waits for streams that hang."""
_HEAP_SHARE: Final = Fraction(9, 10)
"""Of the container's limit: the rest is stacks, and what the kernel counts for it."""
_DRAIN: Final = ["python", "-m", "sluice.router", "drain"]
FOLLOWING: Final = frozenset({"Service", "PodDisruptionBudget", "NetworkPolicy", "RoleBinding"})
"""Kinds that bear ANNOTATION_TEMPLATE like the Deployment: a newer operator, or another setting, renders them anew. The
ServiceAccount says nothing that could change."""
_LABELS: Final = {LABEL_MANAGED_BY: MANAGED_BY, LABEL_ROUTER: ROUTER}
_SELECTOR: Final = {"matchLabels": {LABEL_ROUTER: ROUTER}}


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """What the installation says about routers."""

    image: str
    """Holds Envoy, the relay and the agent."""
    operator_namespace: str | None = None
    """Whose pods read what the agents counted, for alarms. None: nobody's."""
    cluster_role: str = ROUTER
    """The ClusterRole of the chart that the agents are bound to."""
    replicas: int = 2
    image_pull_policy: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    priority_class_name: str | None = None
    longest_invocation_seconds: int = 60
    """The longest invocationTimeoutSeconds of the namespace's Endpoints: a router that is to go lets them end."""
    stream_drain_seconds: int = LONGEST_STREAM_SECONDS
    """How long it lets streams go on, if that is more. Without requests it goes within seconds."""
    drain_seconds: int = 30
    """Beside that, for what else a router does before it ends."""
    envoy_threads: int = 2
    envoy_resources: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {"requests": {"cpu": "250m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
    )
    agent_resources: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    )
    relay_resources: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
    )
    """Of the process that all streams go through; without streams it does nothing."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More for the agent and for the bootstrap."""
    scrape_from_anywhere: bool = True
    """Whether pods of every namespace (Prometheus) reach the metrics."""
    user: int = 65532

    @property
    def longest_request_seconds(self) -> int:
        """What a router that is to go waits for."""
        return max(self.longest_invocation_seconds, self.stream_drain_seconds)


def objects(installation_id: str, namespace: str, settings: RouterSettings) -> tuple[Object, ...]:
    """Everything of a namespace's router, in the order of creation."""
    made = (
        _object("v1", "ServiceAccount", {"automountServiceAccountToken": False}),
        role_binding(namespace, settings),
        network_policy(settings),
        # Without AlwaysAllow two routers that answer no probe, of three, would protect each other from eviction.
        _object(
            "policy/v1",
            "PodDisruptionBudget",
            {"spec": {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": _SELECTOR}},
        ),
        service(),
        deployment(settings),
    )
    for item in made:
        item["metadata"]["namespace"] = namespace
        # Two parts: it belongs to an installation and a namespace, and to no Endpoint.
        item["metadata"]["annotations"][ANNOTATION_OWNER] = f"{installation_id}/{namespace}"
        if item["kind"] in FOLLOWING:
            said = {key: value for key, value in item.items() if key != "metadata"}
            item["metadata"]["annotations"][ANNOTATION_TEMPLATE] = digest(said)
    return made


def template_digest(settings: RouterSettings) -> str:
    """Tells whether a router's pods are what this operator renders (ANNOTATION_TEMPLATE of the Deployment)."""
    return digest(pod_template(settings))


def role_binding(namespace: str, settings: RouterSettings) -> Object:
    """Gives the agents of the namespace what the chart's ClusterRole has, in this namespace only."""
    return _object(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": settings.cluster_role},
            "subjects": [{"kind": "ServiceAccount", "name": ROUTER, "namespace": namespace}],
        },
    )


def service() -> Object:
    """The address that clients call: http://sluice-router.<namespace>:8080."""
    ports = [{"name": "http", "port": ROUTER_PORT, "targetPort": ROUTER_PORT, "protocol": "TCP", "appProtocol": "http"}]
    spec = {"type": "ClusterIP", "selector": dict(_SELECTOR["matchLabels"]), "ports": ports}
    return _object("v1", "Service", {"spec": spec})


def network_policy(settings: RouterSettings) -> Object:
    """The namespace's own pods may call, and those of namespaces that an administrator has labelled."""
    callers = [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {INVOKE: INVOKE_ALLOWED}}}]
    ingress: list[Object] = [{"from": callers, "ports": [{"protocol": "TCP", "port": ROUTER_PORT}]}]
    if settings.scrape_from_anywhere:
        scrapers: list[Object] = [{"namespaceSelector": {}}]
        ingress.append({"from": scrapers, "ports": [{"protocol": "TCP", "port": ROUTER_METRICS_PORT}]})
    if settings.operator_namespace is not None:
        theirs = {"kubernetes.io/metadata.name": settings.operator_namespace}
        operator: Object = {"namespaceSelector": {"matchLabels": theirs}}
        ingress.append({"from": [operator], "ports": [{"protocol": "TCP", "port": ROUTER_HEALTH_PORT}]})
    spec = {"podSelector": _SELECTOR, "policyTypes": ["Ingress"], "ingress": ingress}
    return _object("networking.k8s.io/v1", "NetworkPolicy", {"spec": spec})


def deployment(settings: RouterSettings) -> Object:
    """The router's Deployment. A new pod is ready before an old one goes."""
    template = pod_template(settings)
    made = _object(
        "apps/v1",
        "Deployment",
        {
            "spec": {
                "replicas": settings.replicas,
                "selector": _SELECTOR,
                "revisionHistoryLimit": 1,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": template,
            }
        },
    )
    said = {ANNOTATION_TEMPLATE: digest(template), ANNOTATION_REPLICAS: str(settings.replicas)}
    made["metadata"]["annotations"].update(said)
    return made


def updated_spec(standing: Mapping[str, Any], rendered: Object) -> Object:
    """The spec that a router's Deployment gets which stands. Its template is left alone where it was rendered from the
    same: what others wrote there, a restart by hand for one, replaces no pods a second time. One that does not say what
    was asked for, as older operators made it, has no fewer pods afterwards."""
    before, now = standing["metadata"].get("annotations") or {}, rendered["metadata"]["annotations"]
    has, asked = int(standing["spec"].get("replicas", 1)), int(rendered["spec"]["replicas"])
    if ANNOTATION_REPLICAS not in before:
        replicas = max(has, asked)
    else:
        replicas = has if before[ANNOTATION_REPLICAS] == now[ANNOTATION_REPLICAS] else asked
    same = before.get(ANNOTATION_TEMPLATE) == now[ANNOTATION_TEMPLATE]
    return {**(standing if same else rendered)["spec"], "replicas": replicas}


def pod_template(settings: RouterSettings) -> Object:
    """The template of a router's pods."""
    spec: Object = {
        "serviceAccountName": ROUTER,
        # Only the agent gets the token, as a volume of its own.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.longest_request_seconds + settings.drain_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.user,
            "runAsGroup": settings.user,
            "fsGroup": settings.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_bootstrap(settings)],
        "containers": [_envoy(settings), _relay(settings), _agent(settings)],
        "volumes": [
            {"name": "bootstrap", "emptyDir": {}},
            {"name": "run", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "api", "projected": {"sources": _api_sources()}},
        ],
        "topologySpreadConstraints": [
            {
                "topologyKey": "topology.kubernetes.io/zone",
                "maxSkew": 1,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": _SELECTOR,
            }
        ],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": _SELECTOR},
                    }
                ]
            }
        },
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.priority_class_name:
        spec["priorityClassName"] = settings.priority_class_name
    annotations = {
        "kubectl.kubernetes.io/default-container": "envoy",
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(ROUTER_METRICS_PORT),
        "prometheus.io/path": "/stats/prometheus",
    }
    return {"metadata": {"labels": dict(_LABELS), "annotations": annotations}, "spec": spec}


def _bootstrap(settings: RouterSettings) -> Object:
    return _container(
        settings,
        "bootstrap",
        settings.agent_resources,
        command=["python", "-m", "sluice.router", "bootstrap", "--out", BOOTSTRAP],
        env=[*_environment(settings), *_heap(settings)],
        volumeMounts=[_mount("bootstrap", "/etc/envoy"), _mount("run", RUN_DIRECTORY), _mount("scratch", "/tmp")],  # noqa: S108
    )


def _envoy(settings: RouterSettings) -> Object:
    """Envoy serves on without the agent; it is restarted only when it answers nothing for a minute."""
    return _container(
        settings,
        "envoy",
        settings.envoy_resources,
        # Containers are never replaced in place: hot restarts would only need shared memory of their own.
        command=[
            "envoy",
            "-c",
            BOOTSTRAP,
            "--concurrency",
            str(settings.envoy_threads),
            "--log-level",
            "warn",
            "--disable-hot-restart",
        ],
        env=[
            _pod_field("POD_NAME", "metadata.name"),
            _pod_field("POD_NAMESPACE", "metadata.namespace"),
            _drain_seconds(settings),
        ],
        ports=[
            {"name": "http", "containerPort": ROUTER_PORT},
            {"name": "metrics", "containerPort": ROUTER_METRICS_PORT},
        ],
        livenessProbe={
            "httpGet": {"path": "/ready", "port": ROUTER_METRICS_PORT},
            "initialDelaySeconds": 15,
            "timeoutSeconds": 5,
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
        # Either of two containers' hooks drains; Envoy gets SIGTERM only when its own has ended.
        lifecycle={"preStop": {"exec": {"command": _DRAIN}}},
        volumeMounts=[{**_mount("bootstrap", "/etc/envoy"), "readOnly": True}, _mount("run", RUN_DIRECTORY)],
    )


def _relay(settings: RouterSettings) -> Object:
    """A container of its own, so that no restart of the agent cuts a stream. It has no port: its probes go through
    Envoy. None for readiness: while it hangs, invocations that are no streams are served all the same."""
    probe = {
        "httpGet": {"path": "/relay", "port": ROUTER_METRICS_PORT},
        "terminationGracePeriodSeconds": _HUNG_RELAY_SECONDS,
    }
    return _container(
        settings,
        "relay",
        settings.relay_resources,
        command=["python", "-m", "sluice.router", "relay"],
        env=_environment(settings),
        # The pod gets requests only when it can serve streams too.
        startupProbe={**probe, "timeoutSeconds": 2, "periodSeconds": 1, "failureThreshold": 120},
        livenessProbe={**probe, "timeoutSeconds": 5, "periodSeconds": 10, "failureThreshold": 6},
        # No preStop, which a failing probe would run too: told to end, it waits until Envoy is drained.
        volumeMounts=[_mount("run", RUN_DIRECTORY), _mount("scratch", "/tmp")],  # noqa: S108 - a volume of the container
    )


def _agent(settings: RouterSettings) -> Object:
    """Ready when Envoy has applied a snapshot of all routes."""
    return _container(
        settings,
        "agent",
        settings.agent_resources,
        command=["python", "-m", "sluice.router", "agent"],
        env=_environment(settings),
        ports=[{"name": "health", "containerPort": ROUTER_HEALTH_PORT}],
        readinessProbe={
            "httpGet": {"path": "/ready", "port": ROUTER_HEALTH_PORT},
            "timeoutSeconds": 2,
            "periodSeconds": 2,
            "failureThreshold": 3,
        },
        # It goes on reporting while the router drains: the operator counts on every router that exists.
        lifecycle={"preStop": {"exec": {"command": _DRAIN}}},
        volumeMounts=[
            {**_mount("bootstrap", "/etc/envoy"), "readOnly": True},
            _mount("run", RUN_DIRECTORY),
            _mount("scratch", "/tmp"),  # noqa: S108 - a volume of the container
            {**_mount("api", _TOKEN_DIRECTORY), "readOnly": True},
        ],
    )


def _drain_seconds(settings: RouterSettings) -> Object:
    """Long enough for the longest request, and less than what the pod has until it is killed."""
    seconds = settings.longest_request_seconds + settings.drain_seconds // 2
    return {"name": "SLUICE_ROUTER_DRAIN_SECONDS", "value": str(seconds)}


def _environment(settings: RouterSettings) -> list[Object]:
    pod = [
        _pod_field("POD_NAME", "metadata.name"),
        _pod_field("POD_NAMESPACE", "metadata.namespace"),
        _pod_field("POD_UID", "metadata.uid"),
    ]
    return [
        *pod,
        _drain_seconds(settings),
        *({"name": name, "value": value} for name, value in sorted(settings.environment.items())),
    ]


def _heap(settings: RouterSettings) -> list[Object]:
    """Where Envoy begins to refuse requests (its overload manager): before the kernel kills it with all of them."""
    limit = settings.envoy_resources.get("limits", {}).get("memory")
    if limit is None:
        return []
    return [{"name": "SLUICE_ROUTER_HEAP_BYTES", "value": str(int(quantity.parse(limit) * _HEAP_SHARE))}]


def _container(settings: RouterSettings, name: str, resources: Mapping[str, Mapping[str, str]], **rest: Any) -> Object:
    made: Object = {
        "name": name,
        "image": settings.image,
        **rest,
        "resources": {kind: dict(amounts) for kind, amounts in resources.items()},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if settings.image_pull_policy:
        made["imagePullPolicy"] = settings.image_pull_policy
    return made


def _api_sources() -> list[Object]:
    """What kubelet would mount by itself, in every container."""
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": _TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]


def _pod_field(name: str, path: str) -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _mount(name: str, path: str) -> Object:
    return {"name": name, "mountPath": path}


def _object(api_version: str, kind: str, rest: Object) -> Object:
    metadata: Object = {"name": ROUTER, "labels": dict(_LABELS), "annotations": {}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}
