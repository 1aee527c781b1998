"""One pass: status before action, one action set under the Lease, nothing twice, nothing without permission."""

from dataclasses import replace
from typing import Any

import pytest
from tests.controller.objects import model
from tests.controller.pass_world import ALLOWED, KEY, World

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.controller.cache import Source
from sluice.controller.queue import Unfinished
from sluice.controller.reconcile_endpoint import ACT_WITHIN_SECONDS, AFTER_FAILURE_SECONDS
from sluice.core.observation import CallProblem
from sluice.core.permission import Policy
from sluice.ports.kube import Forbidden, KubeUnavailable, Rejected


async def test_an_endpoint_is_created_once_and_is_then_left_alone(world: World) -> None:
    await world.run_until_ready()
    assert world.aws.acts == ["EnsureModel", "EnsureEndpointConfig", "CreateEndpoint"]
    assert names.FINALIZER in world.object["metadata"]["finalizers"]
    assert names.EXTERNAL in world.object["metadata"]["annotations"]
    await world.run(4)
    before = world.kube.writes(), world.aws.acts
    await world.run(5)
    assert (world.kube.writes(), world.aws.acts) == before, "steady: no writes"
    assert world.outcomes()["unchanged"] >= 5


async def test_the_pin_and_the_status_are_written_before_the_first_call(world: World) -> None:
    seen: list[tuple[str, bool]] = []

    def look() -> None:
        annotations = world.object["metadata"].get("annotations") or {}
        intent = (world.status.get("intent") or {}).get("operation", "")
        seen.append((intent, names.EXTERNAL in annotations))

    world.aws.before_act = look
    await world.run_until_ready()
    assert seen
    assert set(seen) == {("CreateEndpoint", True)}


async def test_events_come_after_the_status_and_once(world: World) -> None:
    await world.run_until_ready()
    await world.run(3)
    await world.events.flush()
    reasons = [reason for _, reason, _ in world.kube.events]
    assert reasons.count("Ready") == 1


@pytest.mark.parametrize(
    "rules",
    [[], [{"namespaces": ["other"]}], [{"namespaces": ["team"], "regions": ["us-*"]}]],
)
async def test_what_the_policy_does_not_permit_makes_no_call_at_all(rules: list[dict[str, Any]]) -> None:
    world = World({"rules": rules})
    await world.run(3)
    assert world.aws.calls == []
    assert world.condition("Stalled") == ("True", "NotPermitted")


async def test_what_the_policy_permits_no_more_is_watched_no_more(world: World) -> None:
    await world.run_until_ready()
    assert world.aws.forgotten == []
    world.policy = Policy.parse({"rules": []})
    await world.run(2)
    assert world.condition("Stalled") == ("True", "NotPermitted")
    assert set(world.aws.forgotten) == {KEY}


async def test_an_account_that_is_not_permitted_is_asked_for_its_number_only() -> None:
    world = World({"rules": [{"namespaces": ["team"], "accounts": ["999999999999"]}]})
    again = await world.run(2)
    assert set(world.aws.calls) == {"account"}
    assert again is not None, "nothing else tells when the credentials become another's"
    world.aws.account = "999999999999"
    await world.clock.step(again)
    await world.run_until_ready()


