"""The adapter's calls that only the Cluster backend makes, against a real API server."""

import pytest
from tests.cluster_backend.objects import create, deployment_manifest, make_ready, pod_manifest
from tests.controller.conftest import Telemetry

from sluice.kube.client import KubeClient
from sluice.ports.kube import Conflict, Gone, HeldByBudget, Object, Rejected

pytestmark = pytest.mark.apiserver

LABELS = {"app": "churn"}


async def test_scaling_writes_replicas_and_nothing_else(kube: KubeClient, namespace: str, telemetry: Telemetry) -> None:
    (before,) = await create(kube, deployment_manifest("churn", namespace, LABELS))
    uid = before["metadata"]["uid"]
    await kube.scale("Deployment", namespace, "churn", 7, uid=uid)
    after = await kube.get("Deployment", namespace, "churn")
    assert after is not None
    assert after["spec"] == {**before["spec"], "replicas": 7}
    scaled = [entry for entry in after["metadata"]["managedFields"] if entry.get("subresource") == "scale"]
    assert [entry["fieldsV1"] for entry in scaled] == [{"f:spec": {"f:replicas": {}}}]
    with pytest.raises(Gone):
        await kube.scale("Deployment", namespace, "nothing", 1, uid=uid)
    assert ("scale", "Deployment", "200") in telemetry.kube


async def test_a_scale_is_held_to_the_uid_that_was_seen(kube: KubeClient, namespace: str) -> None:
    """Also from and to nothing: of a Scale of 0 the API server sends no count."""
    (made,) = await create(kube, deployment_manifest("churn", namespace, LABELS))
    for wanted in (0, 3, 3, 0, 1):
        with pytest.raises(Conflict, match="had another when observed"):
            await kube.scale("Deployment", namespace, "churn", 9, uid="another")
        await kube.scale("Deployment", namespace, "churn", wanted, uid=made["metadata"]["uid"])
        after = await kube.get("Deployment", namespace, "churn")
        assert after is not None
        assert after["spec"]["replicas"] == wanted


async def test_a_count_that_the_api_server_refuses_is_no_conflict(kube: KubeClient, namespace: str) -> None:
    (made,) = await create(kube, deployment_manifest("churn", namespace, LABELS))
    with pytest.raises(Rejected, match="greater than or equal to 0"):
        await kube.scale("Deployment", namespace, "churn", -1, uid=made["metadata"]["uid"])


async def test_a_delete_can_be_held_to_one_uid(kube: KubeClient, namespace: str) -> None:
    (made,) = await create(kube, deployment_manifest("churn", namespace, LABELS))
    with pytest.raises(Conflict, match="UID in the precondition"):
        await kube.delete("Deployment", namespace, "churn", uid="another")
    assert await kube.get("Deployment", namespace, "churn") is not None
    await kube.delete("Deployment", namespace, "churn", uid=made["metadata"]["uid"])
    await kube.delete("Deployment", namespace, "churn", uid=made["metadata"]["uid"])
    assert await kube.get("Deployment", namespace, "churn") is None, "in the background: at once, whoever depends on it"


async def test_an_eviction_hits_one_very_pod(kube: KubeClient, namespace: str, telemetry: Telemetry) -> None:
    (pod,) = await create(kube, pod_manifest("router-1", namespace, LABELS))
    with pytest.raises(Conflict):
        await kube.evict(namespace, "router-1", uid="another", grace_seconds=90)
    await kube.evict(namespace, "router-1", uid=pod["metadata"]["uid"], grace_seconds=90)
    assert await kube.get("Pod", namespace, "router-1") is None
    await kube.evict(namespace, "router-1", uid=pod["metadata"]["uid"], grace_seconds=90)
    assert ("evict", "Pod", "201") in telemetry.kube


async def test_an_eviction_that_the_budget_forbids_is_told_apart_from_an_outage(
    kube: KubeClient, namespace: str
) -> None:
    budget: Object = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "churn", "namespace": namespace},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": LABELS}},
    }
    (pod,) = await create(kube, pod_manifest("router-1", namespace, LABELS))
    pod = await make_ready(kube, pod)
    # The disruption controller, which counts pods, does not run here: its word is that none may go.
    (made,) = await create(kube, budget)
    status = {"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1}
    await kube.replace_status(
        "PodDisruptionBudget", namespace, {**made, "status": {**status, "expectedPods": 1, "disruptedPods": {}}}
    )
    with pytest.raises(HeldByBudget, match="disruption budget"):
        await kube.evict(namespace, "router-1", uid=pod["metadata"]["uid"], grace_seconds=90)
    assert await kube.get("Pod", namespace, "router-1") is not None
