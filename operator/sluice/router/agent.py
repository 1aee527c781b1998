"""The agent's loop: what is wanted and what Envoy says go into the ledger; what Envoy is to have and the report come
out."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sluice.api.names import ENDPOINT_ROUTE
from sluice.api.routes import RouterReportSpec
from sluice.ports.kube import Kube
from sluice.router.admin import Admin, EnvoyUnavailable
from sluice.router.bootstrap import DISCOVERY_SOCKET
from sluice.router.clusters import CLUSTER
from sluice.router.discovery import Discovery
from sluice.router.files import Files
from sluice.router.ledger import Ledger, Step
from sluice.router.objects import Objects, Route
from sluice.router.pace import Pace
from sluice.router.reporting import RETRY_SECONDS, Reporter, rest, whole
from sluice.router.routes import SCOPE
from sluice.router.samples import Samples
from sluice.router.settings import Settings
from sluice.router.together import Together
from sluice.router.validation import find_refused
from sluice.router.view import UNKNOWN, UNKNOWN_ACTIVITY, Activity, View
from sluice.router.wanted import Wanted, resolve
from sluice.router.watching import Watched

logger = logging.getLogger(__name__)

POLL_FIRST_SECONDS: Final = 0.002
POLL_LONGEST_SECONDS: Final = 0.1
"""While clusters warm: all else Envoy says by itself."""
BUSY_SECONDS: Final = 0.5
IDLE_SECONDS: Final = 2.0
ALIVE_SECONDS: Final = 30.0
ENDPOINT_SLICE: Final = "EndpointSlice"


class Agent:
    """One router pod's agent."""

    def __init__(self, settings: Settings, kube: Kube, admin: Admin, bootstrap: Path) -> None:
        self._settings, self._admin, self._bootstrap = settings, admin, bootstrap
        self._files = Files(settings.run_directory)
        self._objects = Objects()
        self._ledger = Ledger()
        self._reporter = Reporter(kube, settings.namespace, settings.pod_name, settings.pod_uid)
        self._changed = asyncio.Event()
        self._discovery = Discovery(settings.run_directory / DISCOVERY_SOCKET, self._changed.set)
        self._warmed: tuple[int, str] | None = None
        self._report: RouterReportSpec | None = None
        self._reported = asyncio.Event()
        self._covered = False
        self._beat = time.monotonic()
        self._pace = Pace()
        self._samples = Samples(admin.failing, self._objects.pods, self._changed.set)
        objects, self._together = self._objects, Together((ENDPOINT_ROUTE, ENDPOINT_SLICE))
        self._watches = (
            Watched.held(
                self._together,
                kube,
                ENDPOINT_ROUTE,
                settings.namespace,
                replace=objects.replace_routes,
                put=objects.put_route,
                drop=objects.drop_route,
                changed=self._changed.set,
            ),
            Watched.held(
                self._together,
                kube,
                ENDPOINT_SLICE,
                settings.namespace,
                replace=objects.replace_slices,
                put=objects.put_slice,
                drop=objects.drop_slice,
                changed=self._changed.set,
            ),
        )

    async def run(self) -> None:
        """Until it is cancelled; a bug in any part ends it."""
        self._publish(self._ledger.restore(*self._files.read()))
        await self._discovery.start()
        parts: list[Coroutine[Any, Any, None]] = [watch.run() for watch in self._watches]
        try:
            async with asyncio.TaskGroup() as group:
                for part in (*parts, self._apply(), self._samples.run(), self._tell()):
                    group.create_task(part)
        finally:
            await self._discovery.close()

    async def ready(self) -> bool:
        """Whether this router may get requests: it has applied what a consistent read said, and Envoy takes some."""
        return self._covered and await self._admin.ready()

    def alive(self) -> bool:
        """Whether the loop turns."""
        return time.monotonic() - self._beat < ALIVE_SECONDS

    async def _apply(self) -> None:
        pause = POLL_FIRST_SECONDS
        while True:
            self._beat = now = time.monotonic()
            self._changed.clear()
            self._together.go_on()
            if not self._together.complete:
                # Envoy has what an earlier process left; half of what is wanted would be worse than that.
                await self._wait(self._changed, IDLE_SECONDS)
                continue
            wanted = resolve(self._objects.routes.values(), self._ledger.bad)
            view, activity = await self._look()
            step = self._ledger.step(wanted, self._objects.pods, view, activity, now)
            if step.suspects:
                await self._judge(step.suspects)
                self._changed.set()
            if step.clusters is not None or step.scopes is not None:
                # First for the next process: it must not send Envoy back to what was before.
                self._files.keep(self._ledger.placed, self._ledger.served)
                self._publish(step)
                pause = POLL_FIRST_SECONDS
            if view.known and not activity.known and self._ledger.lively():
                # A fleet begins to leave with this very step: the confirmation that says so waits for no next look.
                activity = await self._activity()
            if view.known and (activity.known or not self._ledger.lively()):
                self._covered = self._covered or self._ledger.covers(wanted, view)
                self._samples.follow(self._ledger.failing(activity))
                self._prepare_report(wanted, view, activity)
            delay = BUSY_SECONDS if self._ledger.leaving else IDLE_SECONDS
            if view.warming:
                delay, pause = pause, min(pause * 2, POLL_LONGEST_SECONDS)
            if owed := self._pace.rest(now, time.monotonic()):
                await asyncio.sleep(owed)
            await self._wait(self._changed, delay)

    async def _look(self) -> tuple[View, Activity]:
        """Envoy says by itself what it has accepted. It is asked for the rest only where there may be something to
        know, so that a weight costs it no question."""
        view = self._discovery.view()
        accepted = (view.connection, view.clusters)
        try:
            if view.clusters != UNKNOWN.clusters and accepted != self._warmed:
                view = replace(view, warming=await self._admin.warming())
                self._warmed = None if view.warming else accepted
            if self._ledger.sampled():
                self._ledger.remember_passed(await self._admin.passed())
        except EnvoyUnavailable as error:
            logger.warning("Envoy does not answer: %s", error)
            return UNKNOWN, UNKNOWN_ACTIVITY
        if not self._ledger.lively():
            return view, UNKNOWN_ACTIVITY
        activity = await self._activity()
        return (view, activity) if activity.known else (UNKNOWN, UNKNOWN_ACTIVITY)

    async def _activity(self) -> Activity:
        """The requests that run, and the pods that pass the sample invocation."""
        try:
            return await self._admin.activity()
        except EnvoyUnavailable as error:
            logger.warning("Envoy does not answer: %s", error)
            return UNKNOWN_ACTIVITY

    def _publish(self, step: Step) -> None:
        if step.clusters is not None:
            self._discovery.publish(CLUSTER, step.clusters)
            logger.debug("clusters %s", step.clusters.version)
        if step.scopes is not None:
            self._discovery.publish(SCOPE, step.scopes)
            logger.debug("scopes %s", step.scopes.version)

    async def _judge(self, suspects: tuple[Route, ...]) -> None:
        specs = {route.key: route.spec for route in suspects if route.spec is not None}
        verdicts = await find_refused(self._settings.envoy, self._bootstrap.read_text(), specs)
        for route in suspects:
            if route.key in verdicts:
                logger.error("route %s, generation %d: %s", route.name, route.generation, verdicts[route.key])
        self._ledger.judge(verdicts, suspects)

    def _prepare_report(self, wanted: Wanted, view: View, activity: Activity) -> None:
        existing, words = self._objects.routes.values(), self._samples.words
        routes, rejected = self._ledger.report(wanted, existing, view, activity, words)
        report = whole(self._settings.pod_uid, routes, rejected)
        if report != self._report:
            self._report = report
            self._reported.set()

    async def _tell(self) -> None:
        while True:
            await self._reported.wait()
            self._reported.clear()
            began = time.monotonic()
            if self._report is not None and not await self._reporter.write(self._report):
                self._reported.set()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await asyncio.sleep(rest(time.monotonic() - began))

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> None:
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return
