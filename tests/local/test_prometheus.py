"""The Prometheus of tests: alerts fire by its rules, it is there again at the same address, and it can hang."""

from __future__ import annotations

import json
import urllib.request

import pytest

from localcluster.errors import LocalClusterError
from localcluster.prometheus import Prometheus
from localcluster.waiting import until

FIRING = {"alert": "AlwaysBad", "expr": "vector(1)", "labels": {"severity": "page"}}
SECONDS = 60


def alerts(prometheus: Prometheus, seconds: float = 60) -> dict[str, str]:
    """The state of each alert."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{prometheus.url}/api/v1/alerts", timeout=seconds) as answer:
        found = json.load(answer)["data"]["alerts"]
    return {one["labels"]["alertname"]: one["state"] for one in found}


def test_alerts_fire_and_end_by_its_rules(prometheus: Prometheus) -> None:
    assert alerts(prometheus) == {}
    prometheus.configure(rules=[FIRING])
    until(lambda: alerts(prometheus) == {"AlwaysBad": "firing"}, seconds=SECONDS, what="the alert")
    prometheus.configure()
    until(lambda: alerts(prometheus) == {}, seconds=SECONDS, what="the alert's end")


def test_after_a_stop_it_is_there_again_at_the_same_address(prometheus: Prometheus) -> None:
    before = prometheus.url
    prometheus.stop()
    with pytest.raises(OSError, match="refused"):
        alerts(prometheus)
    prometheus.start()
    assert prometheus.url == before
    assert alerts(prometheus) == {}


def test_frozen_it_takes_connections_and_answers_nobody(prometheus: Prometheus) -> None:
    prometheus.freeze()
    with pytest.raises(TimeoutError):
        alerts(prometheus, seconds=1)
    prometheus.thaw()
    assert alerts(prometheus) == {}


def test_rules_that_it_refuses_are_an_error_with_its_own_words(prometheus: Prometheus) -> None:
    with pytest.raises(LocalClusterError, match="AlwaysBad"):
        prometheus.configure(rules=[FIRING | {"expr": "no ("}])
