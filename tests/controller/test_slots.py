"""Passes that run side by side never start more deployments than may run, whatever becomes of their writes."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube
from tests.controller.objects import endpoint
from tests.core.cluster_stage import ClusterStage, blue_green

from sluice.api import names
from sluice.api.status import EndpointStatus
from sluice.controller.cache import Cache, Source
from sluice.controller.cluster_metrics import ClusterMetrics
from sluice.controller.events import EventRecorder
from sluice.controller.feed import Feed
from sluice.controller.metrics import Metrics
from sluice.controller.reconcile_endpoint import EndpointReconciler, EndpointSettings
from sluice.controller.sites import ClusterSite
from sluice.controller.slots import Slots
from sluice.controller.wakes import Wakes
from sluice.core.cluster.actions import ClusterAction
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.cluster.peers import Bounds
from sluice.core.endpoint.draft import DecideSettings
from sluice.core.identity import Key, Owner
from sluice.core.permission import Policy
from sluice.core.resolve import Resolution, ResolveSettings
from sluice.core.revision import StoredRevision
from sluice.ports.backend import ClusterSight
from sluice.ports.kube import Conflict, KubeUnavailable, Object

LIMIT = 3
COUNT = 12


class SlowKube(MemoryKube):
    """Status writes take a while, others run meanwhile. Some fail, before or after they were done."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)  # noqa: S311 - an order of passes
        self.failing = False

    async def replace_status(self, kind: str, namespace: str, body: Object) -> Object:
        for _ in range(self.random.randint(1, 5)):
            await asyncio.sleep(0)
        fate = self.random.random() if self.failing else 1.0
        if fate < 0.1:
            raise Conflict("somebody was faster")
        if fate < 0.2:
            raise KubeUnavailable("never arrived")
        done = await super().replace_status(kind, namespace, body)
        await asyncio.sleep(0)
        if fate < 0.3:
            raise KubeUnavailable("the answer was lost")
        return done


class Stages:
    """ports.backend.ClusterBackend over one stage for each namespace."""

    def __init__(self, stages: Mapping[str, ClusterStage]) -> None:
        self.stages = stages

    async def observe(
        self, endpoint: Mapping[str, Any], resolution: Resolution, stored: tuple[StoredRevision, ...]
    ) -> ClusterSight:
        await asyncio.sleep(0)
        return ClusterSight(self.stages[endpoint["metadata"]["namespace"]].observe())

    async def act(self, owner: Owner, action: ClusterAction, seen: ClusterObservation) -> None:
        self.stages[owner.namespace].do(action)


class World:
    """Endpoints `churn`, each in a namespace of its own, and one operator."""

    def __init__(self, seed: int) -> None:
        self.clock = SteppedClock()
        self.kube = SlowKube(seed)
        self.stages = {f"n{number:02}": _stage() for number in range(COUNT)}
        self.most = 0
        self.start()
        for namespace, stage in self.stages.items():
            for item in (*stage.objects.values(), {**stage.endpoint, "metadata": {**stage.endpoint["metadata"]}}):
                item["metadata"]["namespace"] = namespace
                item["metadata"]["uid"] = f"{item['metadata']['uid']}-{namespace}"
                self.feed.seen(self.kube.put(item), Source.WATCH)

    def start(self) -> None:
        """An operator process that has just listed everything."""
        self.cache = Cache()
        self.feed = Feed(self.cache, self.kube)
        self.woken: set[Key] = set()
        bounds = Bounds(LIMIT)
        wakes = Wakes(self.cache, self.woken.add, lambda key, _: self.woken.add(key))
        slots = Slots(self.cache, bounds, self.woken.add)
        shown = ClusterMetrics(CollectorRegistry(), self.clock)
        self.reconciler = EndpointReconciler(
            self.kube,
            self.cache,
            self.feed,
            {names.BACKEND_CLUSTER: ClusterSite(Stages(self.stages), self.cache, self.clock, wakes, slots, shown)},
            self,
            self.clock,
            EventRecorder(self.kube),
            Metrics(CollectorRegistry(), "test"),
            Policy,
            EndpointSettings(
                ResolveSettings("prod", None), DecideSettings(settle_seconds=0, settle_limit_seconds=0, bounds=bounds)
            ),
        )
        self.feed.connect(self.woken.add, self.reconciler.forget)
        for item in list(self.kube.objects.values()):
            if item["kind"] != names.ENDPOINT_ROUTE:
                self.feed.seen(item, Source.LIST)

    def held(self) -> bool:
        return True

    @property
    def endpoints(self) -> list[Object]:
        return [item for (kind, _, _), item in self.kube.objects.items() if kind == names.ENDPOINT]

    def deploying(self) -> int:
        return sum(bool((item.get("status") or {}).get("deployment")) for item in self.endpoints)

    async def round(self, *, everybody: bool = True) -> None:
        """A second, then passes side by side."""
        self.clock.skip(1.0)
        for stage in self.stages.values():
            stage.now = self.clock.now()
            stage.tick(0)
        keys = {Key(names.ENDPOINT, namespace, "churn") for namespace in self.stages}
        moving = {
            Key(names.ENDPOINT, item["metadata"]["namespace"], "churn")
            for item in self.endpoints
            if (item.get("status") or {}).get("deployment")
        }
        chosen = keys if everybody else moving | self.woken & keys
        self.woken.clear()
        order = sorted(chosen, key=str)
        self.kube.random.shuffle(order)
        passes = [asyncio.create_task(self._pass(key)) for key in order]
        while not all(one.done() for one in passes):
            await asyncio.sleep(0)
            self.most = max(self.most, self.deploying())
        for one in passes:
            one.result()

    async def _pass(self, key: Key) -> None:
        try:
            await self.reconciler.reconcile(key)
        except KubeUnavailable:
            self.woken.add(key)

    async def in_service(self) -> None:
        for _ in range(60):
            await self.round()
            if all(_ready(item) for item in self.endpoints):
                return
        raise AssertionError([item.get("status", {}).get("conditions") for item in self.endpoints])

    def edit(self) -> None:
        for namespace in self.stages:
            item = self.kube.objects["Model", namespace, "churn"]
            item["spec"]["primaryContainer"]["image"] = "new:1"
            item["metadata"]["generation"] = 2
            self.feed.seen(self.kube.put(item), Source.WATCH)

    def updated(self) -> bool:
        return all({f.image for f in stage.cluster.fleets.values()} == {"new:1"} for stage in self.stages.values())


