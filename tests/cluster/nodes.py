"""Nodes that are not there: for zones, instance pools and GPUs on a machine that has one node.

A fake node is an object that this module keeps Ready, as a kubelet would. Pods are scheduled to it by the real
scheduler; with `run_pods` they are said to run and be ready too (nothing answers at their address).
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from tests.operator.harness.kube import ApiError, Kube, until

ZONE = "topology.kubernetes.io/zone"
_HOSTNAME = "kubernetes.io/hostname"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_STRATEGIC = "application/strategic-merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_BEAT_SECONDS = 10.0
_LOOK_SECONDS = 0.5
_READY_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class FakeNode:
    """A node to be: its labels (zone, pool), its taints as `key=value:effect`, and what it has for pods."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[str] = ()
    allocatable: Mapping[str, str] = field(default_factory=lambda: {"cpu": "16", "memory": "64Gi"})


class FakeNodes:
    """The fake nodes of a block, kept Ready by a thread; when the block ends they are gone with their pods."""

    def __init__(self, kube: Kube, *nodes: FakeNode, run_pods: bool = False) -> None:
        self._kube, self._nodes, self._run_pods = kube, nodes, run_pods
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="fake-nodes", daemon=True)
        self._error: Exception | None = None
        self._addresses = 1

    def __enter__(self) -> Self:
        try:
            for node in self._nodes:
                self._remove(node)
                self._kube.request("POST", "/api/v1/nodes", _object(node))
                self._kube.request("POST", _LEASES, {**_lease(node), "metadata": {"name": node.name}})
                self._beat(node)
            self._thread.start()
            for node in self._nodes:
                until(
                    lambda node=node: self._schedulable(node), seconds=_READY_SECONDS, what=lambda: "fake nodes ready"
                )
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if self._error is not None:
            raise AssertionError("the fake nodes were not kept") from self._error

    def pods(self, namespace: str, selector: str = "") -> dict[str, list[str]]:
        """The names of the namespace's pods on each node, real ones included; unscheduled ones under ''."""
        found: dict[str, list[str]] = {}
        for pod in self._kube.request("GET", f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)["items"]:
            found.setdefault(pod["spec"].get("nodeName", ""), []).append(pod["metadata"]["name"])
        return found

    def _schedulable(self, node: FakeNode) -> bool | None:
        """Whether the controller has taken off what it puts on every node that was never Ready."""
        taints = self._kube.request("GET", f"/api/v1/nodes/{node.name}")["spec"].get("taints") or ()
        return not any(taint["key"].startswith("node.kubernetes.io/not-ready") for taint in taints) or None

    def _keep(self) -> None:
        try:
            turn = 0
            while not self._ending.wait(_LOOK_SECONDS):
                turn += 1
                for node in self._nodes:
                    if turn % round(_BEAT_SECONDS / _LOOK_SECONDS) == 0:
                        self._beat(node)
                    self._play_kubelet(node)
        except Exception as error:  # noqa: BLE001 - reported when the block ends
            self._error = error

    def _beat(self, node: FakeNode) -> None:
        lease = f"{_LEASES}/{node.name}"
        self._kube.request("PATCH", lease, _lease(node), content_type="application/merge-patch+json")
        status = {"status": {"conditions": [_condition("Ready", node_heartbeat=True)]}}
        self._kube.request("PATCH", f"/api/v1/nodes/{node.name}/status", status, content_type=_STRATEGIC)

    def _play_kubelet(self, node: FakeNode) -> None:
        for pod in self._kube.request("GET", "/api/v1/pods", fieldSelector=f"spec.nodeName={node.name}")["items"]:
            metadata = pod["metadata"]
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
            try:
                if "deletionTimestamp" in metadata:
                    self._delete(path)
                elif self._run_pods and pod["status"]["phase"] == "Pending":
                    self._addresses += 1
                    status = {"status": _running(pod, f"10.245.{self._addresses // 250}.{self._addresses % 250 + 1}")}
                    self._kube.request("PATCH", f"{path}/status", status, content_type=_STRATEGIC)
            except ApiError as error:
                if error.status not in (404, 409):  # it went meanwhile
                    raise

    def _delete(self, path: str) -> None:
        now = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
        self._kube.request("DELETE", path, now)

    def _end(self) -> None:
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(30)
        for node in self._nodes:
            self._remove(node)

    def _remove(self, node: FakeNode) -> None:
        bound = self._kube.request("GET", "/api/v1/pods", fieldSelector=f"spec.nodeName={node.name}")["items"]
        pods = [f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}" for pod in bound]
        for path in (f"/api/v1/nodes/{node.name}", f"{_LEASES}/{node.name}", *pods):
            try:
                self._delete(path)
            except ApiError as error:
                if error.status != 404:
                    raise


