"""What voids everything that passes go by, or gives the Lease to another, ends the running passes first: before the
watches, which take seconds to end."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry

from sluice.api import names
from sluice.controller.lease import LeaseLostError
from sluice.controller.metrics import Metrics
from sluice.controller.sweep import HistoryWentBackError
from sluice.core.identity import Key
from sluice.kube.client import KubeClient
from sluice.main.settings import Settings
from sluice.main.wiring import EXIT_HISTORY_WENT_BACK, EXIT_LEASE_LOST, Operator

PATIENCE_SECONDS = 60


class Ending(Operator):
    """One pass that would never end, and watches that end last: they say what the pass was doing then."""

    def __init__(self, kube: KubeClient, error: Exception) -> None:
        super().__init__(Settings(), kube, Metrics(CollectorRegistry(), "test"), "prod", in_cluster=True)
        self.error = error
        self.passing = asyncio.Event()
        self.told: list[str] = []
        self._reconcilers = dict.fromkeys(self._reconcilers, self.look)
        self._queue.add(Key(names.ENDPOINT, "team", "churn"))

    async def look(self, _: Key) -> float | None:
        self.passing.set()
        try:
            return await asyncio.Event().wait()
        finally:
            self.told.append("the pass has ended")

    async def _hold(self) -> None:
        self._acquired.set()
        await self.passing.wait()
        raise self.error

    async def _observe(self, *_: object) -> None:
        self._synced.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.told.append("the watches are asked to end")


@pytest.fixture
async def kube() -> AsyncIterator[KubeClient]:
    made = KubeClient(Configuration(), identity="test")
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LeaseLostError("the lease was taken by robber"), EXIT_LEASE_LOST),
        (HistoryWentBackError("resourceVersion 7, before 9"), EXIT_HISTORY_WENT_BACK),
    ],
    ids=["lease", "history"],
)
async def test_passes_end_before_all_else(kube: KubeClient, error: Exception, code: int) -> None:
    operator = Ending(kube, error)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await operator.run(asyncio.Event(), lambda: None) == code
    assert operator.told == ["the pass has ended", "the watches are asked to end"]
