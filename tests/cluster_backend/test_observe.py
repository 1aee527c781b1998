"""What is seen of an Endpoint in the cluster, from a real API server."""

from datetime import UTC, datetime

import pytest
from tests.cluster_backend.objects import create, make_ready, pod_manifest, replica_set_of, set_status
from tests.cluster_backend.world import World
from tests.controller.conftest import Telemetry
from tests.controller.memory_kube import MemoryKube

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.cluster.observe import Observer
from sluice.core.cluster.actions import DeleteFleet, EnsureRouter, RecordFleet, RetainRoute, ScaleFleet, WriteRoute
from sluice.core.cluster.names import LABEL_FLEET, LABEL_ROUTER, ROUTER, record_name
from sluice.core.cluster.observation import FleetRecord
from sluice.core.instance_types import parse
from sluice.core.resolve import Resolution
from sluice.kube.client import KubeClient
from sluice.ports.kube import Object

pytestmark = pytest.mark.apiserver


@pytest.fixture
def world(kube: KubeClient, namespace: str) -> World:
    return World(kube, namespace)


async def test_nothing_stands_yet(world: World) -> None:
    seen = await world.look()
    assert (seen.fleets, seen.route, seen.routers) == ((), None, ())
    assert not seen.router.exists
    assert not seen.namespace_terminating


async def test_a_fleet_is_seen_with_its_pods(world: World) -> None:
    action = world.fleet(replicas=3)
    await world.act(action)
    await world.fleet_pod(action.name)
    await world.fleet_pod(action.name, ready=False)
    await world.fleet_pod("another-fleet")
    (fleet,) = (await world.look()).fleets
    assert (fleet.name, fleet.variant, fleet.fleet_hash) == (action.name, "a", action.fleet_hash)
    assert (fleet.replicas, fleet.ready, fleet.existing) == (3, 1, 2)
    assert [one.reason for one in fleet.troubles] == ["Starting"]
    assert fleet.candidate is not None
    assert fleet.record is None
    seen = await world.look()
    assert seen.templates == {action.name: fleet.template}, "this operator would render it as it stands"


async def test_what_the_first_pod_ran_is_required_of_the_others(world: World) -> None:
    action = world.fleet()
    await world.act(action)
    await world.fleet_pod(action.name)
    (fleet,) = (await world.look()).fleets
    assert fleet.candidate is not None
    await world.act(RecordFleet(action.name, fleet.candidate))
    await world.act(RecordFleet(action.name, fleet.candidate))
    status = {
        "name": "model", "image": "registry.example/churn:1", "ready": True, "started": True, "restartCount": 0,
        "imageID": "registry.example/churn@sha256:" + "b" * 64, "state": {"running": {}},
    }  # fmt: skip
    stranger = await world.fleet_pod(action.name, containerStatuses=[status])
    (fleet,) = (await world.look()).fleets
    assert fleet.record is not None
    assert fleet.candidate is None
    assert fleet.strangers == (stranger["metadata"]["name"],)
    assert fleet.ready == 1
    assert [one.reason for one in fleet.troubles] == ["ImageDrift"]


async def test_endpoints_whose_long_names_begin_alike_are_told_apart(kube: KubeClient, namespace: str) -> None:
    long = "a" * 63
    one, other = World(kube, namespace, name=f"{long}-one"), World(kube, namespace, name=f"{long}-two")
    await one.act(one.fleet())
    await other.act(other.fleet())
    assert [fleet.name for fleet in (await one.look()).fleets] == [one.fleet().name]
    assert [fleet.name for fleet in (await other.look()).fleets] == [other.fleet().name]


async def test_another_namespaces_objects_are_nobodys(world: World) -> None:
    """Copied with its annotations: what says that it belongs elsewhere does not belong here."""
    action = world.fleet()
    await world.act(action)
    copy = await world.get("Deployment", action.name)
    await world.kube.delete("Deployment", world.namespace, action.name)
    copy["metadata"] = {
        **{field: copy["metadata"][field] for field in ("name", "namespace", "labels")},
        "annotations": {**copy["metadata"]["annotations"], "sluice.dev/owner": "prod/elsewhere/churn"},
    }
    await create(world.kube, copy)
    assert (await world.look()).fleets == ()


