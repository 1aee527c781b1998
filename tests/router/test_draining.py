"""A router that goes: what Envoy does not answer in time is not yet the end of its requests."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from sluice.router import draining
from sluice.router.admin import Admin
from sluice.router.draining import drain, drained


class Busy:
    """The admin interface of an Envoy with a request under way, whose main thread is busy until `idle` is set."""

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.running = 1
        self.posted: list[str] = []
        self.told_to_drain = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        await self.idle.wait()
        if request.method == "POST":
            self.posted.append(request.path)
        if request.path == "/drain_listeners":
            self.told_to_drain.set()
        return web.Response(text=f"http.data.downstream_rq_active: {self.running}\n")


@asynccontextmanager
async def serving(envoy: Busy, socket: Path) -> AsyncIterator[Admin]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", envoy.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, socket).start()
    admin = Admin(socket)
    try:
        yield admin
    finally:
        await admin.close()
        await runner.cleanup()


@pytest.fixture(autouse=True)
def short_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.router.admin.CALL_TIMEOUT_SECONDS", 0.2)


async def test_an_envoy_that_is_busy_is_drained_all_the_same(tmp_path: Path) -> None:
    envoy = Busy()
    async with serving(envoy, tmp_path / "admin.sock") as admin:
        going = asyncio.create_task(drain(admin, 30, 0))
        await asyncio.sleep(0.6)  # longer than two calls may take
        assert not going.done()
        envoy.idle.set()
        await envoy.told_to_drain.wait()
        envoy.idle.clear()
        await asyncio.sleep(0.6)
        assert not going.done(), "a request runs, and Envoy is only slow to say so"
        envoy.running = 0
        envoy.idle.set()
        assert await going
    assert envoy.posted == ["/healthcheck/fail", "/drain_listeners"]


async def test_an_idle_one_goes_only_when_nobody_sends_new_requests_any_more(tmp_path: Path) -> None:
    envoy = Busy()
    envoy.idle.set()
    envoy.running = 0
    async with serving(envoy, tmp_path / "admin.sock") as admin:
        began = time.monotonic()
        assert await drained(admin, 60, 0.7)
        assert time.monotonic() - began >= 0.7


async def test_one_that_never_answers_is_not_waited_for_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "SILENT_SECONDS", 0.5)
    async with serving(Busy(), tmp_path / "admin.sock") as admin, asyncio.timeout(20):
        assert await drained(admin, 300, 0)


async def test_without_an_envoy_nothing_is_waited_for(tmp_path: Path) -> None:
    admin = Admin(tmp_path / "admin.sock")
    async with asyncio.timeout(5):
        assert await drain(admin, 300, 0)
    await admin.close()
