"""The stage of figures about one Endpoint's deployments: the operator's process and an API server are real; hands make
the pods. Either they report for the routers, too, or there are two real ones, and every pod has a container that
answers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.bench.cluster import READY_SECONDS, Operator, hands_at, start_routers
from tests.bench.forwarding import Forward
from tests.bench.routing import NAMESPACE, Routing, until
from tests.bench.standins import StandIns
from tests.bench.world import POLICY

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
    standins: StandIns | None
    instances: int
    shipped: int = 0

    def guard(self, config: Mapping[str, Any], kubernetes: Mapping[str, Any] | None = None) -> None:
        """The Endpoint's DeploymentConfig, and what it has for the cluster alone."""
        spec: dict[str, Any] = {"backend": "Cluster", "endpointConfigName": ENDPOINT, "deploymentConfig": config}
        self._apply("Endpoint", {**spec, "kubernetes": kubernetes} if kubernetes else spec)

    def ship(self) -> None:
        """Another image: a deployment begins."""
        self.shipped += 1
        self._apply("Model", {"primaryContainer": {"image": f"registry.example/churn:{self.shipped}"}})

    def deploy(self, outcome: str, seconds: float = READY_SECONDS) -> dict[str, Any]:
        """Another image, until its deployment has ended so. The status then."""
        before = self.status().get("lastDeployment")
        self.ship()
        until("the deployment has ended", lambda: self._rests(before), seconds)
        status = self.status()
        last = status["lastDeployment"]
        if last["outcome"] != outcome:
            raise RuntimeError(f"a deployment ended as {last['outcome']}: {last.get('message')}")
        return status

    def status(self) -> dict[str, Any]:
        """The Endpoint's."""
        found = self.world.kube.get("Endpoint", NAMESPACE, ENDPOINT) or {}
        return dict(found.get("status") or {})

    def begin(self) -> None:
        """Create everything."""
        self._apply("Model", {"primaryContainer": {"image": "registry.example/churn:0"}})
        variant = {
            "variantName": "a",
            "modelName": ENDPOINT,
            "instanceType": "ml.m5.large",
            "initialInstanceCount": self.instances,
        }
        self._apply("EndpointConfig", {"productionVariants": [variant]})
        self._apply("Endpoint", {"backend": "Cluster", "endpointConfigName": ENDPOINT})

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

    def _apply(self, kind: str, spec: Mapping[str, Any]) -> None:
        metadata = {"name": ENDPOINT, "namespace": NAMESPACE}
        self.world.kube.apply(
            {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": dict(spec)}, NAMESPACE
        )


@contextmanager
def rollouts(directory: Path, instances: int, *, real: bool, **settings: str) -> Iterator[Rollouts]:
    """An Endpoint of so many instances; `real`: with two routers and pods that answer."""
    with ExitStack() as stack:
        world = stack.enter_context(Routing(directory, routers=0, addresses=ADDRESSES))
        metadata = {"name": "sluice-permissions", "namespace": NAMESPACE}
        policy = {"policy.yaml": yaml.safe_dump(POLICY)}
        world.kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": policy}, NAMESPACE)
        operator = Operator(world, **SETTINGS, **settings)
        stack.callback(operator.process.stop)
        try:
            stack.enter_context(hands_at(world, reporting=not real))
            standins = stack.enter_context(StandIns(world, ADDRESSES)) if real else None
            made = Rollouts(world, operator, standins, instances)
            made.begin()
            if real:
                start_routers(world)
                stack.enter_context(reachable(world))
            until("the Endpoint is in service", made.serves, READY_SECONDS)
            yield made
        except (RuntimeError, AssertionError) as error:
            raise RuntimeError(f"{error}\n{operator.process.tail()}") from error


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
