"""A fleet as Kubernetes objects: one variant of one revision, as Service, NetworkPolicy, PodDisruptionBudget and
Deployment. Pure builders; the pod template stands in template.py.

None of the objects has an ownerReference: foreground deletion would kill pods before they are drained. The Deployment
is created once and never written again but for its replicas, through the scale subresource."""

from collections.abc import Mapping
from typing import Any, Final

from sluice.cluster.labels import endpoint_labels
from sluice.cluster.template import Fleet, FleetDefaults, pod_template, ports_of
from sluice.core.cluster.actions import EnsureFleet
from sluice.core.cluster.names import (
    ANNOTATION_FLEET_HASH,
    ANNOTATION_OWNER,
    ANNOTATION_TEMPLATE,
    ANNOTATION_VARIANT,
    LABEL_FLEET,
    LABEL_ROUTER,
    ROUTER,
)
from sluice.core.hashing import digest
from sluice.core.identity import Owner
from sluice.core.instance_types import InstanceType

Object = dict[str, Any]

NO_DEADLINE_SECONDS: Final = 2**31 - 1
"""Kubernetes' own progress deadline would only set a condition; the operator judges pods itself."""
_DNS_PORT: Final = 53


def fleet_of(owner: Owner, action: EnsureFleet) -> Fleet:
    """The fleet that an action asks for. Raises KeyError if its variant or Model is not in the revision."""
    variants = [
        *(action.endpoint_config.get("productionVariants") or ()),
        *(action.endpoint_config.get("shadowProductionVariants") or ()),
    ]
    variant = {str(each["variantName"]): each for each in variants}[action.variant]
    return Fleet(
        owner=owner,
        name=action.name,
        fleet_hash=action.fleet_hash,
        variant=variant,
        endpoint_config=action.endpoint_config,
        model=action.models[variant["modelName"]],
    )


def objects(fleet: Fleet, instance_type: InstanceType, defaults: FleetDefaults, replicas: int) -> tuple[Object, ...]:
    """Everything of a fleet, in the order of creation: no pod runs before its policy stands."""
    return (
        service(fleet),
        network_policy(fleet, defaults),
        disruption_budget(fleet),
        deployment(fleet, instance_type, defaults, replicas),
    )


def template_digest(fleet: Fleet, instance_type: InstanceType, defaults: FleetDefaults) -> str:
    """Tells two renderings of one fleet's pods apart: equal if this operator, with its instance types and defaults,
    would render the pods that stand."""
    return digest(pod_template(fleet, instance_type, defaults))


def deployment(fleet: Fleet, instance_type: InstanceType, defaults: FleetDefaults, replicas: int) -> Object:
    """The fleet's Deployment."""
    template = pod_template(fleet, instance_type, defaults)
    made = _object("apps/v1", "Deployment", fleet)
    made["metadata"]["annotations"][ANNOTATION_TEMPLATE] = digest(template)
    made["spec"] = {
        "replicas": replicas,
        "selector": {"matchLabels": {LABEL_FLEET: fleet.name}},
        "revisionHistoryLimit": 0,
        "progressDeadlineSeconds": NO_DEADLINE_SECONDS,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": template,
    }
    return made


def service(fleet: Fleet) -> Object:
    """The Service whose EndpointSlices the routers follow. Only ready pods are in it as ready."""
    made = _object("v1", "Service", fleet)
    made["spec"] = {
        "type": "ClusterIP",
        "selector": {LABEL_FLEET: fleet.name},
        "publishNotReadyAddresses": False,
        "ports": [
            {"name": name, "port": port, "targetPort": port, "protocol": "TCP", "appProtocol": "http"}
            for name, port in ports_of(fleet)
        ],
    }
    return made


def disruption_budget(fleet: Fleet) -> Object:
    """One pod in ten, rounded up, may be evicted at a time; pods that are not healthy never hold a node up."""
    made = _object("policy/v1", "PodDisruptionBudget", fleet)
    made["spec"] = {
        "maxUnavailable": "10%",
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": {LABEL_FLEET: fleet.name}},
    }
    return made


def network_policy(fleet: Fleet, defaults: FleetDefaults) -> Object:
    """Only the namespace's routers reach the pods. With enableNetworkIsolation the pods reach nothing but what the
    download of the model data needs: a policy holds for a whole pod, it cannot tell the loader from the model."""
    made = _object("networking.k8s.io/v1", "NetworkPolicy", fleet)
    made["spec"] = {
        "podSelector": {"matchLabels": {LABEL_FLEET: fleet.name}},
        "policyTypes": ["Ingress", "Egress"] if fleet.isolated else ["Ingress"],
        "ingress": [
            {
                "from": [{"podSelector": {"matchLabels": {LABEL_ROUTER: ROUTER}}}],
                "ports": [{"protocol": "TCP", "port": port} for _, port in ports_of(fleet)],
            }
        ],
    }
    if fleet.isolated:
        made["spec"]["egress"] = _download_egress(fleet, defaults)
    return made


def _download_egress(fleet: Fleet, defaults: FleetDefaults) -> list[Object]:
    ports = fleet.download_ports
    if not ports:
        return []
    dns = {"ports": [{"protocol": protocol, "port": _DNS_PORT} for protocol in ("UDP", "TCP")]}
    sources: Object = {"ports": [{"protocol": "TCP", "port": port} for port in ports]}
    if defaults.isolated_egress_cidrs:
        sources["to"] = [{"ipBlock": {"cidr": cidr}} for cidr in defaults.isolated_egress_cidrs]
    return [dns, sources]


def _object(api_version: str, kind: str, fleet: Fleet) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": fleet.name,
            "namespace": fleet.owner.namespace,
            "labels": {**endpoint_labels(fleet.owner.name), LABEL_FLEET: fleet.name},
            "annotations": annotations(fleet),
        },
    }


def annotations(fleet: Fleet) -> dict[str, str]:
    """Who a fleet's objects belong to, and what they are."""
    return {
        ANNOTATION_OWNER: str(fleet.owner),
        ANNOTATION_VARIANT: str(fleet.variant["variantName"]),
        ANNOTATION_FLEET_HASH: fleet.fleet_hash,
    }


def images(fleet: Fleet) -> Mapping[str, str]:
    """Container name -> image as specified, of the model's own containers."""
    return {container.name: str(container.spec["image"]) for container in fleet.containers}
