"""An alarm that turns very many deployments back at once. Operator and API server are real, and so is what the alarm is
read from: moto's server behind AWS' quota for CloudWatch, a Prometheus, two routers' counters. Hands make the pods, and
but for the last report for the routers."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.bench.cloudwatch import said
from tests.bench.cluster import READY_SECONDS
from tests.bench.deployments import LONG_SECONDS, Crowd, crowd, edit, ended, name_of, status_of
from tests.bench.figures import Figure
from tests.bench.router import percentile
from tests.bench.routes import ROUTE_BACK, ROUTERS_BACK
from tests.bench.routing import NAMESPACE, Routing, address_of, until

from localcluster.prometheus import Prometheus

AT_ONCE, FEW = (50, 500), 10
"""The chart permits 50 deployments at once; ten times as many are what the operator can do."""
CALLERS, MOST_CALLS = 8, 1000
FIRST_BAD: dict[str, Any] = {
    "name": "first-bad",
    "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.0, "windowSeconds": 5, "minimumRequests": 1},
}
CONDITION: dict[str, Any] = {
    "name": "errors",
    "promql": {
        "expression": 'bench_errors{endpoint="$endpoint"}',
        "comparison": "GreaterThanThreshold",
        "threshold": 0.5,
    },
}
RULE: dict[str, Any] = {"alert": "BenchErrors", "expr": "bench_errors > 0.5"}
ALERT: dict[str, Any] = {
    "name": "errors",
    "prometheusAlert": {"alertName": RULE["alert"], "matchLabels": {"endpoint": "$endpoint"}},
}


def _of_each(measure: Callable[[Path, int], list[Figure]]) -> Callable[..., list[Figure]]:
    """A part of the benchmark that measures one number of endpoints after the other."""

    def part(directory: Path, *, quick: bool) -> list[Figure]:
        counts = (FEW,) if quick else AT_ONCE
        return [figure for endpoints in counts for figure in measure(directory / str(endpoints), endpoints)]

    return part


def cloudwatch(directory: Path, endpoints: int) -> list[Figure]:
    """All endpoints are in the bake of a canary when the one alarm of all of them fires."""
    with crowd(directory, endpoints, reporting=True) as stage:
        return _turned_back("SetAlarmState called", stage, endpoints, lambda: stage.set_alarm("ALARM"))


def promql(directory: Path, endpoints: int) -> list[Figure]:
    """Each endpoint has a condition of its own, and all come true with the same scrape."""
    return _by_prometheus("metric exported, scraped each second", directory, endpoints, CONDITION)


def alert(directory: Path, endpoints: int) -> list[Figure]:
    """The same as alerts of one rule, which Prometheus evaluates every second."""
    return _by_prometheus("metric exported, scraped and evaluated each second", directory, endpoints, ALERT, RULE)


def _by_prometheus(
    start: str, directory: Path, endpoints: int, alarm: Mapping[str, Any], *rules: Mapping[str, Any]
) -> list[Figure]:
    (files := directory / "prometheus").mkdir(parents=True)
    with ExitStack() as stack:
        exporter = stack.enter_context(_exporter(endpoints))
        prometheus = stack.enter_context(Prometheus(files))
        prometheus.configure(targets=[f"127.0.0.1:{exporter.port}"], labels={}, rules=rules)
        made = crowd(directory / "stage", endpoints, reporting=True, SLUICE_PROMETHEUS_URL=prometheus.url)
        return _turned_back(start, stack.enter_context(made), endpoints, exporter.fire, {"alarms": [alarm]})


def traffic(directory: Path, endpoints: int) -> list[Figure]:
    """Every canary gives its first bad answer within a few seconds, behind two real routers."""
    pod = 1
    with crowd(directory / "stage", endpoints, reporting=False, pod_of_new=lambda: pod) as stage:
        world = stage.world
        world.pod(2, "bad", directory / "requests")
        pod = 2
        edit(world, endpoints, "bad", LONG_SECONDS, {"kubernetes": {"alarms": [FIRST_BAD]}})
        until("all canaries bake", lambda: _stages(world) == {"Baking": endpoints}, READY_SECONDS * 2, every=1.0)
        names = [name_of(number) for number in range(endpoints)]
        before = {name: world.routes.specs[name][-1][1] for name in names}

        def confirmed(name: str) -> float | None:
            """When both routers were seen to send nothing to the new revision."""
            found = _went_back(world, name, before[name])
            reports = world.routes.confirmations(name, found[1]) if found is not None else {}
            return max(reports.values()) if len(reports) == len(world.routers) else None

        with stage.hands_rest():
            bad = _first_bad(world, names)
            until("all routers have let go", lambda: all(map(confirmed, names)), READY_SECONDS, every=0.5)
        seconds = [at - bad[name] for name in names if (at := confirmed(name)) is not None]
        written = [found[0] - bad[name] for name in names if (found := _went_back(world, name, before[name]))]
    spread = max(bad.values()) - min(bad.values())
    return [
        Figure(
            f"first bad answer at its caller -> {ROUTERS_BACK}: {endpoints} deployments that turn bad within "
            f"{spread:.2f} s, each under a traffic alarm on any of 5 s",
            f"p50 {percentile(seconds, 0.5):.2f} s, p99 {percentile(seconds, 0.99):.2f} s; -> {ROUTE_BACK} "
            f"p50 {percentile(written, 0.5):.2f} s, p99 {percentile(written, 0.99):.2f} s",
            "p99 < 2 s",
            {"seconds": sorted(round(value, 3) for value in seconds)},
        )
    ]


def _first_bad(world: Routing, names: list[str]) -> dict[str, float]:
    """Call each endpoint until it answers badly; when it did."""
    addresses = [address_of(router) for router in world.routers]

    def call(number: int) -> dict[str, float]:
        found: dict[str, float] = {}
        connection = http.client.HTTPConnection(addresses[number % len(addresses)], timeout=30)
        try:
            for name in names[number::CALLERS]:
                for _ in range(MOST_CALLS):
                    connection.request("POST", f"/endpoints/{name}/invocations", b"{}")
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status == HTTPStatus.FAILED_DEPENDENCY:
                        found[name] = time.time()
                        break
        finally:
            connection.close()
        return found

    with ThreadPoolExecutor(CALLERS, initializer=world.net.enter) as callers:
        bad = {name: at for found in callers.map(call, range(CALLERS)) for name, at in found.items()}
    if bad.keys() != set(names):
        raise RuntimeError(f"of {len(names)} endpoints {len(bad)} answered badly in {MOST_CALLS} requests")
    return bad


def _went_back(world: Routing, name: str, before: int) -> tuple[float, int] | None:
    """When the route without the new revision was seen, and its generation."""
    for at, generation, spec in list(world.routes.specs[name]):
        if generation > before and sum(fleet["weight"] > 0 for fleet in spec["fleets"]) == 1:
            return float(at), generation
    return None


def _turned_back(
    start: str, stage: Crowd, endpoints: int, fire: Callable[[], None], kubernetes: Mapping[str, Any] | None = None
) -> list[Figure]:
    """`fire` is what begins at `start`."""
    world, operator, calls = stage.world, stage.operator, stage.quota.counted
    used, names = operator.process.used(), [name_of(number) for number in range(endpoints)]
    edit(world, endpoints, "alarm", LONG_SECONDS, {"kubernetes": dict(kubernetes)} if kubernetes else None)
    until("all canaries bake", lambda: _stages(world) == {"Baking": endpoints}, READY_SECONDS * 2, every=1.0)
    before = {name: world.routes.specs[name][-1][1] for name in names}

    def back(name: str) -> float | None:
        """When the route without the new revision was written."""
        found = _went_back(world, name, before[name])
        return found[0] if found is not None else None

    with stage.hands_rest():
        resident, began = operator.process.used().resident_megabytes, time.time()
        fire()
        until("every route goes back", lambda: all(map(back, names)), READY_SECONDS, every=0.2)
    seconds = [at - began for at in map(back, names) if at is not None]
    until("all rollbacks have ended", lambda: ended(world, endpoints, began), READY_SECONDS * 2, every=1.0)
    cpu, calls = operator.process.used().cpu_seconds - used.cpu_seconds, stage.quota.counted.since(calls)
    return [
        Figure(
            f"{start} -> {ROUTE_BACK}: {endpoints} deployments turned back at once, hands report for the routers",
            f"p50 {percentile(seconds, 0.5):.2f} s, p99 {percentile(seconds, 0.99):.2f} s"
            + (f"; {said(calls)}" if kubernetes is None else ""),
            "p99 < 2 s (CloudWatch: as its quota allows)",
            {"seconds": sorted(round(value, 3) for value in seconds), "calls": asdict(calls)},
        ),
        Figure(
            f"the operator with {endpoints} deployments that bake, and are turned back at once ({start})",
            f"{1000 * cpu / endpoints:.0f} ms of CPU each, {resident:.0f} MB resident while they bake",
            "",
            {"cpuSeconds": round(cpu, 2), "deployments": endpoints},
        ),
    ]


def _stages(world: Routing) -> Counter[str]:
    """How many deployments are in which stage."""
    running = (status_of(one).get("deployment") for one in world.kube.list("Endpoint", NAMESPACE))
    return Counter(str(deployment["stage"]) for deployment in running if deployment)


class _Exporter:
    """A page of metrics: one for each endpoint."""

    def __init__(self, endpoints: int) -> None:
        self._endpoints, self._value = endpoints, 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="exporter", daemon=True)
        self._thread.start()

    def fire(self) -> None:
        """From the next scrape on every condition is true."""
        self._value = 1

    def close(self) -> None:
        """Nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _handler(exporter) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                names = map(name_of, range(exporter._endpoints))
                body = "".join(f'bench_errors{{endpoint="{name}"}} {exporter._value}\n' for name in names).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler


@contextmanager
def _exporter(endpoints: int) -> Iterator[_Exporter]:
    made = _Exporter(endpoints)
    try:
        yield made
    finally:
        made.close()


PARTS: dict[str, Callable[..., list[Figure]]] = {
    "deployments-turned-back": _of_each(cloudwatch),
    "deployments-turned-back-promql": _of_each(promql),
    "deployments-turned-back-alert": _of_each(alert),
    "deployments-turned-back-traffic": _of_each(traffic),
}
"""Each takes a directory of its own and `quick`."""