@pytest.mark.parametrize("deleted", [False, True], ids=["serves", "is-deleted"])
async def test_credentials_that_were_another_accounts_for_a_while_are_noticed_when_they_are_back(deleted: bool) -> None:
    world = World({"rules": [{"namespaces": ["team"], "accounts": ["111122223333"]}]})
    await world.run_until_ready()
    world.aws.account = "999999999999"
    if deleted:
        item = world.object
        item["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"
        world.feed.seen(world.kube.put(item), Source.WATCH)
    again = await world.run(2)
    assert world.condition("Stalled") == ("True", "PlacementChanged")
    assert KEY in world.aws.forgotten, "no watch wakes it"
    assert again is not None
    world.aws.account = "111122223333"
    await world.clock.step(again)
    if deleted:
        await world.run(3)
        assert "DeleteEndpoint" in world.aws.acts
    else:
        await world.run_until_ready()


async def test_without_the_lease_nothing_is_done(world: World) -> None:
    world.lease.is_held = False
    again = await world.run(5)
    assert again
    assert isinstance(again, Unfinished), "an alarm that has fired keeps its place"
    assert world.aws.acts == []
    assert names.FINALIZER not in world.object["metadata"].get("finalizers", [])
    world.lease.is_held = True
    await world.run_until_ready()
    assert world.aws.acts == ["EnsureModel", "EnsureEndpointConfig", "CreateEndpoint"]


async def test_the_lease_lost_in_the_middle_of_an_action_set_stops_it(world: World) -> None:
    def lose() -> None:
        world.lease.is_held = False

    world.aws.before_act = lose
    await world.run(6)
    assert world.aws.acts == ["EnsureModel"]


async def test_a_process_that_was_paused_after_the_persist_does_not_act(world: World) -> None:
    await world.run(1)  # the pin

    def pause() -> None:
        world.lease.when_asked = lambda: None
        world.clock.skip(ACT_WITHIN_SECONDS + 0.1)

    world.lease.when_asked = pause
    assert await world.run(1) == 0
    assert world.aws.acts == []
    await world.run_until_ready()
    assert world.aws.acts.count("CreateEndpoint") == 1


async def test_what_becomes_of_a_call_nobody_tells_so_the_next_pass_comes_at_once(world: World) -> None:
    await world.run(1)
    assert await world.run(1) == 0
    assert world.aws.acts[-1] == "CreateEndpoint"


async def test_calls_that_take_long_do_not_void_the_ones_after_them(world: World) -> None:
    await world.run(1)
    world.aws.before_act = lambda: world.clock.skip(ACT_WITHIN_SECONDS + 0.1)
    await world.run(1)
    assert world.aws.acts == ["EnsureModel", "EnsureEndpointConfig", "CreateEndpoint"]


async def test_a_status_that_somebody_changed_meanwhile_voids_the_pass(world: World) -> None:
    def edit() -> None:
        item = world.kube.objects["Endpoint", "team", "churn"]
        item["metadata"]["annotations"] = {**(item["metadata"].get("annotations") or {}), "x": "y"}
        world.kube.put(item)

    await world.run(1)
    world.kube.before["replace_status"] = [edit]
    again = await world.run(1)
    assert again == 0.2
    assert world.aws.acts == []
    await world.run_until_ready()
    assert world.aws.acts.count("CreateEndpoint") == 1


async def test_a_failed_action_stops_the_set_and_is_told_to_the_next_pass(world: World) -> None:
    quota = CallProblem("CreateEndpoint", Reason.QUOTA_EXCEEDED, "no more instances", transient=True)
    world.aws.fail["CreateEndpoint"] = quota
    again = [await world.run() for _ in range(4)]
    assert AFTER_FAILURE_SECONDS in again, "nothing else would bring the next pass"
    after = again[again.index(AFTER_FAILURE_SECONDS) :]
    assert [type(one) for one in after] == [Unfinished] * len(after), "an alarm that has fired keeps its place"
    assert world.status["problem"]["reason"] == "QuotaExceeded"
    assert "CreateEndpoint" not in world.aws.acts
    world.aws.fail.clear()
    for _ in range(30):
        if world.aws.endpoint is not None:
            break
        await world.clock.step(await world.run() or 60)
    await world.run_until_ready()
    assert world.aws.acts.count("CreateEndpoint") == 1


async def test_an_unreachable_api_server_ends_the_pass_with_an_error_for_the_queue(world: World) -> None:
    world.kube.away = True
    with pytest.raises(KubeUnavailable):
        await world.run(1)
    assert world.outcomes()["failed"] == 1
    assert world.aws.acts == []


async def test_a_lost_status_is_recovered_without_any_write_to_aws(world: World) -> None:
    await world.run_until_ready()
    acts = list(world.aws.acts)
    item = world.object
    item.pop("status")
    world.feed.seen(world.kube.put(item), Source.WATCH)
    assert KEY in world.woken
    for _ in range(6):
        await world.clock.step(await world.run() or 0)
    assert world.condition("Ready")[0] == "True"
    assert [act for act in world.aws.acts[len(acts) :] if not act.startswith("SyncTags")] == []


async def test_a_status_that_is_none_counts_as_lost(world: World) -> None:
    item = world.object
    item["status"] = {"conditions": "broken"}
    world.feed.seen(world.kube.put(item), Source.WATCH)
    await world.run_until_ready()


async def test_a_status_of_a_newer_operator_is_left_alone(world: World) -> None:
    item = world.object
    item["status"] = {"formatVersion": 99}
    world.feed.seen(world.kube.put(item), Source.WATCH)
    assert await world.run(3) is None
    assert world.kube.writes() == []
    assert world.aws.calls == []


async def test_a_backend_that_is_not_there_calls_nothing(world: World) -> None:
    item = world.object
    item["spec"]["backend"] = "Cluster"
    item["metadata"]["generation"] = 2
    world.feed.seen(world.kube.put(item), Source.WATCH)
    await world.run(2)
    assert world.aws.calls == []
    assert world.condition("Stalled") == ("True", "BackendNotAvailable")


async def test_deleting_an_endpoint_takes_the_finalizer_away_last_and_forgets_it(world: World) -> None:
    await world.run_until_ready()
    item = world.object
    item["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z"
    world.feed.seen(world.kube.put(item), Source.WATCH)
    for _ in range(12):
        if ("Endpoint", "team", "churn") not in world.kube.objects:
            break
        if "DeleteEndpoint" in world.aws.acts:
            world.aws.endpoint = None
        await world.clock.step(await world.run() or 0)
    assert ("Endpoint", "team", "churn") not in world.kube.objects
    assert world.cache.get("Endpoint", "team", "churn") is None
    assert world.aws.forgotten
    assert [kind for kind, _, _ in world.kube.objects if kind == "ControllerRevision"] == []
    assert await world.run(1) is None
    assert world.outcomes()["gone"] == 1


@pytest.mark.parametrize("part", ["labels", "annotations", "data"])
async def test_a_kept_revision_that_somebody_changed_is_told_and_not_stored_again_and_again(part: str) -> None:
    """`kubectl label controllerrevision ... sluice.dev/managed-by-`: the watch says that it is gone, creating it says
    that it is there, and nothing would ever change that."""
    other, world = World(ALLOWED), World(ALLOWED)
    await other.run_until_ready()
    kept = next(item for (kind, _, _), item in other.kube.objects.items() if kind == "ControllerRevision")
    place = "ControllerRevision", "team", kept["metadata"]["name"]
    (kept if part == "data" else kept["metadata"])[part] = {"sluice.dev/endpoint": "other"}
    kept = world.kube.put(kept)
    if part == "labels":
        world.feed.gone(kept, Source.WATCH)
    delays = []
    for _ in range(10):
        delays.append(await world.run())
        await world.clock.step(delays[-1] or 0)
    assert min(delay for delay in delays[-4:] if delay is not None) >= 1
    problem = world.status["problem"]
    assert (problem["operation"], problem["reason"]) == ("StoreRevision", "RejectedByKubernetes")
    assert "delete it" in problem["message"]
    await world.kube.delete(*place)
    for _ in range(20):
        await world.clock.step(await world.run() or 0)
    assert world.kube.objects[place]["data"]
    assert "problem" not in world.status
    assert world.condition("Ready")[0] == "True"


@pytest.mark.parametrize(
    ("failure", "reason", "stalled"),
    [
        (Forbidden('controllerrevisions "x" is forbidden: exceeded quota: objects'), Reason.QUOTA_EXCEEDED, True),
        (Rejected("admission webhook denied the request"), Reason.REJECTED_BY_KUBERNETES, True),
        (KubeUnavailable("the webhook's server does not answer"), Reason.UNREACHABLE, False),
    ],
)
async def test_a_revision_that_kubernetes_does_not_store_is_told_and_is_no_attempt(
    failure: Exception, reason: Reason, stalled: bool
) -> None:
    """Nothing was asked of SageMaker: what moves LastModifiedTime meanwhile is somebody else's doing."""
    world = World(ALLOWED)
    await world.run_until_ready()
    world.kube.refused = {("create", "ControllerRevision"): failure}
    edited = model(generation=2)
    edited["spec"]["primaryContainer"]["image"] = "registry.example/churn:2"
    world.feed.seen(world.kube.put(edited), Source.WATCH)
    said = []
    for _ in range(12):
        try:
            await world.clock.step(await world.run() or 60)
        except (Forbidden, Rejected, KubeUnavailable):
            await world.clock.step(10)  # the queue's backoff
        assert world.aws.endpoint is not None
        world.aws.endpoint = replace(world.aws.endpoint, last_modified=world.clock.now())
        said.append(world.condition("Stalled" if stalled else "Reconciling"))
    assert "UpdateEndpoint" not in world.aws.acts
    assert "latch" not in world.status, "no rollback"
    problem = world.status["problem"]
    assert (problem["operation"], problem["reason"]) == ("StoreRevision", reason)
    assert str(failure) in problem["message"]
    assert ("True", reason) in said
    world.kube.refused.clear()
    for _ in range(20):
        if "UpdateEndpoint" in world.aws.acts:
            break
        await world.clock.step(await world.run() or 60)
    assert world.aws.acts[-3:] == ["EnsureModel", "EnsureEndpointConfig", "UpdateEndpoint"]
    assert world.status["intent"]["attempt"] == 1
