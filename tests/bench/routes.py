"""EndpointRoutes and EndpointSlices as the operator and Kubernetes write them, and when which router confirmed what."""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.request
from types import TracebackType
from typing import Any, Self

import urllib3
from tests.operator.harness.kube import ApiError, Kube

from sluice.api.routes import EndpointRouteSpec

LABELS = {"sluice.dev/managed-by": "sluice"}
_WATCH_SECONDS = 3600
ROUTE_BACK = "EndpointRoute without the new revision seen"
ROUTERS_BACK = "both routers' reports of the route without the new revision seen"
"""Where figures of rollbacks end: a watch event of the one, or of both reports."""


class RouteStore:
    """Writes them with one connection, and watches EndpointRoutes and RouterReports."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._routes = f"/apis/sluice.dev/v1alpha1/namespaces/{namespace}/endpointroutes"
        self._reports = f"/apis/sluice.dev/v1alpha1/namespaces/{namespace}/routerreports"
        self._slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._ending = threading.Event()
        self._confirmed: dict[str, dict[int, dict[str, float]]] = {}
        """Route -> generation -> router -> when it was first seen to confirm it."""
        self._parts: dict[str, set[tuple[str, str]]] = {}
        self.reported: dict[tuple[str, str], dict[str, Any]] = {}
        """(router, route) -> what it reports of it now."""
        self.specs: dict[str, list[tuple[float, int, dict[str, Any]]]] = {}
        """Route -> when it was seen (time.time()), generation, spec; oldest first."""
        self.hosts: dict[tuple[str, str], int] = {}
        """(router, fleet) -> pods that it has in force."""

    def __enter__(self) -> Self:
        for path, take in ((self._reports, self._take_report), (self._routes, self._take_route)):
            threading.Thread(target=self._watch, args=(path, take), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()

    def put(self, spec: EndpointRouteSpec) -> int:
        """Create or replace an endpoint's route; its generation."""
        name = spec.endpoint_name.lower()
        body = {
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "EndpointRoute",
            "metadata": {"name": name, "labels": LABELS},
            "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        return int(self._put(self._routes, body)["metadata"]["generation"])

    def put_pods(self, service: str, *numbers: int) -> None:
        """The Service's EndpointSlice: the pods of these numbers, all ready."""
        endpoints = [
            {
                "addresses": [f"198.18.0.{number}"],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": f"pod-{number}"},
            }
            for number in numbers
        ]
        labels = {**LABELS, "kubernetes.io/service-name": service}
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{service}-x", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": endpoints,
        }
        self._put(self._slices, body)

    def delete(self, name: str) -> None:
        """Delete a route."""
        self._kube.request("DELETE", f"{self._routes}/{name}")

    def confirmations(self, name: str, generation: int) -> dict[str, float]:
        """Router -> time.time() of the first report of this generation or a later one."""
        found: dict[str, float] = {}
        for reported, by in list(self._confirmed.get(name, {}).items()):
            if reported >= generation:
                for router, at in list(by.items()):
                    found[router] = min(at, found.get(router, at))
        return found

    def gone(self, name: str) -> bool:
        """Whether no router reports the route."""
        return all(route != name for _, route in list(self.reported))

    def _put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        target = f"{path}/{body['metadata']['name']}"
        try:
            known = self._kube.request("GET", target)
        except ApiError as error:
            if error.status != 404:
                raise
            return self._kube.request("POST", path, body)
        body["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
        return self._kube.request("PUT", target, body)

    def _take_report(self, found: dict[str, Any]) -> None:
        now, part = time.time(), found["metadata"]["name"]
        router = part.partition(".")[0]
        routes = found["spec"].get("routes") or ()
        known = self._parts.get(part, set())
        self._parts[part] = {(router, route["name"]) for route in routes}
        self.reported |= {(router, route["name"]): route for route in routes}
        for key in known - self._parts[part]:
            del self.reported[key]
        for route in routes:
            generations = self._confirmed.setdefault(route["name"], {})
            generations.setdefault(route["generation"], {}).setdefault(router, now)
            for fleet in route.get("fleets") or ():
                self.hosts[router, fleet["name"]] = fleet["hosts"]

    def _take_route(self, found: dict[str, Any]) -> None:
        metadata = found["metadata"]
        seen = self.specs.setdefault(metadata["name"], [])
        if not seen or seen[-1][1] != metadata["generation"]:
            seen.append((time.time(), metadata["generation"], found["spec"]))

    def _watch(self, path: str, take: Any) -> None:
        """As watching.EndpointWatch: what happens between two watches is read by the listing."""
        context = ssl.create_default_context(cafile=str(self._kube.authority))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        while not self._ending.is_set():
            try:
                listed = self._kube.request("GET", path)
                for found in listed["items"]:
                    take(found)
                url = f"{self._kube.server}{path}?watch=1&timeoutSeconds={_WATCH_SECONDS}&resourceVersion=" + str(
                    listed["metadata"]["resourceVersion"]
                )
                headers = {"Authorization": f"Bearer {self._kube.token}"}
                request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the control plane's own
                with opener.open(request, timeout=_WATCH_SECONDS + 60) as stream:
                    for line in stream:
                        event = json.loads(line)
                        if self._ending.is_set() or event["type"] == "ERROR":
                            break
                        if event["type"] in ("ADDED", "MODIFIED"):
                            take(event["object"])
            except (OSError, urllib3.exceptions.HTTPError, ApiError, ValueError):
                self._ending.wait(0.5)
