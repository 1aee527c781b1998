"""What the probes and Prometheus ask over HTTP: /healthz, /readyz and /metrics on one port.

/healthz fails when only a restart helps: a stuck queue, a dead worker or watch. /readyz fails until the first listing
is complete, and while a Lease that was held cannot be renewed. Both say why, as JSON. A process that waits for the
Lease stands by: it is healthy and ready."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

Problems = Callable[[], Iterable[str]]
"""What is wrong now, in words; empty: nothing."""

LAG_TICK_SECONDS = 0.5
LAG_BOUND_SECONDS = 5.0
LAG_MEMORY_TICKS = 60


class LoopLag:
    """How late the event loop is: a pass that blocks it stops everything, this probe included."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=LAG_MEMORY_TICKS)

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(LAG_TICK_SECONDS)
            self._lags.append(time.monotonic() - before - LAG_TICK_SECONDS)

    @property
    def worst_seconds(self) -> float:
        """The worst of the last half minute."""
        return max(self._lags, default=0.0)

    def problems(self) -> Iterable[str]:
        """For /healthz."""
        if self.worst_seconds > LAG_BOUND_SECONDS:
            yield f"the event loop was blocked for {self.worst_seconds:.1f} s"


class HealthServer:
    """The HTTP server."""

    def __init__(self, alive: Problems, ready: Problems, registry: CollectorRegistry) -> None:
        self._alive = alive
        self._ready = ready
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def start(self, port: int, host: str = "0.0.0.0") -> int:  # noqa: S104 - probes come from the node
        """Listen; returns the port (of use when `port` is 0). Raises OSError if the port is taken."""
        application = web.Application()
        application.router.add_get("/healthz", self._answer(self._alive))
        application.router.add_get("/readyz", self._answer(self._ready))
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    @staticmethod
    def _answer(problems: Problems) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(_request: web.Request) -> web.Response:
            found = list(problems())
            return web.json_response({"ok": not found, "problems": found}, status=500 if found else 200)

        return answer

    async def _metrics(self, _request: web.Request) -> web.Response:
        # What is collected belongs to the event loop. Writing it takes more than half of the time, which is a second
        # with 5,000 Endpoints.
        families: list[Metric] = []
        for family in self._registry.collect():
            families.append(family)
            await asyncio.sleep(0)
        body = await asyncio.to_thread(generate_latest, _Collected(families))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Collected(Collector):
    """What a registry has told."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """As it was told."""
        return self._families
