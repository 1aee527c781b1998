"""Pods and what belongs to them, as kubelet and the controllers would write them."""

from typing import Any

from sluice.core.revision import LABEL_MANAGED_BY, MANAGED_BY
from sluice.kube.client import KubeClient
from sluice.ports.kube import Gone, Kube, Object

OURS = {LABEL_MANAGED_BY: MANAGED_BY}


def pod_manifest(name: str, namespace: str, labels: dict[str, str], owner: Object | None = None) -> Object:
    metadata: Object = {"name": name, "namespace": namespace, "labels": {**OURS, **labels}}
    if owner is not None:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "containers": [{"name": "model", "image": "registry.example/churn:1"}],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
        },
    }


def owner_reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
    }


def deployment_manifest(name: str, namespace: str, labels: dict[str, str], **annotations: str) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**OURS, **labels},
            "annotations": annotations,
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "model", "image": "registry.example/churn:1"}]},
            },
        },
    }


def replica_set_manifest(name: str, namespace: str, labels: dict[str, str], owner: Object) -> Object:
    deployment = deployment_manifest(name, namespace, labels)
    return {
        **deployment,
        "kind": "ReplicaSet",
        "metadata": {**deployment["metadata"], "ownerReferences": [owner_reference(owner)]},
    }


async def replica_set_of(kube: KubeClient, namespace: str, fleet: str, labels: dict[str, str]) -> Object | None:
    """The ReplicaSet of a fleet's Deployment, made where it is missing. None: there is no such Deployment."""
    deployment = await kube.get("Deployment", namespace, fleet)
    if deployment is None:
        return None
    name = f"{fleet}-{deployment['metadata']['uid'][:8]}"
    found = await kube.get("ReplicaSet", namespace, name)
    if found is not None:
        return found
    return await kube.create("ReplicaSet", namespace, replica_set_manifest(name, namespace, labels, deployment))


async def scale(kube: Kube, namespace: str, name: str, replicas: int) -> None:
    """As a scaler does. Raises Gone, and Conflict where it was made anew in that moment."""
    found = await kube.get("Deployment", namespace, name)
    if found is None:
        raise Gone(name)
    await kube.scale("Deployment", namespace, name, replicas, uid=found["metadata"]["uid"])


async def create(kube: KubeClient, *manifests: Object) -> list[Object]:
    return [await kube.create(item["kind"], item["metadata"]["namespace"], item) for item in manifests]


async def make_ready(kube: KubeClient, pod: Object, **status: Any) -> Object:
    """What kubelet writes once the pod answers."""
    return await kube.replace_status(
        "Pod",
        pod["metadata"]["namespace"],
        {
            **pod,
            "status": {
                "phase": "Running",
                "conditions": [
                    {"type": "PodScheduled", "status": "True"},
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"},
                ],
                "containerStatuses": [
                    {
                        "name": "model", "image": "registry.example/churn:1", "ready": True, "started": True,
                        "restartCount": 0, "imageID": "registry.example/churn@sha256:" + "a" * 64,
                        "state": {"running": {"startedAt": "2026-01-01T00:00:30Z"}},
                    }
                ],
                **status,
            },
        },
    )  # fmt: skip


async def make_crashing(kube: KubeClient, pod: Object) -> Object:
    """What kubelet writes when the container has ended by itself again and again."""
    container = {
        "name": "model", "image": "registry.example/churn:1", "imageID": "", "ready": False, "started": False,
        "restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 2m40s"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "no such model"}},
    }  # fmt: skip
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]
    return await set_status(kube, pod, {"phase": "Running", "conditions": conditions, "containerStatuses": [container]})


async def set_status(kube: KubeClient, item: Object, status: Object) -> Object:
    """What a controller writes."""
    return await kube.replace_status(item["kind"], item["metadata"]["namespace"], {**item, "status": status})
