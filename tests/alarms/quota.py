"""A quota of DescribeAlarms, which moto's server has not: a proxy before it that refuses what is beyond so many calls a
second as AWS does, and counts both."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web

DESCRIBE_ALARMS_PER_SECOND = 9.0
"""What AWS grants an account in a region unless it is asked for more (Service Quotas, "Rate of DescribeAlarms
requests")."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Calls of DescribeAlarms."""

    passed: int = 0
    refused: int = 0

    def since(self, before: "Counted") -> "Counted":
        """Those after that count."""
        return Counted(self.passed - before.passed, self.refused - before.refused)


class Quota:
    """One account and region. A token bucket that holds what one second gives, and at least one call: who was quiet for
    a second may make the calls of a second at once. AWS documents the rate alone."""

    def __init__(self, upstream: str, calls_per_second: float = DESCRIBE_ALARMS_PER_SECOND) -> None:
        self._upstream = upstream
        self.calls_per_second = calls_per_second
        self.counted = Counted()
        self.url = ""
        """Where it listens, once it is entered."""
        self._tokens, self._at = self._most, time.monotonic()

    async def __aenter__(self) -> str:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application()
        app.add_routes([web.post("/{any:.*}", self._answer)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self.url

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    @property
    def _most(self) -> float:
        return max(1.0, self.calls_per_second)

    def _grants(self) -> bool:
        now = time.monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self.calls_per_second)
        self._at = now
        if self._tokens < 1:
            self.counted = Counted(self.counted.passed, self.counted.refused + 1)
            return False
        self._tokens -= 1
        self.counted = Counted(self.counted.passed + 1, self.counted.refused)
        return True

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if b"DescribeAlarms" in body + request.headers.get("X-Amz-Target", "").encode() and not self._grants():
            return web.json_response(
                {"__type": "ThrottlingException", "message": "Rate exceeded"},
                status=400,
                headers={"x-amzn-query-error": "Throttling;Sender"},
            )
        headers = {name: value for name, value in request.headers.items() if name.lower() != "content-length"}
        async with self._session.post(self._upstream + request.path_qs, data=body, headers=headers) as answer:
            kept = {
                name: value for name, value in answer.headers.items() if name.lower().startswith(("content-", "x-"))
            }
            kept.pop("Content-Length", None)
            return web.Response(body=await answer.read(), status=answer.status, headers=kept)


@contextmanager
def behind_quota(upstream: str) -> Iterator[Quota]:
    """AWS' own quota, on a thread of its own: for whoever has no event loop, or measures what its loop does."""
    loop, quota = asyncio.new_event_loop(), Quota(upstream)
    thread = threading.Thread(target=loop.run_forever, name="quota", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(quota.__aenter__(), loop).result(30)
        try:
            yield quota
        finally:
            asyncio.run_coroutine_threadsafe(quota.__aexit__(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
