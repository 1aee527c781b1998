"""What the routers of a namespace say of themselves, at their metrics port and in their reports; and who publishes it,
so that an alarm of CloudWatch fires by what was answered."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from prometheus_client.parser import text_string_to_metric_families
from tests.cluster.hosting import ROUTERS, Hosting

from demo.aws import Alarms

METRICS_PORT = 9902
SENT = "envoy_cluster_upstream_rq_total"
ANSWERED = "envoy_cluster_upstream_rq"
PERIOD_SECONDS = 1.0
WINDOW_SECONDS = 5.0
MOST_ERRORS = 0.01
"""The threshold that demo.aws gives to its alarms: a share."""
_HTTP = urllib3.PoolManager(retries=urllib3.Retry(3), timeout=10.0)

Series = tuple[str, str, str]
"""A router's pod, a fleet and, of answers, the class of their status."""


def counted(hosting: Hosting, endpoint: str, metric: str) -> dict[Series, int]:
    """One of Envoy's counters of the endpoint's fleets, from every router. Raises urllib3's HTTPError."""
    found: dict[Series, int] = {}
    for router in hosting.pods(ROUTERS):
        name, address = router["metadata"]["name"], router["status"]["podIP"]
        text = _HTTP.request("GET", f"http://{address}:{METRICS_PORT}/stats/prometheus").data.decode()
        lines = (line for line in text.splitlines() if line.startswith(f"{metric}{{"))
        for family in text_string_to_metric_families("\n".join(lines)):
            for one in family.samples:
                if one.labels["sluice_endpoint"] == endpoint:
                    series = (name, one.labels["sluice_fleet"], one.labels.get("envoy_response_code_class", ""))
                    found[series] = int(one.value)
    return found


def sent(hosting: Hosting, endpoint: str) -> Counter[str]:
    """The requests that the routers have sent to pods, by fleet. They say nothing of one that they have let go of."""
    found: Counter[str] = Counter()
    for (_, fleet, _), count in counted(hosting, endpoint, SENT).items():
        found[fleet] += count
    return found


def sent_to(hosting: Hosting, endpoint: str) -> set[str] | None:
    """The fleets that get requests, by the word of every router: each reports the route of now to be in force, and that
    it finishes none of another fleet any more. None: they do not say so yet."""
    route = hosting.kube.get("EndpointRoute", hosting.namespace, endpoint)
    assert route is not None
    said: dict[str, tuple[int, list[str]]] = {}
    for report in hosting.kube.list("RouterReport", hosting.namespace):
        for one in report["spec"]["routes"]:
            if one["uid"] == route["metadata"]["uid"]:
                said[report["spec"]["podUID"]] = (one["generation"], one["draining"])
    routers = {pod["metadata"]["uid"] for pod in hosting.every_pod(ROUTERS)}
    if not routers or any(said.get(uid) != (route["metadata"]["generation"], []) for uid in routers):
        return None
    return {fleet["name"] for fleet in route["spec"]["fleets"] if fleet["weight"]}


class Publisher:
    """The part of CloudWatch's agent, and that of CloudWatch which moto does not play: the share of 5xx among the
    answers that the routers counted of late decides the alarm's state."""

    def __init__(self, hosting: Hosting, endpoint: str, alarms: Alarms, alarm: str) -> None:
        self._hosting, self._endpoint, self._alarms, self._alarm = hosting, endpoint, alarms, alarm
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish, name=f"publisher of {alarm}", daemon=True)
        self.is_firing = False

    @contextmanager
    def running(self) -> Iterator["Publisher"]:
        """As long as the block lasts; afterwards the alarm is OK. Should it die of an error, pytest tells of that."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join(60)
            self._alarms.set(self._alarm, "OK", "nobody publishes any more")

    def _publish(self) -> None:
        last = counted(self._hosting, self._endpoint, ANSWERED)
        window: deque[tuple[float, Counter[str]]] = deque()
        while not self._stop.wait(PERIOD_SECONDS):
            now, came = counted(self._hosting, self._endpoint, ANSWERED), Counter[str]()
            for series, count in now.items():  # a counter that fell was counted from zero again
                came[series[2]] += count - last.get(series, 0) if count >= last.get(series, 0) else count
            last |= now
            window.append((time.monotonic(), came))
            while window[0][0] < time.monotonic() - WINDOW_SECONDS:
                window.popleft()
            errors = sum(one["5xx"] for _, one in window)
            answers = sum(one.total() for _, one in window)
            is_firing = errors > MOST_ERRORS * answers
            if is_firing != self.is_firing:
                told = f"{errors} of {answers} answers were 5xx"
                self._alarms.set(self._alarm, "ALARM" if is_firing else "OK", told)
                self.is_firing = is_firing
