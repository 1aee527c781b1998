"""List and watch against an API server that plays every trick: history lost, errors, silence, a broken connection."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, cast

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from sluice.kube.client import KubeClient
from sluice.ports.kube import Kube, KubeUnavailable, Listing, WatchEvent
from sluice.router.objects import Objects
from sluice.router.together import Together
from sluice.router.watching import BACKOFF_LONGEST_SECONDS, Watched

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def item(name: str, version: int, generation: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"u-{name}", "resourceVersion": str(version), "generation": generation},
        "spec": {"endpointName": name},
    }


class Server:
    """Answers from a script: each listing and each watch is one entry."""

    def __init__(self) -> None:
        self.lists: list[Any] = []
        self.watches: list[list[Any]] = []
        self.asked: list[str] = []
        self.failed = asyncio.Event()
        """A listing was refused."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        assert query["labelSelector"] == "sluice.dev/managed-by=sluice"
        if "watch" not in query:
            self.asked.append("list")
            answer = self.lists.pop(0)
            if isinstance(answer, int):
                self.failed.set()
                return web.json_response({"message": "no"}, status=answer)
            version, items = answer
            return web.json_response({"metadata": {"resourceVersion": str(version)}, "items": items})
        assert query["allowWatchBookmarks"] == "true"
        self.asked.append(query["resourceVersion"])
        script = self.watches.pop(0) if self.watches else ["wait"]
        if isinstance(script[0], int):
            return web.json_response({"message": "no"}, status=script[0])
        answer = web.StreamResponse()
        await answer.prepare(request)
        for entry in script:
            if entry == "wait":
                await asyncio.sleep(60)
            elif entry == "break":
                assert request.transport is not None
                request.transport.abort()
            else:
                await answer.write(json.dumps(entry).encode() + b"\n")
        return answer


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, KubeClient]]:
    made = Server()
    app = web.Application()
    app.add_routes([web.get("/apis/sluice.dev/v1alpha1/namespaces/n/endpointroutes", made.handle)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kube = KubeClient(configuration, identity="test")
    yield made, kube
    await kube.close()
    await runner.cleanup()


async def follow(kube: KubeClient, until: Callable[[Objects], bool], told: list[str] | None = None) -> Objects:
    """Watch until it holds of what was read; listings and breaks are written down in `told`."""
    objects, changed, said = Objects(), asyncio.Event(), told if told is not None else []

    def replace(items: Iterable[dict[str, Any]]) -> None:
        said.append("list")
        objects.replace_routes(items)

    watched = Watched(
        kube,
        "EndpointRoute",
        "n",
        replace=replace,
        put=objects.put_route,
        drop=objects.drop_route,
        changed=changed.set,
        lost=lambda: said.append("lost"),
    )
    task = asyncio.create_task(watched.run())
    try:
        async with asyncio.timeout(60):
            while not until(objects):
                await changed.wait()
                changed.clear()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return objects


def event(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "object": body}


async def test_changes_follow_a_listing(server: tuple[Server, KubeClient]) -> None:
    script, kube = server
    script.lists = [(10, [item("a", 5), item("b", 6)])]
    script.watches = [
        [event("MODIFIED", item("a", 11, 2)), event("DELETED", item("b", 12)), event("BOOKMARK", item("", 20))],
        [event("ADDED", item("c", 21)), "wait"],
    ]
    objects = await follow(kube, lambda objects: "c" in objects.routes)
    assert {name: route.generation for name, route in objects.routes.items()} == {"a": 2, "c": 1}
    assert script.asked == ["list", "10", "20"], "on from the bookmark, without another listing"


@pytest.mark.parametrize("gone", [[410], [event("ERROR", {"code": 410, "message": "too old"})]])
async def test_a_lost_history_means_another_listing(server: tuple[Server, KubeClient], gone: list[Any]) -> None:
    script, kube = server
    script.lists = [(10, [item("a", 5), item("b", 6)]), (30, [item("b", 29)])]
    script.watches = [gone, ["wait"]]
    objects = await follow(kube, lambda objects: objects.routes.keys() == {"b"})
    assert script.asked[:3] == ["list", "10", "list"]
    assert objects.routes.keys() == {"b"}, "what vanished meanwhile is gone"


@pytest.mark.parametrize("failure", [[500], [429], [403], ["break"]])
async def test_an_outage_forgets_nothing(server: tuple[Server, KubeClient], failure: list[Any]) -> None:
    script, kube = server
    script.lists = [503, (10, [item("a", 5)]), 500, (10, [item("a", 5)])]
    script.watches = [failure, [event("ADDED", item("b", 11)), "wait"]]
    objects = await follow(kube, lambda objects: "b" in objects.routes)
    assert objects.routes.keys() == {"a", "b"}
    assert script.asked[:2] == ["list", "list"]


async def test_after_a_break_the_present_is_read_and_not_the_past_played_again(
    server: tuple[Server, KubeClient],
) -> None:
    script, kube = server
    script.lists = [(10, [item("a", 5)]), (40, [item("a", 33, 4)])]
    script.watches = [
        [event("MODIFIED", item("a", 11, 2)), event("MODIFIED", item("a", 12, 3)), "break"],
        [event("ADDED", item("b", 41)), "wait"],
    ]
    seen: list[int] = []

    def is_there(objects: Objects) -> bool:
        if "a" in objects.routes:
            seen.append(objects.routes["a"].generation)
        return "b" in objects.routes

    await follow(kube, is_there)
    assert script.asked == ["list", "10", "list", "40"]
    assert seen == sorted(seen), "a route never goes back"


async def test_a_break_is_told_before_the_listing_after_it(server: tuple[Server, KubeClient]) -> None:
    script, kube = server
    script.lists = [(10, []), (20, [item("a", 19)])]
    script.watches = [["break"], ["wait"]]
    told: list[str] = []
    await follow(kube, lambda objects: "a" in objects.routes, told)
    assert told == ["list", "lost", "list"]


async def test_what_another_kind_says_waits_for_the_listing_after_a_break(server: tuple[Server, KubeClient]) -> None:
    script, kube = server
    script.lists = [(10, [item("a", 5)]), 503, (20, [item("b", 19)])]
    script.watches = [["break"], ["wait"]]
    objects, changed, pods = Objects(), asyncio.Event(), list[str]()
    together = Together(("EndpointRoute", "EndpointSlice"))
    together.found("EndpointSlice", lambda: pods.append("first"))
    watched = Watched.held(
        together,
        kube,
        "EndpointRoute",
        "n",
        replace=objects.replace_routes,
        put=objects.put_route,
        drop=objects.drop_route,
        changed=changed.set,
    )
    task = asyncio.create_task(watched.run())
    try:
        async with asyncio.timeout(60):
            await changed.wait()
            assert (objects.routes.keys(), pods) == ({"a"}, ["first"])
            await script.failed.wait()
            together.take(lambda: pods.append("later"))
            assert pods == ["first"], "nobody knows yet which routes there are"
            while "b" not in objects.routes:
                changed.clear()
                await changed.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (objects.routes.keys(), pods) == ({"b"}, ["first", "later"])


class Failing:
    """Fails so often, then tells of one change, then fails again for ever."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    async def list_at(self, _kind: str, _namespace: str, _selector: str) -> Listing:
        self.left -= 1
        if self.left != -1:
            raise KubeUnavailable("away")
        return Listing((), "10")

    async def watch(self, _kind: str, _namespace: str, _selector: str, _version: str) -> AsyncIterator[WatchEvent]:
        yield WatchEvent("ADDED", item("a", 11))
        raise KubeUnavailable("the connection broke")


async def test_attempts_in_vain_come_less_and_less_often_and_news_makes_them_quick_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Routers of many namespaces that try at once and without end would keep an API server down."""
    pauses: list[tuple[float, float]] = []
    enough = asyncio.Event()

    def drawn(least: float, most: float) -> float:
        pauses.append((least, most))
        if len(pauses) == 12:
            enough.set()
        return 0.0

    monkeypatch.setattr(random, "uniform", drawn)
    objects = Objects()
    watched = Watched(
        cast(Kube, Failing(9)),
        "EndpointRoute",
        "n",
        replace=objects.replace_routes,
        put=objects.put_route,
        drop=objects.drop_route,
        changed=lambda: None,
    )
    task = asyncio.create_task(watched.run())
    try:
        async with asyncio.timeout(60):
            await enough.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    longest = [most for _, most in pauses]
    assert longest[:9] == [0.5, 1, 2, 4, 8, *[BACKOFF_LONGEST_SECONDS] * 4]
    assert longest[9:12] == [0.5, 1, 2]
    assert all(least > 0 for least, _ in pauses)
