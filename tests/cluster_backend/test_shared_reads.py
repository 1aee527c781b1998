"""Reads that passes share: nobody is answered with what was read before they asked."""

import asyncio
import gc
from collections import Counter

import pytest
from tests.cluster_backend.test_router_turns import Upgrade, look
from tests.cluster_backend.world import World
from tests.controller.clock import settle
from tests.controller.conftest import Telemetry
from tests.controller.memory_kube import MemoryKube

from sluice.api import names
from sluice.cluster.shared import MOST_NAMES, Rounds, SharedReads
from sluice.core.cluster.actions import EnsureRouter, WriteRoute
from sluice.core.revision import LABEL_ENDPOINT
from sluice.kube.client import KubeClient
from sluice.ports.kube import KubeUnavailable

WITHIN_SECONDS = 30


class Place:
    """Reads end when the test says so."""

    def __init__(self) -> None:
        self.reads: list[tuple[frozenset[str], asyncio.Future[str]]] = []
        self.begun = asyncio.Condition()
        self.rounds = Rounds(self._read)

    async def _read(self, asked: frozenset[str]) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with self.begun:
            self.reads.append((asked, answer))
            self.begun.notify_all()
        return await answer

    async def read(self, number: int) -> tuple[frozenset[str], asyncio.Future[str]]:
        """The read of that number, once it has begun."""
        async with asyncio.timeout(WITHIN_SECONDS), self.begun:
            await self.begun.wait_for(lambda: len(self.reads) > number)
        return self.reads[number]

    def ask(self, what: str) -> asyncio.Task[str]:
        return asyncio.create_task(self.rounds.ask(what))


async def test_what_is_asked_during_a_read_is_answered_by_the_next() -> None:
    place = Place()
    first = place.ask("a")
    asked, answer = await place.read(0)
    assert asked == {"a"}
    later = [place.ask(what) for what in ("b", "c", "a")]
    await asyncio.sleep(0)  # they have asked
    answer.set_result("old")
    assert await first == "old"
    asked, answer = await place.read(1)
    assert asked == {"a", "b", "c"}
    answer.set_result("new")
    assert await asyncio.gather(*later) == ["new"] * 3
    assert len(place.reads) == 2
    assert place.rounds.idle


async def test_a_read_that_hangs_does_not_hold_up_the_next_for_long() -> None:
    place = Place()
    first = place.ask("a")
    _, hanging = await place.read(0)
    second = place.ask("b")
    _, answer = await place.read(1)
    answer.set_result("new")
    assert await second == "new"
    assert not first.done()
    hanging.set_result("late")
    assert await first == "late"


async def test_a_pass_that_is_cut_off_takes_no_answer_from_the_others() -> None:
    place = Place()
    cut, stays = place.ask("a"), place.ask("b")
    _, answer = await place.read(0)
    cut.cancel()
    await asyncio.wait({cut})
    answer.set_result("new")
    assert await stays == "new"


async def test_a_read_that_fails_when_all_who_asked_were_cut_off_is_no_news() -> None:
    """In an outage one read of a pass fails first, and its others are cut off."""
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    place = Place()
    cut = place.ask("a")
    _, answer = await place.read(0)
    cut.cancel()
    await asyncio.wait({cut})
    answer.set_exception(KubeUnavailable("away"))
    await settle()
    del answer, place, cut
    gc.collect()
    assert complaints == []


async def test_a_failure_is_everybodys_who_asked_and_nobody_elses() -> None:
    place = Place()
    failed = [place.ask("a"), place.ask("b")]
    _, answer = await place.read(0)
    after = place.ask("c")
    await asyncio.sleep(0)
    answer.set_exception(KubeUnavailable("away"))
    for one in failed:
        with pytest.raises(KubeUnavailable):
            await one
    _, answer = await place.read(1)
    answer.set_result("back")
    assert await after == "back"


