"""Passes whose fleets somebody else scales between the look and the act: what was decided comes into force, nothing is
told, and deployments and rollbacks get on. And passes whose writes waited until the Lease was lost."""

from typing import Any

import pytest
from tests.controller.objects import endpoint_config, model
from tests.controller.pass_world import World
from tests.controller.test_pass_without_effect import Cluster
from tests.core.cluster_stage import Fleet, rolling

from sluice.api import names
from sluice.controller.cache import Source
from sluice.controller.reconcile_endpoint import AFTER_FAILURE_SECONDS
from sluice.core.cluster.actions import ScaleFleet
from sluice.core.cluster.observation import ClusterObservation
from sluice.ports.kube import NotHeld

COUNT = 4


class Scaled(Cluster):
    """A rolling deployment, and a scaler that gets in between before scales."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []
        self.meanwhile = 0

    def edit(self, image: str = "registry.example/churn:2", batch: int = 25, **annotations: str) -> None:
        item, changed = self.object, model(generation=2)
        item["spec"]["deploymentConfig"] = rolling(batch, wait=5, back=25)
        item["metadata"]["annotations"] = {**(item["metadata"].get("annotations") or {}), **annotations}
        item["metadata"]["generation"] += 1
        changed["spec"] = {"primaryContainer": {"image": image}}
        for one in (item, changed):
            self.feed.seen(self.kube.put(one), Source.WATCH)

    async def a_pass_between_scales(self, wanted: int) -> float:
        """One, with a scaler that scales what the pass is about to."""

        def scaler(action: Any) -> None:
            self.nodes.before_act = scaler
            if isinstance(action, ScaleFleet):
                fleet = self.stage.cluster.fleets[action.name]
                if wanted != fleet.replicas:
                    self.meanwhile += 1
                    self.stage.scale(fleet, wanted)

        self.nodes.before_act = scaler
        again = await self.a_pass()
        self.nodes.before_act = lambda action: None
        self.told.append(self.status.get("problem"))
        return again

    @property
    def fleets(self) -> list[Fleet]:
        return list(self.stage.cluster.fleets.values())


@pytest.fixture
async def scaled() -> Scaled:
    world = Scaled()
    await world.in_service()
    more = endpoint_config(generation=2)
    more["spec"]["productionVariants"][0]["initialInstanceCount"] = COUNT
    world.feed.seen(world.kube.put(more), Source.WATCH)
    for _ in range(20):
        await world.a_pass()
    assert [fleet.ready for fleet in world.fleets] == [COUNT]
    return world


async def test_what_a_scaler_makes_of_a_fleet_between_look_and_act_is_no_growth(scaled: Scaled) -> None:
    """Half of the load has just left: it takes one of four away in the moment in which the batch takes two. Taken for
    growth under the batch's share, it would be six."""
    scaled.edit(batch=50)
    most = 0
    for _ in range(400):
        await scaled.a_pass_between_scales(COUNT - 1)
        old = [fleet.replicas for fleet in scaled.fleets if fleet.image == "registry.example/churn:1"]
        most = max(most, *old, 0)
        if [fleet.image for fleet in scaled.fleets] == ["registry.example/churn:2"]:
            break
    assert scaled.meanwhile
    assert [fleet.image for fleet in scaled.fleets] == ["registry.example/churn:2"]
    assert most == COUNT
    assert set(scaled.told) == {None}


async def test_a_rollback_ends_although_a_scaler_comes_before_each_of_its_scales(scaled: Scaled) -> None:
    scaled.edit()
    for _ in range(200):
        await scaled.a_pass()
        running = scaled.status.get("deployment") or {}
        if running.get("trafficPercent") and running.get("step") == 2:
            break
    serving = scaled.status["revision"]["name"]
    scaled.edit(**{names.ROLLBACK: serving})
    for number in range(600):
        await scaled.a_pass_between_scales(1 + number % 2)
        if not scaled.status.get("deployment"):
            break
    [fleet] = scaled.fleets
    assert fleet.image == "registry.example/churn:1"
    assert fleet.ready == fleet.replicas >= COUNT
    assert scaled.meanwhile
    assert set(scaled.told) == {None}


async def test_a_write_that_waited_until_the_lease_was_lost_voids_the_pass(scaled: Scaled) -> None:
    acted = []

    async def fenced(_owner: Any, action: Any, _seen: ClusterObservation) -> None:
        acted.append(action)
        raise NotHeld("the lease is not held")

    usual, scaled.nodes.act = scaled.nodes.act, fenced  # type: ignore[method-assign]
    scaled.edit()
    for _ in range(20):
        again = await scaled.a_pass()
        if acted:
            break
    assert again == AFTER_FAILURE_SECONDS
    scaled.nodes.act = usual  # type: ignore[method-assign]
    await scaled.a_pass()
    assert "problem" not in scaled.status


@pytest.mark.parametrize("call", [("replace_status", "Endpoint"), ("create", "ControllerRevision")])
async def test_a_status_or_a_revision_that_waited_as_long_is_not_told_either(
    world: World, call: tuple[str, str]
) -> None:
    world.kube.refused = {call: NotHeld("the lease is not held")}
    agains = [await world.run() for _ in range(6)]
    assert agains[-1] == AFTER_FAILURE_SECONDS
    assert world.aws.acts == []
    world.kube.refused.clear()
    await world.run_until_ready()
    assert world.aws.acts == ["EnsureModel", "EnsureEndpointConfig", "CreateEndpoint"]
    assert "problem" not in world.status
