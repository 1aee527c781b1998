"""A client that asks a real API server what it thinks of a manifest."""

import json
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import kubernetes.client
import kubernetes.config
import pytest
from kubernetes.client.exceptions import ApiException

from sluice.api.crds import INTERNAL_KINDS, KINDS, crd
from sluice.api.names import GROUP, VERSION

NAMESPACE = "api-tests"
_PATH = f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}"
ESTABLISHED_WITHIN_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for a refusal, as the API server states it."""

    field: str
    reason: str
    message: str


class Admission:
    """What the API server answers to manifests. Dry runs: nothing is stored unless `stored` says so."""

    def __init__(self, api: kubernetes.client.ApiClient) -> None:
        self._api = api
        self._objects = kubernetes.client.CustomObjectsApi(api)
        self._plurals = {kind.name: kind.plural for kind in (*KINDS, *INTERNAL_KINDS)}

    def create(self, manifest: dict[str, Any]) -> tuple[Cause, ...]:
        """Why the API server refuses to create it; empty when it accepts."""
        return self._causes(
            self._objects.create_namespaced_custom_object,
            self._plurals[manifest["kind"]],
            body=manifest,
            dry_run="All",
            field_validation="Strict",
        )

    def update(self, old: dict[str, Any], new: dict[str, Any]) -> tuple[Cause, ...]:
        """Why the API server refuses to turn `old`, which is stored for that long, into `new`."""
        plural, name = self._plurals[old["kind"]], old["metadata"]["name"]
        stored = self._objects.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, plural, old)
        try:
            body = deepcopy(new)
            body["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"]
            return self._causes(
                self._objects.replace_namespaced_custom_object,
                plural,
                name=name,
                body=body,
                dry_run="All",
                field_validation="Strict",
            )
        finally:
            self._objects.delete_namespaced_custom_object(GROUP, VERSION, NAMESPACE, plural, name)

    def stored(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The manifest as the API server would store it."""
        plural = self._plurals[manifest["kind"]]
        stored: dict[str, Any] = self._objects.create_namespaced_custom_object(
            GROUP, VERSION, NAMESPACE, plural, manifest, dry_run="All", field_validation="Strict"
        )
        return stored

    def store(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Creates the object for real."""
        plural = self._plurals[manifest["kind"]]
        stored: dict[str, Any] = self._objects.create_namespaced_custom_object(
            GROUP, VERSION, NAMESPACE, plural, manifest, field_validation="Strict"
        )
        return stored

    def delete(self, manifest: dict[str, Any]) -> None:
        """Deletes the object of that name."""
        plural, name = self._plurals[manifest["kind"]], manifest["metadata"]["name"]
        self._objects.delete_namespaced_custom_object(GROUP, VERSION, NAMESPACE, plural, name)

    def write_status(self, body: dict[str, Any]) -> dict[str, Any]:
        """Replaces the status of a stored object, refusing fields that the schema does not have."""
        plural, name = self._plurals[body["kind"]], body["metadata"]["name"]
        stored: dict[str, Any] = self._objects.replace_namespaced_custom_object_status(
            GROUP, VERSION, NAMESPACE, plural, name, body, field_validation="Strict"
        )
        return stored

    def apply(self, manifest: dict[str, Any], manager: str) -> dict[str, Any]:
        """Server-side apply as `manager`."""
        path = f"{_PATH}/{self._plurals[manifest['kind']]}/{manifest['metadata']['name']}"
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        return self._request("PATCH", path, query, "application/apply-patch+yaml", json.dumps(manifest))

    def table(self, plural: str, name: str) -> dict[str, Any]:
        """The object as `kubectl get` asks for it."""
        return self._request("GET", f"{_PATH}/{plural}/{name}", accept="application/json;as=Table;v=v1;g=meta.k8s.io")

    def discover(self) -> dict[str, Any]:
        """The resources of the group."""
        return self._request("GET", f"/apis/{GROUP}/{VERSION}")

    def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        content_type: str = "application/json",
        body: str | None = None,
        accept: str = "application/json",
    ) -> dict[str, Any]:
        configuration = self._api.configuration
        authorization = {each["key"]: each["value"] for each in configuration.auth_settings().values()}
        headers = {"Accept": accept, "Content-Type": content_type, **authorization}
        url = f"{configuration.host}{path}?{urlencode(query or {})}"
        answer = self._api.rest_client.pool_manager.request(method, url, headers=headers, body=body)
        if answer.status >= 300:
            raise ApiException(status=answer.status, reason=answer.data.decode())
        parsed: dict[str, Any] = json.loads(answer.data)
        return parsed

    @staticmethod
    def _causes(call: Any, plural: str, **arguments: Any) -> tuple[Cause, ...]:
        try:
            call(group=GROUP, version=VERSION, namespace=NAMESPACE, plural=plural, **arguments)
        except ApiException as error:
            status = json.loads(error.body)
            found = status.get("details", {}).get("causes") or [status]
            return tuple(
                Cause(each.get("field", ""), each.get("reason", ""), each.get("message", "")) for each in found
            )
        return ()


@pytest.fixture(scope="session")
def admission(control_plane: Any) -> Iterator[Admission]:
    """The API server of the control plane, with the CRDs as they are generated now."""
    with kubernetes.config.new_client_from_config(str(control_plane.kubeconfig)) as api:
        definitions = kubernetes.client.ApiextensionsV1Api(api)
        for kind in (*KINDS, *INTERNAL_KINDS):
            _apply_crd(definitions, crd(kind))
        core = kubernetes.client.CoreV1Api(api)
        namespace = {"metadata": {"name": NAMESPACE}}
        try:
            core.create_namespace(namespace)
        except ApiException as error:
            if error.status != 409:
                raise
        yield Admission(api)


def _apply_crd(definitions: kubernetes.client.ApiextensionsV1Api, body: dict[str, Any]) -> None:
    name = body["metadata"]["name"]
    try:
        definitions.create_custom_resource_definition(body)
    except ApiException as error:
        if error.status != 409:
            raise
        current = definitions.read_custom_resource_definition(name)
        body["metadata"]["resourceVersion"] = current.metadata.resource_version
        definitions.replace_custom_resource_definition(name, body)
    deadline = time.monotonic() + ESTABLISHED_WITHIN_SECONDS
    while True:
        conditions = definitions.read_custom_resource_definition(name).status.conditions or []
        if any(each.type == "Established" and each.status == "True" for each in conditions):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} is not established after {ESTABLISHED_WITHIN_SECONDS} s: {conditions}")
        time.sleep(0.05)
