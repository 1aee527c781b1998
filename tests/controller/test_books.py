"""Notes on stored revisions that Kubernetes does not take: people are told, and everything else goes on."""

from dataclasses import replace

import pytest
from tests.controller.objects import model
from tests.controller.pass_world import KEY, World
from tests.controller.test_pass_without_effect import Cluster

from sluice.api.reasons import Reason
from sluice.controller.books import TELL_AGAIN_SECONDS
from sluice.controller.cache import CONTROLLER_REVISION, Source
from sluice.controller.reconcile_endpoint import _Memory
from sluice.core.observation import CallProblem
from sluice.core.revision import ANNOTATION_OUTCOME
from sluice.ports.kube import Forbidden, KubeUnavailable, Rejected

DENIED = Rejected('admission webhook "keep.example" denied the request: revisions may not be touched')


def marks(world: World) -> dict[str, str | None]:
    """Outcome by revision."""
    return {
        name: (item["metadata"].get("annotations") or {}).get(ANNOTATION_OUTCOME)
        for (kind, _, name), item in world.kube.objects.items()
        if kind == CONTROLLER_REVISION
    }


async def told(world: World, reason: str) -> list[str]:
    await world.events.flush()
    return [message for _, said, message in world.kube.events if said == reason]


def deploy(world: World, number: int) -> None:
    edited = model(generation=number)
    edited["spec"]["primaryContainer"]["image"] = f"registry.example/churn:{number}"
    world.feed.seen(world.kube.put(edited), Source.WATCH)


@pytest.mark.parametrize(
    "failure",
    [DENIED, Forbidden('cannot patch resource "controllerrevisions"'), KubeUnavailable("failed calling webhook")],
)
async def test_a_revision_that_may_not_be_marked_is_told_and_stops_nothing(failure: Exception) -> None:
    cluster = Cluster()
    cluster.kube.refused = {("patch", CONTROLLER_REVISION): failure}
    await cluster.in_service()
    for number in (2, 3):
        deploy(cluster, number)
        for _ in range(100):
            await cluster.a_pass()
            if {f.image for f in cluster.stage.cluster.fleets.values()} == {f"registry.example/churn:{number}"}:
                break
        else:
            raise AssertionError(cluster.status)
    for _ in range(20):
        await cluster.a_pass()
    assert cluster.condition("Ready") == ("True", "InService")
    assert "problem" not in cluster.status
    serving = cluster.status["revision"]["name"]
    [message] = [said for said in await told(cluster, "RevisionNotMarked") if serving in said]
    for part in (f"team/{serving}", "marked Succeeded", "let the operator patch it", str(failure)):
        assert part in message
    cluster.kube.refused.clear()
    await cluster.passes_in(700)
    assert marks(cluster)[serving] == "Succeeded"


@pytest.mark.parametrize(
    ("operation", "reason"),
    [("EvictRouter", Reason.ROUTER_NOT_CONVERGED), ("EnsureFleet", Reason.QUOTA_EXCEEDED)],
)
async def test_what_failed_and_is_not_needed_any_more_is_over_though_a_mark_is_refused(
    operation: str, reason: Reason
) -> None:
    cluster = Cluster()
    cluster.kube.refused = {("patch", CONTROLLER_REVISION): DENIED}
    await cluster.in_service()
    await cluster.passes_in(60)
    cluster.reconciler._memories[KEY] = _Memory(CallProblem(operation, reason, "too much", retry_after_seconds=30.0))
    for _ in range(5):
        await cluster.a_pass()
        assert cluster.condition("Ready") == ("True", "InService")
        assert cluster.condition("Stalled")[0] == "False"
        assert "problem" not in cluster.status


async def test_an_api_server_that_is_away_once_is_not_told_and_it_is_marked_soon() -> None:
    cluster = Cluster()
    cluster.kube.refused = {("patch", CONTROLLER_REVISION): KubeUnavailable("away")}
    while cluster.status.get("endpointStatus") != "InService":
        await cluster.a_pass()
    await cluster.a_pass()
    cluster.kube.refused.clear()
    await cluster.passes_in(5)
    assert set(marks(cluster).values()) == {"Succeeded"}
    assert await told(cluster, "RevisionNotMarked") == []


async def test_what_stays_refused_is_tried_seldom_and_told_every_hour() -> None:
    cluster = Cluster()
    cluster.kube.refused = {("patch", CONTROLLER_REVISION): DENIED}
    await cluster.in_service()
    for _ in range(40):
        await cluster.passes_in(TELL_AGAIN_SECONDS / 20)
    tries = cluster.kube.calls.count(("patch", CONTROLLER_REVISION, cluster.status["revision"]["name"]))
    assert 5 < tries < 25, "two hours"
    assert len(await told(cluster, "RevisionNotMarked")) == 2