@contextmanager
def extended_resource(kube: Kube, node: str, resource: str, count: int) -> Iterator[None]:
    """A real node that has `count` of a resource such as nvidia.com/gpu, as if a device plugin had said so."""
    escaped = resource.replace("~", "~0").replace("/", "~1")
    places = [f"/status/{part}/{escaped}" for part in ("capacity", "allocatable")]
    path = f"/api/v1/nodes/{node}/status"
    add = [{"op": "add", "path": place, "value": str(count)} for place in places]
    kube.request("PATCH", path, add, content_type=_JSON_PATCH)
    try:
        yield
    finally:
        kube.request("PATCH", path, [{"op": "remove", "path": place} for place in places], content_type=_JSON_PATCH)


@contextmanager
def labelled(kube: Kube, node: str, labels: Mapping[str, str]) -> Iterator[None]:
    """A real node with further labels, such as its zone."""
    path, merge = f"/api/v1/nodes/{node}", "application/merge-patch+json"
    kube.request("PATCH", path, {"metadata": {"labels": dict(labels)}}, content_type=merge)
    try:
        yield
    finally:
        kube.request("PATCH", path, {"metadata": {"labels": dict.fromkeys(labels)}}, content_type=merge)


def _object(node: FakeNode) -> dict[str, Any]:
    resources = {"pods": "110", **node.allocatable}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": {_HOSTNAME: node.name, **node.labels}},
        "spec": {"taints": [_taint(taint) for taint in node.taints]},
        "status": {"capacity": resources, "allocatable": resources, "conditions": [_condition("Ready")]},
    }


def _taint(text: str) -> dict[str, str]:
    key, _, rest = text.partition("=")
    value, _, effect = rest.rpartition(":")
    return {"key": key, "value": value, "effect": effect}


def _condition(kind: str, *, node_heartbeat: bool = False) -> dict[str, str]:
    beat = {"lastHeartbeatTime": _now()} if node_heartbeat else {}
    return {"type": kind, "status": "True", "reason": "Simulated", **beat}


def _lease(node: FakeNode) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"spec": {"holderIdentity": node.name, "leaseDurationSeconds": 40, "renewTime": now}}


def _running(pod: Mapping[str, Any], address: str) -> dict[str, Any]:
    spec = pod["spec"]
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": _now(), "finishedAt": _now()}}
    going = {"running": {"startedAt": _now()}}
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": _now(),
        "initContainerStatuses": [_container(one, ended) for one in spec.get("initContainers", ())],
        "containerStatuses": [{**_container(one, going), "started": True} for one in spec["containers"]],
        "conditions": [_condition(kind) for kind in ("Initialized", "ContainersReady", "Ready")],
    }


def _container(container: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    image = container["image"]
    # The digest that a registry would have said: the same for the same image.
    digest = hashlib.sha256(image.encode()).hexdigest()
    resolved = f"{image.partition('@')[0]}@sha256:{digest}"
    return {
        "name": container["name"],
        "image": image,
        "imageID": resolved,
        "ready": True,
        "restartCount": 0,
        "state": state,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
