"""Stands in for a model container: answers /invocations as the request's body asks, and remembers what it was sent."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Container:
    """One listening container. Everything runs on a thread of its own."""

    name: str
    address: str = "127.0.0.1"
    port: int = 0
    delay_seconds: float = 0.0
    status: int = 200
    requests: list[dict[str, Any]] = field(default_factory=list)
    answered: Counter[int] = field(default_factory=Counter)
    waiting: int = 0
    """Requests that came to wait for the gate."""
    written: int = 0
    """Bytes of large streams that have left it."""
    keep: bool = True
    """Whether requests are remembered (not under load)."""
    enter: Callable[[], None] = lambda: None
    """Called on the thread first: enters a network namespace."""

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._gate = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"container {self.name}", daemon=True)

    def start(self) -> "Container":
        """Listen."""
        self._thread.start()
        assert self._started.wait(60), f"container {self.name} did not start"
        return self

    def stop(self) -> None:
        """Close the port and every connection."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(60)
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def open_gate(self) -> None:
        """Let the requests end that wait for it."""
        self._loop.call_soon_threadsafe(self._gate.set)

    def _run(self) -> None:
        self.enter()
        asyncio.set_event_loop(self._loop)
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([web.post("/invocations", self._invoke)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(self._runner.setup())
        site = web.TCPSite(self._runner, self.address, self.port, reuse_address=True)
        self._loop.run_until_complete(site.start())
        self.port = self._runner.addresses[0][1]
        self._started.set()
        self._loop.run_forever()

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.keep:
            self.requests.append(
                {
                    "headers": {name.lower(): value for name, value in request.headers.items()},
                    "body": body,
                    "path": request.path_qs,
                }
            )
        order = json.loads(body) if body.startswith(b'{"do"') else {"do": "echo"}
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        answer = await getattr(self, "_do_" + order["do"])(request, order)
        self.answered[answer.status] += 1
        return answer

    async def _do_echo(self, request: web.Request, order: dict[str, Any]) -> web.StreamResponse:
        headers = {"x-amzn-sagemaker-custom-attributes": f"from {self.name}", "x-secret": "1", "server": "model"}
        return web.Response(text=self.name, status=self.status, headers=headers)

    async def _do_answer(self, request: web.Request, order: dict[str, Any]) -> web.StreamResponse:
        return web.Response(
            body=bytes.fromhex(order.get("hex", "")) * order.get("times", 1),
            status=order["status"],
            headers=order.get("headers", {}),
        )

    async def _do_wait(self, request: web.Request, order: dict[str, Any]) -> web.StreamResponse:
        self.waiting += 1
        await self._gate.wait()
        return web.Response(text=self.name)

    async def _do_break(self, request: web.Request, order: dict[str, Any]) -> web.StreamResponse:
        assert request.transport is not None
        if order.get("after"):
            answer = web.StreamResponse()
            await answer.prepare(request)
            await answer.write(bytes.fromhex(order["after"]))
            await asyncio.sleep(0.05)
            request.transport.abort()
            return answer
        request.transport.abort()
        return web.Response()

    async def _do_stream(self, request: web.Request, order: dict[str, Any]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/plain"})
        await answer.prepare(request)
        for part in order["parts"]:
            await answer.write(bytes.fromhex(part))
            await asyncio.sleep(order.get("pause", 0))
        if order.get("gate"):
            await self._gate.wait()
        for _ in range(order.get("mebibytes", 0) * 16):
            await answer.write(bytes(65536))
            self.written += 65536
        await answer.write_eof()
        return answer
