"""Nodes that are not there, as the tests of zones, pools and GPUs use them: the real scheduler takes them for real."""

from collections.abc import Iterator

import pytest
from tests.cluster.nodes import ZONE, FakeNode, FakeNodes, extended_resource, labelled
from tests.cluster.pods import namespace_for_pods
from tests.operator.harness.kube import Kube, Object, until

from demo.surroundings import Surroundings

pytestmark = pytest.mark.cluster

NAMESPACE = "fake-nodes"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
POOL = "example.com/pool"
SECONDS = 180.0


@pytest.fixture(scope="module")
def api(surroundings: Surroundings) -> Iterator[Kube]:
    """The API, with a namespace for pods."""
    kube = Kube(surroundings.kubeconfig)
    namespace_for_pods(kube, NAMESPACE)
    yield kube
    kube.delete("Namespace", "", NAMESPACE)
    kube.close()


@pytest.fixture
def kube(api: Kube) -> Iterator[Kube]:
    """The same; pods are gone after the test."""
    yield api
    for pod in api.request("GET", PODS)["items"]:
        now = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        api.request("DELETE", f"{PODS}/{pod['metadata']['name']}", now)


def start(kube: Kube, name: str, **spec: object) -> None:
    """A pod that asks for a GPU if `gpu` says so."""
    limits = {"nvidia.com/gpu": "1"} if spec.pop("gpu", False) else {}
    container = {"name": "main", "image": "example.com/none:1", "resources": {"limits": limits}}
    body = {"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"containers": [container], **spec}}
    kube.request("POST", PODS, {"apiVersion": "v1", "kind": "Pod", **body})


def scheduled(kube: Kube, name: str) -> Object:
    """The pod once it has a node."""

    def look() -> Object | None:
        found = kube.request("GET", f"{PODS}/{name}")
        return found if found["spec"].get("nodeName") else None

    return until(look, seconds=SECONDS, what=lambda: str(kube.request("GET", f"{PODS}/{name}")["status"]))


def real_node(kube: Kube) -> str:
    """The name of a node with a kubelet."""
    return str(kube.request("GET", "/api/v1/nodes")["items"][0]["metadata"]["name"])


def test_pods_spread_over_zones_and_are_said_to_run(kube: Kube) -> None:
    zones = [FakeNode(f"fake-{zone}", {ZONE: zone, POOL: "cpu"}) for zone in "abc"]
    spread = {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "x"}},
    }
    with FakeNodes(kube, *zones, run_pods=True) as nodes:
        for number in range(3):
            start(kube, f"pod-{number}", nodeSelector={POOL: "cpu"}, topologySpreadConstraints=[spread])
            scheduled(kube, f"pod-{number}")

        assert sorted(nodes.pods(NAMESPACE)) == ["fake-a", "fake-b", "fake-c"]
        for number in range(3):
            path = f"{PODS}/pod-{number}"
            until(
                lambda path=path: kube.request("GET", path)["status"]["phase"] == "Running" or None,
                seconds=SECONDS,
                what=lambda: "the pod is said to run",
            )
    left = {node["metadata"]["name"] for node in kube.request("GET", "/api/v1/nodes")["items"]}
    assert not [name for name in left if name.startswith("fake-")]


def test_a_pool_behind_a_taint_takes_only_who_tolerates_it(kube: Kube) -> None:
    pool = FakeNode("fake-gpu", {POOL: "gpu"}, taints=["nvidia.com/gpu=present:NoSchedule"])
    with FakeNodes(kube, pool):
        start(kube, "intolerant", nodeSelector={POOL: "gpu"})
        start(
            kube, "tolerant", nodeSelector={POOL: "gpu"}, tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}]
        )

        assert scheduled(kube, "tolerant")["spec"]["nodeName"] == "fake-gpu"
        unscheduled = kube.request("GET", f"{PODS}/intolerant")
        assert "nodeName" not in unscheduled["spec"]


def test_a_deleted_pod_on_a_fake_node_goes(kube: Kube) -> None:
    with FakeNodes(kube, FakeNode("fake-one", {POOL: "one"}), run_pods=True):
        start(kube, "going", nodeSelector={POOL: "one"})
        scheduled(kube, "going")
        kube.request("DELETE", f"{PODS}/going")

        until(lambda: not kube.request("GET", PODS)["items"] or None, seconds=SECONDS, what=lambda: "the pod is gone")


def test_a_real_node_gets_gpus_and_a_zone_for_a_while(kube: Kube) -> None:
    node = real_node(kube)
    with labelled(kube, node, {ZONE: "z"}), extended_resource(kube, node, "nvidia.com/gpu", 1):
        start(kube, "first", gpu=True, nodeSelector={ZONE: "z"})
        assert scheduled(kube, "first")["spec"]["nodeName"] == node
        start(kube, "second", gpu=True)
        until(
            lambda: "Insufficient nvidia.com/gpu" in str(kube.request("GET", f"{PODS}/second")["status"]) or None,
            seconds=SECONDS,
            what=lambda: str(kube.request("GET", f"{PODS}/second")["status"]),
        )
    found = kube.request("GET", f"/api/v1/nodes/{node}")
    assert "nvidia.com/gpu" not in found["status"]["capacity"]
    assert ZONE not in found["metadata"]["labels"]
