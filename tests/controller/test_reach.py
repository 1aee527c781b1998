"""What cannot be handled at the start keeps nothing else waiting, and is not left out for ever."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube

from sluice.main.reach import LOOK_AGAIN_SECONDS, PATIENCE_SECONDS, Reach, ReachChangedError, find, until_it_changes
from sluice.main.settings import Settings
from sluice.main.wiring import EXIT_REACH_CHANGED, _exit_code
from sluice.ports.kube import Forbidden, Gone, Object

SETTINGS = Settings(watch_namespaces=("team-a", "team-b", "team-c"))


class Guarded(MemoryKube):
    """Lists nothing in the namespaces that are closed, and no kind that is not served."""

    def __init__(self) -> None:
        super().__init__()
        self.closed: set[str | None] = set()
        self.absent: set[str] = set()

    async def list_metadata(
        self, kind: str, namespace: str | None = None, label_selector: str = ""
    ) -> AsyncIterator[Object]:
        if kind in self.absent:
            raise Gone(f"{kind} is not served")
        if namespace in self.closed:
            raise Forbidden(f"cannot list {kind} in {namespace}")
        async for item in super().list_metadata(kind, namespace, label_selector):
            yield item


@pytest.fixture
def kube() -> Guarded:
    return Guarded()


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


async def found(kube: Guarded, clock: SteppedClock, settings: Settings = SETTINGS) -> Reach:
    finding = asyncio.create_task(find(kube, settings, sleep=clock.sleep))
    await clock.step(2 * PATIENCE_SECONDS)
    assert finding.done(), "it waits"
    return finding.result()


async def grown(kube: Guarded, clock: SteppedClock, reach: Reach) -> str | None:
    """Why the process would start anew within two looks."""
    looking = asyncio.create_task(until_it_changes(kube, reach, sleep=clock.sleep))
    await clock.step(2 * LOOK_AGAIN_SECONDS)
    if not looking.done():
        looking.cancel()
        return None
    assert isinstance(looking.exception(), ReachChangedError)
    assert _exit_code([looking]) == EXIT_REACH_CHANGED
    return str(looking.exception())


async def test_where_all_can_be_read_nothing_is_looked_at_again(kube: Guarded, clock: SteppedClock) -> None:
    for settings in (Settings(watch_namespaces=("team-a",)), Settings(), Settings(cluster_backend=False)):
        reach = await found(kube, clock, settings)
        assert (reach.settings, reach.may_change) == (settings, False)


async def test_a_namespace_that_goes_later_keeps_no_other_one_waiting(kube: Guarded, clock: SteppedClock) -> None:
    """What lists all of them, as the sweep for missed deletions does, would be refused for ever."""
    reach = await found(kube, clock)
    assert reach.may_change
    assert await grown(kube, clock, reach) is None
    kube.closed = {"team-b"}
    why = await grown(kube, clock, reach)
    assert why == "namespaces that were watched may not be read any more (are they gone?): team-b"
    assert (await found(kube, clock)).settings.watch_namespaces == ("team-a", "team-c")


async def test_a_role_that_is_replaced_ends_nothing(kube: Guarded, clock: SteppedClock) -> None:
    reach = await found(kube, clock)
    looking = asyncio.create_task(until_it_changes(kube, reach, sleep=clock.sleep))
    for closed in (
        {"team-a"},
        {"team-b"},
        set[str | None](),
        {*SETTINGS.watch_namespaces},
        {*SETTINGS.watch_namespaces},
    ):
        kube.closed = {*closed}
        await clock.step(LOOK_AGAIN_SECONDS)
        assert not looking.done()
    looking.cancel()


async def test_a_namespace_that_is_gone_keeps_no_other_one_waiting(
    kube: Guarded, clock: SteppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    kube.closed = {"team-b"}
    with caplog.at_level(logging.WARNING):
        reach = await found(kube, clock)
    assert reach == Reach(replace(SETTINGS, watch_namespaces=("team-a", "team-c")), ("team-b",), None)
    assert "namespaces team-b" in caplog.text
    assert await grown(kube, clock, reach) is None
    kube.away = True
    assert await grown(kube, clock, reach) is None
    kube.away, kube.closed = False, set()
    assert await grown(kube, clock, reach) == "namespaces that were left out may be read: team-b"


async def test_roles_that_are_just_being_made_are_waited_for(kube: Guarded, clock: SteppedClock) -> None:
    kube.closed = {"team-b", "team-c"}
    finding = asyncio.create_task(find(kube, SETTINGS, sleep=clock.sleep))
    await clock.step(PATIENCE_SECONDS / 2)
    kube.closed.clear()
    await clock.step(2)
    assert (await finding).left_out == ()


async def test_an_api_server_that_is_away_leaves_nothing_out(kube: Guarded, clock: SteppedClock) -> None:
    kube.away = True
    finding = asyncio.create_task(find(kube, SETTINGS, sleep=clock.sleep))
    await clock.step(10 * PATIENCE_SECONDS)
    assert not finding.done()
    kube.away = False
    await clock.step(2)
    assert (await finding).settings == SETTINGS


async def test_where_none_may_be_read_none_is_left_out(kube: Guarded, clock: SteppedClock) -> None:
    """No namespaces would mean all of them."""
    kube.closed = {*SETTINGS.watch_namespaces}
    reach = await found(kube, clock)
    assert (reach.settings, reach.left_out) == (SETTINGS, ())
    kube.closed = {"team-a"}
    only = Settings(watch_namespaces=("team-a",))
    assert (await found(kube, clock, only)).settings == only


@pytest.mark.parametrize("settings", [SETTINGS, Settings()])
async def test_the_backend_is_not_off_for_ever(kube: Guarded, clock: SteppedClock, settings: Settings) -> None:
    """CRDs that are applied after the operator, or an API server that is not quite there yet."""
    kube.absent = {"RouterReport"}
    reach = await found(kube, clock, settings)
    assert "RouterReport is not served" in str(reach.missing)
    assert await grown(kube, clock, reach) is None
    kube.absent = set()
    assert await grown(kube, clock, reach) == "backend Cluster was off and can work now"
