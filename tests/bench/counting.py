"""Counts of requests, read from where they are served: the API server's metrics and the simulator's request log."""

from __future__ import annotations

import re
import urllib.request
from collections import Counter
from collections.abc import Mapping

_SAMPLE = re.compile(r"^(?P<name>[a-z_]+)\{(?P<labels>.*)\} (?P<value>[0-9.e+]+)$")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
OURS = {"sluice.dev": "", "apps": "controllerrevisions", "events.k8s.io": "events", "": "events"}
"""API groups (and the resource in them) that only the operator and the benchmark use."""
READS = ("GET", "LIST")
WRITES = ("POST", "PUT", "PATCH", "APPLY", "DELETE")


def samples(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """The labels and value of each sample of one metric."""
    found = []
    for line in text.splitlines():
        if line.startswith(name + "{") and (match := _SAMPLE.match(line)):
            found.append((dict(_LABEL.findall(match["labels"])), float(match["value"])))
    return found


def kubernetes_requests(metrics: str) -> Counter[tuple[str, str]]:
    """Requests that the API server has served, by verb and resource, of the groups that are ours."""
    counted: Counter[tuple[str, str]] = Counter()
    for labels, value in samples(metrics, "apiserver_request_total"):
        wanted = OURS.get(labels["group"])
        if wanted is None or (wanted and labels["resource"] != wanted):
            continue
        resource = labels["resource"] + (f"/{labels['subresource']}" if labels["subresource"] else "")
        counted[labels["verb"], resource] += int(value)
    return counted


def operator_requests(metrics: str) -> Counter[tuple[str, str]]:
    """Requests that the operator has made through its adapter, by verb and kind; watches are not among them."""
    counted: Counter[tuple[str, str]] = Counter()
    for labels, value in samples(metrics, "sluice_kube_requests_total"):
        counted[labels["verb"], labels["kind"]] += int(value)
    return counted


def total(counted: Mapping[tuple[str, str], int], verbs: tuple[str, ...]) -> int:
    """All requests of these verbs."""
    return sum(number for (verb, _), number in counted.items() if verb in verbs)


def fetch(url: str) -> str:
    """A plain GET on loopback."""
    with _OPENER.open(url, timeout=30) as answer:
        return str(answer.read().decode())
