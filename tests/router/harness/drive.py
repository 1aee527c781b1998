"""Drives the ledger against a real Envoy as the agent does, with routes and pods given by the test instead of an API
server."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from tests.router.harness.envoy import Envoy

from sluice.api.routes import EndpointRouteSpec, RejectedRoute, RouteReport
from sluice.router.admin import Admin, EnvoyUnavailable
from sluice.router.bootstrap import DISCOVERY_SOCKET
from sluice.router.clusters import CLUSTER
from sluice.router.discovery import Discovery
from sluice.router.files import Files
from sluice.router.ledger import Ledger, Step
from sluice.router.objects import Pod, Route
from sluice.router.routes import SCOPE
from sluice.router.validation import find_refused
from sluice.router.view import UNKNOWN, UNKNOWN_ACTIVITY
from sluice.router.wanted import resolve

T = TypeVar("T")


class Drive:
    """Set `routes` and `pods`, then `settle`. It takes the place of one that drove this Envoy before."""

    def __init__(self, envoy: Envoy) -> None:
        envoy.end_serving()
        self.envoy = envoy
        self.routes: dict[str, Route] = {}
        self.pods: dict[str, tuple[Pod, ...]] = {}
        self.words: dict[str, str] = {}
        """What failing pods of fleets have answered."""
        self.ledger = Ledger()
        self.files = Files(envoy.directory)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.discovery = Discovery(envoy.directory / DISCOVERY_SOCKET, lambda: None)
        self._publish(self.ledger.restore(*self.files.read()))
        self._run(self.discovery.start())
        envoy.end_serving = self.close

    def close(self) -> None:
        """Envoy keeps what it has."""
        self.envoy.end_serving = lambda: None
        self._run(self.discovery.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def put(self, spec: EndpointRouteSpec, *pods: tuple[str, str], name: str = "") -> Route:
        """Add a route or its next generation; `pods` are (fleet, address)."""
        name = name or spec.endpoint_name.lower()
        before = self.routes.get(name)
        generation = before.generation + 1 if before else 1
        created = before.created if before else f"2026-01-01T00:00:{len(self.routes):02}Z"
        self.routes[name] = Route(f"uid-{name}", name, generation, created, spec)
        for fleet, address in pods:
            self.add_pod(fleet, address)
        return self.routes[name]

    def add_pod(self, fleet: str, address: str) -> None:
        """A ready pod."""
        pod = Pod(name=f"{fleet}-{address}", address=address, ready=True, lingering=False)
        self.pods[fleet] = (*self.pods.get(fleet, ()), pod)

    def turn(self) -> bool:
        """One turn of the loop; whether Envoy has everything in force."""

        async def once() -> bool:
            admin = Admin(self.envoy.directory / "admin.sock")
            try:
                view = replace(self.discovery.view(), warming=await admin.warming())
                activity = await admin.activity()
                if self.ledger.sampled():
                    self.ledger.remember_passed(await admin.passed())
            except EnvoyUnavailable:
                view, activity = UNKNOWN, UNKNOWN_ACTIVITY
            finally:
                await admin.close()
            wanted = resolve(self.routes.values(), self.ledger.bad)
            step = self.ledger.step(wanted, lambda name: self.pods.get(name, ()), view, activity, time.monotonic())
            if step.suspects:
                specs = {route.key: route.spec for route in step.suspects if route.spec is not None}
                text = self.envoy.bootstrap.read_text()
                verdicts = await find_refused(self.envoy.settings.envoy, text, specs)
                self.ledger.judge(verdicts, step.suspects)
            if step.clusters or step.scopes:
                self.files.keep(self.ledger.placed, self.ledger.served)
                self._publish(step)
            if view.known and activity.known:
                existing = self.routes.values()
                self.reports, self.rejected = self.ledger.report(wanted, existing, view, activity, self.words)
            return not step.suspects and not step.clusters and not step.scopes and self.ledger.settled(view)

        self.reports: tuple[RouteReport, ...] = getattr(self, "reports", ())
        self.rejected: tuple[RejectedRoute, ...] = getattr(self, "rejected", ())
        return self._run(once())

    def _publish(self, step: Step) -> None:
        for kind, snapshot in ((CLUSTER, step.clusters), (SCOPE, step.scopes)):
            if snapshot is not None:
                self._loop.call_soon_threadsafe(self.discovery.publish, kind, snapshot)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    def settle(self, seconds: float = 120) -> None:
        """Until Envoy has everything in force that can be."""
        Envoy.until(self.turn, seconds)

    def generation(self, name: str) -> int | None:
        """As reported."""
        return next((report.generation for report in self.reports if report.name == name), None)