def _stage() -> ClusterStage:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.cluster.start_seconds = 1.0
    return stage


def _ready(item: Object) -> bool:
    conditions = (item.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


@pytest.mark.parametrize("seed", range(2))
async def test_passes_side_by_side_start_no_more_than_may_run(seed: int) -> None:
    world = World(seed)
    await world.in_service()
    world.edit()
    for _ in range(200):
        await world.round()
        if world.updated():
            break
    assert world.updated()
    assert world.most == LIMIT


@pytest.mark.parametrize("seed", range(4))
async def test_not_even_when_writes_fail_or_their_answers_are_lost_or_the_operator_is_restarted(seed: int) -> None:
    world = World(seed)
    await world.in_service()
    world.edit()
    world.kube.failing = True
    for number in range(400):
        await world.round()
        if number % 10 == 9:
            world.start()
        if world.updated():
            break
    assert world.updated()
    assert world.most <= LIMIT


async def test_who_ends_wakes_who_is_next() -> None:
    world = World(0)
    await world.in_service()
    world.edit()
    await world.round()
    await world.round()
    for _ in range(200):
        await world.round(everybody=False)  # nobody looks by itself
        if world.updated():
            break
    assert world.updated()
    assert world.most == LIMIT


async def test_a_deleted_endpoint_gives_its_place_up() -> None:
    world = World(0)
    await world.in_service()
    world.edit()
    await world.round()
    await world.round()
    gone = next(item for item in world.endpoints if item["status"].get("deployment"))
    world.woken.clear()
    world.feed.gone(world.kube.objects.pop((names.ENDPOINT, gone["metadata"]["namespace"], "churn")), Source.WATCH)
    woken = [
        key
        for key in world.woken
        if key.kind == names.ENDPOINT
        and not world.kube.objects[key.kind, key.namespace, key.name]["status"].get("deployment")
    ]
    assert len(woken) == 1


QUEUED = EndpointStatus.from_manifest(
    {
        "settle": {
            "fleetHash": "f",
            "contentHash": "c",
            "since": "2026-01-01T00:00:00Z",
            "until": "2026-01-01T00:00:00Z",
        },
        "conditions": [
            {
                "type": "Reconciling",
                "status": "True",
                "reason": "DeploymentQueued",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
)
DEPLOYING = EndpointStatus.from_manifest(
    {"deployment": {"revision": "r", "fleetHash": "f", "policy": "CANARY", "stage": "Baking"}}
)
MINE, NEXT = (Key(names.ENDPOINT, "team", name) for name in ("a-mine", "b-next"))


def places() -> tuple[Slots, list[Key]]:
    """Room for one, for which the Endpoint NEXT waits; and who is woken."""
    cache, woken = Cache(), list[Key]()
    item = endpoint(NEXT.name, status=QUEUED.to_manifest())
    item["spec"]["backend"] = names.BACKEND_CLUSTER
    cache.apply(item, Source.WATCH)
    return Slots(cache, Bounds(1), woken.append), woken


def test_a_place_whose_status_was_not_written_is_the_next_ones() -> None:
    slots, woken = places()
    slots.claim(MINE, DEPLOYING)
    assert [(peer.name, peer.deploying) for peer in slots.peers(NEXT)] == [(MINE.name, True)]
    slots.settled(MINE, written=False)
    assert (slots.peers(NEXT), woken) == ((), [NEXT])


def test_a_place_whose_status_was_written_is_in_the_cache_and_wakes_nobody() -> None:
    slots, woken = places()
    slots.claim(MINE, DEPLOYING)
    slots.settled(MINE, written=True)
    assert (slots.peers(NEXT), woken) == ((), [])


def test_an_endpoint_that_goes_before_its_status_is_known_keeps_no_place() -> None:
    """Nothing would ever give it back before the operator is restarted."""
    slots, woken = places()
    slots.claim(MINE, DEPLOYING)
    slots.forget(MINE)
    assert (slots.peers(NEXT), woken) == ((), [NEXT])


def test_who_waits_no_more_wakes_who_is_next() -> None:
    """Its change was taken back: the place that it would have had is free."""
    slots, woken = places()
    slots.moved(QUEUED, QUEUED)
    assert woken == []
    slots.moved(QUEUED, EndpointStatus())
    assert woken == [NEXT]
