"""What nobody owns any more is collected, slowly and in the order that loses no request; what has an owner never is."""

import pytest
from tests.cluster_backend.world import INSTALLATION, World

from sluice.api import names
from sluice.api.routes import LONGEST_STREAM_SECONDS
from sluice.cluster.orphans import AFTER_LONGEST_REQUEST_SECONDS, EVERY_SECONDS, GRACE_SECONDS, OrphanSweep
from sluice.core.cluster.actions import DeleteFleet, EnsureFleet, EnsureRouter, RecordFleet, RetainRoute, WriteRoute
from sluice.core.cluster.names import ROUTER
from sluice.core.cluster.observation import ClusterObservation, FleetRecord
from sluice.kube.client import KubeClient
from sluice.ports.kube import Object

pytestmark = pytest.mark.apiserver


class Sweeps:
    """The sweep over one namespace, and what it believes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.known: set[tuple[str, str]] = set()
        self.held = True
        self.restart()

    def restart(self) -> None:
        """A new process."""
        self.sweep = OrphanSweep(
            self.world.kube,
            self.world.clock,
            installation_id=INSTALLATION,
            namespaces=(self.world.namespace,),
            exists=lambda namespace, name: (namespace, name) in self.known,
            neighbours=lambda namespace, name: len(self.known),
            held=lambda: self.held,
        )

    async def for_seconds(self, seconds: float) -> None:
        """So long, with a sweep every two minutes and one at the end."""
        while seconds > 0:
            await self.sweep.once()
            step = min(seconds, EVERY_SECONDS)
            await self.world.clock.step(step)
            seconds -= step
        await self.sweep.once()

    async def standing(self) -> dict[str, list[str]]:
        kinds = ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", names.ENDPOINT_ROUTE)
        found = {kind: sorted(await self.world.listed(kind)) for kind in kinds}
        return {kind: items for kind, items in found.items() if items}

    async def routed(self) -> list[str]:
        route = await self.world.kube.get(names.ENDPOINT_ROUTE, self.world.namespace, self.world.name)
        return [fleet["name"] for fleet in (route or {}).get("spec", {}).get("fleets") or ()]


@pytest.fixture
def sweeps(kube: KubeClient, namespace: str) -> Sweeps:
    return Sweeps(World(kube, namespace))


async def serve(world: World) -> EnsureFleet:
    """An Endpoint's fleet, route and router, whose Endpoint is gone."""
    action = world.fleet()
    await world.act(action, RecordFleet(action.name, FleetRecord()), EnsureRouter())
    await world.act(WriteRoute(world.route(action.name), None))
    return action


