"""The metrics say what happened once, and the reference names all of them."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from tests.controller.clock import SteppedClock

from sluice.api.reasons import Cause, Outcome
from sluice.api.routes import EndpointRouteSpec, RouteReport, RouterReportSpec
from sluice.api.status import Condition, DeploymentStatus, EndpointStatus, LastDeployment, RevisionStatus
from sluice.controller.cluster_metrics import ClusterMetrics
from sluice.controller.metrics import Metrics
from sluice.core.cluster.observation import ClusterObservation, FleetSeen, RouterSeen, RouteSeen
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


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def in_cluster(metrics: Metrics, clock: SteppedClock) -> ClusterMetrics:
    return ClusterMetrics(metrics.registry, clock)


def deployment(stage: str) -> DeploymentStatus:
    return DeploymentStatus(revision="r", fleet_hash="f", policy="CANARY", stage=stage)


def observation(*fleets: FleetSeen, generation: int = 2, confirmed: tuple[int, ...] = ()) -> ClusterObservation:
    """The fleets, the routes in this generation, and what generation each Ready router reports."""

    def report(number: int) -> RouterReportSpec:
        entry = RouteReport(name="churn", uid="route", generation=number)
        return RouterReportSpec(pod_uid="u", schema_version=1, routes=(entry,))

    return ClusterObservation(
        fleets=fleets,
        route=RouteSeen("route", generation, "1", EndpointRouteSpec(endpoint_name="churn")),
        routers=tuple(
            RouterSeen(f"router-{n}", f"u{n}", ready=True, terminating=False, report=report(number))
            for n, number in enumerate(confirmed)
        ),
    )


def value(metrics: Metrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(metric, labels)


def test_the_reference_names_every_metric_with_its_labels_and_no_other(
    metrics: Metrics, in_cluster: ClusterMetrics
) -> None:
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
    metrics.show_endpoint(KEY, "SageMaker", EndpointStatus(deployment=deployment("Baking")))
    in_cluster.saw(KEY, observation(FleetSeen("f", "a", "h", "u", replicas=1, ready=1, existing=1)))
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


def test_the_first_rollback_is_an_increase(metrics: Metrics) -> None:
    """Prometheus sees no increase in a series that begins with 1, and the alert on rollbacks asks for one."""
    for outcome in (Outcome.ROLLED_BACK, Outcome.UPDATE_ROLLBACK_FAILED):
        assert {cause: value(metrics, "sluice_deployments_total", outcome=outcome, cause=cause) for cause in Cause} == (
            dict.fromkeys(Cause, 0)
        )


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


@pytest.mark.parametrize(
    ("word", "truth", "shown"),
    [
        (None, "False", None),
        ("Creating", "False", None),
        ("InService", "True", 1),
        ("InService", "False", 0),  # no router answers
        ("OutOfService", "False", 0),
        ("Failed", "False", 0),
        ("Deleting", "False", None),
    ],
)
def test_who_does_not_answer_is_told_where_an_answer_is_expected(
    metrics: Metrics, word: str | None, truth: str, shown: float | None
) -> None:
    condition = {"type": "Serving", "status": truth, "reason": "X", "lastTransitionTime": NOW}
    told = EndpointStatus.model_validate({"endpointStatus": word, "conditions": [condition]})
    before = told.model_copy(update={"endpoint_status": "Updating"})
    for status in (before, told):
        metrics.show_endpoint(KEY, "Cluster", status)
    assert value(metrics, "sluice_endpoint_serving", namespace="team", name="churn") == shown
    metrics.hide_endpoint(KEY)
    assert b"churn" not in generate_latest(metrics.registry)


def test_deployments_under_way_are_counted_by_where_they_are(metrics: Metrics) -> None:
    def running(stage: str) -> float | None:
        return value(metrics, "sluice_deployments_running", namespace="team", policy="CANARY", stage=stage)

    other = Key("Endpoint", "team", "fraud")
    for key in (KEY, other):
        metrics.show_endpoint(key, "Cluster", EndpointStatus(deployment=deployment("Baking")))
    assert running("Baking") == 2
    metrics.show_endpoint(KEY, "Cluster", EndpointStatus(deployment=deployment("CleaningUp")))
    assert (running("Baking"), running("CleaningUp")) == (1, 1)
    metrics.show_endpoint(KEY, "Cluster", EndpointStatus())
    metrics.hide_endpoint(other)
    assert (running("Baking"), running("CleaningUp")) == (None, None)


def test_fleets_and_pods_are_told_by_variant_and_go_with_the_endpoint(
    metrics: Metrics, in_cluster: ClusterMetrics
) -> None:
    place = {"namespace": "team", "name": "churn"}
    old = FleetSeen("old", "a", "h1", "u1", replicas=4, ready=4, existing=4)
    new = FleetSeen("new", "a", "h2", "u2", replicas=2, ready=1, existing=2)
    other = FleetSeen("b", "b", "h1", "u3", replicas=1, ready=0, existing=1)
    in_cluster.saw(KEY, observation(old, new, other, confirmed=(2, 1)))

    def shown(variant: str) -> tuple[float | None, ...]:
        named = ("sluice_fleets", "sluice_fleet_pods_wanted", "sluice_fleet_pods_ready")
        return tuple(value(metrics, name, **place, variant=variant) for name in named)

    assert shown("a") == (2, 6, 5)
    assert shown("b") == (1, 1, 0)
    assert value(metrics, "sluice_routers_behind", **place) == 1
    in_cluster.saw(KEY, observation(new, confirmed=(2, 2)))
    assert shown("a") == (1, 2, 1)
    assert shown("b") == (None, None, None)
    assert value(metrics, "sluice_routers_behind", **place) == 0
    in_cluster.forget(KEY)
    assert b"churn" not in generate_latest(metrics.registry)


async def test_routes_are_timed_from_the_first_write_until_all_ready_routers_have_them(
    metrics: Metrics, in_cluster: ClusterMetrics, clock: SteppedClock
) -> None:
    async def passed(seconds: float, *confirmed: int) -> tuple[float | None, float | None]:
        await clock.step(seconds)
        in_cluster.saw(KEY, observation(generation=2, confirmed=confirmed))
        name = "sluice_route_confirmation_seconds"
        return value(metrics, f"{name}_count"), value(metrics, f"{name}_sum")

    assert await passed(1, 2, 2) == (0, 0), "nothing was written"
    in_cluster.route_written(KEY)
    assert await passed(1, 2, 1) == (0, 0)
    in_cluster.route_written(KEY)
    assert await passed(2, 2, 2) == (1, 3)
    assert await passed(1, 2, 2) == (1, 3), "told once"
    in_cluster.route_written(KEY)
    in_cluster.forget(KEY)
    assert await passed(1, 2, 2) == (1, 3)
