"""The example's model servers, run as pods by the container contract: what they promise, how the broken ones fail."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from tests.cluster.conftest import ModelServer
from tests.cluster.pods import namespace_for_pods
from tests.operator.harness.kube import Kube, Object, until

from demo.forwarding import forwarded
from demo.surroundings import Surroundings

pytestmark = pytest.mark.cluster

NAMESPACE = "model-servers"
START_SECONDS = 240.0
RESTRICTED: dict[str, Any] = {
    "runAsNonRoot": True,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
ROOT: dict[str, Any] = {"runAsUser": 0}
HTTP = urllib3.PoolManager(retries=False, timeout=60.0)
ROW = "[[5.1, 3.5, 1.4, 0.2]]"


@pytest.fixture(scope="module")
def kube(surroundings: Surroundings) -> Iterator[Kube]:
    """The API, with an empty namespace for pods."""
    kube = Kube(surroundings.kubeconfig)
    namespace_for_pods(kube, NAMESPACE)
    yield kube
    kube.delete("Namespace", "", NAMESPACE)
    kube.close()


@contextmanager
def pod(kube: Kube, name: str, server: ModelServer, archive: Path, security: dict[str, Any]) -> Iterator[str]:
    """A pod that serves a model, with its data unpacked by an init container; gone when the block ends."""
    data = {"archive": base64.b64encode(archive.read_bytes()).decode()}
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "binaryData": data}, NAMESPACE)
    model, scratch = {"name": "model", "mountPath": "/opt/ml/model"}, {"name": "scratch", "mountPath": "/tmp"}  # noqa: S108
    unpack = {
        "name": "unpack",
        "image": server.image,
        "imagePullPolicy": "Never",
        "command": ["python", "-m", "tarfile", "-e", "/archive/archive", "/opt/ml/model"],
        "securityContext": security,
        "volumeMounts": [model, scratch, {"name": "archive", "mountPath": "/archive"}],
    }
    serve = {
        "name": "serve",
        "image": server.image,
        "imagePullPolicy": "Never",
        "args": ["serve"],
        "securityContext": security,
        "volumeMounts": [{**model, "readOnly": True}, scratch],
        "readinessProbe": {"httpGet": {"path": "/ping", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 2},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    spec = {
        "initContainers": [unpack],
        "containers": [serve],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "volumes": [
            {"name": "model", "emptyDir": {}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "archive", "configMap": {"name": name}},
        ],
    }
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    kube.request("POST", path, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    try:
        yield f"{path}/{name}"
    finally:
        kube.request("DELETE", f"{path}/{name}")


def ready(kube: Kube, path: str) -> Object:
    """The pod once it is ready."""

    def look() -> Object | None:
        found = kube.request("GET", path)
        conditions = {one["type"]: one["status"] for one in found["status"].get("conditions", ())}
        return found if conditions.get("Ready") == "True" else None

    return until(look, seconds=START_SECONDS, what=lambda: json.dumps(kube.request("GET", path)["status"], indent=1))


def invoke(surroundings: Surroundings, name: str, body: str, content_type: str = "application/json") -> tuple[int, str]:
    """POST /invocations, with the status and the body of the answer."""
    with forwarded(surroundings, NAMESPACE, f"pod/{name}", 8080) as url:
        answer = HTTP.request("POST", f"{url}/invocations", body=body, headers={"Content-Type": content_type})
    return answer.status, answer.data.decode()


def ping(surroundings: Surroundings, name: str) -> int:
    """The status of GET /ping."""
    with forwarded(surroundings, NAMESPACE, f"pod/{name}", 8080) as url:
        return HTTP.request("GET", f"{url}/ping").status


@pytest.mark.parametrize("model", ["tree", "logistic", "forest"])
def test_mlflow_answers_under_the_restricted_standard_and_names_the_model(
    surroundings: Surroundings, kube: Kube, mlflow: ModelServer, model: str
) -> None:
    with pod(kube, f"mlflow-{model}", mlflow, mlflow.archives[model], RESTRICTED) as path:
        ready(kube, path)

        status, body = invoke(surroundings, f"mlflow-{model}", f'{{"inputs": {ROW}}}')

    assert (status, json.loads(body)) == (200, {"predictions": [f"setosa by {model}"]})


def test_the_broken_model_is_ready_and_answers_nothing_but_500(
    surroundings: Surroundings, kube: Kube, mlflow: ModelServer
) -> None:
    with pod(kube, "mlflow-broken", mlflow, mlflow.archives["broken"], RESTRICTED) as path:
        ready(kube, path)

        assert ping(surroundings, "mlflow-broken") == 200
        assert invoke(surroundings, "mlflow-broken", f'{{"inputs": {ROW}}}')[0] == 500


def test_a_model_without_weights_ends_its_server_which_says_why(kube: Kube, mlflow: ModelServer) -> None:
    with pod(kube, "mlflow-incomplete", mlflow, mlflow.archives["incomplete"], RESTRICTED) as path:

        def ended() -> Object | None:
            [container] = kube.request("GET", path)["status"].get("containerStatuses") or [{}]
            state = {**container.get("lastState", {}), **container.get("state", {})}
            found: Object | None = state.get("terminated")
            return found

        terminated = until(ended, seconds=START_SECONDS, what=lambda: "the server has ended")

    assert terminated["exitCode"] == 1
    assert "model.pkl" in terminated["message"]


def test_amazons_toolkit_answers_as_root(surroundings: Surroundings, kube: Kube, mms: ModelServer) -> None:
    with pod(kube, "mms-nearest", mms, mms.archives["nearest"], ROOT) as path:
        ready(kube, path)

        assert invoke(surroundings, "mms-nearest", ROW) == (200, '["setosa"]')
        assert invoke(surroundings, "mms-nearest", "5.1,3.5,1.4,0.2", "text/csv")[0] == 200


def test_amazons_ping_lies(surroundings: Surroundings, kube: Kube, mms: ModelServer) -> None:
    with pod(kube, "mms-incomplete", mms, mms.archives["incomplete"], ROOT) as path:
        ready(kube, path)

        status, body = invoke(surroundings, "mms-incomplete", ROW)
        assert status == 500
        assert "centroids.json" in body
        assert ping(surroundings, "mms-incomplete") == 200