async def test_what_was_left_is_drained_and_then_taken_down(sweeps: Sweeps) -> None:
    action = await serve(sweeps.world)
    before = await sweeps.standing()
    await sweeps.for_seconds(GRACE_SECONDS - 1)
    assert await sweeps.standing() == before
    assert await sweeps.routed() == [action.name]
    await sweeps.for_seconds(1)
    assert await sweeps.routed() == [], "first nobody is sent there any more"
    assert await sweeps.standing() == before
    await sweeps.for_seconds(AFTER_LONGEST_REQUEST_SECONDS + LONGEST_STREAM_SECONDS - 1)
    assert await sweeps.standing() == before, "a stream may take so long, and be under way"
    await sweeps.for_seconds(1)
    router = {kind: [ROUTER] for kind in ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")}
    policies = [action.name, ROUTER]
    assert await sweeps.standing() == {**router, "NetworkPolicy": policies}, "its pods have the time that they need"
    await sweeps.for_seconds(2 * EVERY_SECONDS - 1)
    assert await sweeps.standing() == router
    await sweeps.for_seconds(GRACE_SECONDS + EVERY_SECONDS)
    assert await sweeps.standing() == {}, "the router had nobody left"
    records = [name for name in await sweeps.world.listed("ConfigMap") if name.endswith("-record")]
    assert records == []


async def test_what_has_an_endpoint_stays(sweeps: Sweeps) -> None:
    await serve(sweeps.world)
    before = await sweeps.standing()
    sweeps.known.add((sweeps.world.namespace, sweeps.world.name))
    await sweeps.for_seconds(5 * GRACE_SECONDS)
    assert await sweeps.standing() == before


async def test_an_endpoint_that_the_cache_lacks_is_asked_for_first(sweeps: Sweeps) -> None:
    await serve(sweeps.world)
    before = await sweeps.standing()
    endpoint: Object = {
        "apiVersion": names.API_VERSION,
        "kind": names.ENDPOINT,
        "metadata": {"name": sweeps.world.name, "namespace": sweeps.world.namespace},
        "spec": {"backend": "Cluster", "endpointConfigName": "churn"},
    }
    await sweeps.world.kube.create(names.ENDPOINT, sweeps.world.namespace, endpoint)
    await sweeps.for_seconds(3 * GRACE_SECONDS)
    assert await sweeps.standing() == before
    assert await sweeps.routed() != []


async def test_what_was_retained_serves_on(sweeps: Sweeps) -> None:
    await serve(sweeps.world)
    await sweeps.world.act(RetainRoute())
    before = await sweeps.standing()
    await sweeps.for_seconds(5 * GRACE_SECONDS)
    assert await sweeps.standing() == before
    assert await sweeps.routed() != []


async def test_another_installations_objects_are_left_alone(sweeps: Sweeps) -> None:
    foreign = World(sweeps.world.kube, sweeps.world.namespace, name="foreign")
    owner = foreign.owner.__class__("another", foreign.namespace, foreign.name)
    await foreign.actor().act(owner, foreign.fleet(), ClusterObservation())
    before = await sweeps.standing()
    await sweeps.for_seconds(5 * GRACE_SECONDS)
    assert await sweeps.standing() == before


async def test_nothing_is_done_without_the_lease_or_right_after_a_start(sweeps: Sweeps) -> None:
    await serve(sweeps.world)
    before = await sweeps.standing()
    sweeps.held = False
    await sweeps.for_seconds(3 * GRACE_SECONDS)
    assert await sweeps.routed() != []
    sweeps.held = True
    sweeps.restart()
    await sweeps.for_seconds(GRACE_SECONDS - 1)
    assert await sweeps.routed() != []
    assert await sweeps.standing() == before


async def test_what_a_killed_deletion_left_beside_is_collected(sweeps: Sweeps) -> None:
    world = sweeps.world
    sweeps.known.add((world.namespace, world.name))
    kept, lost = world.fleet(), world.fleet(instanceType="ml.c5.large")
    await world.act(kept, lost)
    await world.kube.delete("Deployment", world.namespace, lost.name)
    await sweeps.for_seconds(GRACE_SECONDS - 1)
    assert lost.name in (await sweeps.standing())["Service"], "it may be one that is just being made"
    await sweeps.for_seconds(1)
    kinds = ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")
    assert await sweeps.standing() == {kind: [kept.name] for kind in kinds}


async def test_the_policy_of_a_fleet_that_went_stands_as_long_as_its_pods(sweeps: Sweeps) -> None:
    """A model that may make no network calls could make them, and be called by anybody, for as long as it takes to end;
    its Endpoint does not wait for that."""
    world = sweeps.world
    sweeps.known.add((world.namespace, world.name))
    kept, gone = world.fleet(), world.fleet(instanceType="ml.c5.large")
    await world.act(kept, gone)
    pod = await world.fleet_pod(gone.name)
    await world.fleet_pod(kept.name)
    uid = (await world.get("Deployment", gone.name))["metadata"]["uid"]
    await world.act(DeleteFleet(gone.name, uid))
    both = sorted([kept.name, gone.name])
    assert (await sweeps.standing())["NetworkPolicy"] == both
    await sweeps.for_seconds(2 * GRACE_SECONDS)
    assert (await sweeps.standing())["NetworkPolicy"] == both
    await world.kube.delete("Pod", world.namespace, pod["metadata"]["name"])
    await sweeps.for_seconds(EVERY_SECONDS)
    kinds = ("Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget")
    assert await sweeps.standing() == {kind: [kept.name] for kind in kinds}
