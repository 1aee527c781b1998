"""One Endpoint, the backend over a real API server, and hands that do what controllers, kubelet and routers would."""

import itertools
from dataclasses import dataclass, field
from typing import Any

from tests.cluster_backend.objects import (
    create,
    make_ready,
    pod_manifest,
    replica_set_manifest,
    replica_set_of,
)
from tests.controller.clock import SteppedClock

from sluice.api import names
from sluice.api.routes import EndpointRouteSpec, RouteFleet
from sluice.cluster.act import Actor
from sluice.cluster.observe import Observer
from sluice.cluster.rendering import Installation, Rendering
from sluice.cluster.router import RouterSettings
from sluice.cluster.template import FleetDefaults
from sluice.core.cluster.actions import ClusterAction, EnsureFleet, ScaleFleet
from sluice.core.cluster.names import LABEL_FLEET, LABEL_ROUTER, ROUTER, fleet_name
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.identity import Owner
from sluice.core.instance_types import InstanceTypes, parse
from sluice.core.resolve import Resolution
from sluice.core.revision import Revision, build_revision
from sluice.kube.client import KubeClient
from sluice.ports.kube import Kube, Object

INSTALLATION = "prod"
MODEL = {"primaryContainer": {"image": "registry.example/churn:1", "environment": {"A": "1"}}}
_names = itertools.count(1)


def config(**changes: Any) -> Object:
    variant = {"variantName": "a", "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 2}
    return {"productionVariants": [{**variant, **changes}]}


@dataclass
class World:
    kube: KubeClient
    namespace: str
    name: str = "churn"
    clock: SteppedClock = field(default_factory=SteppedClock)
    types: InstanceTypes = field(default_factory=lambda: parse(None))
    routers: RouterSettings = field(default_factory=lambda: RouterSettings("sluice/router:test"))
    longest_seconds: int = 60
    neighbours: int = 0

    def rendering(self) -> Rendering:
        installation = Installation(INSTALLATION, FleetDefaults("sluice/operator:test"), self.routers)
        return Rendering(installation, lambda: self.types, lambda _namespace: self.longest_seconds)

    def actor(self, kube: Kube | None = None) -> Actor:
        return Actor(kube or self.kube, self.rendering())

    def observer(self, kube: Kube | None = None) -> Observer:
        return Observer(kube or self.kube, self.clock, self.rendering(), lambda _namespace, _name: self.neighbours)

    @property
    def owner(self) -> Owner:
        return Owner(INSTALLATION, self.namespace, self.name)

    def revision(self, **changes: Any) -> Revision:
        return build_revision(self.owner, "Cluster", config(**changes), {"churn": MODEL})

    def fleet(self, replicas: int = 2, **changes: Any) -> EnsureFleet:
        revision = self.revision(**changes)
        return EnsureFleet(
            name=fleet_name(self.name, "a", revision.fleet_hash),
            variant="a",
            revision=revision.name,
            fleet_hash=revision.fleet_hash,
            endpoint_config=revision.endpoint_config,
            models=revision.models,
            replicas=replicas,
        )

    def route(self, *fleets: str) -> EndpointRouteSpec:
        entries = tuple(RouteFleet(name=fleet, variant_name="a", revision="r", weight=1_000_000) for fleet in fleets)
        return EndpointRouteSpec(endpoint_name=self.name, fleets=entries)

    async def act(self, *actions: ClusterAction) -> None:
        actor = self.actor()
        for action in actions:
            seen = await self.look() if isinstance(action, ScaleFleet) else ClusterObservation()
            await actor.act(self.owner, action, seen)

    async def look(self, observer: Observer | None = None, *, deleting: bool = False) -> ClusterObservation:
        metadata: Object = {"name": self.name, "namespace": self.namespace}
        if deleting:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        resolution = Resolution(owner=self.owner, revision=self.revision())
        sight = await (observer or self.observer()).observe({"metadata": metadata}, resolution, ())
        assert sight.problem is None, sight.problem
        assert sight.seen is not None
        return sight.seen

    async def get(self, kind: str, name: str) -> Object:
        found = await self.kube.get(kind, self.namespace, name)
        assert found is not None, f"{kind} {name}"
        return found

    async def listed(self, kind: str) -> list[str]:
        return [item["metadata"]["name"] async for item in self.kube.list(kind, self.namespace)]

    # What others do -----------------------------------------------------------------------------------------------

    async def fleet_pod(self, fleet: str, *, ready: bool = True, **status: Any) -> Object:
        """A pod that the fleet's ReplicaSet would make, and that kubelet runs."""
        labels = {LABEL_FLEET: fleet, "sluice.dev/endpoint": self.name[:63].rstrip("-.")}
        owner = await replica_set_of(self.kube, self.namespace, fleet, labels)
        (pod,) = await create(self.kube, pod_manifest(f"{fleet}-{next(_names)}", self.namespace, labels, owner))
        return await make_ready(self.kube, pod, **status) if ready or status else pod

    async def router_pods(self, count: int) -> list[Object]:
        """The router's ReplicaSet and its pods."""
        deployment = await self.get("Deployment", ROUTER)
        labels = {LABEL_ROUTER: ROUTER}
        number = next(_names)
        (replicas,) = await create(
            self.kube, replica_set_manifest(f"{ROUTER}-{number}", self.namespace, labels, deployment)
        )
        pods = await create(
            self.kube,
            *(pod_manifest(f"{ROUTER}-{number}-{n}", self.namespace, labels, replicas) for n in range(count)),
        )
        return [await make_ready(self.kube, pod) for pod in pods]

    async def report(self, pod: Object, *routes: Object, pod_uid: str = "") -> None:
        """What the agent in a router's pod says."""
        await self.kube.create(
            names.ROUTER_REPORT,
            self.namespace,
            {
                "apiVersion": names.API_VERSION,
                "kind": names.ROUTER_REPORT,
                "metadata": {"name": pod["metadata"]["name"], "namespace": self.namespace},
                "spec": {
                    "podUID": pod_uid or pod["metadata"]["uid"],
                    "schemaVersion": 1,
                    "routes": list(routes),
                    "rejected": [],
                },
            },
        )
