"""Routers are replaced one namespace at a time, also where the passes of many namespaces run at the same time, as after
an upgrade. Without an API server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import pytest
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube

from sluice.cluster.backend import KubernetesBackend
from sluice.cluster.rendering import Installation, Rendering
from sluice.cluster.router import RouterSettings
from sluice.cluster.template import FleetDefaults
from sluice.cluster.turns import LONG_SECONDS, RouterTurns
from sluice.core.cluster.actions import EnsureRouter
from sluice.core.cluster.names import ROUTER
from sluice.core.cluster.observation import ClusterObservation, RouterDeployment
from sluice.core.identity import Owner
from sluice.core.instance_types import parse
from sluice.core.resolve import Resolution
from sluice.ports.kube import Conflict, Object

SPACES = ("a", "b", "c")


class Selecting(MemoryKube):
    """Heeds label selectors, takes its time, and counts generations."""

    async def list(self, kind: str, namespace: str | None = None, label_selector: str = "") -> AsyncIterator[Object]:
        wanted = dict(part.split("=") for part in label_selector.split(",") if "=" in part)
        await asyncio.sleep(0)  # others go on meanwhile, as with a real one
        async for item in super().list(kind, namespace, label_selector):
            if wanted.items() <= (item["metadata"].get("labels") or {}).items():
                yield item

    async def replace(self, kind: str, namespace: str, body: Mapping[str, Any]) -> Object:
        metadata = {**body["metadata"], "generation": body["metadata"].get("generation", 1) + 1}
        return await super().replace(kind, namespace, {**body, "metadata": metadata})


class Upgrade:
    """Three namespaces whose routers an older operator made, and the backend of the new one."""

    def __init__(self) -> None:
        self.kube, self.clock = Selecting(), SteppedClock()

    def backend(self, image: str) -> KubernetesBackend:
        types = parse(None)
        made = Rendering(
            Installation("prod", FleetDefaults("operator:1"), RouterSettings(image)), lambda: types, lambda _space: 60
        )
        return KubernetesBackend(self.kube, self.clock, made, lambda _space, _name: 1, lambda _space, _name: "", ())

    async def before(self) -> None:
        for space in SPACES:
            await self.backend("router:1").act(Owner("prod", space, "churn"), EnsureRouter(), ClusterObservation())
            self.has_rolled(space)

    def has_rolled(self, space: str, *, available: int | None = None) -> None:
        """What the Deployment's controller says when all pods are of the newest template, and so many are there."""
        deployment = self.kube.objects["Deployment", space, ROUTER]
        count = deployment["spec"]["replicas"]
        status = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count)
        deployment["status"] = {**status, "observedGeneration": deployment["metadata"].setdefault("generation", 1)}
        if available is not None:
            deployment["status"]["availableReplicas"] = available

    def is_stuck(self, space: str) -> None:
        """As above, where the one new pod that was made does not come up."""
        self.has_rolled(space)
        self.kube.objects["Deployment", space, ROUTER]["status"].update(replicas=3, updatedReplicas=1)

    def has_no_room(self, space: str) -> None:
        """As above, where a scaler wants more pods of the template than the quota admits."""
        self.has_rolled(space)
        self.kube.objects["Deployment", space, ROUTER]["spec"]["replicas"] += 3

    def replaced(self) -> list[str]:
        images = {
            space: self.kube.objects["Deployment", space, ROUTER]["spec"]["template"]["spec"]["containers"][0]["image"]
            for space in SPACES
        }
        return [space for space, image in images.items() if image == "router:2"]


@pytest.fixture
async def upgrade() -> Upgrade:
    made = Upgrade()
    await made.before()
    return made


async def look(backend: KubernetesBackend, space: str) -> RouterDeployment:
    owner = Owner("prod", space, "churn")
    sight = await backend.observe({"metadata": {"name": "churn", "namespace": space}}, Resolution(owner=owner), ())
    assert sight.seen is not None, sight.problem
    return sight.seen.router


async def one_pass(backend: KubernetesBackend, space: str) -> None:
    """A steady Endpoint's pass, as far as the router goes."""
    router = await look(backend, space)
    await asyncio.sleep(0)  # it decides and persists
    if not router.current and not router.held:
        with suppress(Conflict):
            await backend.act(Owner("prod", space, "churn"), EnsureRouter(update=True), ClusterObservation())


async def test_passes_at_the_same_time_replace_one_router(upgrade: Upgrade) -> None:
    backend = upgrade.backend("router:2")
    for turn in range(1, len(SPACES) + 1):
        for _ in range(3):
            await asyncio.gather(*(one_pass(backend, space) for space in SPACES))
            assert len(upgrade.replaced()) == turn, "the others wait until it has rolled"
        upgrade.clock.skip(60)
        for space in upgrade.replaced():
            upgrade.has_rolled(space)
    assert [(await look(backend, space)).current for space in SPACES] == [True] * 3


