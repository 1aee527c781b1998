"""A namespace of a real API server, as the operator and kubelet would fill it, and a wire to it that can be cut."""

import asyncio
import contextlib
import itertools
import os
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml
from tests.controller.conftest import install_crds

from sluice.api.routes import EndpointRouteSpec, RouterReportSpec
from sluice.kube.client import KubeClient
from sluice.kube.configuration import load_configuration
from sluice.ports.kube import Object

T = TypeVar("T")
LABELS = {"sluice.dev/managed-by": "sluice"}
_numbers = itertools.count(1)


class Wire:
    """Forwards TCP to the API server until it is cut; connections that stand are cut too."""

    def __init__(
        self,
        kubeconfig: Path,
        directory: Path,
        inside: Callable[[Callable[[], socket.socket]], socket.socket] | None = None,
    ) -> None:
        """`inside`: makes the socket that it listens at in another network namespace."""
        config = yaml.safe_load(kubeconfig.read_text())
        target = urlsplit(config["clusters"][0]["cluster"]["server"])
        self._target = (target.hostname, target.port)
        self._sockets: list[socket.socket] = []
        self._up = True
        self._listener = inside(_listener) if inside is not None else _listener()
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """The API server is away."""
        self._up = False
        for connection in self._sockets:
            with contextlib.suppress(OSError):  # it ended before
                connection.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def mend(self) -> None:
        """It is back."""
        self._up = True

    def close(self) -> None:
        """For good."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._up:
                near.close()
                continue
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Namespace:
    """One fresh namespace."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self.name = f"router-{os.getpid()}-{next(_numbers)}"

        async def prepare(kube: KubeClient) -> None:
            await install_crds(kube)
            await kube.create(
                "Namespace", "", {"metadata": {"name": self.name}, "kind": "Namespace", "apiVersion": "v1"}
            )

        self._ask(prepare)

    def put_route(self, spec: EndpointRouteSpec) -> int:
        """Create or replace an endpoint's route; its generation."""
        name = spec.endpoint_name.lower()
        body: Object = {
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "EndpointRoute",
            "metadata": {"name": name, "namespace": self.name, "labels": LABELS},
            "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        }

        async def put(kube: KubeClient) -> Object:
            known = await kube.get("EndpointRoute", self.name, name)
            if known is None:
                return await kube.create("EndpointRoute", self.name, body)
            body["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
            return await kube.replace("EndpointRoute", self.name, body)

        return int(self._ask(put)["metadata"]["generation"])

    def delete_route(self, name: str) -> None:
        """Delete it."""
        self._ask(lambda kube: kube.delete("EndpointRoute", self.name, name))

    def put_pods(self, service: str, *addresses: str) -> None:
        """The Service's EndpointSlice: these pods, all ready."""
        body: Object = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{service}-x",
                "namespace": self.name,
                "labels": {**LABELS, "kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [
                {
                    "addresses": [address],
                    "conditions": {"ready": True},
                    "targetRef": {"kind": "Pod", "name": f"pod-{address}"},
                }
                for address in addresses
            ],
        }

        async def put(kube: KubeClient) -> None:
            known = await kube.get("EndpointSlice", self.name, body["metadata"]["name"])
            if known is None:
                await kube.create("EndpointSlice", self.name, body)
            else:
                body["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
                await kube.replace("EndpointSlice", self.name, body)

        self._ask(put)

    def report(self, pod: str) -> RouterReportSpec | None:
        """The router pod's report, all of its parts."""
        parts = [RouterReportSpec.model_validate(item["spec"]) for item in self.report_objects(pod)]
        if not parts:
            return None
        routes = tuple(route for part in parts for route in part.routes)
        return parts[0].model_copy(
            update={"routes": routes, "rejected": tuple(one for part in parts for one in part.rejected)}
        )

    def report_objects(self, pod: str) -> list[Object]:
        """As they stand; the first has the pod's name."""

        async def listed(kube: KubeClient) -> list[Object]:
            return [
                item
                async for item in kube.list("RouterReport", self.name)
                if item["metadata"]["name"].partition(".")[0] == pod
            ]

        return sorted(self._ask(listed), key=lambda item: item["metadata"]["name"])

    def generation(self, pod: str, route: str) -> int | None:
        """The generation of a route that the router confirms."""
        report = self.report(pod)
        return next((item.generation for item in report.routes if item.name == route), None) if report else None

    def _ask(self, question: Any) -> Any:
        async def main() -> Any:
            environ = {**os.environ, "KUBECONFIG": str(self._kubeconfig)}
            kube = KubeClient(await load_configuration(environ), identity="test")
            try:
                return await question(kube)
            finally:
                await kube.close()

        coroutine: Coroutine[Any, Any, Any] = main()
        return asyncio.run(coroutine)


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))
