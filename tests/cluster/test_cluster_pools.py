"""What keeps models from starting is said in words to act on, and it goes on by itself once that is mended."""

import re
from collections.abc import Iterator

import pytest
from tests.cluster.hosting import Hosting, parrot

from demo.install import OPERATOR_NAMESPACE
from localcluster import Cluster
from localcluster.registry import docker_config_secret, registry

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

GPU = "nvidia.com/gpu"
GPU_TYPE = "ml.g5.test"
TYPES = "sluice-instance-types"


@pytest.fixture
def gpus(hosting: Hosting) -> Iterator[None]:
    """Two GPUs on the real node, as a device plugin would report them."""
    set_gpus(hosting, 2)
    yield
    set_gpus(hosting, None)
    hosting.kube.delete("ConfigMap", OPERATOR_NAMESPACE, TYPES)


def set_gpus(hosting: Hosting, count: int | None) -> None:
    """So many GPUs on the node that runs pods; None: it never had any."""
    [node] = [one["metadata"]["name"] for one in hosting.kube.request("GET", "/api/v1/nodes")["items"]]
    amount = None if count is None else str(count)
    status = {"status": {"capacity": {GPU: amount}, "allocatable": {GPU: amount}}}
    hosting.kube.request("PATCH", f"/api/v1/nodes/{node}/status", status, content_type="application/merge-patch+json")


@pytest.mark.usefixtures("gpus")
def test_three_instances_of_a_type_that_nobody_knew_on_two_gpus(hosting: Hosting) -> None:
    hosting.model("seer", hosting.upload("seer", parrot("seer")), resources=None)
    hosting.endpoint("seer", [{"variantName": "seer", "instanceType": GPU_TYPE, "initialInstanceCount": 3}])
    hosting.told("seer", rf"UnknownInstanceType: .*{GPU_TYPE}.*{TYPES}")

    types = f"{GPU_TYPE}: {{cpu: 20m, memory: 512Mi, gpu: 1}}\n"
    hosting.kube.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TYPES}, "data": {"instance-types.yaml": types}},
        OPERATOR_NAMESPACE,
    )
    hosting.told("seer", rf"Unschedulable: .*{GPU} 1.*Insufficient {GPU}")
    assert hosting.status("seer")["endpointStatus"] == "Creating"
    set_gpus(hosting, 3)

    hosting.ready("seer")
    assert hosting.runtime().invoke_endpoint(
        EndpointName="seer", Body=b'{"inputs": [["a"]]}', ContentType="application/json"
    )
    hosting.delete("seer")
    hosting.gone("seer")


def test_a_private_image_that_the_pull_secret_does_not_open(hosting: Hosting, cluster: Cluster) -> None:
    """What opens it is tests/cluster/test_registry.py's part: once this content was pulled with a Secret, kubelet would
    ask every other pod with the same content for one."""
    with registry(cluster) as private:
        image = private.push(hosting.image, "team/parrot:1")
        secrets = f"/api/v1/namespaces/{hosting.namespace}/secrets"
        hosting.kube.request("POST", secrets, docker_config_secret("wrong", "puller", "guessed"))
        hosting.model(
            "caged", hosting.upload("caged", parrot("caged")), image=image, imagePullSecrets=[{"name": "wrong"}]
        )
        hosting.endpoint("caged", [{"variantName": "caged"}])

        hosting.told("caged", rf"image {re.escape(image)} of container model cannot be pulled")
        hosting.delete("caged")
        hosting.gone("caged")


def test_model_data_that_is_not_there_and_comes_later(hosting: Hosting) -> None:
    hosting.upload("elsewhere", b"")
    hosting.model("lost", "s3://hosted/lost/model.tar.gz")
    hosting.endpoint("lost", [{"variantName": "lost"}])

    hosting.told("lost", r"ModelDataFailed: .*s3://hosted/lost/model.tar.gz.*NoSuchKey")
    hosting.upload("lost", parrot("lost"))

    hosting.ready("lost")
    hosting.delete("lost")
    hosting.gone("lost")
