"""Actions that succeed and change nothing: the passes that repeat them come ever more seldom, and those that get on
are not slowed down."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.controller.objects import endpoint, endpoint_config, model
from tests.controller.pass_world import ALLOWED, World
from tests.core.cluster_stage import ClusterStage, blue_green

from sluice.api import names
from sluice.controller.cache import Source
from sluice.controller.cluster_metrics import ClusterMetrics
from sluice.controller.reconcile_endpoint import (
    LONGEST_PAUSE_SECONDS,
    EndpointReconciler,
    EndpointSettings,
)
from sluice.controller.sites import ClusterSite
from sluice.controller.slots import Slots
from sluice.controller.wakes import Wakes
from sluice.core.cluster.actions import EnsureFleet, EnsureRouter
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.cluster.peers import Bounds
from sluice.core.endpoint.draft import DecideSettings
from sluice.core.resolve import ResolveSettings
from sluice.ports.backend import ClusterSight
from sluice.ports.kube import Conflict


class Nodes:
    """ports.backend.ClusterBackend over the stage's cluster. `in_vain`: actions that the API server takes, and nothing
    becomes of them."""

    def __init__(self, stage: ClusterStage) -> None:
        self.stage = stage
        self.in_vain: Callable[[Any], bool] = lambda action: False
        self.conflicts = False
        self.before_act: Callable[[Any], None] = lambda action: None
        """Runs once, before the next action."""
        self.looks = 0

    async def observe(self, *_: Any) -> ClusterSight:
        self.looks += 1
        seen = self.stage.observe()
        fleets = tuple(replace(f, candidate=None) if f.record is not None else f for f in seen.fleets)
        return ClusterSight(replace(seen, fleets=fleets))

    async def act(self, _owner: Any, action: Any, seen: ClusterObservation) -> None:
        before, self.before_act = self.before_act, lambda action: None
        before(action)
        if not self.in_vain(action):
            self.stage.do(action)
        elif self.conflicts:
            raise Conflict("another namespace's router was replaced since this one's turn was looked for")


class Cluster(World):
    """An Endpoint in the cluster and its passes."""

    def __init__(self) -> None:
        super().__init__(ALLOWED)
        self.stage = ClusterStage()
        self.stage.now = self.clock.now()
        self.nodes = Nodes(self.stage)
        site = ClusterSite(
            self.nodes,
            self.cache,
            self.clock,
            Wakes(self.cache, lambda key: None, lambda key, seconds: None),
            Slots(self.cache, Bounds(), lambda key: None),
            ClusterMetrics(CollectorRegistry(), self.clock),
        )
        self.reconciler = EndpointReconciler(
            self.kube,
            self.cache,
            self.feed,
            {"Cluster": site},
            self.lease,
            self.clock,
            self.events,
            self.metrics,
            lambda: self.policy,
            EndpointSettings(ResolveSettings("prod", "eu-west-1"), DecideSettings()),
        )
        self.feed.connect(self.woken.append, self.reconciler.forget)
        item = endpoint(creationTimestamp="2026-01-01T00:00:00Z")
        item["spec"]["backend"] = names.BACKEND_CLUSTER
        for one in (model(), endpoint_config(), item):
            self.feed.seen(self.kube.put(one), Source.WATCH)

    async def a_pass(self) -> float:
        """One, and the time until the next."""
        again = await self.run()
        assert again is not None
        await self.pass_time(again)
        return again

    async def pass_time(self, seconds: float) -> None:
        await self.clock.step(seconds)
        self.stage.tick(seconds)

    async def passes_in(self, seconds: float, most: int = 300) -> int:
        """How many there are in so many seconds, if nothing wakes the Endpoint."""
        until, count = self.clock.monotonic() + seconds, 0
        while self.clock.monotonic() < until and count < most:
            await self.a_pass()
            count += 1
        return count

    async def in_service(self) -> float:
        """Seconds until it is."""
        begun = self.clock.monotonic()
        for _ in range(60):
            await self.a_pass()
            if self.status.get("endpointStatus") == "InService":
                return self.clock.monotonic() - begun
        raise AssertionError(self.status)

    def lose_service(self) -> None:
        """A fleet's Service is being deleted, and somebody's finalizer holds it: it does not stand, and exists."""
        for fleet in self.stage.cluster.fleets.values():
            fleet.reachable = False
        self.nodes.in_vain = lambda action: isinstance(action, EnsureFleet)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def test_a_service_that_goes_and_does_not_go_away_makes_no_hot_loop(cluster: Cluster) -> None:
    await cluster.in_service()
    cluster.lose_service()
    assert await cluster.passes_in(600) < 40
    assert await cluster.a_pass() == LONGEST_PAUSE_SECONDS
    assert cluster.nodes.looks < 100


async def test_when_it_is_gone_the_next_pass_mends_it_and_is_followed_at_once(cluster: Cluster) -> None:
    await cluster.in_service()
    cluster.lose_service()
    await cluster.passes_in(600)
    cluster.nodes.in_vain = lambda action: False
    await cluster.run()
    assert all(fleet.reachable for fleet in cluster.stage.cluster.fleets.values())
    await cluster.run()
    cluster.lose_service()
    assert await cluster.run() == 0, "it is another time: it begins with a pass at once"


async def test_a_router_that_is_not_found_though_it_stands_makes_no_hot_loop(cluster: Cluster) -> None:
    """Its Deployment lost its label: it is not listed, and asking for it says that all of it is there."""
    await cluster.in_service()
    cluster.nodes.in_vain = lambda action: isinstance(action, EnsureRouter)
    cluster.stage.cluster.router_exists, cluster.stage.cluster.routers = False, []
    assert await cluster.passes_in(600) < 40


async def test_a_turn_that_never_comes_makes_no_hot_loop(cluster: Cluster) -> None:
    """As above, where the act is refused as not being as it was observed, again and again."""
    await cluster.in_service()
    cluster.nodes.in_vain, cluster.nodes.conflicts = lambda action: isinstance(action, EnsureRouter), True
    cluster.stage.router_outdated = ""
    assert await cluster.passes_in(600) < 40


async def test_the_pauses_grow(cluster: Cluster) -> None:
    await cluster.in_service()
    cluster.lose_service()
    assert await cluster.a_pass() == 0, "it has something to say"
    assert [await cluster.a_pass() for _ in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


async def test_what_is_seen_to_move_is_followed_at_once(cluster: Cluster) -> None:
    await cluster.in_service()
    cluster.lose_service()
    await cluster.passes_in(100)
    [fleet] = cluster.stage.cluster.fleets.values()
    fleet.ready -= 1
    assert await cluster.run() == 0


async def test_a_bake_ends_when_it_does(cluster: Cluster) -> None:
    """Nothing but time moves; a fleet that cannot be mended must not put the next step off."""
    await cluster.in_service()
    await _deploy(cluster, wait=45)
    until = datetime.fromisoformat(cluster.status["deployment"]["bakeUntil"])
    cluster.lose_service()
    began, longest = cluster.clock.now(), 0.0
    while cluster.status["deployment"].get("bakeUntil"):
        began = cluster.clock.now()
        longest = max(longest, await cluster.a_pass())
    assert longest > 10
    assert timedelta() <= began - until <= timedelta(seconds=1)


async def _deploy(cluster: Cluster, wait: int) -> None:
    """A deployment has begun to bake."""
    item = cluster.object
    item["spec"]["deploymentConfig"] = blue_green(final=wait)
    item["metadata"]["generation"] += 1
    changed = model(generation=2)
    changed["spec"] = {"primaryContainer": {"image": "registry.example/churn:2"}}
    for one in (item, changed):
        cluster.feed.seen(cluster.kube.put(one), Source.WATCH)
    for _ in range(100):
        again = await cluster.run() or 0.0
        if (cluster.status.get("deployment") or {}).get("bakeUntil"):
            return
        await cluster.pass_time(again)
    raise AssertionError(cluster.status)


async def test_ordinary_progress_is_not_slowed_down(cluster: Cluster) -> None:
    """Every pass until it is in service is due when the decision, or the effect of an action, says so."""
    cluster.stage.cluster.start_seconds = 10.0
    assert await cluster.in_service() <= 12
