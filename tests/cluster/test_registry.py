"""The registry that tests of pulling use: by digest, with a password and not without."""

from collections.abc import Iterator

import pytest
from tests.cluster.hosting import Hosting
from tests.cluster.pods import namespace_for_pods
from tests.operator.harness.kube import Kube, Object, until

from demo.surroundings import Surroundings
from localcluster import Cluster
from localcluster.registry import ADDRESS, Registry, docker_config_secret, registry

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NAMESPACE = "pulling"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
PULL_SECONDS = 180.0


@pytest.fixture(scope="module")
def pulled(cluster: Cluster) -> Iterator[Registry]:
    """A running registry."""
    with registry(cluster) as running:
        yield running


@pytest.fixture(scope="module")
def kube(surroundings: Surroundings) -> Iterator[Kube]:
    """The API, with a namespace for pods."""
    kube = Kube(surroundings.kubeconfig)
    namespace_for_pods(kube, NAMESPACE)
    yield kube
    kube.delete("Namespace", "", NAMESPACE)
    kube.close()


def start(kube: Kube, name: str, image: str, secret: str = "") -> None:
    """A pod with that image, pulled anew."""
    container = {"name": "main", "image": image, "imagePullPolicy": "Always", "command": ["sleep", "infinity"]}
    secrets = [{"name": secret}] if secret else []
    spec = {"containers": [container], "imagePullSecrets": secrets, "terminationGracePeriodSeconds": 0}
    kube.request("POST", PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def container(kube: Kube, name: str) -> Object:
    """The container's status; empty before there is one."""
    [found] = kube.request("GET", f"{PODS}/{name}")["status"].get("containerStatuses") or [{}]
    return dict(found)


def refused(kube: Kube, name: str) -> str:
    """Why the image was not pulled, once that is known."""

    def look() -> str | None:
        waiting = container(kube, name).get("state", {}).get("waiting", {})
        return str(waiting.get("message")) if waiting.get("reason") == "ErrImagePull" else None

    return until(look, seconds=PULL_SECONDS, what=lambda: str(container(kube, name)), every=0.1)


def test_an_image_is_pulled_by_digest_with_the_secret(surroundings: Surroundings, kube: Kube, pulled: Registry) -> None:
    reference = pulled.push(surroundings.simulator_image, "team/simulator:1")
    kube.request("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", pulled.pull_secret("right"))

    start(kube, "with-secret", reference, "right")

    running = until(
        lambda: container(kube, "with-secret") if container(kube, "with-secret").get("ready") else None,
        seconds=PULL_SECONDS,
        what=lambda: str(container(kube, "with-secret")),
    )
    assert reference.startswith(f"{ADDRESS}/team/simulator@sha256:")
    assert running["imageID"] == reference


def test_without_the_secret_or_with_a_wrong_one_it_is_not(
    surroundings: Surroundings, kube: Kube, pulled: Registry
) -> None:
    reference = pulled.push(surroundings.simulator_image, "team/private:1")
    wrong = docker_config_secret("wrong", "puller", "guessed")
    kube.request("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", wrong)

    start(kube, "without-secret", reference)
    start(kube, "wrong-secret", reference, "wrong")

    for name in ("without-secret", "wrong-secret"):
        assert "401" in refused(kube, name) or "authorization" in refused(kube, name)


def test_an_endpoint_whose_secret_comes_later_heals_by_itself(
    hosting: Hosting, contrary_image: str, pulled: Registry
) -> None:
    image = pulled.push(contrary_image, "team/late:1")
    hosting.model("late", image=image, imagePullSecrets=[{"name": "later"}])
    hosting.endpoint("late", [{"variantName": "late"}])
    hosting.told("late", rf"ImagePullFailed: variant late: 1 pod: image {image} of container model cannot be pulled")

    hosting.kube.request("POST", f"/api/v1/namespaces/{hosting.namespace}/secrets", pulled.pull_secret("later"))

    status = hosting.ready("late", lambda found: bool(found["productionVariants"][0]["deployedImages"]))
    assert [one["resolvedImage"] for one in status["productionVariants"][0]["deployedImages"]] == [image]
    hosting.delete("late")
    hosting.gone("late")