async def test_a_copy_under_another_name_is_no_fleet(world: World) -> None:
    """Somebody looks for a fault in a copy of their own: it would be taken down as a fleet that nothing needs."""
    action = world.fleet()
    await world.act(action)
    copy = await world.get("Deployment", action.name)
    marks = {field: copy["metadata"][field] for field in ("namespace", "labels", "annotations")}
    copy["metadata"] = {**marks, "name": "churn-debug"}
    await create(world.kube, copy)
    assert [fleet.name for fleet in (await world.look()).fleets] == [action.name]


async def test_a_record_counts_under_its_own_name(world: World) -> None:
    """A copy of it, from a backup, would be held against the pods of a fleet that is made again."""
    action = world.fleet()
    await world.act(action, RecordFleet(action.name, FleetRecord()))
    copy = await world.get("ConfigMap", record_name(action.name))
    marks = {field: copy["metadata"][field] for field in ("namespace", "labels", "annotations")}
    copy["metadata"] = {**marks, "name": "z-copy"}
    await create(world.kube, copy)
    assert (await world.look()).fleets[0].record is not None
    await world.kube.delete("ConfigMap", world.namespace, record_name(action.name))
    assert (await world.look()).fleets[0].record is None


async def test_a_routers_pod_counts_by_its_owners_and_never_by_its_label(world: World) -> None:
    await world.act(EnsureRouter())
    pods = await world.router_pods(2)
    (impostor,) = await create(world.kube, pod_manifest("impostor", world.namespace, {LABEL_ROUTER: ROUTER}))
    forged: Object = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "x", "uid": "forged"}}
    await create(world.kube, pod_manifest("forged", world.namespace, {LABEL_ROUTER: ROUTER}, forged))
    await world.report(impostor, {"name": "churn", "uid": "u", "generation": 99})
    seen = await world.look()
    assert [router.pod for router in seen.routers] == sorted(pod["metadata"]["name"] for pod in pods)
    assert all(router.ready and not router.terminating for router in seen.routers)
    assert {router.readiness_since for router in seen.routers} == {datetime(2026, 1, 1, 0, 1, tzinfo=UTC)}


async def test_a_finished_router_holds_nothing_up(world: World) -> None:
    await world.act(EnsureRouter())
    running, evicted = await world.router_pods(2)
    await set_status(world.kube, await world.get("Pod", evicted["metadata"]["name"]), {"phase": "Failed"})
    assert [router.pod for router in (await world.look()).routers] == [running["metadata"]["name"]]


async def test_a_report_counts_for_the_very_pod_and_is_read_for_one_endpoint(world: World) -> None:
    await world.act(EnsureRouter())
    mine, stale, silent = await world.router_pods(3)
    entries = [{"name": name, "uid": "u", "generation": 7} for name in ("another", "churn")]
    await world.report(mine, *entries)
    await world.report(stale, *entries, pod_uid="of-the-pod-before")
    seen = {router.pod: router for router in (await world.look()).routers}
    report = seen[mine["metadata"]["name"]].report
    assert report is not None
    assert [(route.name, route.generation) for route in report.routes] == [("churn", 7)]
    assert seen[stale["metadata"]["name"]].report is None
    assert seen[silent["metadata"]["name"]].report is None


async def test_the_route_is_seen_as_it_was_written(world: World) -> None:
    spec = world.route("f")
    await world.act(WriteRoute(spec, None))
    route = (await world.look()).route
    assert route is not None
    assert (route.spec, route.generation) == (spec, 1)


async def test_the_router_is_complete_current_and_counted(world: World) -> None:
    await world.act(EnsureRouter())
    observer = world.observer()
    seen = await world.look(observer)
    assert (seen.router.exists, seen.router.complete, seen.router.current) == (True, True, True)
    await world.kube.delete("Service", world.namespace, ROUTER)
    assert (await world.look(observer)).router.complete, "believed for a minute"
    await world.clock.step(61)
    assert not (await world.look(observer)).router.complete
    await world.act(EnsureRouter())
    assert (await world.look(observer)).router.complete
    world.longest_seconds = 900  # streams are let end for longer than the shorter steps
    assert not (await world.look()).router.current, "its pods would stop too early for such an invocation"