async def test_a_revision_that_may_not_go_is_told_and_stops_nothing_on_sagemaker(world: World) -> None:
    await world.run_until_ready()
    world.kube.refused = {("delete", CONTROLLER_REVISION): DENIED}
    began = world.clock.monotonic()
    for number in range(2, 6):
        deploy(world, number)
        for _ in range(40):
            await world.clock.step(await world.run() or 60)
            if world.aws.acts.count("UpdateEndpoint") == number - 1:
                break
        else:
            raise AssertionError(world.status)
        assert world.aws.endpoint is not None
        config = world.status["intent"]["endpointConfigName"]
        now = world.clock.now()
        world.aws.endpoint = replace(world.aws.endpoint, endpoint_config_name=config, last_modified=now)
        for _ in range(40):
            await world.clock.step(await world.run() or 60)
    assert world.condition("Ready")[0] == "True"
    messages = await told(world, "RevisionNotDeleted")
    assert 1 <= len(messages) <= 1 + (world.clock.monotonic() - began) / TELL_AGAIN_SECONDS
    for message in messages:
        assert "cannot be deleted" in message
        assert "let the operator delete it" in message
    calls, writes, since = len(world.aws.calls), len(world.kube.calls), world.clock.monotonic()
    while world.clock.monotonic() < since + 3600:
        await world.clock.step(await world.run() or 60)
    tries = [call for call in world.kube.calls[writes:] if call[:2] == ("delete", CONTROLLER_REVISION)]
    assert 0 < world.aws.calls[calls:].count("DeleteEndpointConfig") <= len(tries), "AWS' quota is shared"
    kept = len(marks(world))
    world.kube.refused.clear()
    for _ in range(80):
        await world.clock.step(await world.run() or 60)
    assert len(marks(world)) < kept


async def test_an_endpoint_that_is_let_go_waits_for_its_revisions_and_says_so(world: World) -> None:
    """Without a call to AWS there is nothing else that would slow it down."""
    await world.run_until_ready()
    world.kube.refused = {("delete", CONTROLLER_REVISION): DENIED}
    item = world.object
    item["spec"]["deletionPolicy"] = "Retain"
    item["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"
    world.feed.seen(world.kube.put(item), Source.WATCH)
    began, before = world.clock.monotonic(), len(world.kube.calls)
    for _ in range(40):
        await world.clock.step(await world.run() or 60.0)
    tries = [call for call in world.kube.calls[before:] if call[:2] == ("delete", CONTROLLER_REVISION)]
    assert world.condition("Stalled") == ("True", "RejectedByKubernetes")
    assert (world.clock.monotonic() - began) / len(tries) > 20
    world.kube.refused.clear()
    for _ in range(40):
        if ("Endpoint", "team", "churn") not in world.kube.objects:
            break
        await world.clock.step(await world.run() or 60.0)
    assert marks(world) == {}


@pytest.mark.parametrize("backend", ["SageMaker", "Cluster"])
async def test_an_endpoint_that_is_deleted_keeps_its_finalizer_until_its_revisions_may_go(backend: str) -> None:
    """Another Endpoint of its name would take them for its own."""
    from tests.controller.pass_world import ALLOWED

    world = Cluster() if backend == "Cluster" else World(ALLOWED)
    if isinstance(world, Cluster):
        await world.in_service()
    else:
        await world.run_until_ready()
        world.aws.endpoint = None
    world.kube.refused = {("delete", CONTROLLER_REVISION): DENIED}
    item = world.object
    item["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"
    world.feed.seen(world.kube.put(item), Source.WATCH)
    for _ in range(80):
        again = await world.run() or 60.0
        await (world.pass_time(again) if isinstance(world, Cluster) else world.clock.step(again))
    assert world.object["metadata"]["finalizers"]
    assert world.status["problem"]["operation"] == "DropRevision"
    assert world.condition("Stalled") == ("True", "RejectedByKubernetes")
    world.kube.refused.clear()
    for _ in range(80):
        if ("Endpoint", "team", "churn") not in world.kube.objects:
            break
        again = await world.run() or 60.0
        await (world.pass_time(again) if isinstance(world, Cluster) else world.clock.step(again))
    assert marks(world) == {}
    assert ("Endpoint", "team", "churn") not in world.kube.objects
