"""What the readers are asked, and what they answer: an alarm of an Endpoint, made ready for its source. Pure.

Two Endpoints that ask the same of a source have equal subjects, so it is asked once. A subject of a query or of traffic
names the fleets it is about: when those change, it is another subject, and nothing that was read of the old one counts.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sluice.core.cluster.names import counted_revision
from sluice.core.observation import AlarmQuestion, AlarmSource, AlarmWatch, WatchedFleet

OK: Final = "OK"
ALARM: Final = "ALARM"
INSUFFICIENT_DATA: Final = "INSUFFICIENT_DATA"
MISSING: Final = "Missing"
UNREADABLE: Final = "Unreadable"
UNFIT: Final = "Unfit"
"""It cannot work as it is written: a person must change it."""

NOBODY: Final = "-"
"""What a placeholder stands for while there is no such revision: the value of no label of the routers."""
DEFAULT_WINDOW_SECONDS: Final = 60
MAX_MESSAGE: Final = 512

_PLACEHOLDER: Final = re.compile(r"\$([a-zA-Z_][a-zA-Z0-9_]*)")
_OF_LABELS: Final = ("namespace", "endpoint", "revision", "serving_revision")
_OF_EXPRESSIONS: Final = (*_OF_LABELS, "fleets", "serving_fleets", "variants")


@dataclass(frozen=True, slots=True)
class NamedAlarm:
    """A CloudWatch alarm."""

    name: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert of Prometheus: an instance of this rule with these labels."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A condition in PromQL, without placeholders."""

    expression: str
    comparison: str
    threshold: float
    for_seconds: int = 0


@dataclass(frozen=True, slots=True)
class VariantFleets:
    """A variant of the new revision, by the names of its fleets."""

    variant: str
    new: str
    serving: tuple[str, ...] = ()
    """What it is compared with: the same variant of the revision in service, or where that has none, all of it. Only
    where something is compared."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """A condition on the requests of each of these variants."""

    namespace: str
    metric: str
    comparison: str
    threshold: float
    variants: tuple[VariantFleets, ...]
    relative: bool = False
    percentile: float | None = None
    window_seconds: int = DEFAULT_WINDOW_SECONDS
    minimum_requests: int = 1
    since: datetime | None = None
    """When the new revision got its first requests: who begins to watch later, as after a restart, knows what it
    missed."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """No source can be asked this."""

    source: AlarmSource
    message: str


Subject = NamedAlarm | Alert | Query | Traffic | Unusable


@dataclass(frozen=True, slots=True)
class Sight:
    """What a source said of a subject."""

    state: str | None
    """None: it could not be read this time, and the message says why."""
    at: datetime
    message: str | None = None


def subject(watch: AlarmWatch, question: AlarmQuestion) -> Subject:
    """What to ask the question's source, for the fleets that are watched."""
    condition = question.condition
    match question.source:
        case "CloudWatch":
            return NamedAlarm(question.name)
        case "PrometheusAlert":
            return _alert(watch, condition["prometheusAlert"])
        case "PromQL":
            return _query(watch, condition["promql"])
        case "Traffic":
            return _traffic(watch, condition["traffic"])


def holds(value: float, comparison: str, threshold: float) -> bool:
    """Whether a value is beyond the threshold, in CloudWatch's words."""
    return {
        "GreaterThanThreshold": value > threshold,
        "GreaterThanOrEqualToThreshold": value >= threshold,
        "LessThanThreshold": value < threshold,
        "LessThanOrEqualToThreshold": value <= threshold,
    }[comparison]


def sign(comparison: str) -> str:
    """The comparison for people."""
    return {
        "GreaterThanThreshold": ">",
        "GreaterThanOrEqualToThreshold": ">=",
        "LessThanThreshold": "<",
        "LessThanOrEqualToThreshold": "<=",
    }[comparison]


def label_value(name: str) -> str:
    """A name as it stands in the labels of the routers' metrics, which hold no `.` and no `;`."""
    return name.replace(";", "_").replace(".", "_")


def _alert(watch: AlarmWatch, condition: Mapping[str, Any]) -> Subject:
    labels = condition.get("matchLabels") or {}
    values = _values(watch)
    for text in labels.values():
        unknown = _unknown(text, _OF_LABELS)
        if unknown:
            return Unusable("PrometheusAlert", _complaint("prometheusAlert.matchLabels", unknown, _OF_LABELS))
    return Alert(condition["alertName"], tuple(sorted((key, _filled(text, values)) for key, text in labels.items())))


def _query(watch: AlarmWatch, condition: Mapping[str, Any]) -> Subject:
    expression = condition["expression"]
    unknown = _unknown(expression, _OF_EXPRESSIONS)
    if unknown:
        return Unusable("PromQL", _complaint("promql.expression", unknown, _OF_EXPRESSIONS))
    return Query(
        _filled(expression, _values(watch)),
        condition["comparison"],
        float(condition["threshold"]),
        int(condition.get("forSeconds") or 0),
    )


def _traffic(watch: AlarmWatch, condition: Mapping[str, Any]) -> Subject:
    relative, wanted = bool(condition.get("relativeToServing")), condition.get("variantName")
    known = sorted(fleet.variant for fleet in watch.new)
    if wanted and known and wanted not in known:
        return Unusable("Traffic", f"traffic.variantName: found {wanted}; allowed are {', '.join(known)}")
    return Traffic(
        namespace=watch.namespace,
        metric=condition["metric"],
        comparison=condition.get("comparison") or "GreaterThanThreshold",
        threshold=float(condition["threshold"]),
        variants=tuple(
            VariantFleets(fleet.variant, fleet.name, _counterparts(watch, fleet.variant) if relative else ())
            for fleet in sorted(watch.new, key=lambda fleet: fleet.name)
            if wanted in {None, fleet.variant}
        ),
        relative=relative,
        percentile=condition.get("percentile"),
        window_seconds=int(condition.get("windowSeconds") or DEFAULT_WINDOW_SECONDS),
        minimum_requests=int(condition.get("minimumRequests") or 1),
        since=watch.traffic_since,
    )


def _counterparts(watch: AlarmWatch, variant: str) -> tuple[str, ...]:
    same = sorted(fleet.name for fleet in watch.serving if fleet.variant == variant)
    return tuple(same or sorted(fleet.name for fleet in watch.serving))


def _values(watch: AlarmWatch) -> dict[str, str]:
    """What the placeholders stand for. None of the values needs quoting within a string or a regular expression."""
    return {
        "namespace": watch.namespace,
        "endpoint": label_value(watch.endpoint_name or watch.endpoint),
        "revision": _revision(watch.new),
        "serving_revision": _revision(watch.serving),
        "fleets": _any_of(fleet.name for fleet in watch.new),
        "serving_fleets": _any_of(fleet.name for fleet in watch.serving),
        "variants": _any_of(fleet.variant for fleet in watch.new),
    }


def _revision(fleets: Iterable[WatchedFleet]) -> str:
    return next((label_value(counted_revision(fleet.revision)) for fleet in fleets), NOBODY)


def _any_of(names: Iterable[str]) -> str:
    return "|".join(sorted({label_value(name) for name in names})) or NOBODY


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


def _unknown(text: str, known: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in _PLACEHOLDER.findall(text) if name not in known))


def _complaint(where: str, unknown: Iterable[str], known: Iterable[str]) -> str:
    found, allowed = ", ".join(f"${name}" for name in unknown), ", ".join(f"${name}" for name in known)
    return f"{where}: found {found}; allowed are {allowed}"