@pytest.mark.parametrize("kind", ["ReplicaSet", "Service"])
async def test_of_what_is_remembered_for_every_endpoint_only_what_is_read_is_kept(kind: str) -> None:
    kube = MemoryKube()
    metadata = {"name": "churn-a", "namespace": "team", "labels": {LABEL_ENDPOINT: "churn"}, "uid": "u"}
    kube.put(
        {
            "apiVersion": "v1",
            "kind": kind,
            "metadata": {**metadata, "managedFields": [{"manager": "sluice"}]},
            "spec": {"template": {}},
        }
    )
    (found,) = await SharedReads(kube).of_endpoint(kind, "team", "churn")
    assert found == {"apiVersion": "v1", "kind": kind, "metadata": {**metadata, "resourceVersion": "1000"}}


async def test_passes_at_the_same_time_list_the_nodes_once() -> None:
    """The largest listing of all, once a minute, which is when every pass under way finds its memory too old."""
    upgrade = Upgrade()
    backend = upgrade.backend("router:1")
    await asyncio.gather(*(look(backend, f"team-{number}") for number in range(16)))
    assert upgrade.kube.calls.count(("list", "Node", "")) == 1


@pytest.mark.apiserver
async def test_passes_of_many_endpoints_look_together_and_each_sees_its_own(
    kube: KubeClient, namespace: str, telemetry: Telemetry
) -> None:
    worlds = [World(kube, namespace, name=f"e{number}") for number in range(8)]
    for world in worlds:
        await world.act(world.fleet(), WriteRoute(world.route(world.fleet().name), None))
    await worlds[0].act(EnsureRouter())
    await worlds[0].report((await worlds[0].router_pods(1))[0])
    observer = worlds[0].observer()
    for world in worlds:
        await world.look(observer)  # what is remembered for a minute is known
    telemetry.kube.clear()
    looks = await asyncio.gather(*(world.look(observer) for world in worlds))
    assert [[fleet.name for fleet in seen.fleets] for seen in looks] == [[world.fleet().name] for world in worlds]
    assert [seen.route.spec.endpoint_name for seen in looks if seen.route is not None] == [w.name for w in worlds]
    assert all(router.report is not None for seen in looks for router in seen.routers)
    asked = Counter((verb, kind) for verb, kind, _ in telemetry.kube)
    # No fleet has a record yet.
    once = {("list", kind) for kind in (names.ENDPOINT_ROUTE, names.ROUTER_REPORT, "ConfigMap")}
    twice = {("list", kind) for kind in ("Deployment", "Pod")}  # the routers', the Endpoints'
    assert asked == {**dict.fromkeys(once, 1), **dict.fromkeys(twice, 2)}, "for eight passes what one asks for"


@pytest.mark.apiserver
async def test_what_has_lost_its_labels_is_found_by_its_name(kube: KubeClient, namespace: str) -> None:
    """Else a pass would try for ever to make a route that is there."""
    worlds = [World(kube, namespace, name=name) for name in ("one", "two")]
    for world in worlds:
        await world.act(WriteRoute(world.route(), None))
    bare = await worlds[0].get(names.ENDPOINT_ROUTE, "one")
    bare["metadata"]["labels"] = {}
    await kube.replace(names.ENDPOINT_ROUTE, namespace, bare)
    together = SharedReads(kube)
    found = await asyncio.gather(
        *(together.named_after(names.ENDPOINT_ROUTE, namespace, name) for name in ("one", "two", "three"))
    )
    assert [item["metadata"]["name"] if item else None for item in found] == ["one", "two", None]


@pytest.mark.apiserver
async def test_more_endpoints_than_one_address_holds(kube: KubeClient, namespace: str, telemetry: Telemetry) -> None:
    count = MOST_NAMES + 1
    together = SharedReads(kube)
    last = World(kube, namespace, name=f"e{count - 1:03d}")
    await last.act(last.fleet())
    telemetry.kube.clear()
    found = await asyncio.gather(
        *(together.of_endpoint("Deployment", namespace, f"e{number:03d}") for number in range(count))
    )
    assert [len(items) for items in found] == [0] * (count - 1) + [1]
    assert len(telemetry.kube) == 2
