"""The sweep for orphans where one of them cannot be taken down, or is none. On stepped time and without an API server;
what it does with one is in test_orphans.py."""

import logging
from collections.abc import Callable

import pytest
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube

from sluice.cluster.labels import endpoint_labels
from sluice.cluster.orphans import EVERY_SECONDS, GRACE_SECONDS, OrphanSweep
from sluice.core.cluster.names import ANNOTATION_OWNER, LABEL_FLEET, LABEL_ROUTER, ROUTER, record_name
from sluice.core.revision import LABEL_MANAGED_BY, MANAGED_BY
from sluice.ports.kube import Forbidden, Object

API_VERSIONS = {"NetworkPolicy": "networking.k8s.io/v1", "PodDisruptionBudget": "policy/v1", "Deployment": "apps/v1"}


def thing(kind: str, namespace: str, name: str, fleet: str = "") -> Object:
    """An object; of a fleet, if one is named."""
    marks: Object = {}
    if fleet:
        marks["labels"] = {**endpoint_labels("churn"), LABEL_FLEET: fleet}
        marks["annotations"] = {ANNOTATION_OWNER: f"prod/{namespace}/churn"}
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{kind}-{name}", **marks}
    return {"apiVersion": API_VERSIONS.get(kind, "v1"), "kind": kind, "metadata": metadata}


class Guarded(MemoryKube):
    """Deletes nothing in the namespaces that somebody guards."""

    def __init__(self) -> None:
        super().__init__()
        self.guarded: set[str] = set()

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str | None = None) -> None:
        if namespace in self.guarded:
            raise Forbidden(f"delete {kind} {name}: denied by a policy of {namespace}")
        await super().delete(kind, namespace, name, uid=uid)


@pytest.fixture
def kube() -> Guarded:
    return Guarded()


def sweep_of(kube: Guarded, clock: SteppedClock, neighbours: Callable[[], int] = lambda: 1) -> OrphanSweep:
    return OrphanSweep(
        kube,
        clock,
        installation_id="prod",
        namespaces=(),
        exists=lambda _namespace, _name: False,
        neighbours=lambda _namespace, _name: neighbours(),
        held=lambda: True,
    )


async def swept(kube: Guarded) -> set[tuple[str, str, str]]:
    """What stands when all that is due was taken down, as far as it could be."""
    clock = SteppedClock()
    sweep = sweep_of(kube, clock)
    await sweep.once()
    clock.skip(GRACE_SECONDS)
    await sweep.once()
    return set(kube.objects)


