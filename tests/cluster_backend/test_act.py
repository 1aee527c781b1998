"""Changes in the cluster, made against a real API server: each is repeatable, and none writes a fleet that stands."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from tests.cluster_backend.objects import create, deployment_manifest, make_ready
from tests.cluster_backend.world import World

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.cluster.act import ROUTER_KINDS
from sluice.cluster.problems import problem
from sluice.cluster.router import FOLLOWING, RouterSettings
from sluice.core.cluster.actions import (
    ClusterAction,
    DeleteFleet,
    DeleteRoute,
    EnsureRouter,
    EvictRouter,
    RecordFleet,
    RemoveRouter,
    RetainRoute,
    ScaleFleet,
    WriteRoute,
)
from sluice.core.cluster.names import ANNOTATION_TEMPLATE, ROUTER, ROUTER_PORT, record_name
from sluice.core.cluster.observation import ClusterObservation, FleetRecord, ImageSeen
from sluice.core.instance_types import InstanceTypes, parse
from sluice.kube.client import KubeClient
from sluice.ports.backend import ActFailed
from sluice.ports.kube import Conflict, Forbidden, Object

pytestmark = pytest.mark.apiserver

RECORD = FleetRecord(images=(ImageSeen("registry.example/churn:1", "registry.example/churn@sha256:a"),))


@dataclass
class Recorded:
    """ports.kube.Kube that notes every write on its way to the real one."""

    kube: KubeClient
    writes: list[tuple[str, str, str]] = field(default_factory=list)
    """(verb, kind, name)."""

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return await self.kube.get(kind, namespace, name)

    async def list(self, kind: str, namespace: str | None = None, label_selector: str = "") -> AsyncIterator[Object]:
        async for item in self.kube.list(kind, namespace, label_selector):
            yield item

    async def list_metadata(
        self, kind: str, namespace: str | None = None, label_selector: str = ""
    ) -> AsyncIterator[Object]:
        async for item in self.kube.list_metadata(kind, namespace, label_selector):
            yield item

    async def create(self, kind: str, namespace: str, body: Object) -> Object:
        self.writes.append(("create", kind, body["metadata"]["name"]))
        return await self.kube.create(kind, namespace, body)

    async def replace(self, kind: str, namespace: str, body: Object) -> Object:
        self.writes.append(("update", kind, body["metadata"]["name"]))
        return await self.kube.replace(kind, namespace, body)

    async def replace_status(self, kind: str, namespace: str, body: Object) -> Object:
        self.writes.append(("update_status", kind, body["metadata"]["name"]))
        return await self.kube.replace_status(kind, namespace, body)

    async def patch_metadata(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        resource_version: str | None,
        finalizers: Sequence[str] | None = None,
        annotations: Mapping[str, str | None] | None = None,
    ) -> Object:
        self.writes.append(("patch", kind, name))
        return await self.kube.patch_metadata(
            kind, namespace, name, resource_version=resource_version, finalizers=finalizers, annotations=annotations
        )

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str | None = None) -> None:
        self.writes.append(("delete", kind, name))
        await self.kube.delete(kind, namespace, name, uid=uid)

    async def scale(self, kind: str, namespace: str, name: str, replicas: int, *, uid: str) -> None:
        self.writes.append(("scale", kind, name))
        await self.kube.scale(kind, namespace, name, replicas, uid=uid)

    async def evict(self, namespace: str, pod: str, *, uid: str, grace_seconds: int) -> None:
        self.writes.append(("evict", "Pod", pod))
        await self.kube.evict(namespace, pod, uid=uid, grace_seconds=grace_seconds)

    async def event(self, regarding: Object, *, type_: str, reason: str, message: str) -> None:
        raise AssertionError("acting says nothing")


@pytest.fixture
def world(kube: KubeClient, namespace: str) -> World:
    return World(kube, namespace)


async def test_a_fleet_is_made_in_the_order_that_leaves_no_gap(world: World, kube: KubeClient) -> None:
    recorded, action = Recorded(kube), world.fleet(replicas=3)
    await world.actor(recorded).act(world.owner, action, ClusterObservation())
    kinds = [kind for verb, kind, _ in recorded.writes if verb == "create"]
    assert kinds == ["Service", "NetworkPolicy", "PodDisruptionBudget", "Deployment"]
    assert (await world.get("Deployment", action.name))["spec"]["replicas"] == 3
    for kind in kinds:
        assert "ownerReferences" not in (await world.get(kind, action.name))["metadata"]


async def test_nothing_but_its_scale_is_ever_written_on_a_fleets_deployment(world: World, kube: KubeClient) -> None:
    """Whatever this operator would render now, and however often it is asked: the pod template is the first one's."""
    action = world.fleet(replicas=1)
    await world.act(action)
    before = await world.get("Deployment", action.name)
    world.types = parse({"ml.m5.large": {"cpu": "64", "memory": "1Ti"}})
    world.routers = RouterSettings("sluice/router:newer")
    recorded = Recorded(kube)
    actor = world.actor(recorded)
    everything: tuple[ClusterAction, ...] = (
        action,
        ScaleFleet(action.name, 5),
        RecordFleet(action.name, RECORD),
        EnsureRouter(),
        EnsureRouter(update=True),
        WriteRoute(world.route(action.name), None),
        action,
        RetainRoute(),
        RemoveRouter(),
    )
    for one in everything:
        await actor.act(world.owner, one, await world.look())
    fleet_writes = {(verb, kind) for verb, kind, name in recorded.writes if kind == "Deployment" and name != ROUTER}
    assert fleet_writes == {("create", "Deployment"), ("scale", "Deployment")}
    after = await world.get("Deployment", action.name)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"] == {**before["spec"], "replicas": 5}
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    hands = [(entry["operation"], entry.get("subresource")) for entry in after["metadata"]["managedFields"]]
    assert sorted(hands, key=str) == [("Update", "scale"), ("Update", None)], "its creation, and its scale"


