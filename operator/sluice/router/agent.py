"""The agent's loop: what is wanted and what Envoy says go into the ledger, files and the report come out."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from sluice.api.names import ENDPOINT_ROUTE
from sluice.api.routes import RouterReportSpec
from sluice.ports.kube import Kube
from sluice.router.admin import UNKNOWN, UNKNOWN_ACTIVITY, Activity, Admin, EnvoyUnavailable, View
from sluice.router.files import Files
from sluice.router.ledger import Ledger, Step
from sluice.router.objects import Objects, Route
from sluice.router.reporting import INTERVAL_SECONDS, RETRY_SECONDS, Reporter
from sluice.router.settings import Settings
from sluice.router.validation import find_refused
from sluice.router.wanted import Wanted, resolve
from sluice.router.watching import Watched

logger = logging.getLogger(__name__)

POLL_FIRST_SECONDS: Final = 0.002
POLL_LONGEST_SECONDS: Final = 0.1
UNSETTLED_SECONDS: Final = 0.25
"""After a file was written, how long only its version is asked for; then also whether Envoy refused it."""
BUSY_SECONDS: Final = 0.5
IDLE_SECONDS: Final = 2.0
ALIVE_SECONDS: Final = 30.0


class Agent:
    """One router pod's agent."""

    def __init__(self, settings: Settings, kube: Kube, admin: Admin, bootstrap: Path) -> None:
        self._settings, self._admin, self._bootstrap = settings, admin, bootstrap
        self._files = Files(settings.run_directory)
        self._objects = Objects()
        self._ledger = Ledger()
        self._reporter = Reporter(kube, settings.namespace, settings.pod_name, settings.pod_uid)
        self._changed = asyncio.Event()
        self._report: RouterReportSpec | None = None
        self._reported = asyncio.Event()
        self._covered = False
        self._beat = time.monotonic()
        objects = self._objects
        self._watches = (
            Watched(
                kube,
                ENDPOINT_ROUTE,
                settings.namespace,
                replace=objects.replace_routes,
                put=objects.put_route,
                drop=objects.drop_route,
                changed=self._changed.set,
            ),
            Watched(
                kube,
                "EndpointSlice",
                settings.namespace,
                replace=objects.replace_slices,
                put=objects.put_slice,
                drop=objects.drop_slice,
                changed=self._changed.set,
            ),
        )

    async def run(self) -> None:
        """Until it is cancelled; a bug in any part ends it."""
        self._files.seed()
        clusters, scopes, state = self._files.read()
        self._ledger.restore(clusters, scopes, state)
        parts: list[Coroutine[Any, Any, None]] = [watch.run() for watch in self._watches]
        async with asyncio.TaskGroup() as group:
            for part in (*parts, self._apply(), self._tell()):
                group.create_task(part)

    async def ready(self) -> bool:
        """Whether this router may get requests: it has applied what a consistent read said, and Envoy takes some."""
        return self._covered and await self._admin.ready()

    def alive(self) -> bool:
        """Whether the loop turns."""
        return time.monotonic() - self._beat < ALIVE_SECONDS

    async def _apply(self) -> None:
        written_at: float | None = None
        pause = POLL_FIRST_SECONDS
        while True:
            self._beat = now = time.monotonic()
            self._changed.clear()
            if not all(watch.synced for watch in self._watches):
                # What stands in the files serves on; half of what is wanted would be worse than what was.
                await self._changed.wait()
                continue
            fresh = written_at is not None and now - written_at < UNSETTLED_SECONDS
            wanted = resolve(self._objects.routes.values(), self._ledger.bad)
            view, activity = await self._look(counters=not fresh)
            step = self._ledger.step(wanted, self._objects.pods, view, activity, now)
            if step.suspects:
                await self._judge(step.suspects)
                self._changed.set()
            if self._write(step):
                written_at, pause = now, POLL_FIRST_SECONDS
            if activity.known:
                self._covered = self._covered or self._ledger.covers(wanted, view)
                self._prepare_report(wanted, view, activity)
            if self._ledger.settled(view):
                written_at = None
                delay = BUSY_SECONDS if self._ledger.leaving else IDLE_SECONDS
            else:
                delay, pause = pause, min(pause * 2, POLL_LONGEST_SECONDS)
            await self._wait(self._changed, delay)

    async def _look(self, *, counters: bool) -> tuple[View, Activity]:
        try:
            view = await self._admin.view(counters=counters)
            if not self._ledger.settled(view) and not counters:
                return view, UNKNOWN_ACTIVITY
            activity = await self._admin.activity()
            if self._ledger.sampled():
                self._ledger.remember_passed(await self._admin.passed())
        except EnvoyUnavailable as error:
            logger.warning("Envoy does not answer: %s", error)
            return UNKNOWN, UNKNOWN_ACTIVITY
        return view, activity

    def _write(self, step: Step) -> bool:
        if step.clusters is None and step.scopes is None:
            return False
        self._files.write_state(self._ledger.state())
        if step.clusters is not None:
            self._files.write_clusters(step.clusters.text)
            logger.debug("clusters %s", step.clusters.version)
        if step.scopes is not None:
            self._files.write_scopes(step.scopes.text)
            logger.debug("scopes %s", step.scopes.version)
        return True

    async def _judge(self, suspects: tuple[Route, ...]) -> None:
        specs = {route.key: route.spec for route in suspects if route.spec is not None}
        verdicts = await find_refused(self._settings.envoy, self._bootstrap.read_text(), specs)
        for route in suspects:
            if route.key in verdicts:
                logger.error("route %s, generation %d: %s", route.name, route.generation, verdicts[route.key])
        self._ledger.judge(verdicts, suspects)

    def _prepare_report(self, wanted: Wanted, view: View, activity: Activity) -> None:
        routes, rejected = self._ledger.report(wanted, self._objects.routes.values(), view, activity)
        report = RouterReportSpec(pod_uid=self._settings.pod_uid, routes=routes, rejected=rejected)
        if report != self._report:
            self._report = report
            self._reported.set()

    async def _tell(self) -> None:
        while True:
            await self._reported.wait()
            self._reported.clear()
            if self._report is not None and not await self._reporter.write(self._report):
                self._reported.set()
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(INTERVAL_SECONDS)

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> None:
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return
