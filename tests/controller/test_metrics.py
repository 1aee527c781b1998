"""The metrics say what happened once, and the reference names all of them."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from sluice.api.reasons import Cause, Outcome
from sluice.api.status import Condition, EndpointStatus, LastDeployment, RevisionStatus
from sluice.controller.metrics import Metrics
from sluice.core.identity import Key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = Key("Endpoint", "team", "churn")
PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(CollectorRegistry(), "1.2.3")
    metrics.watch(queue_depth=lambda: 7, queue_oldest_age_seconds=lambda: 0.5, lease_held=lambda: True)
    metrics.watch_alarms(periods=lambda: {"Traffic": 1.0}, watched=lambda: {"Traffic": 3})
    return metrics


def value(metrics: Metrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(metric, labels)


def test_the_reference_names_every_metric_with_its_labels_and_no_other(metrics: Metrics) -> None:
    rows = re.findall(r"^\| `(sluice_\w+)` \| (\w+) \|(.*?)\|", PAGE.read_text(), re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    known = {}
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        known[name] = family.type
    assert {name: kind for name, (kind, _) in told.items()} == known
    metrics.pass_ended("Endpoint", "acted", 0.1)
    metrics.aws_call("DescribeEndpoint", "ok", 0.1)
    metrics.kube_call("get", "Lease", "200", 0.1)
    metrics.show_endpoint(KEY, "SageMaker", EndpointStatus())
    ended = LastDeployment(revision="r", fleet_hash="f", outcome=Outcome.ROLLED_BACK, cause=Cause.ALARM, end_time=NOW)
    metrics.status_persisted(EndpointStatus(), EndpointStatus(last_deployment=ended), NOW)
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        for sample in family.samples:
            assert tuple(label for label in sample.labels if label != "le") == told[name][1], name


def test_the_queue_and_the_lease_are_read_when_asked(metrics: Metrics) -> None:
    assert value(metrics, "sluice_queue_depth") == 7
    assert value(metrics, "sluice_queue_oldest_age_seconds") == 0.5
    assert value(metrics, "sluice_lease_held") == 1


def test_the_poller_of_alarms_is_asked_by_source(metrics: Metrics) -> None:
    assert value(metrics, "sluice_alarm_period_seconds", source="Traffic") == 1.0
    assert value(metrics, "sluice_alarms_watched", source="Traffic") == 3


def test_every_outcome_and_cause_is_described() -> None:
    page = PAGE.read_text()
    for word in (*Outcome, *Cause):
        assert f"`{word}`" in page, word


def test_a_deployments_end_is_counted_once(metrics: Metrics) -> None:
    ended = LastDeployment(revision="r", fleet_hash="f", outcome=Outcome.ROLLED_BACK, cause=Cause.ALARM, end_time=NOW)
    before, after = EndpointStatus(), EndpointStatus(last_deployment=ended)
    metrics.status_persisted(before, after, NOW)
    metrics.status_persisted(after, after, NOW)
    assert value(metrics, "sluice_deployments_total", outcome="RolledBack", cause="Alarm") == 1


def test_detection_is_measured_from_sagemakers_time_when_the_status_moved(metrics: Metrics) -> None:
    creating = EndpointStatus(endpoint_status="Creating", last_modified_time=NOW)
    serving = EndpointStatus(endpoint_status="InService", last_modified_time=NOW + timedelta(seconds=60))
    metrics.status_persisted(creating, serving, NOW + timedelta(seconds=64))
    metrics.status_persisted(serving, serving.model_copy(update={"failure_reason": "x"}), NOW + timedelta(hours=1))
    assert value(metrics, "sluice_detection_seconds_count") == 1
    assert value(metrics, "sluice_detection_seconds_sum") == 4


def test_an_endpoints_series_follow_its_state_and_go_with_it(metrics: Metrics) -> None:
    def condition(type_: str, truth: str) -> Condition:
        return Condition.model_validate({"type": type_, "status": truth, "reason": "X", "lastTransitionTime": NOW})

    metrics.show_endpoint(KEY, "SageMaker", EndpointStatus())
    place = {"namespace": "team", "name": "churn"}
    assert value(metrics, "sluice_endpoint_state", **place, state="Pending") == 1
    ready = EndpointStatus(
        conditions=(condition("Ready", "True"), condition("Stalled", "False")),
        revision=RevisionStatus(name="r", fleet_hash="f", endpoint_config_name="cfg"),
    )
    metrics.show_endpoint(KEY, "SageMaker", ready)
    assert value(metrics, "sluice_endpoint_state", **place, state="Pending") is None
    assert value(metrics, "sluice_endpoint_state", **place, state="Ready") == 1
    assert value(metrics, "sluice_endpoint_info", **place, backend="SageMaker", config="cfg") == 1
    metrics.show_endpoint(KEY, "SageMaker", EndpointStatus(conditions=(condition("Stalled", "True"),)))
    assert value(metrics, "sluice_endpoint_state", **place, state="Stalled") == 1
    metrics.hide_endpoint(KEY)
    metrics.hide_endpoint(KEY)
    assert b"churn" not in generate_latest(metrics.registry)