async def test_what_is_gone_needs_no_scaling(world: World) -> None:
    await world.act(ScaleFleet("nothing", 3))
    action = world.fleet()
    await world.act(action)
    seen = await world.look()
    await world.act(DeleteFleet(action.name, seen.fleets[0].uid))
    await world.actor().act(world.owner, ScaleFleet(action.name, 3), seen)


async def test_the_fleet_that_was_seen_is_scaled_and_none_of_its_name(world: World) -> None:
    action = world.fleet(replicas=4)
    await world.act(action)
    seen = await world.look()
    for count in (2, 0, 3):
        await world.actor().act(world.owner, ScaleFleet(action.name, count), seen)
        assert (await world.get("Deployment", action.name))["spec"]["replicas"] == count
    await world.act(DeleteFleet(action.name, seen.fleets[0].uid), replace(action, replicas=3))
    with pytest.raises(Conflict, match=action.name):
        await world.actor().act(world.owner, ScaleFleet(action.name, 1), seen)
    assert (await world.get("Deployment", action.name))["spec"]["replicas"] == 3, "another one of its name"


async def test_a_record_is_kept_as_it_was_first_written(world: World) -> None:
    later = FleetRecord(images=(ImageSeen("registry.example/churn:1", "registry.example/churn@sha256:b"),))
    await world.act(RecordFleet("f", RECORD), RecordFleet("f", later))
    held = await world.get("ConfigMap", record_name("f"))
    assert "sha256:a" in held["data"]["images.json"]


