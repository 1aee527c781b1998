"""How much of the time the agent's turns may take."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.router.harness.api import Namespace
from tests.router.harness.envoy import Envoy
from tests.router.specs import fleet, route

from localcluster.controlplane import ControlPlane
from sluice.api.routes import RouteSample
from sluice.kube.client import KubeClient
from sluice.kube.configuration import load_configuration
from sluice.ports.kube import Object
from sluice.router.admin import Admin
from sluice.router.agent import Agent
from sluice.router.pace import BURST_SECONDS, LONGEST_SECONDS, SHARE, Pace
from sluice.router.reporting import INTERVAL_SECONDS, LONGEST_INTERVAL_SECONDS, rest
from sluice.router.view import Activity

LOOK_SECONDS = 0.05
REPORT_SECONDS = 0.8
SECONDS = 9.0
"""For which routes change, one after the other."""
TURNS = st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 3.0)), max_size=50)
"""For each how long it takes, and how long nothing happens after its rest."""
_ROUNDING = 1e-6


def test_a_change_by_itself_waits_for_nothing() -> None:
    pace, now = Pace(), 100.0
    for _ in range(20):  # one change after the other, each of five turns of 8 ms
        for _ in range(5):
            assert pace.rest(now, now + 0.008) == 0
            now += 0.010
        now += 0.2


def test_turns_without_end_take_their_share_and_no_more() -> None:
    pace, now, took = Pace(), 0.0, 0.0
    for _ in range(200):
        rest = pace.rest(now, now + 0.025)
        took, now = took + 0.025, now + 0.025 + rest
    assert took / now == pytest.approx(SHARE, rel=0.05)


@given(TURNS)
def test_no_rest_is_longer_than_the_longest_however_long_a_turn_took(turns: list[tuple[float, float]]) -> None:
    pace, now = Pace(), 0.0
    for took, idle in turns:
        rest = pace.rest(now, now + took)
        assert 0 <= rest <= LONGEST_SECONDS + _ROUNDING
        now += took + rest + idle


@given(TURNS)
def test_short_turns_never_take_more_than_their_share_and_a_burst(turns: list[tuple[float, float]]) -> None:
    pace, now, all_of_them = Pace(), 0.0, 0.0
    for took, idle in turns:
        short = took / 50  # of longer ones not all that they owe is asked for
        rest = pace.rest(now, now + short)
        now += short + rest + idle
        all_of_them += short
        assert all_of_them <= now * SHARE + BURST_SECONDS + _ROUNDING


def test_after_a_pause_nothing_is_owed() -> None:
    pace = Pace()
    assert pace.rest(0.0, 4.0) == pytest.approx(LONGEST_SECONDS)
    assert pace.rest(4.0 + LONGEST_SECONDS + BURST_SECONDS, 4.36) == 0


class Busy(Admin):
    """An Envoy of so many clusters that a look at them takes its time."""

    def __init__(self, socket: Path) -> None:
        super().__init__(socket)
        self.looks = 0

    async def activity(self) -> Activity:
        self.looks += 1
        await asyncio.sleep(LOOK_SECONDS)
        return await super().activity()


@pytest.fixture
def envoy_alone(tmp_path: Path) -> Iterator[Envoy]:
    """One that nobody tells anything yet."""
    made = Envoy(tmp_path / "run")
    made.start(wait=False)
    yield made
    made.kill()


class Slow(KubeClient):
    """An API server that has much to do: a report takes its time."""

    def __init__(self, *arguments: Any, **rest: Any) -> None:
        super().__init__(*arguments, **rest)
        self.took: list[float] = []
        """Seconds, each report that tells of the endpoint that changes."""

    async def replace(self, kind: str, namespace: str, body: Object) -> Object:
        if kind != "RouterReport":
            return await super().replace(kind, namespace, body)
        began = time.monotonic()
        await asyncio.sleep(REPORT_SECONDS)
        replaced = await super().replace(kind, namespace, body)
        if any(told["name"] == "churn" for told in body["spec"]["routes"]):
            self.took.append(time.monotonic() - began)
        return replaced


@pytest.fixture
async def kube(control_plane: ControlPlane) -> AsyncIterator[Slow]:
    environ = {**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)}
    made = Slow(await load_configuration(environ), identity="test")
    yield made
    await made.close()


def test_a_report_rests_as_long_as_it_took_within_limits() -> None:
    assert rest(0.01) == INTERVAL_SECONDS
    assert rest(0.5) == 0.5
    assert rest(60.0) == LONGEST_INTERVAL_SECONDS


@pytest.mark.apiserver
async def test_changes_one_after_the_other_leave_most_of_the_time_to_others(
    control_plane: ControlPlane, envoy_alone: Envoy, kube: Slow
) -> None:
    team = await asyncio.to_thread(Namespace, control_plane.kubeconfig)
    # Where a fleet has a sample invocation, Envoy is looked at with each change.
    await asyncio.to_thread(team.put_route, route("sampled", fleet("sampled-a", sample=RouteSample(body="sample"))))
    await asyncio.to_thread(team.put_route, route("churn", fleet("churn-a"), fleet("churn-b", "b", weight=0)))
    stored = await kube.get("EndpointRoute", team.name, "churn")
    assert stored is not None
    settings = replace(envoy_alone.settings, namespace=team.name)
    admin = Busy(envoy_alone.directory / "admin.sock")
    agent = asyncio.create_task(Agent(settings, kube, admin, envoy_alone.bootstrap).run())
    try:
        await asyncio.to_thread(Envoy.until, lambda: admin.looks > 0, 60)
        looks, reports, number, began = admin.looks, len(kube.took), 0, time.monotonic()
        while time.monotonic() < began + SECONDS:
            number += 1
            stored["spec"]["fleets"][1]["weight"] = number % 100
            stored = await kube.replace("EndpointRoute", team.name, stored)
        ended = time.monotonic()
        seconds, looks, took = ended - began, admin.looks - looks, kube.took[reports:]
        assert looks >= 10, "it hardly looks while routes change"
        assert looks * LOOK_SECONDS < seconds * SHARE + BURST_SECONDS, (looks, seconds)
        assert len(took) >= 2, "it does not report while routes change"
        # Each but the last was followed by a rest as long; the first may have begun before.
        assert sum(took[1:-1]) * 2 < seconds, (took, seconds)
        last = stored["metadata"]["generation"]
        while await asyncio.to_thread(team.generation, settings.pod_name, "churn") != last:
            assert time.monotonic() < ended + 20, "the last change was not confirmed"
    finally:
        agent.cancel()
        await asyncio.gather(agent, return_exceptions=True)
        await admin.close()
