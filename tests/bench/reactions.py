"""How soon a bad revision has no traffic any more: from its first bad answer, and from the alarm's state, to both
routers' word. Operator, API server, routers and (for PromQL) Prometheus are real; the new revision answers 500."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure
from tests.bench.rollouts import ENDPOINT, Rollouts, rollouts, scraped
from tests.bench.router import percentile
from tests.bench.routes import ROUTE_BACK, ROUTERS_BACK
from tests.bench.routing import NAMESPACE, Called

from sluice.alarms.subjects import Query, subject
from sluice.core.observation import AlarmQuestion, AlarmWatch, WatchedFleet

PER_SECOND, CONNECTIONS = 100, 16
LONG_SECONDS = 600
"""A bake that only the alarm ends."""
CANARY: dict[str, Any] = {
    "blueGreenUpdatePolicy": {
        "trafficRoutingConfiguration": {
            "type": "CANARY",
            "canarySize": {"type": "CAPACITY_PERCENT", "value": 10},
            "waitIntervalInSeconds": LONG_SECONDS,
        },
        "terminationWaitInSeconds": LONG_SECONDS,
    }
}
WINDOW_SECONDS, MINIMUM = 2, 10
TRAFFIC: dict[str, Any] = {
    "name": "errors",
    "traffic": {
        "metric": "Invocation5XXErrors",
        "threshold": 0.02,
        "windowSeconds": WINDOW_SECONDS,
        "minimumRequests": MINIMUM,
    },
}
_COUNTED = 'envoy_cluster_upstream_rq{namespace="$namespace",sluice_endpoint="$endpoint",sluice_revision="$revision"'
PROMQL: dict[str, Any] = {
    "name": "share-of-5xx",
    "promql": {
        "expression": f'(sum(rate({_COUNTED},envoy_response_code_class="5xx"}}[10s])) or vector(0)) '
        f"/ sum(rate({_COUNTED}}}[10s]))",
        "comparison": "GreaterThanThreshold",
        "threshold": 0.02,
    },
}
"""As docs/howto/alarms-in-the-cluster.md has it."""
_BY = "by (namespace, sluice_endpoint, sluice_revision)"
RULE: dict[str, Any] = {
    "alert": "ModelAnswers5xx",
    "expr": f'sum {_BY} (rate(envoy_cluster_upstream_rq{{envoy_response_code_class="5xx"}}[10s])) '
    f"/ sum {_BY} (rate(envoy_cluster_upstream_rq[10s])) > 0.02",
}
ALERT: dict[str, Any] = {
    "name": "alert",
    "prometheusAlert": {
        "alertName": RULE["alert"],
        "matchLabels": {"namespace": "$namespace", "sluice_endpoint": "$endpoint", "sluice_revision": "$revision"},
    },
}
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Bad:
    """A deployment of a bad revision, in seconds since 1970."""

    fleet: dict[str, Any]
    """Of the new revision, as the route had it."""
    came: tuple[float, ...]
    """When each request reached it."""
    written: float
    """When the route was seen without it."""
    confirmed: float
    """When both routers were seen to have that in force."""


@dataclass(slots=True)
class Measured:
    """All deployments of a kind of alarm."""

    from_answer: list[float] = field(default_factory=list)
    """From the first request that reached the bad model, which answers at once."""
    from_state: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    """From the state to the route."""
    bad: int = 0
    late: int = 0
    """Requests that reached the new revision after the confirmation."""
    lost: int = 0
    statuses: Counter[str] = field(default_factory=Counter)


def traffic(directory: Path, *, quick: bool) -> list[Figure]:
    """What the routers count, read by the operator."""
    with rollouts(directory, 1, real=True) as stage:
        start = f"{MINIMUM}th request at the bad model within {WINDOW_SECONDS} s"
        return _figures("traffic alarm", start, _measure(stage, TRAFFIC, enough_at, quick))


def promql(directory: Path, *, quick: bool) -> list[Figure]:
    """A condition that Prometheus is asked, which scrapes both routers every second."""
    with scraped(directory, 1) as (stage, prometheus):
        measured = _measure(stage, PROMQL, partial(_true_at, prometheus.url), quick)
        return _figures("PromQL, scraped each second", "condition true by what was scraped", measured)


def alert(directory: Path, *, quick: bool) -> list[Figure]:
    """The same as a rule that Prometheus evaluates every second."""
    with scraped(directory, 1, RULE) as (stage, prometheus):
        measured = _measure(stage, ALERT, partial(_fired_at, prometheus.url), quick)
        return _figures("alert, scraped and evaluated each second", "alert noted as firing", measured)


def _measure(stage: Rollouts, alarm: dict[str, Any], state_at: Callable[[Bad], float], quick: bool) -> Measured:
    measured = Measured()
    stage.guard(CANARY, {"alarms": [alarm]})
    for number in range(3 if quick else 30):
        bad, called = _turned_back(stage, stage.world.directory / f"bad-{number}")
        measured.from_answer.append(bad.confirmed - bad.came[0])
        measured.from_state.append(bad.confirmed - state_at(bad))
        measured.written.append(bad.written - state_at(bad))
        measured.bad += len(bad.came)
        measured.late += sum(at > bad.confirmed for at in bad.came)
        measured.lost += called.lost_count - len(bad.came)
        measured.statuses.update(called.statuses)
    return measured


def _turned_back(stage: Rollouts, record: Path) -> tuple[Bad, Called]:
    """A bad revision under load, until its deployment has been rolled back."""
    world, (_, generation, serving) = stage.world, stage.world.routes.specs[ENDPOINT][-1]
    known = {fleet["name"] for fleet in serving["fleets"]}
    assert stage.standins is not None
    stage.standins.record = record
    calls = world.call(ENDPOINT, *world.routers, concurrency=CONNECTIONS, per_second=PER_SECOND)
    calls.until_total(PER_SECOND, 60)
    status = stage.deploy("RolledBack")
    calls.until_total(calls.total + PER_SECOND, 60)
    called = calls.finish()
    last = status["lastDeployment"]
    assert last["cause"] == "Alarm", last
    new: dict[str, Any] = {}
    for at, number, spec in world.routes.specs[ENDPOINT]:
        if number <= generation:
            continue
        found = [fleet for fleet in spec["fleets"] if fleet["name"] not in known and fleet["weight"] > 0]
        if found:
            new = found[0]
        elif new:
            confirmed = world.routes.confirmations(ENDPOINT, number)
            assert confirmed.keys() == {router.name for router in world.routers}, confirmed
            came = tuple(sorted(float(line) for line in record.read_text().split()))
            return Bad(new, came, at, max(confirmed.values())), called
    raise RuntimeError(f"the route of {ENDPOINT} never had the new revision, or has it still")


def enough_at(bad: Bad) -> float:
    """When what the alarm of TRAFFIC needs had come: so many requests within its window. All were answered 500."""
    return next(
        last for first, last in zip(bad.came, bad.came[MINIMUM - 1 :], strict=False) if last - first < WINDOW_SECONDS
    )


def _true_at(url: str, bad: Bad) -> float:
    """When the condition came true, by what Prometheus has scraped."""
    fleet = bad.fleet
    watch = AlarmWatch(
        (),
        NAMESPACE,
        ENDPOINT,
        new=(WatchedFleet(fleet["name"], fleet["variantName"], f"{fleet['revision']}-x"),),
        endpoint_name=ENDPOINT,
    )
    query = subject(watch, AlarmQuestion("PromQL", "", PROMQL))
    assert isinstance(query, Query)
    return _above(url, query.expression, query.threshold, bad)


def _fired_at(url: str, bad: Bad) -> float:
    """When the alert fired for the new revision, by what Prometheus wrote down."""
    revision = bad.fleet["revision"]
    fired = f'ALERTS{{alertname="{RULE["alert"]}",alertstate="firing",sluice_revision="{revision}"}}'
    return _above(url, fired, 0.0, bad)


def _above(url: str, expression: str, threshold: float, bad: Bad) -> float:
    """The first moment at which one series gives more than that."""
    words = {"query": expression, "start": bad.came[0], "end": bad.confirmed, "step": 0.02}
    with _OPENER.open(f"{url}/api/v1/query_range?{urllib.parse.urlencode(words)}", timeout=30) as answer:
        series = json.load(answer)["data"]["result"]
    return next(float(at) for one in series for at, value in one["values"] if float(value) > threshold)


def _figures(kind: str, state: str, measured: Measured) -> list[Figure]:
    """`state`: what is true from then on for whoever reads the alarm."""
    times, total = len(measured.from_state), measured.statuses.total()
    return [
        Figure(
            f"{state} -> {ROUTERS_BACK}: {kind}",
            f"{_said(measured.from_state)} ({times} rollbacks); -> {ROUTE_BACK} {_said(measured.written)}",
            "p99 < 2 s",
            {"seconds": _rounded(measured.from_state), "written": _rounded(measured.written)},
        ),
        Figure(
            f"first request at the bad model -> {ROUTERS_BACK}: {kind}, {PER_SECOND} requests/s, a canary of 10 %",
            f"{_said(measured.from_answer)} ({times} rollbacks)",
            "< 5 s",
            {"seconds": _rounded(measured.from_answer)},
        ),
        Figure(
            f"requests in these rollbacks: {kind}",
            f"{measured.lost} lost of {total:,} beside {measured.bad} that the bad model answered; "
            f"{measured.late} reached it after the confirmation",
            "0 and 0",
            {"statuses": dict(measured.statuses), "bad": measured.bad, "late": measured.late, "lost": measured.lost},
            {"lost": measured.lost, "after the confirmation": measured.late},
        ),
    ]


def _said(seconds: Sequence[float]) -> str:
    return f"p50 {percentile(seconds, 0.5):.2f} s, p99 {percentile(seconds, 0.99):.2f} s"


def _rounded(seconds: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in sorted(seconds)]


PARTS: dict[str, Callable[..., list[Figure]]] = {
    "alarm-reaction": traffic,
    "alarm-reaction-promql": promql,
    "alarm-reaction-alert": alert,
}
"""Each takes a directory of its own and `quick`."""
