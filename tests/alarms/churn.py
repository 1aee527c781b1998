"""The Endpoint Churn in the middle of a deployment, as its alarms are asked of a real Prometheus."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.router.harness.envoy import Envoy

from localcluster.prometheus import Prometheus
from sluice.alarms.prometheus import PrometheusSettings, PrometheusSource
from sluice.alarms.subjects import Sight, Subject
from sluice.core.observation import AlarmWatch, WatchedFleet
from sluice.ports.clock import SystemClock

WATCH = AlarmWatch(
    (),
    "team-a",
    "churn",
    new=(WatchedFleet("new", "a", "churn-2-w"),),
    serving=(WatchedFleet("old", "a", "churn-1-w"),),
    endpoint_name="Churn",
)
SWAPPED = replace(WATCH, new=WATCH.serving, serving=WATCH.new)
"""The same fleets in each other's place: an alarm that fires for these looks at the old one."""


def scrape(prometheus: Prometheus, envoy: Envoy, **more: Any) -> None:
    """From now on it scrapes the router as one of Churn's namespace."""
    labels = {"__metrics_path__": "/stats/prometheus", "namespace": WATCH.namespace}
    prometheus.configure(targets=[envoy.metrics.removeprefix("http://")], labels=labels, **more)


def until(prometheus: Prometheus, states: Mapping[Subject, str], seconds: float = 240) -> None:
    """Until Prometheus says so, which scrapes once a second."""

    async def ask() -> None:
        source = PrometheusSource(SystemClock(), PrometheusSettings(prometheus.url))
        found: Mapping[Subject, Sight] = {}
        try:
            async with asyncio.timeout(seconds):
                while {asked: sight.state for asked, sight in found.items()} != states:
                    found = await source.read(states.keys())
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"{found} did not become {states}")
        finally:
            await source.close()

    asyncio.run(ask())
