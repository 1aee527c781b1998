"""Fleets and routers as manifests: golden files, and a real API server that takes them."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import kubernetes.client
import kubernetes.config
import kubernetes.dynamic
import pytest
from kubernetes.client.exceptions import ApiException

from .golden import FLEETS, HERE, ROUTERS, Object, rendered, text

CASES = (*FLEETS, *ROUTERS)
NAMESPACE = "cluster-manifests"
NOT_RESTRICTED = {"gpu": "runAsNonRoot", "direct": "hostPath"}
"""Cases that depart from the restricted pod security standard, as their Model asks, and what is said about them."""


@pytest.mark.parametrize("name", CASES)
def test_renders_as_the_golden_file(name: str) -> None:
    """A difference means that fleets made from now on differ from those that stand: look at it, then write it anew."""
    assert text(name) == (HERE / f"{name}.yaml").read_text(encoding="utf-8")


def test_every_golden_file_has_a_case() -> None:
    assert {path.stem for path in HERE.glob("*.yaml")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_owned_by_anything(name: str) -> None:
    """Foreground deletion of an owner would kill pods before they are drained."""
    for item in rendered(name):
        assert "ownerReferences" not in item["metadata"]


@pytest.fixture(scope="module")
def api(control_plane: Any) -> Iterator[kubernetes.dynamic.DynamicClient]:
    """A client of an API server with a namespace that enforces the restricted pod security standard."""
    with kubernetes.config.new_client_from_config(str(control_plane.kubeconfig)) as client:
        core = kubernetes.client.CoreV1Api(client)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        _ignoring_conflict(core.create_namespace, {"metadata": {"name": NAMESPACE, "labels": labels}})
        for account in ("default", "churn", "sluice-router"):
            _ignoring_conflict(core.create_namespaced_service_account, NAMESPACE, {"metadata": {"name": account}})
        scheduling = kubernetes.client.SchedulingV1Api(client)
        _ignoring_conflict(scheduling.create_priority_class, {"metadata": {"name": "serving"}, "value": 1000})
        yield kubernetes.dynamic.DynamicClient(client)


def _ignoring_conflict(create: Any, *arguments: Any) -> None:
    try:
        create(*arguments)
    except ApiException as error:
        if error.status != 409:
            raise


def _created(api: kubernetes.dynamic.DynamicClient, item: Object) -> Object:
    """The object as the API server would store it. Refuses fields that Kubernetes does not know."""
    body = deepcopy(item)
    body["metadata"]["namespace"] = NAMESPACE
    for subject in body.get("subjects", ()):
        subject["namespace"] = NAMESPACE
    resource = api.resources.get(api_version=body["apiVersion"], kind=body["kind"])
    query = [("dryRun", "All"), ("fieldValidation", "Strict")]
    stored: Object = resource.create(body=body, namespace=NAMESPACE, query_params=query).to_dict()
    return stored


@pytest.mark.apiserver
@pytest.mark.parametrize("name", CASES)
def test_the_api_server_takes_every_object(api: kubernetes.dynamic.DynamicClient, name: str) -> None:
    for item in rendered(name):
        _created(api, {**item, "metadata": {**item["metadata"], "name": f"{item['metadata']['name']}-dry"}})


@pytest.mark.apiserver
@pytest.mark.parametrize("name", CASES)
def test_pods_keep_the_restricted_standard_unless_their_model_departs_from_it(
    api: kubernetes.dynamic.DynamicClient, name: str
) -> None:
    (template,) = (item["spec"]["template"] for item in rendered(name) if item["kind"] == "Deployment")
    metadata = {**template["metadata"], "name": "pod"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    if name not in NOT_RESTRICTED:
        _created(api, pod)
        return
    with pytest.raises(ApiException) as refused:
        _created(api, pod)
    message = json.loads(refused.value.body)["message"]
    assert 'violates PodSecurity "restricted' in message
    assert NOT_RESTRICTED[name] in message
