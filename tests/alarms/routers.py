"""Real routers as the operator reads them: Envoy, and the agent's HTTP server before it, at an address of loopback."""

import asyncio
import threading
from collections.abc import Coroutine
from http.client import HTTPConnection
from typing import Any, TypeVar, cast

from aiohttp import web
from tests.router.harness.envoy import Envoy, free_port

from sluice.alarms.subjects import Sight, Traffic
from sluice.alarms.traffic import TrafficSettings, TrafficSource
from sluice.ports.clock import SystemClock
from sluice.ports.kube import Kube
from sluice.ports.routers import RouterAddress
from sluice.router.admin import Admin
from sluice.router.agent import Agent
from sluice.router.probes import application

T = TypeVar("T")


class Operator:
    """The reader, and the routers that it finds in the namespace. Everything runs on a loop of its own."""

    def __init__(self, **settings: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="operator", daemon=True)
        self._thread.start()
        self.port = free_port()
        self.routers: list[RouterAddress] = []
        self._closing: list[web.AppRunner | Admin] = []
        settings = {"port": self.port, "listed_seconds": 0.0, "call_seconds": 5.0, **settings}
        self.settings = TrafficSettings(**settings)
        self.source = TrafficSource(SystemClock(), self.find, self.settings)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """To its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def add(self, envoy: Envoy) -> RouterAddress:
        """A router pod with this Envoy."""
        admin = Admin(envoy.directory / "admin.sock")
        self._closing.append(admin)
        # Without its loop, which only needs an API server: nothing of it is asked here.
        return self.serve(application(Agent(envoy.settings, cast(Kube, None), admin, envoy.bootstrap), admin))

    def serve(self, app: web.Application) -> RouterAddress:
        """A router pod whose agent answers so."""
        number = len(self.routers)
        address = RouterAddress(f"router-{number}", f"uid-{number}", f"127.0.0.{number + 2}")

        async def start() -> web.AppRunner:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, address.address, self.port).start()
            return runner

        self._closing.append(self.run(start()))
        self.routers.append(address)
        return address

    def ask(self, subject: Traffic) -> Sight:
        """One reading."""
        return self.run(self.source.read({subject}))[subject]

    def until(self, subject: Traffic, state: str | None) -> Sight:
        """Readings until it is in this state."""
        found: list[Sight] = []

        def arrived() -> bool:
            found.append(self.ask(subject))
            return found[-1].state == state

        Envoy.until(arrived, 120)
        return found[-1]

    def close(self) -> None:
        """End everything."""

        async def end() -> None:
            await self.source.close()
            for item in reversed(self._closing):
                await (item.cleanup() if isinstance(item, web.AppRunner) else item.close())
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self.run(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    async def find(self, namespace: str) -> tuple[RouterAddress, ...]:
        """ports.routers.RouterPods: whatever namespace is asked for."""
        return tuple(self.routers)


def invoke(envoy: Envoy, endpoint: str, times: int = 1, body: bytes = b"x") -> list[int]:
    """Statuses as callers get them."""
    connection = HTTPConnection(envoy.settings.address, envoy.settings.port, timeout=120)
    statuses = []
    for _ in range(times):
        connection.request("POST", f"/endpoints/{endpoint}/invocations", body=body)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    return statuses
