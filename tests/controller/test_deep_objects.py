"""Objects nested as deeply as an API server stores them: who may run a pod as a router may write a RouterReport like
that, as its schema keeps unknown fields. Without a real one: a server of the test says what it would say."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from unittest.mock import create_autospec

import kopf
import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from sluice.api import names
from sluice.cluster import seen
from sluice.controller.feed import Feed
from sluice.kube.client import KubeClient
from sluice.kube.configuration import Login
from sluice.kube.resources import RESOURCES, Resource
from sluice.main import __main__ as program
from sluice.main import handlers
from sluice.ports.kube import Object

LEVELS = 9_900
SERVED = [
    *(RESOURCES[kind] for kind in (*handlers.WATCHED, *handlers.WAKING, "Namespace")),
    Resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False),
]
"""The last two are what kopf asks for before it watches anything."""


def report(levels: int) -> str:
    """A RouterReport of somebody's."""
    metadata = {"name": "deep", "namespace": "a", "uid": "1", "resourceVersion": "2"}
    return f'{{"metadata": {json.dumps(metadata)}, "spec": {{"more": {"[" * levels}{"]" * levels}}}}}'


class Server:
    """As much of an API server as watches need. Nothing is there, but for a deep report."""

    def __init__(self, *, listed: bool) -> None:
        self._listed = listed
        """Else the watch tells of it."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/api":
            return web.json_response({"versions": ["v1"]})
        if path == "/apis":
            return web.json_response({"groups": [_group(api) for api in sorted({r.api_version for r in SERVED})]})
        here = [resource for resource in SERVED if path in (f"/apis/{resource.api_version}", "/api/v1")]
        if here:
            return web.json_response({"resources": [_resource(r) for r in here if path.endswith(r.api_version)]})
        is_report = path.endswith(names.ROUTER_REPORTS)
        if not request.query.get("watch"):
            items = report(LEVELS) if is_report and self._listed else ""
            text = f'{{"metadata": {{"resourceVersion": "1"}}, "items": [{items}]}}'
            return web.Response(text=text, content_type="application/json")
        stream = web.StreamResponse()
        await stream.prepare(request)
        if is_report and not self._listed:
            await stream.write(f'{{"type": "ADDED", "object": {report(LEVELS)}}}\n'.encode())
        await asyncio.Event().wait()
        return stream


def _group(api_version: str) -> Object:
    group, _, version = api_version.rpartition("/")
    made = {"groupVersion": api_version, "version": version}
    return {"name": group, "versions": [made], "preferredVersion": made}


def _resource(resource: Resource) -> Object:
    made = {"name": resource.plural, "kind": resource.kind, "singularName": resource.kind.lower()}
    return {**made, "namespaced": resource.namespaced, "verbs": ["get", "list", "watch"]}


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    """Its address."""
    app = web.Application()
    app.router.add_route("GET", "/{rest:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def as_the_operator_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the process does that began with `main`."""
    before = sys.getrecursionlimit()
    monkeypatch.setenv("SLUICE_WORKERS", "none")
    with pytest.raises(SystemExit):
        program.main()
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("as_the_operator_reads")
@pytest.mark.parametrize("listed", [True, False])
async def test_the_watches_tell_of_a_deep_report_and_go_on(listed: bool) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    def moved(item: Object, *, gone: bool) -> None:
        heard.put_nowait(item["metadata"]["name"])

    async with serving(Server(listed=listed)) as address:

        async def login() -> Login:
            return Login(address, None, True, None, None, None, None)

        existing = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=handlers.registry(create_autospec(Feed), lambda: None, moved, login),
            settings=handlers.kopf_settings(),
            standalone=True,
            clusterwide=True,
            identity="test",
        )
        watching = asyncio.create_task(kopf.run_tasks(tasks, ignored=existing))
        hearing = asyncio.create_task(heard.get())
        await asyncio.wait([watching, hearing], timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert hearing.done()
        assert not watching.done()
        watching.cancel()
        await asyncio.wait([watching])
        assert await hearing == "deep"


@pytest.mark.usefixtures("as_the_operator_reads")
async def test_a_pass_reads_past_a_deep_report() -> None:
    async with serving(Server(listed=True)) as address:
        kube = KubeClient(Configuration(host=address), identity="test")
        found = [item async for item in kube.list(names.ROUTER_REPORT, "a")]
        await kube.close()
    assert [item["metadata"]["name"] for item in found] == ["deep"]
    assert seen.routers((), found, "churn") == ()
