"""The expressions of docs/howto/alarms-in-the-cluster.md, in a real Prometheus that scrapes a real router."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.alarms.routers import invoke
from tests.router.harness.caller import Load, order
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.specs import fleet, route

from localcluster.prometheus import Prometheus
from sluice.alarms.prometheus import PrometheusSettings, PrometheusSource
from sluice.alarms.subjects import Query, subject
from sluice.api.endpoint import KubernetesAlarm
from sluice.core.observation import AlarmQuestion, AlarmWatch, WatchedFleet
from sluice.ports.clock import SystemClock

PAGE = Path(__file__).parents[2] / "docs/howto/alarms-in-the-cluster.md"
ALARMS = {
    alarm["name"]: alarm
    for block in re.findall(r"```yaml\n(kubernetes:.*?)```", PAGE.read_text(), re.DOTALL)
    for alarm in yaml.safe_load(block)["kubernetes"]["alarms"]
}
WATCH = AlarmWatch(
    (),
    "team-a",
    "churn",
    new=(WatchedFleet("new", "a", "churn-2-w"),),
    serving=(WatchedFleet("old", "a", "churn-1-w"),),
    endpoint_name="Churn",
)
Start = Callable[..., Container]


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_what_the_page_shows_is_accepted(name: str) -> None:
    assert KubernetesAlarm.model_validate(ALARMS[name])


def query(name: str) -> Query:
    """As the operator asks it."""
    made = subject(WATCH, AlarmQuestion("PromQL", name, ALARMS[name]))
    assert isinstance(made, Query)
    return made


@pytest.fixture
def churn(envoy: Envoy, drive: Drive, container: Start, prometheus: Prometheus) -> dict[str, Container]:
    """An Endpoint whose old revision answers, beside a new one that gets half of the requests."""
    models = {"old": container("old", keep=False), "new": container("new", keep=False)}
    drive.put(
        route(
            "Churn",
            fleet("old", "a", 500_000, models["old"].port).model_copy(update={"revision": "churn-1"}),
            fleet("new", "a", 500_000, models["new"].port).model_copy(update={"revision": "churn-2"}),
        ),
        ("old", "127.0.0.1"),
        ("new", "127.0.0.1"),
    )
    drive.settle()
    prometheus.configure(
        targets=[envoy.metrics.removeprefix("http://")],
        labels={"__metrics_path__": "/stats/prometheus", "namespace": "team-a"},
    )
    return models


def until(prometheus: Prometheus, states: dict[str, str]) -> None:
    """Until Prometheus says so, which scrapes once a second."""

    async def ask() -> None:
        source = PrometheusSource(SystemClock(), PrometheusSettings(prometheus.url))
        asked = {name: query(name) for name in states}
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(240):
                while {name: sight.state for name, sight in found.items()} != states:
                    sights = await source.read(set(asked.values()))
                    found = {name: sights[asked[name]] for name in asked}
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"{found} did not become {states}")
        finally:
            await source.close()

    asyncio.run(ask())


def test_each_expression_tells_quiet_clean_bad_and_slow(
    envoy: Envoy, churn: dict[str, Container], prometheus: Prometheus
) -> None:
    quiet = dict.fromkeys(("share-of-5xx", "model-errors", "latency", "latency-compared"), "INSUFFICIENT_DATA")
    until(prometheus, quiet)
    with Load(envoy.url, "Churn", concurrency=1):
        until(prometheus, dict.fromkeys(quiet, "OK"))
        churn["new"].delay_seconds = 0.8
        until(prometheus, {"share-of-5xx": "OK", "model-errors": "OK", "latency": "ALARM", "latency-compared": "ALARM"})
        churn["new"].delay_seconds, churn["new"].status = 0.0, 404
        until(prometheus, {"share-of-5xx": "OK", "model-errors": "ALARM", "latency": "OK"})
        churn["new"].status = 500
        until(prometheus, {"share-of-5xx": "ALARM", "model-errors": "ALARM"})


def test_the_serving_revisions_errors_are_not_the_new_ones(
    envoy: Envoy, churn: dict[str, Container], prometheus: Prometheus
) -> None:
    churn["old"].status = 500
    assert set(invoke(envoy, "Churn", 20, order("echo"))) == {200, 424}
    with Load(envoy.url, "Churn", concurrency=1):
        until(prometheus, {"share-of-5xx": "OK", "model-errors": "OK"})
