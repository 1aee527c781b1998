"""A client that asks a real API server what it thinks of a manifest."""

import json
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import kubernetes.client
import kubernetes.config
import pytest
from kubernetes.client.exceptions import ApiException

from sluice.api.crds import KINDS, crd
from sluice.api.names import GROUP, VERSION

NAMESPACE = "api-tests"
ESTABLISHED_WITHIN_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for a refusal, as the API server states it."""

    field: str
    reason: str
    message: str


class Admission:
    """What the API server answers to manifests. Dry runs: nothing is stored unless `stored` says so."""

    def __init__(self, api: kubernetes.client.ApiClient) -> None:
        self._objects = kubernetes.client.CustomObjectsApi(api)
        self._plurals = {kind.name: kind.plural for kind in KINDS}

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
        for kind in KINDS:
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
