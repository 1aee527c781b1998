"""The stage of figures about one Endpoint's deployments, or a few's: the operator's process and an API server are real;
hands make the pods. Either they report for the routers, too, or there are two real ones, and every pod has a container
that answers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from tests.bench.cluster import READY_SECONDS, Operator, hands_at, start_routers
from tests.bench.forwarding import Forward
from tests.bench.routing import NAMESPACE, Routing, until
from tests.bench.standins import StandIns
from tests.bench.world import POLICY
from tests.cluster_backend.hands import Hands

from localcluster.prometheus import Prometheus
from sluice.core.cluster.names import ROUTER_HEALTH_PORT

ENDPOINT = "e0"
API_VERSION = "sluice.dev/v1alpha1"
ADDRESSES = 32
SETTINGS = {
    "SLUICE_SETTLE_SECONDS": "0",
    "SLUICE_MAX_ROLLBACKS_OF_ONE_IMAGE": "0",
}


@dataclass
class Rollouts:
    """One Endpoint of one variant, in service."""

    world: Routing
    operator: Operator
    hands: Hands
    standins: StandIns | None
    instances: int
    endpoint: str = ENDPOINT
    shipped: int = 0

    def guard(self, config: Mapping[str, Any], kubernetes: Mapping[str, Any] | None = None) -> None:
        """The Endpoint's DeploymentConfig, and what it has for the cluster alone."""
        spec: dict[str, Any] = {"backend": "Cluster", "endpointConfigName": self.endpoint, "deploymentConfig": config}
        self._apply("Endpoint", {**spec, "kubernetes": kubernetes} if kubernetes else spec)

    def ship(self) -> None:
        """Another image: a deployment begins."""
        self.shipped += 1
        self._ship()

    def deploy(self, outcome: str, seconds: float = READY_SECONDS) -> dict[str, Any]:
        """Another image, until its deployment has ended so. The status then."""
        status = self.try_out(seconds)
        last = status["lastDeployment"]
        if last["outcome"] != outcome:
            raise RuntimeError(f"a deployment ended as {last['outcome']}: {last.get('message')}")
        return status

    def try_out(self, seconds: float = READY_SECONDS, every: float = 0.02) -> dict[str, Any]:
        """Another image, until its deployment has ended. The status then."""
        before = self.status().get("lastDeployment")
        self.ship()
        self.until_rests(before, seconds, every)
        return self.status()

    def until_rests(self, before: Any, seconds: float = READY_SECONDS, every: float = 0.02) -> None:
        """Wait until no deployment runs, and the last one is another than before."""
        until(f"the deployment of {self.endpoint} has ended", lambda: self._rests(before), seconds, every)

    def beside(self, endpoint: str) -> Rollouts:
        """Another Endpoint in the same world, in service."""
        made = replace(self, endpoint=endpoint, shipped=0)
        made.begin()
        until(f"{endpoint} is in service", made.serves, READY_SECONDS, every=0.1)
        return made

    def annotate(self, name: str, value: str) -> None:
        """A person says something, for example `sluice.dev/rollback`."""
        self.world.kube.patch("Endpoint", NAMESPACE, self.endpoint, {"metadata": {"annotations": {name: value}}})

    def status(self) -> dict[str, Any]:
        """The Endpoint's."""
        found = self.world.kube.get("Endpoint", NAMESPACE, self.endpoint) or {}
        return dict(found.get("status") or {})

    def begin(self) -> None:
        """Create everything."""
        self._ship()
        variant = {
            "variantName": "a",
            "modelName": self.endpoint,
            "instanceType": "ml.m5.large",
            "initialInstanceCount": self.instances,
        }
        self._apply("EndpointConfig", {"productionVariants": [variant]})
        self._apply("Endpoint", {"backend": "Cluster", "endpointConfigName": self.endpoint})

    def serves(self) -> bool:
        """Whether the Endpoint is Ready."""
        if self.standins is not None:
            self.standins.check()
        conditions = self.status().get("conditions") or ()
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _rests(self, before: Any) -> bool:
        if self.standins is not None:
            self.standins.check()
        status = self.status()
        return status.get("deployment") is None and status.get("lastDeployment") != before

    def _ship(self) -> None:
        image = f"registry.example/churn:{self.shipped}"
        if self.standins is not None:
            self.hands.bad_images.add(image)  # not ready by their word: its container has to listen first
        self._apply("Model", {"primaryContainer": {"image": image}})

    def _apply(self, kind: str, spec: Mapping[str, Any]) -> None:
        metadata = {"name": self.endpoint, "namespace": NAMESPACE}
        self.world.kube.apply(
            {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": dict(spec)}, NAMESPACE
        )


@contextmanager
def rollouts(
    directory: Path, instances: int, *, real: bool, addresses: int = ADDRESSES, **settings: str
) -> Iterator[Rollouts]:
    """An Endpoint of so many instances; `real`: with two routers and pods that answer, of which there is room for so
    many addresses."""
    with ExitStack() as stack:
        world = stack.enter_context(Routing(directory, routers=0, addresses=addresses))
        metadata = {"name": "sluice-permissions", "namespace": NAMESPACE}
        policy = {"policy.yaml": yaml.safe_dump(POLICY)}
        world.kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": policy}, NAMESPACE)
        operator = Operator(world, **SETTINGS, **settings)
        stack.callback(operator.process.stop)
        try:
            hands = stack.enter_context(hands_at(world, reporting=not real))
            standins = stack.enter_context(StandIns(world, addresses)) if real else None
            made = Rollouts(world, operator, hands, standins, instances)
            made.begin()
            if real:
                start_routers(world)
                stack.enter_context(reachable(world))
            until("the Endpoint is in service", made.serves, READY_SECONDS)
            yield made
        except (RuntimeError, AssertionError) as error:
            raise RuntimeError(f"{error}\n{operator.process.tail()}") from error


@contextmanager
def scraped(
    directory: Path, instances: int, *rules: dict[str, Any], addresses: int = ADDRESSES, **settings: str
) -> Iterator[tuple[Rollouts, Prometheus]]:
    """A real stage whose routers a Prometheus scrapes every second, which the operator asks."""
    (files := directory / "prometheus").mkdir(parents=True)
    with ExitStack() as stack:
        prometheus = stack.enter_context(Prometheus(files))
        settings["SLUICE_PROMETHEUS_URL"] = prometheus.url
        made = rollouts(directory / "stage", instances, real=True, addresses=addresses, **settings)
        stage = stack.enter_context(made)
        connects = [
            partial(_connect, stage.world, router.envoy.settings.metrics_port) for router in stage.world.routers
        ]
        forwards = [stack.enter_context(Forward("127.0.0.1", 0, connect)) for connect in connects]
        prometheus.configure(
            targets=[f"127.0.0.1:{forward.port}" for forward in forwards],
            labels={"__metrics_path__": "/stats/prometheus", "namespace": NAMESPACE},
            rules=rules,
        )
        yield stage, prometheus


def _connect(world: Routing, port: int) -> socket.socket:
    """From within the routers' network."""
    return world.net.call(lambda: socket.create_connection(("127.0.0.1", port)))


@contextmanager
def reachable(world: Routing) -> Iterator[None]:
    """Each router's pod gets an address, at which the operator finds its agent: in a cluster each has port 9903 for
    itself, here they share one machine."""
    pid = os.getpid()
    with ExitStack() as stack:
        for number, router in enumerate(world.routers, start=2):
            address = f"127.{pid // 250 % 250 + 1}.{pid % 250}.{number}"
            port = router.envoy.settings.health_port
            stack.enter_context(
                Forward(address, ROUTER_HEALTH_PORT, lambda port=port: socket.create_connection(("127.0.0.1", port)))  # type: ignore[misc]
            )
            status = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
            world.kube.patch("Pod", NAMESPACE, router.name, status, subresource="status")
        yield
