"""What changes between a pass's look and its action voids the pass, and the next one decides anew."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from prometheus_client.exposition import generate_latest
from tests.controller.objects import model
from tests.controller.pass_world import ALLOWED, KEY, World

from sluice.api import names
from sluice.controller.cache import Source
from sluice.ports.kube import Conflict, KubeUnavailable, Object


async def test_a_deployment_is_not_started_from_references_that_changed_meanwhile(world: World) -> None:
    """The Model is reverted while the pass looks at SageMaker, and the watch is late."""
    await world.run_until_ready()
    await world.run(2)

    def edit(image: str, generation: int) -> Object:
        item = {**model(), "metadata": {**model()["metadata"], "generation": generation}}
        item["spec"] = {"primaryContainer": {"image": image}}
        return world.kube.put(item)

    world.feed.seen(edit("registry.example/churn:2", 2), Source.WATCH)
    again = await world.run()
    await world.clock.step(again or 0)
    world.aws.during_observe = lambda: None if world.status["settle"] is None else _once(world, edit)
    for _ in range(4):
        await world.clock.step(await world.run() or 0)
    assert "UpdateEndpoint" not in world.aws.acts
    assert world.condition("Ready")[0] == "True"
    assert world.outcomes()["dropped"] >= 1


def _once(world: World, edit: Callable[[str, int], Object]) -> None:
    world.aws.during_observe = lambda: None
    edit("registry.example/churn:1", 3)


async def test_without_such_a_change_the_deployment_starts(world: World) -> None:
    await world.run_until_ready()
    await world.run(2)
    item = {**model(), "metadata": {**model()["metadata"], "generation": 2}}
    item["spec"] = {"primaryContainer": {"image": "registry.example/churn:2"}}
    world.feed.seen(world.kube.put(item), Source.WATCH)
    for _ in range(6):
        await world.clock.step(await world.run() or 0)
    assert world.aws.acts.count("UpdateEndpoint") == 1


async def test_an_action_that_no_status_write_precedes_is_decided_from_the_newest_state(world: World) -> None:
    """A person stops the operator (break-glass) and the watch is late."""
    world.lease.is_held = False
    await world.run(2)
    item = world.object
    item["metadata"]["annotations"] = {names.RECONCILE: names.RECONCILE_DISABLED}
    world.kube.put(item)
    world.lease.is_held = True
    before = len(world.kube.writes())
    assert await world.run(1) == 0
    assert [verb for verb, _, _ in world.kube.writes()[before:]] == []
    await world.run(3)
    assert world.condition("Stalled") == ("True", "ReconcileDisabled")
    assert names.FINALIZER not in world.object["metadata"].get("finalizers", [])


async def test_what_is_not_as_it_was_observed_voids_the_pass(world: World) -> None:
    """A site that finds something else than what the decision was made from: no problem of anybody's, look again."""

    def moved() -> None:
        world.aws.before_act = lambda: None
        raise Conflict("it changed")

    world.aws.before_act = moved
    for _ in range(12):
        again = await world.run()
        if world.outcomes().get("dropped"):
            break
        await world.clock.step(again or 0)
    assert world.outcomes()["dropped"] == 1
    assert again is not None
    assert again < 1
    assert "problem" not in world.status
    await world.run_until_ready()


async def test_credentials_that_come_to_be_of_another_account_void_the_pass(world: World) -> None:
    """Noticed between look and action: nothing is made there, and the next pass says where the endpoint lives."""

    def moved() -> None:
        if world.status.get("intent"):
            world.aws.account = "444455556666"

    world.lease.when_asked = moved
    for _ in range(12):
        again = await world.run()
        if world.aws.account == "444455556666":
            break
        await world.clock.step(again or 0)
    assert world.outcomes()["dropped"] == 1
    await world.run(2)
    assert world.aws.acts == []
    assert world.condition("Stalled") == ("True", "PlacementChanged")


async def test_references_older_than_the_status_has_seen_are_read_anew(world: World) -> None:
    await world.run_until_ready()
    newer = {**model(), "metadata": {**model()["metadata"], "generation": 3}}
    newer["spec"] = {"primaryContainer": {"image": "registry.example/churn:3"}}
    world.feed.seen(world.kube.put(newer), Source.WATCH)
    await world.run(1)
    assert {ref["generation"] for ref in world.status["observedReferences"] if ref["kind"] == "Model"} == {3}
    old = {**model(), "metadata": {**model()["metadata"], "resourceVersion": "1"}}
    world.cache._entries["Model"]["team", "model"].object = old
    world.cache._entries["Model"]["team", "model"].version = 1
    before = len(world.kube.calls)
    await world.run(1)
    assert ("get", "Model", "model") in world.kube.calls[before:]
    assert {ref["generation"] for ref in world.status["observedReferences"] if ref["kind"] == "Model"} == {3}


async def test_an_endpoint_that_goes_while_its_pass_runs_leaves_nothing_behind(world: World) -> None:
    """Somebody takes its finalizer away. A steady Endpoint wants no further pass, so nobody would ever tidy up."""
    await world.run_until_ready()
    for _ in range(5):
        await world.clock.step(await world.run() or 0)

    def gone() -> None:
        world.aws.during_observe = lambda: None
        item = world.kube.objects.pop(("Endpoint", "team", "churn"))
        world.feed.gone(item, Source.WATCH)
        world.aws.forgotten.clear()

    world.aws.during_observe = gone
    assert await world.run() is None
    assert b'name="churn"' not in generate_latest(world.metrics.registry)
    assert world.aws.forgotten == [KEY], "nobody asks SageMaker about it any more"


@pytest.mark.parametrize("lost", [KubeUnavailable("connection reset"), Conflict("sent twice, met itself")], ids=repr)
@pytest.mark.parametrize("answered_first", [False, True])
async def test_what_a_status_says_is_told_also_where_the_answer_to_its_write_was_lost(
    world: World, lost: Exception, *, answered_first: bool
) -> None:
    """The API server wrote it, and nobody heard: the next pass finds the status as it would have it, with nothing left
    to say."""
    undisturbed = World(ALLOWED)
    await undisturbed.run_until_ready()
    await undisturbed.events.flush()
    world.kube.lost = [*([None] if answered_first else []), *([lost, None] * 20)]
    for _ in range(30):
        with suppress(KubeUnavailable):
            await world.run()
        await world.clock.step(1.0)
    await world.events.flush()
    assert [reason for _, reason, _ in world.kube.events] == [reason for _, reason, _ in undisturbed.kube.events]
    assert "Ready" in {reason for _, reason, _ in world.kube.events}
    assert _ended(world) == _ended(undisturbed) > 0


def _ended(world: World) -> float:
    counted = (sample for family in world.metrics.registry.collect() for sample in family.samples)
    return sum(sample.value for sample in counted if sample.name == "sluice_deployments_total")