async def test_a_look_from_before_anothers_turn_is_void(upgrade: Upgrade) -> None:
    backend = upgrade.backend("router:2")
    assert [(await look(backend, space)).held for space in ("a", "b")] == ["", ""]
    await backend.act(Owner("prod", "a", "churn"), EnsureRouter(update=True), ClusterObservation())
    assert (await look(backend, "b")).held == "the router of namespace a is being replaced"
    with pytest.raises(Conflict):  # what another pass of the namespace saw before
        await backend.act(Owner("prod", "b", "churn"), EnsureRouter(update=True), ClusterObservation())
    upgrade.has_rolled("a")
    upgrade.clock.skip(60)
    assert (await look(backend, "b")).held == ""
    await backend.act(Owner("prod", "b", "churn"), EnsureRouter(update=True), ClusterObservation())
    assert upgrade.replaced() == ["a", "b"]


async def test_of_namespaces_that_nobody_looks_at_any_more_nothing_is_remembered(upgrade: Upgrade) -> None:
    backend, turns = upgrade.backend("router:1"), RouterTurns(monotonic=upgrade.clock.monotonic)
    for space in SPACES:
        await look(backend, space)
        turns.looked(space, since=0, free=True)
    assert backend._observer._complete.keys() == turns._free.keys() == set(SPACES)
    upgrade.clock.skip(LONG_SECONDS)
    await look(backend, "a")
    turns.looked("a", since=0, free=True)
    assert backend._observer._complete.keys() == turns._free.keys() == {"a"}


async def test_those_who_wait_do_not_all_list_every_router(upgrade: Upgrade) -> None:
    backend = upgrade.backend("router:2")
    await one_pass(backend, "a")
    await look(backend, "b")
    before = len(upgrade.kube.calls)
    for _ in range(10):
        assert (await look(backend, "c")).held
    assert [call for call in upgrade.kube.calls[before:] if call == ("list", "Deployment", "")] == []


async def test_a_router_that_lacks_a_pod_holds_the_others_up_only_where_the_upgrade_may_be_why(
    upgrade: Upgrade,
) -> None:
    """A node too few in one namespace must not keep all others on the old version, in silence and for ever."""
    backend = upgrade.backend("router:2")
    upgrade.has_rolled("c", available=1)
    assert (await look(backend, "a")).held == ""
    await one_pass(backend, "a")
    upgrade.has_rolled("a", available=1)
    assert (await look(backend, "b")).held == "the router of namespace a is being replaced"
    upgrade.has_rolled("a")
    upgrade.clock.skip(60)
    assert (await look(backend, "b")).held == ""


async def test_routers_that_are_stuck_do_not_wait_for_each_other(upgrade: Upgrade) -> None:
    """Older operators replaced several at once. Where what they brought does not start, what mends it must reach all of
    them: each waited for the other, for ever."""
    for space in ("a", "b"):
        upgrade.is_stuck(space)
    backend = upgrade.backend("router:2")
    assert (await look(backend, "c")).held_by == "a", "whose router is whole waits"
    for _ in range(2):
        for space in ("a", "b"):
            await one_pass(backend, space)
    assert upgrade.replaced() == ["a", "b"]


async def test_routers_whose_scaler_finds_no_room_keep_no_other_waiting(upgrade: Upgrade) -> None:
    for space in ("a", "b"):
        upgrade.has_no_room(space)
    backend = upgrade.backend("router:2")
    assert [(await look(backend, space)).held_by for space in SPACES] == [""] * 3


async def test_a_router_that_holds_up_the_others_for_long_is_named_once(
    upgrade: Upgrade, caplog: pytest.LogCaptureFixture
) -> None:
    """Every Endpoint goes on being Ready meanwhile: nothing else says that an upgrade has come to a stand."""
    caplog.set_level(logging.INFO, "sluice.cluster")
    backend = upgrade.backend("router:2")

    async def wait(seconds: int) -> None:
        for _ in range(seconds // 30):
            upgrade.clock.skip(30)
            for space in ("b", "c"):
                assert (await look(backend, space)).held_by == "a"
            await look(backend, "a")

    await one_pass(backend, "a")
    upgrade.has_rolled("a", available=1)
    await wait(int(LONG_SECONDS) - 30)
    assert caplog.messages == []
    await wait(600)
    (message,) = caplog.messages
    assert "the router of namespace a" in message
    assert "kubectl rollout status -n a deployment/sluice-router" in message
    upgrade.has_rolled("a")
    upgrade.clock.skip(600)
    for space in ("b", "c"):
        assert (await look(backend, space)).held_by == ""
    upgrade.has_rolled("a", available=1)
    await wait(int(LONG_SECONDS) - 30)
    assert len(caplog.messages) == 1, "it is another time"
    await wait(60)
    assert len(caplog.messages) == 2