async def test_what_cannot_be_taken_down_keeps_nothing_else(kube: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    kube.guarded = {"a"}
    for namespace in ("a", "b"):
        kube.put(thing("Deployment", namespace, "churn-1", "churn-1"))
        kube.put(thing("Service", namespace, "churn-2", "churn-2"))
    with caplog.at_level(logging.WARNING):
        left = await swept(kube)
    assert left == {("Deployment", "a", "churn-1"), ("Service", "a", "churn-2")}
    assert "Endpoint a/churn is left for the next sweep: delete Deployment churn-1: denied" in caplog.text


async def test_what_somebody_labelled_leads_to_nobody_elses_objects(kube: Guarded) -> None:
    """Who may write one ConfigMap would else have the operator delete policies and Services in their place."""
    kept = [
        kube.put(thing("ConfigMap", "team", "mine", "guard")),
        kube.put(thing("NetworkPolicy", "team", "guard")),
        kube.put(thing("Service", "team", "guard")),
        kube.put(thing("Service", "team", "copy", "churn-1")),
    ]
    kube.put(thing("PodDisruptionBudget", "team", "churn-1", "churn-1"))
    kube.put(thing("ConfigMap", "team", record_name("churn-1"), "churn-1"))
    places = {(item["kind"], "team", item["metadata"]["name"]) for item in kept}
    assert await swept(kube) == places


async def test_a_copy_under_another_name_is_nobodys_orphan(kube: Guarded) -> None:
    """Its Endpoint is gone, and whoever copied the Deployment looks into it still."""
    kept = [
        kube.put(thing("Deployment", "team", "churn-debug", "churn-1")),
        kube.put(thing("Service", "team", "churn-debug")),
    ]
    kube.put(thing("Deployment", "team", "churn-1", "churn-1"))
    kube.put(thing("Service", "team", "churn-1", "churn-1"))
    assert await swept(kube) == {(item["kind"], "team", item["metadata"]["name"]) for item in kept}


async def test_what_a_restore_brought_into_another_namespace_is_left_alone(kube: Guarded) -> None:
    """It says of all its objects that they belong elsewhere."""
    copy = thing("NetworkPolicy", "team", "churn-1", "churn-1")
    copy["metadata"]["annotations"][ANNOTATION_OWNER] = "prod/elsewhere/churn"
    kube.put(copy)
    assert await swept(kube) == {("NetworkPolicy", "team", "churn-1")}


ENDPOINT = {**thing("Endpoint", "team", "swift"), "spec": {"backend": "Cluster"}}
ROUTE = thing("EndpointRoute", "team", "swift")
COMES: list[tuple[Object | None, int]] = [(None, 1), (ENDPOINT, 0), (ROUTE, 0)]


@pytest.mark.parametrize(("comes", "known"), COMES, ids=["it is known", "the cache lacks it", "it has a route"])
async def test_a_router_that_an_endpoint_needs_by_now_stays(comes: Object | None, known: int) -> None:
    """What is collected before it in the same sweep may take minutes, and the listings are from before."""
    neighbours = 0

    class Meanwhile(Guarded):
        async def delete(self, kind: str, namespace: str, name: str, *, uid: str | None = None) -> None:
            nonlocal neighbours
            await super().delete(kind, namespace, name, uid=uid)
            neighbours = known
            if comes is not None:
                self.put(comes)

    kube, clock = Meanwhile(), SteppedClock()
    kube.put(thing("Deployment", "elsewhere", "churn-1", "churn-1"))
    router = kube.put(thing("Deployment", "team", ROUTER))
    router["metadata"]["labels"] = {LABEL_ROUTER: ROUTER, LABEL_MANAGED_BY: MANAGED_BY}
    router["metadata"]["annotations"] = {ANNOTATION_OWNER: "prod"}
    kube.put(router)
    sweep = sweep_of(kube, clock, lambda: neighbours)
    await sweep.once()
    clock.skip(GRACE_SECONDS)
    await sweep.once()
    assert ("Deployment", "elsewhere", "churn-1") not in kube.objects
    assert ("Deployment", "team", ROUTER) in kube.objects


def pod(name: str, fleet: str, phase: str = "Running") -> Object:
    """One that is on its way out, as far as kubelet lets it."""
    made = thing("Pod", "team", name, fleet)
    made["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {**made, "status": {"phase": phase}}


async def test_a_fleets_policy_goes_when_its_pods_are_gone(kube: Guarded) -> None:
    """They serve on for 15 seconds and have 30 more to end; where their node is lost, as long as it is. Without the
    policy, pods that may make no network calls could make them."""
    clock = SteppedClock()
    sweep = sweep_of(kube, clock)
    kube.put(thing("NetworkPolicy", "team", "churn-1", "churn-1"))
    running = kube.put(pod("churn-1-a", "churn-1"))
    kube.put(pod("churn-1-b", "churn-1", "Failed"))

    async def stands(seconds: float) -> bool:
        clock.skip(seconds)
        await sweep.once()
        return ("NetworkPolicy", "team", "churn-1") in kube.objects

    assert await stands(0)
    assert await stands(EVERY_SECONDS)
    assert await stands(2 * GRACE_SECONDS), "a pod of it still runs"
    del kube.objects["Pod", "team", running["metadata"]["name"]]
    assert not await stands(EVERY_SECONDS)
    anew = thing("NetworkPolicy", "team", "churn-1", "churn-1")
    anew["metadata"]["uid"] = "anew"
    kube.put(anew)
    assert await stands(EVERY_SECONDS), "it may be one of a fleet that is just being made"
    kube.put(thing("Deployment", "team", "churn-1", "churn-1"))
    assert await stands(EVERY_SECONDS)
    del kube.objects["Deployment", "team", "churn-1"]
    assert await stands(EVERY_SECONDS), "found without its fleet for the first time"
    assert not await stands(EVERY_SECONDS)


async def test_a_policy_that_was_made_anew_meanwhile_stays(kube: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    """As it is where the fleet is made again."""
    clock = SteppedClock()
    sweep = sweep_of(kube, clock)
    kube.put(thing("NetworkPolicy", "team", "churn-1", "churn-1"))
    await sweep.once()
    clock.skip(EVERY_SECONDS)
    anew = thing("NetworkPolicy", "team", "churn-1", "churn-1")
    anew["metadata"]["uid"] = "anew"
    kube.before["delete"] = [lambda: kube.put(anew)]
    await sweep.once()
    assert kube.objects["NetworkPolicy", "team", "churn-1"]["metadata"]["uid"] == "anew"
    assert "left for the next sweep" in caplog.text
