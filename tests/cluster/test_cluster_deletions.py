"""Endpoints go, and what is being answered is answered: by kubectl delete, in the foreground, with their namespace."""

from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError
from tests.cluster.conftest import ModelServer
from tests.cluster.hosting import BODY, JSON, ROUTERS, Hosting, parrot
from tests.operator.harness.kube import Kube

from demo.steps import Stage
from localcluster import Cluster

pytestmark = pytest.mark.cluster

SLOW_SECONDS = 15.0


@pytest.fixture(scope="module")
def leaving(stage: Stage, cluster: Cluster, mlflow: ModelServer) -> Iterator[Hosting]:
    """A namespace that these tests delete at last."""
    kube = Kube(stage.surroundings.kubeconfig)
    hosting = Hosting(stage, cluster, kube, mlflow.image, "leaving")
    hosting.open()
    hosting.model("ara", hosting.upload("ara", parrot("ara")))
    yield hosting
    hosting.close()
    kube.close()


def serve(hosting: Hosting, name: str, **spec: str) -> None:
    """An Endpoint with one instance, in service."""
    hosting.endpoint(name, [{"variantName": "ara"}], **spec)
    hosting.ready(name)


def test_the_last_endpoint_drains_before_it_goes_in_the_foreground_and_takes_the_routers_along(
    leaving: Hosting,
) -> None:
    serve(leaving, "last")
    [pod] = leaving.fleet("last", "ara")

    with leaving.slow_call("last", pod, SLOW_SECONDS) as call:
        leaving.stage.surroundings.run_kubectl(
            "delete", "endpoints.sluice.dev", "last", "-n", leaving.namespace, "--cascade=foreground", "--wait=false"
        )
        answer = call.result()

    assert answer["Body"].read() == b'{"predictions": ["ara"]}'
    leaving.gone("last")
    leaving.until("last", lambda: not leaving.every_pod(ROUTERS) or None)


def test_what_is_retained_serves_on_and_what_is_not_is_refused(leaving: Hosting) -> None:
    serve(leaving, "kept", deletionPolicy="Retain")
    serve(leaving, "dropped")

    with leaving.load("kept") as loads:
        leaving.delete("kept", "dropped")
        leaving.gone("dropped")
        leaving.until("kept", lambda: leaving.kube.get("Endpoint", leaving.namespace, "kept") is None or None)
        loads.more(100)
    with pytest.raises(ClientError, match="dropped") as refused:
        leaving.runtime().invoke_endpoint(EndpointName="dropped", Body=BODY, ContentType=JSON)

    loads.assert_none_lost()
    assert refused.value.response["Error"]["Code"] == "ValidationError"
    assert len(leaving.fleet("kept", "ara")) == 1


def test_a_namespace_goes_when_the_last_answer_is_given(leaving: Hosting) -> None:
    serve(leaving, "evicted")
    [pod] = leaving.fleet("evicted", "ara")

    with leaving.slow_call("evicted", pod, SLOW_SECONDS) as call:
        leaving.close()
        answer = call.result()

    assert answer["Body"].read() == b'{"predictions": ["ara"]}'
    leaving.until("evicted", lambda: leaving.kube.get("Namespace", "", leaving.namespace) is None or None)
