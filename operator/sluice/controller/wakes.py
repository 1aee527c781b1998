"""Which Cluster Endpoints need a pass when something in the cluster moves: pods, Deployments, routes, router reports.

These objects are not cached: a pass reads them live. Here they only wake, and as few Endpoints as can have a use for
it: a router serves hundreds, and its report changes with every one of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from sluice.api import names
from sluice.controller.cache import Cache
from sluice.core.cluster.names import ANNOTATION_OWNER, LABEL_ROUTER
from sluice.core.identity import Key
from sluice.core.revision import LABEL_ENDPOINT
from sluice.ports.kube import Object

SETTLE_SECONDS: Final = 0.2
"""What moves with others (the pods of a fleet, the conditions of one pod, the routers of a namespace) is looked at
together."""

Entries = Mapping[str, Any]
"""Endpoint -> what a router reported of it."""


class Wakes:
    """Hears of every change, and wakes whom it concerns."""

    def __init__(self, cache: Cache, wake: Callable[[Key], None], wake_after: Callable[[Key, float], None]) -> None:
        self._cache = cache
        self._wake = wake
        self._wake_after = wake_after
        self._reported: dict[str, dict[str, dict[str, Entries]]] = {}
        """Namespace -> router -> part of its report -> what it says."""
        self._written: dict[Key, Entries] = {}
        """Endpoint -> the routes that its own passes wrote last."""

    def writes_route(self, key: Key, spec: Entries) -> None:
        """A pass of the Endpoint writes these routes: when the watch shows them, it is no news."""
        self._written[key] = spec

    def forget(self, key: Key) -> None:
        """The Endpoint is gone."""
        self._written.pop(key, None)

    def moved(self, item: Object, *, gone: bool) -> None:
        """A watched object came, changed or went."""
        if item["kind"] == names.ROUTER_REPORT:
            self._report(item, gone=gone)
        elif item["kind"] == names.ENDPOINT_ROUTE:
            self._route(item, gone=gone)
        elif LABEL_ROUTER in (item["metadata"].get("labels") or {}):
            self._router(item["metadata"]["namespace"])
        else:
            self._endpoint(item)

    def lost(self, kind: str, namespace: str, name: str) -> None:
        """An object is not there any more, whether a watch told or not. A router that stayed in here would never agree
        with the others."""
        if kind == names.ROUTER_REPORT:
            routers = self._reported.get(namespace, {})
            for router in [router for router, parts in routers.items() if name in parts]:
                self._drop(namespace, router, name)

    def everybody(self) -> None:
        """Something changed that concerns every Cluster Endpoint."""
        for key in self._cache.keys(names.ENDPOINT):
            endpoint = self._cache.get(key.kind, key.namespace, key.name)
            if endpoint is not None and endpoint["spec"]["backend"] == names.BACKEND_CLUSTER:
                self._wake_after(key, SETTLE_SECONDS)

    def _endpoint(self, item: Object) -> None:
        namespace, name = item["metadata"]["namespace"], _endpoint_of(item)
        if name is not None and self._cache.get(names.ENDPOINT, namespace, name) is not None:
            self._wake_after(Key(names.ENDPOINT, namespace, name), SETTLE_SECONDS)

    def _route(self, item: Object, *, gone: bool) -> None:
        """Somebody else's hand is mended soon."""
        metadata = item["metadata"]
        written = self._written.get(Key(names.ENDPOINT, metadata["namespace"], metadata["name"]))
        if gone or written is None or item.get("spec") != written:
            self._endpoint(item)

    def _router(self, namespace: str) -> None:
        """A router came or went: Endpoints on the way wait for it, and one of the steady ones mends it if need be."""
        steady: Key | None = None
        for endpoint in self._cache.in_cluster(namespace):
            key = Key(names.ENDPOINT, namespace, endpoint["metadata"]["name"])
            if not _is_steady(endpoint):
                self._wake_after(key, SETTLE_SECONDS)
            elif steady is None:
                steady = key
        if steady is not None:
            self._wake_after(steady, SETTLE_SECONDS)

    def _report(self, item: Object, *, gone: bool) -> None:
        """Only whom the report says something new about: what waits for a confirmation waits for this. At once when it
        is the last router that tells of these routes; the others of a namespace are moments behind the first."""
        namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
        router = str((item.get("spec") or {}).get("podUID") or name)
        if gone:
            self._drop(namespace, router, name)
            return
        routers = self._reported.setdefault(namespace, {})
        parts = routers.setdefault(router, {})
        before = parts.pop(name, {})
        after = parts[name] = _entries(item)
        for endpoint in sorted(before.keys() | after.keys()):
            if before.get(endpoint) == after.get(endpoint):
                continue
            key = Key(names.ENDPOINT, namespace, endpoint)
            if self._cache.get(key.kind, key.namespace, key.name) is None:
                continue
            if _agree(_said(each.values(), endpoint) for each in routers.values()):
                self._wake(key)
            else:
                self._wake_after(key, SETTLE_SECONDS)

    def _drop(self, namespace: str, router: str, report: str) -> None:
        routers = self._reported.get(namespace, {})
        parts = routers.get(router, {})
        parts.pop(report, None)
        if not parts:
            routers.pop(router, None)
        if not routers:
            self._reported.pop(namespace, None)


def _entries(report: Object) -> Entries:
    spec = report.get("spec") or {}
    found: dict[str, list[Any]] = {}
    for field in ("routes", "rejected"):
        for entry in spec.get(field) or ():
            found.setdefault(str(entry.get("name")), []).append((field, entry))
    return found


def _said(parts: Iterable[Entries], endpoint: str) -> Any:
    """What a router reported of an Endpoint."""
    return next((entries[endpoint] for entries in parts if endpoint in entries), None)


def _agree(reported: Iterable[Any]) -> bool:
    """Whether all routers have taken, or refused, the same routes of an Endpoint."""
    found = [[(field, entry.get("uid"), entry.get("generation")) for field, entry in each or ()] for each in reported]
    return all(each == found[0] for each in found)


def _endpoint_of(item: Object) -> str | None:
    """The Endpoint that an object belongs to; its label may be cut short, its annotation is not."""
    metadata = item["metadata"]
    owner = str((metadata.get("annotations") or {}).get(ANNOTATION_OWNER) or "").split("/")
    if len(owner) == 3:
        return owner[2]
    label = (metadata.get("labels") or {}).get(LABEL_ENDPOINT)
    return str(label) if label else None


def _is_steady(endpoint: Object) -> bool:
    """Ready, nothing on the way, and not being deleted."""
    if endpoint["metadata"].get("deletionTimestamp"):
        return False
    conditions = (endpoint.get("status") or {}).get("conditions") or ()
    truths = {condition.get("type"): condition.get("status") for condition in conditions}
    return truths.get("Ready") == "True" and truths.get("Reconciling") != "True"