async def test_a_route_that_was_retained_needs_the_router(world: World, kube: KubeClient) -> None:
    other = World(kube, world.namespace, name="other")
    await other.act(WriteRoute(other.route("f"), None))
    world.neighbours = 2
    assert (await world.look(deleting=True)).neighbours == 2
    await other.act(RetainRoute())
    assert (await world.look(deleting=True)).neighbours == 3
    route = await world.kube.get(names.ENDPOINT_ROUTE, world.namespace, "other")
    assert route is not None
    assert route["metadata"]["annotations"][names.RETAINED] == "true"
    await other.act(WriteRoute(other.route("g"), route["metadata"]["resourceVersion"]))
    assert (await world.look(deleting=True)).neighbours == 2, "its Endpoint is back"


async def test_zones_are_those_of_the_nodes(world: World) -> None:
    for number, zone in enumerate(("z1", "z2", "z2", "")):
        node: Object = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": f"{world.namespace}-{number}",
                "labels": {"topology.kubernetes.io/zone": zone} if zone else {},
            },
            "spec": {"unschedulable": number == 0},
        }
        await world.kube.create("Node", "", node)
    try:
        action = world.fleet()
        await world.act(action)
        for number in (1, 2):
            labels = {"sluice.dev/fleet": action.name, "sluice.dev/endpoint": world.name}
            owner = await replica_set_of(world.kube, world.namespace, action.name, labels)
            pod = pod_manifest(f"p{number}", world.namespace, labels, owner)
            pod["spec"]["nodeName"] = f"{world.namespace}-{number}"
            (made,) = await create(world.kube, pod)
            await set_status(
                world.kube, made, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            )
        seen = await world.look()
        assert seen.zones == 1, "z1 has no node that takes pods"
        assert seen.fleets[0].zones == 1
    finally:
        for number in range(4):
            await world.kube.delete("Node", "", f"{world.namespace}-{number}")


async def test_a_namespace_that_goes_is_seen_as_going(world: World) -> None:
    await world.kube.delete("Namespace", "", world.namespace)
    assert not (await world.look()).namespace_terminating, "its Endpoints are deleted first"
    assert (await world.look(deleting=True)).namespace_terminating


async def test_an_instance_type_that_nobody_knows_is_named(world: World) -> None:
    world.types = parse(None)
    assert (await world.look()).unknown_instance_types == ()
    world.types = type(world.types)({})
    assert (await world.look()).unknown_instance_types == ("ml.m5.large",)


async def test_an_edited_instance_type_shows_what_is_outdated(world: World) -> None:
    action = world.fleet()
    await world.act(action, ScaleFleet(action.name, 1))
    world.types = parse({"ml.m5.large": {"cpu": "1"}})
    seen = await world.look()
    assert seen.templates[action.name] != seen.fleets[0].template


async def test_an_api_server_that_is_away_is_a_problem_and_no_failure() -> None:
    memory = MemoryKube()
    memory.away = True
    world = World(memory, "team")  # type: ignore[arg-type] # in memory: the real one cannot be taken away
    resolution = Resolution(owner=world.owner)
    sight = await world.observer().observe({"metadata": {"name": "churn"}}, resolution, ())
    assert sight.seen is None
    assert sight.problem is not None
    assert (sight.problem.reason, sight.problem.transient) == (Reason.UNREACHABLE, True)