async def test_a_fleet_is_deleted_whole_and_only_it(world: World) -> None:
    action, other = world.fleet(), world.fleet(instanceType="ml.c5.large")
    await world.act(action, other, RecordFleet(action.name, RECORD))
    uid = (await world.get("Deployment", action.name))["metadata"]["uid"]
    with pytest.raises(Conflict):
        await world.act(DeleteFleet(action.name, "another-one-of-the-same-name"))
    assert action.name in await world.listed("Service"), "nothing of it went"
    await world.act(DeleteFleet(action.name, uid), DeleteFleet(action.name, uid))
    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        assert await world.listed(kind) == [other.name]
    assert set(await world.listed("NetworkPolicy")) == {action.name, other.name}, "while pods run; then the sweep's"
    assert record_name(action.name) not in await world.listed("ConfigMap")


async def test_a_route_is_written_only_over_the_one_that_was_seen(world: World) -> None:
    await world.act(WriteRoute(world.route("f"), None))
    with pytest.raises(Conflict):
        await world.act(WriteRoute(world.route("g"), None))
    seen = await world.get(names.ENDPOINT_ROUTE, world.name)
    version = seen["metadata"]["resourceVersion"]
    await world.act(WriteRoute(world.route("g"), version))
    with pytest.raises(Conflict):
        await world.act(WriteRoute(world.route("h"), version))
    after = await world.get(names.ENDPOINT_ROUTE, world.name)
    assert [fleet["name"] for fleet in after["spec"]["fleets"]] == ["g"]
    assert after["metadata"]["generation"] == 2
    with pytest.raises(Conflict):
        await world.act(DeleteRoute("another"))
    await world.act(DeleteRoute(after["metadata"]["uid"]), DeleteRoute(after["metadata"]["uid"]))
    with pytest.raises(Conflict):
        await world.act(WriteRoute(world.route("h"), version))


async def test_the_router_is_made_once_and_updated_where_it_is_rendered_otherwise(
    world: World, kube: KubeClient
) -> None:
    await world.act(EnsureRouter())
    for kind in ROUTER_KINDS:
        assert ROUTER in await world.listed(kind)
    before = await world.get("Deployment", ROUTER)
    recorded = Recorded(kube)
    await world.actor(recorded).act(world.owner, EnsureRouter(update=True), ClusterObservation())
    assert [write for write in recorded.writes if write[0] != "create"] == [], "nothing is otherwise"
    world.routers = RouterSettings("sluice/router:newer", replicas=3)
    await world.actor(recorded).act(world.owner, EnsureRouter(), ClusterObservation())
    assert [write for write in recorded.writes if write[0] != "create"] == [], "not asked for"
    await world.actor(recorded).act(world.owner, EnsureRouter(update=True), ClusterObservation())
    assert [write for write in recorded.writes if write[0] != "create"] == [("update", "Deployment", ROUTER)]
    after = await world.get("Deployment", ROUTER)
    images = {container["image"] for container in after["spec"]["template"]["spec"]["containers"]}
    assert images == {"sluice/router:newer"}
    assert after["spec"]["replicas"] == 3
    assert (
        after["metadata"]["annotations"][ANNOTATION_TEMPLATE] != before["metadata"]["annotations"][ANNOTATION_TEMPLATE]
    )
    assert (await world.look()).router.current


