"""The expressions of docs/howto/alarms-in-the-cluster.md, in a real Prometheus that scrapes a real router."""

import re
from pathlib import Path

import pytest
import yaml
from tests.alarms import churn as churns
from tests.alarms.churn import WATCH, scrape
from tests.alarms.routers import invoke
from tests.router.harness.caller import Load, order
from tests.router.harness.container import Container
from tests.router.harness.envoy import Envoy

from localcluster.prometheus import Prometheus
from sluice.alarms.subjects import Query, subject
from sluice.api.endpoint import KubernetesAlarm
from sluice.core.observation import AlarmQuestion

PAGE = Path(__file__).parents[2] / "docs/howto/alarms-in-the-cluster.md"
ALARMS = {
    alarm["name"]: alarm
    for block in re.findall(r"```yaml\n(kubernetes:.*?)```", PAGE.read_text(), re.DOTALL)
    for alarm in yaml.safe_load(block)["kubernetes"]["alarms"]
}


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_what_the_page_shows_is_accepted(name: str) -> None:
    assert KubernetesAlarm.model_validate(ALARMS[name])


def query(name: str) -> Query:
    """As the operator asks it."""
    made = subject(WATCH, AlarmQuestion("PromQL", name, ALARMS[name]))
    assert isinstance(made, Query)
    return made


@pytest.fixture
def scraped(envoy: Envoy, churn: dict[str, Container], prometheus: Prometheus) -> Prometheus:
    """A Prometheus that scrapes the router of Churn."""
    scrape(prometheus, envoy)
    return prometheus


def until(prometheus: Prometheus, states: dict[str, str]) -> None:
    """Until Prometheus says so of the page's alarms."""
    churns.until(prometheus, {query(name): state for name, state in states.items()})


def test_each_expression_tells_quiet_clean_bad_and_slow(
    envoy: Envoy, churn: dict[str, Container], scraped: Prometheus
) -> None:
    quiet = dict.fromkeys(("share-of-5xx", "model-errors", "latency", "latency-compared"), "INSUFFICIENT_DATA")
    until(scraped, quiet)
    with Load(envoy.url, "Churn", concurrency=1):
        until(scraped, dict.fromkeys(quiet, "OK"))
        churn["new"].delay_seconds = 0.8
        until(scraped, {"share-of-5xx": "OK", "model-errors": "OK", "latency": "ALARM", "latency-compared": "ALARM"})
        churn["new"].delay_seconds, churn["new"].status = 0.0, 404
        until(scraped, {"share-of-5xx": "OK", "model-errors": "ALARM", "latency": "OK"})
        churn["new"].status = 500
        until(scraped, {"share-of-5xx": "ALARM", "model-errors": "ALARM"})


def test_the_serving_revisions_errors_are_not_the_new_ones(
    envoy: Envoy, churn: dict[str, Container], scraped: Prometheus
) -> None:
    churn["old"].status = 500
    assert set(invoke(envoy, "Churn", 20, order("echo"))) == {200, 424}
    with Load(envoy.url, "Churn", concurrency=1):
        until(scraped, {"share-of-5xx": "OK", "model-errors": "OK"})
