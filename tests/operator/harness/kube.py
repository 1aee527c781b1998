"""A person's kubectl, as a library: JSON objects in and out of a real API server, and waiting with a deadline."""

import base64
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3
import yaml

Object = dict[str, Any]
T = TypeVar("T")

POLL_SECONDS = 0.05
FIELD_MANAGER = "person"
_PLURALS = {
    "Model": "/apis/sluice.dev/v1alpha1/{ns}models",
    "EndpointConfig": "/apis/sluice.dev/v1alpha1/{ns}endpointconfigs",
    "Endpoint": "/apis/sluice.dev/v1alpha1/{ns}endpoints",
    "ControllerRevision": "/apis/apps/v1/{ns}controllerrevisions",
    "EndpointRoute": "/apis/sluice.dev/v1alpha1/{ns}endpointroutes",
    "RouterReport": "/apis/sluice.dev/v1alpha1/{ns}routerreports",
    "Deployment": "/apis/apps/v1/{ns}deployments",
    "Pod": "/api/v1/{ns}pods",
    "Service": "/api/v1/{ns}services",
    "ServiceAccount": "/api/v1/{ns}serviceaccounts",
    "PodDisruptionBudget": "/apis/policy/v1/{ns}poddisruptionbudgets",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/{ns}networkpolicies",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/{ns}rolebindings",
    "ConfigMap": "/api/v1/{ns}configmaps",
    "Event": "/apis/events.k8s.io/v1/{ns}events",
    "Lease": "/apis/coordination.k8s.io/v1/{ns}leases",
    "Namespace": "/api/v1/namespaces",
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
}


class ApiError(Exception):
    """The API server refused; `body` is its Status object."""

    def __init__(self, status: int, body: Object) -> None:
        super().__init__(f"{status}: {body.get('message', body)}")
        self.status = status
        self.body = body

    @property
    def causes(self) -> list[tuple[str, str]]:
        """(field, message) of each cause."""
        details = self.body.get("details") or {}
        return [(cause.get("field", ""), cause.get("message", "")) for cause in details.get("causes") or ()]


class Kube:
    """A connection pool to one API server; usable from several threads."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self.server = str(cluster["server"])
        self.token = str(config["users"][0]["user"]["token"])
        with tempfile.NamedTemporaryFile("wb", suffix=".crt", delete=False) as authority:
            authority.write(base64.b64decode(cluster["certificate-authority-data"]))
        self.authority = Path(authority.name)
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=16, ca_certs=authority.name, retries=False)

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()
        self.authority.unlink(missing_ok=True)

    def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", **query: str
    ) -> Object:
        """One request; raises ApiError on anything but success. A connection that was cut by a restart is tried
        once more, for reads only."""
        url = self.server + path + (f"?{urlencode(query)}" if query else "")
        # The server reads an applied object as YAML, which has no surrogate pairs.
        data = None if body is None else json.dumps(body, ensure_ascii="yaml" not in content_type).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type, "Accept": "application/json"}
        answer = self._pool.request(
            method, url, body=data, headers=headers, timeout=60.0, retries=urllib3.Retry(2, redirect=False)
        )
        found: Object = json.loads(answer.data) if answer.data.startswith(b"{") else {"message": answer.data.decode()}
        if answer.status >= 300:
            raise ApiError(answer.status, found)
        return found

    def create(self, obj: Object, namespace: str = "") -> Object:
        """Create; fails if it exists."""
        return self.request("POST", path(obj["kind"], namespace), obj)

    def apply(self, obj: Object, namespace: str = "") -> Object:
        """kubectl apply --server-side --force-conflicts."""
        return self.request(
            "PATCH",
            path(obj["kind"], namespace, obj["metadata"]["name"]),
            obj,
            content_type="application/apply-patch+yaml",
            fieldManager=FIELD_MANAGER,
            force="true",
        )

    def patch(self, kind: str, namespace: str, name: str, patch: Object, *, subresource: str = "") -> Object:
        """A merge patch."""
        target = path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        return self.request("PATCH", target, patch, content_type="application/merge-patch+json")

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """None if it does not exist."""
        try:
            return self.request("GET", path(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "", **query: str) -> list[Object]:
        """All of a kind in a namespace; in all namespaces without one."""
        return list(self.request("GET", path(kind, namespace), **query)["items"])

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Ask for deletion; a missing object is fine."""
        try:
            self.request("DELETE", path(kind, namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise


def path(kind: str, namespace: str = "", name: str = "") -> str:
    """The API path of a kind, or of one object."""
    found = _PLURALS[kind].format(ns=f"namespaces/{namespace}/" if namespace else "")
    return f"{found}/{name}" if name else found


def until(look: Callable[[], T | None], *, seconds: float, what: Callable[[], str], every: float = POLL_SECONDS) -> T:
    """Poll until `look` finds something and return it. Raises AssertionError with `what()` at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what()}")
        time.sleep(every)


def install_crds(kube: Kube, directory: Path) -> None:
    """Apply the CRDs and wait until all are served."""
    definitions = [yaml.safe_load(file.read_text()) for file in sorted(directory.glob("*.yaml"))]
    for definition in definitions:
        kube.apply(definition)

    def served() -> bool | None:
        try:
            for spec in (definition["spec"] for definition in definitions):
                for version in spec["versions"]:
                    kube.request("GET", f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}")
        except ApiError as error:
            if error.status in (404, 429, 503):  # 429: its storage is being made
                return None
            raise
        return True

    until(served, seconds=120, what=lambda: "the CRDs are served")