async def test_what_stands_beside_a_routers_deployment_follows_too(world: World, kube: KubeClient) -> None:
    """A newer operator renders Service, NetworkPolicy, budget and binding otherwise."""
    await world.act(EnsureRouter())
    marks = {}
    for kind in sorted(FOLLOWING):
        item = await world.get(kind, ROUTER)
        marks[kind] = item["metadata"]["annotations"][ANNOTATION_TEMPLATE]
        item["metadata"]["annotations"][ANNOTATION_TEMPLATE] = "an older operator's"
        if kind == "NetworkPolicy":
            item["spec"]["ingress"] = []
        if kind == "PodDisruptionBudget":
            item["spec"]["maxUnavailable"] = 0
        if kind == "Service":
            item["spec"]["ports"][0]["targetPort"] = 1
        await kube.replace(kind, world.namespace, item)
    address = (await world.get("Service", ROUTER))["spec"]["clusterIP"]
    seen = (await world.look()).router
    assert (seen.complete, seen.current) == (True, False)
    recorded = Recorded(kube)
    await world.actor(recorded).act(world.owner, EnsureRouter(), ClusterObservation())
    assert [write for write in recorded.writes if write[0] != "create"] == [], "not asked for"
    await world.actor(recorded).act(world.owner, EnsureRouter(update=True), ClusterObservation())
    assert ("update", "Deployment", ROUTER) not in recorded.writes, "its pods are as they should be"
    assert {kind: await _mark(world, kind) for kind in marks} == marks
    service = (await world.get("Service", ROUTER))["spec"]
    assert (service["ports"][0]["targetPort"], service["clusterIP"]) == (ROUTER_PORT, address)
    assert len((await world.get("NetworkPolicy", ROUTER))["spec"]["ingress"]) == 2
    assert (await world.get("PodDisruptionBudget", ROUTER))["spec"]["maxUnavailable"] == 1
    assert (await world.look()).router.current


async def test_a_router_gets_another_role(world: World) -> None:
    """What a RoleBinding binds cannot be written: it is made again."""
    await world.act(EnsureRouter())
    world.routers = RouterSettings("sluice/router:test", cluster_role="another")
    seen = (await world.look()).router
    assert (seen.complete, seen.current) == (True, False)
    await world.act(EnsureRouter(update=True))
    assert (await world.get("RoleBinding", ROUTER))["roleRef"]["name"] == "another"
    assert (await world.look()).router.current


async def _mark(world: World, kind: str) -> str:
    return str((await world.get(kind, ROUTER))["metadata"]["annotations"][ANNOTATION_TEMPLATE])


async def test_what_of_the_router_was_deleted_comes_back(world: World) -> None:
    await world.act(EnsureRouter())
    for kind in ROUTER_KINDS:
        await world.kube.delete(kind, world.namespace, ROUTER)
    await world.act(EnsureRouter())
    for kind in ROUTER_KINDS:
        assert ROUTER in await world.listed(kind)


async def test_somebody_elses_router_is_neither_taken_nor_removed(world: World) -> None:
    foreign = deployment_manifest(ROUTER, world.namespace, {"app": "mine"})
    foreign["metadata"]["labels"] = {"app": "mine"}
    await create(world.kube, foreign)
    with pytest.raises(ActFailed) as failed:
        await world.act(EnsureRouter(update=True))
    assert failed.value.problem.reason is Reason.NAME_CONFLICT
    assert "sluice-router is somebody else's" in failed.value.problem.message
    await world.act(RemoveRouter())
    assert (await world.get("Deployment", ROUTER))["spec"]["template"]["metadata"]["labels"] == {"app": "mine"}


async def test_the_router_is_removed_whole(world: World) -> None:
    await world.act(EnsureRouter(), RemoveRouter(), RemoveRouter())
    for kind in ROUTER_KINDS:
        assert ROUTER not in await world.listed(kind)


async def test_a_router_is_evicted_by_its_uid(world: World) -> None:
    await world.act(EnsureRouter())
    stuck, peer = await world.router_pods(2)
    # Nobody counts pods here, so the budget would hold every one; with it: the next test.
    await world.kube.delete("PodDisruptionBudget", world.namespace, ROUTER)
    with pytest.raises(Conflict):
        await world.act(EvictRouter(stuck["metadata"]["name"], "another"))
    await world.act(EvictRouter(stuck["metadata"]["name"], stuck["metadata"]["uid"]))
    assert [router.pod for router in (await world.look()).routers] == [peer["metadata"]["name"]]


async def test_a_budget_that_holds_an_eviction_up_is_a_problem_to_outlive(world: World) -> None:
    await world.act(EnsureRouter())
    stuck, _ = await world.router_pods(2)
    await make_ready(world.kube, await world.get("Pod", stuck["metadata"]["name"]))
    with pytest.raises(ActFailed) as failed:
        await world.act(EvictRouter(stuck["metadata"]["name"], stuck["metadata"]["uid"]))
    assert (failed.value.problem.reason, failed.value.problem.transient) == (Reason.ROUTER_NOT_CONVERGED, True)


