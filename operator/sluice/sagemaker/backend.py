"""The SageMaker backend: joins the sweep, the looks and the acts behind ports.backend.Backend."""

import asyncio
import contextlib
from collections.abc import Callable

from sluice.api.status import EndpointStatus
from sluice.core.actions import AwsAction
from sluice.core.identity import Credentials, Key, Target
from sluice.core.observation import Listed, Observation, Questions
from sluice.ports.aws import Aws
from sluice.ports.backend import ActFailed, AlarmReader
from sluice.ports.clock import Clock
from sluice.sagemaker.act import Actor
from sluice.sagemaker.observe import Observer
from sluice.sagemaker.recent import RecentWrites
from sluice.sagemaker.sweep import Sweep, SweepSettings


class SageMakerBackend:
    """Implements Backend. start() and stop() on the event loop that uses it; nothing is called before the first use."""

    def __init__(
        self, aws: Aws, alarms: AlarmReader, clock: Clock, sweep_settings: SweepSettings | None = None
    ) -> None:
        self._aws = aws
        self._clock = clock
        self._sweep_settings = sweep_settings or SweepSettings()
        self._recent = RecentWrites(clock.monotonic)
        self._observer = Observer(aws, alarms, self._recent, clock)
        self._actor = Actor(aws, self._recent)
        self._sweeps: dict[Credentials, Sweep] = {}
        self._watching: dict[Key, Sweep] = {}
        self._tasks: dict[Credentials, asyncio.Task[None]] = {}
        self._running = False
        self._wake: Callable[[Key], None] = lambda key: None

    async def start(self) -> None:
        """Begin to sweep for what is watched."""
        self._running = True
        for credentials, sweep in self._sweeps.items():
            self._start(credentials, sweep)

    async def stop(self) -> None:
        """End the sweeps."""
        self._running = False
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def account_id(self, target: Target) -> str:
        """See Backend."""
        try:
            return (await self._aws.account(target.credentials)).account_id
        except ActFailed:
            self._sweep(target.credentials).in_the_dark(target.endpoint_name)
            raise

    def listed(self, target: Target) -> Listed | None:
        """See Backend."""
        sweep = self._sweeps.get(target.credentials)
        return None if sweep is None else sweep.listing.get(target.endpoint_name)

    async def observe(self, target: Target, status: EndpointStatus, questions: Questions) -> Observation:
        """See Backend."""
        return await self._observer.observe(target, self._sweep(target.credentials), status, questions)

    async def act(self, target: Target, action: AwsAction) -> None:
        """See Backend."""
        await self._actor.act(target, action)

    def watch(self, key: Key, target: Target, *, moving: bool) -> None:
        """See Backend."""
        sweep = self._sweep(target.credentials)
        before = self._watching.get(key)
        if before is not None and before is not sweep:
            before.forget(key)
        self._watching[key] = sweep
        sweep.watch(key, target.endpoint_name, moving=moving)

    def forget(self, key: Key) -> None:
        """See Backend."""
        sweep = self._watching.pop(key, None)
        if sweep is not None:
            sweep.forget(key)

    def on_moved(self, wake: Callable[[Key], None]) -> None:
        """See Backend."""
        self._wake = wake
        for sweep in self._sweeps.values():
            sweep.on_moved(wake)

    def _sweep(self, credentials: Credentials) -> Sweep:
        sweep = self._sweeps.get(credentials)
        if sweep is None:
            sweep = Sweep(credentials, self._aws, self._recent, self._clock, self._sweep_settings)
            sweep.on_moved(self._wake)
            self._sweeps[credentials] = sweep
            if self._running:
                self._start(credentials, sweep)
        return sweep

    def _start(self, credentials: Credentials, sweep: Sweep) -> None:
        if credentials not in self._tasks:
            self._tasks[credentials] = asyncio.create_task(sweep.run(), name=f"sweep {credentials.region}")
