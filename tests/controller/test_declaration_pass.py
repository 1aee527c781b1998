"""The passes of Models and EndpointConfigs: where they are in service, and who waits."""

from tests.controller.objects import model
from tests.controller.pass_world import World

from sluice.controller.cache import Source
from sluice.controller.reconcile_declaration import DeclarationReconciler
from sluice.core.identity import Key
from sluice.ports.kube import NotHeld


def _declarations(world: World) -> DeclarationReconciler:
    return DeclarationReconciler(world.kube, world.cache, world.feed, world.clock, world.metrics, patience_seconds=5.0)


async def test_declarations_say_where_they_are_in_service_and_are_written_once(world: World) -> None:
    declarations = _declarations(world)
    key = Key("Model", "team", "model")

    async def rolled_out() -> str:
        await declarations.reconcile(key)
        status = world.kube.objects["Model", "team", "model"]["status"]
        return next(c["reason"] for c in status["conditions"] if c["type"] == "RolledOut")

    assert await rolled_out() == "WaitingForEndpoints"
    await world.run_until_ready()
    assert key in world.woken, "the Endpoint's status concerns its declarations"
    assert await rolled_out() == "RolledOut"
    before = len(world.kube.writes())
    await rolled_out()
    assert len(world.kube.writes()) == before


async def test_a_declaration_is_written_under_the_lease(world: World) -> None:
    declarations, key = _declarations(world), Key("Model", "team", "model")
    world.kube.refused = {("replace_status", "Model"): NotHeld("the lease is not held")}
    again = await declarations.reconcile(key)
    assert again == 1.0
    world.kube.refused.clear()
    await declarations.reconcile(key)
    assert world.kube.objects["Model", "team", "model"]["status"]


async def test_a_declaration_says_that_it_waits_when_it_has_waited_for_a_while(world: World) -> None:
    """An edit that is in force within seconds takes one write of each status, not two."""
    declarations, key = _declarations(world), Key("Model", "team", "model")

    def rolled_out() -> str:
        status = world.kube.objects["Model", "team", "model"]["status"]
        return next(c["status"] for c in status["conditions"] if c["type"] == "RolledOut")

    async def edited(generation: int, image: str) -> None:
        item = {**model(), "metadata": {**model()["metadata"], "generation": generation}}
        item["spec"] = {"primaryContainer": {"image": image}}
        item["status"] = world.kube.objects["Model", "team", "model"].get("status")
        world.feed.seen(world.kube.put(item), Source.WATCH)

    await world.run_until_ready()
    await declarations.reconcile(key)
    before = len(world.kube.writes())
    await edited(2, "registry.example/churn:2")
    assert await declarations.reconcile(key) == 5.0
    await world.clock.step(3)
    assert await declarations.reconcile(key) == 2.0
    assert (len(world.kube.writes()), rolled_out()) == (before, "True"), "its observedGeneration is still the old one"
    await world.clock.step(2)
    assert await declarations.reconcile(key) is None
    assert (len(world.kube.writes()), rolled_out()) == (before + 1, "False")
    assert await declarations.reconcile(key) is None
    assert len(world.kube.writes()) == before + 1


async def test_a_declaration_that_changed_meanwhile_is_looked_at_again(world: World) -> None:
    declarations = _declarations(world)
    world.kube.before["replace_status"] = [lambda: world.kube.put(world.kube.objects["Model", "team", "model"])]
    key = Key("Model", "team", "model")
    assert await declarations.reconcile(key) == 0.2
    assert await declarations.reconcile(key) is None
    assert world.kube.objects["Model", "team", "model"]["status"]