async def test_what_the_api_server_does_not_accept_is_said_in_its_words(world: World) -> None:
    action = world.fleet()
    env = [{"name": "TOKEN", "valueFrom": {}}]
    bad = {"churn": {"primaryContainer": {"image": "registry.example/churn:1"}, "kubernetes": {"env": env}}}
    with pytest.raises(ActFailed) as failed:
        await world.act(replace(action, models=bad))
    found = failed.value.problem
    assert (found.operation, found.reason, found.transient) == (
        "EnsureFleet",
        Reason.REJECTED_BY_KUBERNETES,
        False,
    )
    assert "env" in found.message


async def test_an_instance_type_that_went_is_named(world: World) -> None:
    world.types = InstanceTypes({})
    with pytest.raises(ActFailed) as failed:
        await world.act(world.fleet())
    assert failed.value.problem.reason is Reason.UNKNOWN_INSTANCE_TYPE
    assert "ml.m5.large" in failed.value.problem.message


def test_a_quota_is_told_from_a_missing_right() -> None:
    told = {
        'create /x: 403 deployments.apps "f" is forbidden: exceeded quota: q': Reason.QUOTA_EXCEEDED,
        "create /x: 403 because it is being terminated": Reason.DELETING,
        'create /x: 403 cannot create resource "deployments"': Reason.ACCESS_DENIED,
    }
    for message, reason in told.items():
        assert problem("EnsureFleet", Forbidden(message)).reason is reason


@pytest.mark.parametrize("taken", ["owner", "label"])
async def test_a_fleet_that_is_not_seen_as_ours_any_more_is_not_made_again_and_again(world: World, taken: str) -> None:
    action = world.fleet()
    await world.act(action)
    await world.act(action)  # made already: fine
    found = await world.get("Deployment", action.name)
    if taken == "owner":
        found["metadata"]["annotations"].pop("sluice.dev/owner")
    else:
        found["metadata"]["labels"].pop("sluice.dev/endpoint")
    await world.kube.replace("Deployment", world.namespace, found)
    assert (await world.look()).fleets == ()
    with pytest.raises(ActFailed, match=f"Deployment {world.namespace}/{action.name} does not bear") as failed:
        await world.act(action)
    assert failed.value.problem.reason is Reason.NAME_CONFLICT


async def test_a_service_that_somebody_deleted_is_made_again(world: World) -> None:
    action = world.fleet()
    await world.act(action)
    assert [fleet.reachable for fleet in (await world.look()).fleets] == [True]
    await world.kube.delete("Service", world.namespace, action.name)
    assert [fleet.reachable for fleet in (await world.look()).fleets] == [False]
    await world.act(action)
    assert [fleet.reachable for fleet in (await world.look()).fleets] == [True]


@pytest.mark.parametrize("labelled", [True, False])
async def test_a_config_map_in_a_records_place_is_told_of(world: World, labelled: bool) -> None:
    """Somebody else's, or one that cannot be read: the fleet would never have a record, and each pass would try."""
    action = world.fleet()
    await world.act(action)
    labels = {"sluice.dev/managed-by": "sluice", "sluice.dev/endpoint": world.name, "sluice.dev/fleet": action.name}
    made: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": record_name(action.name),
            "namespace": world.namespace,
            **({"labels": labels, "annotations": {"sluice.dev/owner": str(world.owner)}} if labelled else {}),
        },
    }
    await create(world.kube, made)
    with pytest.raises(ActFailed, match=record_name(action.name)) as failed:
        await world.act(RecordFleet(action.name, RECORD))
    assert failed.value.problem.reason is Reason.NAME_CONFLICT