async def test_routers_are_replaced_one_namespace_at_a_time(world: World) -> None:
    """And not while another Endpoint of the namespace moves traffic."""
    await world.act(EnsureRouter())
    other = World(world.kube, f"{world.namespace}-b", longest_seconds=90)
    await world.kube.create(
        "Namespace", "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other.namespace}}
    )
    await other.act(EnsureRouter())  # nobody runs its pods here: it never stops rolling

    def observer(shifts: str = "") -> Observer:
        return Observer(
            world.kube,
            world.clock,
            world.rendering(),
            lambda _namespace, _name: 1,
            shifting=lambda _namespace, _name: shifts,
            namespaces=(world.namespace, other.namespace),
        )

    assert (await world.look(observer())).router.held == "", "it is current: nobody asks"
    world.longest_seconds = 900  # streams are let end for longer than the shorter steps
    assert (await world.look(observer())).router.held == f"the router of namespace {other.namespace} is being replaced"
    await _has_rolled(other)
    assert (await world.look(observer())).router.held == ""
    assert (await world.look(observer("fraud"))).router.held == "Endpoint fraud shifts traffic"


async def _has_rolled(world: World) -> None:
    deployment = await world.get("Deployment", ROUTER)
    count = deployment["spec"]["replicas"]
    status = {"observedGeneration": deployment["metadata"]["generation"]}
    status |= dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count)
    await set_status(world.kube, deployment, status)


async def test_pods_of_the_deployment_before_do_not_count(world: World) -> None:
    """A fleet that was deleted and is made again has the same name, and for seconds both have ready pods."""
    action = world.fleet()
    await world.act(action)
    await world.fleet_pod(action.name)
    (before,) = (await world.look()).fleets
    assert before.ready == 1
    await world.act(DeleteFleet(action.name, before.uid), action)
    (fleet,) = (await world.look()).fleets
    assert (fleet.ready, fleet.candidate) == (0, None)
    await world.fleet_pod(action.name)
    labels = {LABEL_FLEET: action.name, "sluice.dev/endpoint": world.name}
    (forged,) = await create(world.kube, pod_manifest("forged", world.namespace, labels))
    await make_ready(world.kube, forged)
    (fleet,) = (await world.look()).fleets
    assert fleet.ready == 1
    assert fleet.strangers == ()


async def test_what_a_fleet_has_for_life_is_asked_for_once_a_minute(world: World, telemetry: Telemetry) -> None:
    """Its Service, its record, and whose its ReplicaSets are; pods, routes and routers are read by every look."""
    beside = {("list", kind) for kind in ("Service", "ConfigMap", "ReplicaSet")}
    observer = world.observer()

    async def asked() -> set[tuple[str, str]]:
        telemetry.kube.clear()
        await world.look(observer)
        return {(verb, kind) for verb, kind, _ in telemetry.kube} & beside

    action = world.fleet()
    await world.act(action, EnsureRouter())
    await world.router_pods(1)
    await world.fleet_pod(action.name)
    assert await asked() == beside
    (fleet,) = (await world.look(observer)).fleets
    assert fleet.candidate is not None
    assert await asked() == {("list", "ConfigMap")}, "there is no record yet"
    await world.act(RecordFleet(action.name, fleet.candidate))
    assert await asked() == {("list", "ConfigMap")}
    assert await asked() == set()
    await world.fleet_pod(action.name)
    assert await asked() == set(), "of a ReplicaSet that is known"
    await world.router_pods(1)
    assert await asked() == {("list", "ReplicaSet")}, "of one that is not"

    await world.kube.delete("Service", world.namespace, action.name)
    assert (await world.look(observer)).fleets[0].reachable, "believed for a minute"
    await world.clock.step(61)
    assert not (await world.look(observer)).fleets[0].reachable
    await world.act(action)
    assert (await world.look(observer)).fleets[0].reachable, "what was found missing is looked for again"


async def test_a_fleet_that_is_made_again_is_not_held_to_the_memory_of_the_one_before(world: World) -> None:
    action, observer = world.fleet(), world.observer()
    await world.act(action)
    await world.fleet_pod(action.name)
    (before,) = (await world.look(observer)).fleets
    assert before.candidate is not None
    await world.act(RecordFleet(action.name, before.candidate))
    (before,) = (await world.look(observer)).fleets
    assert before.record is not None
    await world.act(DeleteFleet(action.name, before.uid), action)
    (fleet,) = (await world.look(observer)).fleets
    assert (fleet.record, fleet.ready, fleet.reachable) == (None, 0, True)
