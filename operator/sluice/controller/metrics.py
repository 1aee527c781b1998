"""What Prometheus sees of the operator. One registry, injected; every metric is described in docs/reference/metrics.md.

Series of an Endpoint are removed with it."""

import collections
from collections.abc import Callable, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sluice.api.reasons import Cause, ConditionType, Outcome
from sluice.api.status import EndpointStatus
from sluice.core.identity import Key

disable_created_metrics()  # type: ignore[no-untyped-call] # the library is typed in parts

PASS_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2, 5, 15, 60)
DETECTION_BUCKETS = (1, 2, 4, 6, 10, 20, 35, 60, 120, 310, 900)


class Metrics:
    """The metrics, and ports.telemetry.Telemetry for the rooms that make calls."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        self.registry = registry
        self._passes = Counter("sluice_passes", "Passes over one object", ["kind", "outcome"], registry=registry)
        self._pass_duration = Histogram(
            "sluice_pass_duration_seconds", "How long a pass took", ["kind"], buckets=PASS_BUCKETS, registry=registry
        )
        self._aws_calls = Counter("sluice_aws_calls", "Calls to AWS", ["operation", "code"], registry=registry)
        self._kube_requests = Counter(
            "sluice_kube_requests", "Calls to the Kubernetes API", ["verb", "kind", "code"], registry=registry
        )
        self._deployments = Counter(
            "sluice_deployments", "Deployments that ended", ["outcome", "cause"], registry=registry
        )
        # A series that begins with 1 has not increased for Prometheus: the first rollback would raise no alert.
        for outcome in Outcome:
            for cause in (Cause.NONE,) if outcome is Outcome.SUCCEEDED else Cause:
                self._deployments.labels(outcome, cause)
        self._detection = Histogram(
            "sluice_detection_seconds",
            "From SageMaker's LastModifiedTime to the status that shows it",
            buckets=DETECTION_BUCKETS,
            registry=registry,
        )
        self._info = Gauge(
            "sluice_endpoint_info",
            "1 for each Endpoint; config is the AWS EndpointConfig in service",
            ["namespace", "name", "backend", "config"],
            registry=registry,
        )
        self._state = Gauge(
            "sluice_endpoint_state",
            "1 for the state an Endpoint is in",
            ["namespace", "name", "state"],
            registry=registry,
        )
        self._serving = Gauge(
            "sluice_endpoint_serving",
            "1 while an Endpoint answers requests, else 0",
            ["namespace", "name"],
            registry=registry,
        )
        self._running: dict[Key, tuple[str, str]] = {}
        registry.register(_Running(self._running))
        self._build = Gauge("sluice_build_info", "1; the operator's version", ["version"], registry=registry)
        self._build.labels(version).set(1)
        self._shown: dict[Key, tuple[tuple[str, ...], tuple[str, ...], float | None]] = {}

    def watch(
        self,
        *,
        queue_depth: Callable[[], float],
        queue_oldest_age_seconds: Callable[[], float],
        lease_held: Callable[[], bool],
    ) -> None:
        """What is read when it is asked for."""
        for name, text, read in (
            ("sluice_queue_depth", "Objects that wait for a worker", queue_depth),
            (
                "sluice_queue_oldest_age_seconds",
                "How long the object has waited that waits longest",
                queue_oldest_age_seconds,
            ),
            ("sluice_lease_held", "1 while this process may act", lease_held),
        ):
            self.registry.register(_Read(name, text, read))

    def watch_alarms(
        self, *, periods: Callable[[], Mapping[str, float]], watched: Callable[[], Mapping[str, int]]
    ) -> None:
        """The poller of alarms, asked when it is scraped. Both by source."""
        for name, text, read in (
            (
                "sluice_alarm_period_seconds",
                "From one reading of an alarm to the next, while some are watched",
                periods,
            ),
            ("sluice_alarms_watched", "Alarms that are read now", watched),
        ):
            self.registry.register(_ReadBySource(name, text, read))

    def pass_ended(self, kind: str, outcome: str, seconds: float) -> None:
        """One pass ended. outcome: unchanged, persisted, acted, dropped, failed, refused, gone."""
        self._passes.labels(kind, outcome).inc()
        self._pass_duration.labels(kind).observe(seconds)

    def aws_call(self, operation: str, code: str, seconds: float) -> None:
        """ports.telemetry."""
        self._aws_calls.labels(operation, code).inc()

    def kube_call(self, verb: str, kind: str, code: str, seconds: float) -> None:
        """ports.telemetry."""
        self._kube_requests.labels(verb, kind, code).inc()

    def status_persisted(self, before: EndpointStatus, after: EndpointStatus, now: datetime) -> None:
        """A changed status was written: what happened in it is counted once."""
        ended = after.last_deployment
        if ended is not None and ended != before.last_deployment:
            self._deployments.labels(ended.outcome, ended.cause).inc()
        moved = after.last_modified_time
        if moved is not None and before.endpoint_status != after.endpoint_status and moved != before.last_modified_time:
            self._detection.observe(max(0.0, (now - moved).total_seconds()))

    def show_endpoint(self, key: Key, backend: str, status: EndpointStatus) -> None:
        """An Endpoint is in this state."""
        if status.deployment is not None:
            self._running[key] = (status.deployment.policy, status.deployment.stage)
        else:
            self._running.pop(key, None)
        config = (status.revision.endpoint_config_name if status.revision else None) or ""
        info = (key.namespace, key.name, backend, config)
        state = (key.namespace, key.name, _state_of(status))
        serving = _serving(status)
        if self._shown.get(key) == (info, state, serving):
            return
        self._unshow(key)
        self._info.labels(*info).set(1)
        self._state.labels(*state).set(1)
        if serving is not None:
            self._serving.labels(key.namespace, key.name).set(serving)
        self._shown[key] = (info, state, serving)

    def hide_endpoint(self, key: Key) -> None:
        """An Endpoint is gone."""
        self._running.pop(key, None)
        self._unshow(key)

    def _unshow(self, key: Key) -> None:
        shown = self._shown.pop(key, None)
        if shown is not None:
            self._info.remove(*shown[0])
            self._state.remove(*shown[1])
            if shown[2] is not None:
                self._serving.remove(key.namespace, key.name)


def _state_of(status: EndpointStatus) -> str:
    """The condition that says most: Stalled, Reconciling, Ready, or Pending before the first."""
    truths = {condition.type: condition.status for condition in status.conditions}
    for word in ("Stalled", "Reconciling", "Ready"):
        if truths.get(word) == "True":
            return word
    return "Pending"


def _serving(status: EndpointStatus) -> float | None:
    """Condition Serving as a number; None where nobody expects an answer: before, while it is made, as it goes."""
    if status.endpoint_status in {None, "Creating", "Deleting"}:
        return None
    return float(any(c.type == ConditionType.SERVING and c.status == "True" for c in status.conditions))


class _ReadBySource(Collector):
    """Gauges of the sources of alarms, whose values are asked for at each scrape."""

    def __init__(self, name: str, text: str, read: Callable[[], Mapping[str, float]]) -> None:
        self._name, self._text, self._values = name, text, read

    def describe(self) -> list[GaugeMetricFamily]:
        """Its name, without reading it."""
        return [GaugeMetricFamily(self._name, self._text, labels=["source"])]

    def collect(self) -> list[GaugeMetricFamily]:
        """Their values now."""
        family = GaugeMetricFamily(self._name, self._text, labels=["source"])
        for source, value in self._values().items():
            family.add_metric([source], value)
        return [family]


class _Running(Collector):
    """How many deployments run, counted at each scrape."""

    def __init__(self, running: Mapping[Key, tuple[str, str]]) -> None:
        self._deployments = running

    def describe(self) -> list[GaugeMetricFamily]:
        """Its name, without any series."""
        return [self._family()]

    def collect(self) -> list[GaugeMetricFamily]:
        """Their number now, by namespace, policy and stage."""
        family = self._family()
        counted = collections.Counter((key.namespace, *where) for key, where in self._deployments.items())
        for labels, number in sorted(counted.items()):
            family.add_metric(labels, number)
        return [family]

    @staticmethod
    def _family() -> GaugeMetricFamily:
        labels = ["namespace", "policy", "stage"]
        return GaugeMetricFamily("sluice_deployments_running", "Deployments that are under way", labels=labels)


class _Read(Collector):
    """A gauge whose value is asked for at each scrape."""

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self._name, self._text, self._value = name, text, read

    def describe(self) -> list[GaugeMetricFamily]:
        """Its name, without reading it."""
        return [GaugeMetricFamily(self._name, self._text)]

    def collect(self) -> list[GaugeMetricFamily]:
        """Its value now."""
        family = GaugeMetricFamily(self._name, self._text)
        family.add_metric([], self._value())
        return [family]
