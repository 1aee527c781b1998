"""What each kind of alarm asks its source, and what its placeholders stand for."""

from typing import Any

import pytest

from sluice.alarms.subjects import Alert, NamedAlarm, Query, Traffic, Unusable, VariantFleets, holds, subject
from sluice.core.observation import AlarmQuestion, AlarmWatch, WatchedFleet

NEW = (WatchedFleet("churn-a-new", "a", "churn.r2-w1"), WatchedFleet("churn-b-new", "B", "churn.r2-w1"))
OLD = (WatchedFleet("churn-a-old", "a", "churn.r1-w9"),)


def watch(**rest: Any) -> AlarmWatch:
    return AlarmWatch((), "team-a", "churn", **{"new": NEW, "serving": OLD, "endpoint_name": "Churn", **rest})


def promql(expression: str, given: AlarmWatch | None = None) -> Any:
    condition = {"promql": {"expression": expression, "comparison": "GreaterThanThreshold", "threshold": 1}}
    return subject(given or watch(), AlarmQuestion("PromQL", "x", condition))


def alert(labels: dict[str, str]) -> Any:
    condition = {"prometheusAlert": {"alertName": "Errors", "matchLabels": labels}}
    return subject(watch(), AlarmQuestion("PrometheusAlert", "x", condition))


def test_a_cloudwatch_alarm_is_its_name() -> None:
    assert subject(watch(), AlarmQuestion("CloudWatch", "churn-5xx")) == NamedAlarm("churn-5xx")


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ('f{n="$namespace",e="$endpoint"}', 'f{n="team-a",e="Churn"}'),
        ('f{r="$revision"} / f{r="$serving_revision"}', 'f{r="churn_r2"} / f{r="churn_r1"}'),
        ('f{x=~"$fleets",y=~"$serving_fleets"}', 'f{x=~"churn-a-new|churn-b-new",y=~"churn-a-old"}'),
        ('f{v=~"$variants"}', 'f{v=~"B|a"}'),
        ('f{v=~"a$|b$"}', 'f{v=~"a$|b$"}'),
    ],
)
def test_placeholders(text: str, filled: str) -> None:
    found = promql(text)
    assert isinstance(found, Query)
    assert found.expression == filled


def test_before_the_start_no_series_is_the_new_revisions() -> None:
    assert promql('f{r="$revision",x=~"$fleets"}', watch(new=())).expression == 'f{r="-",x=~"-"}'


def test_an_endpoint_without_another_name_is_called_as_its_object() -> None:
    assert promql("$endpoint", watch(endpoint_name="")).expression == "churn"


def test_an_unknown_placeholder_is_refused_with_those_that_there_are() -> None:
    found = promql('f{r="$revison"}')
    assert isinstance(found, Unusable)
    assert "$revison" in found.message
    assert "$revision" in found.message


def test_labels_of_alerts_take_placeholders_that_are_one_value() -> None:
    assert alert({"e": "$endpoint", "a": "b"}) == Alert("Errors", (("a", "b"), ("e", "Churn")))
    assert isinstance(alert({"e": "$fleets"}), Unusable)


def test_traffic_with_the_documented_defaults() -> None:
    condition = {"traffic": {"metric": "Invocation5XXErrors", "threshold": 0.05}}
    assert subject(watch(), AlarmQuestion("Traffic", "x", condition)) == Traffic(
        "team-a",
        "Invocation5XXErrors",
        "GreaterThanThreshold",
        0.05,
        (VariantFleets("a", "churn-a-new"), VariantFleets("B", "churn-b-new")),
    )


def test_traffic_is_compared_with_the_same_variant_or_with_all_that_serves() -> None:
    condition = {"traffic": {"metric": "ModelLatency", "percentile": 99, "threshold": 2, "relativeToServing": True}}
    serving = (*OLD, WatchedFleet("churn-c-old", "c", "churn.r1-w9"))
    found = subject(watch(serving=serving), AlarmQuestion("Traffic", "x", condition))
    assert isinstance(found, Traffic)
    assert found.variants == (
        VariantFleets("a", "churn-a-new", ("churn-a-old",)),
        VariantFleets("B", "churn-b-new", ("churn-a-old", "churn-c-old")),
    )
    assert (found.relative, found.percentile) == (True, 99)


def test_traffic_of_one_variant() -> None:
    condition = {"traffic": {"metric": "Invocation5XXErrors", "threshold": 0.05, "variantName": "B"}}
    found = subject(watch(), AlarmQuestion("Traffic", "x", condition))
    assert isinstance(found, Traffic)
    assert found.variants == (VariantFleets("B", "churn-b-new"),)
    early = subject(watch(new=()), AlarmQuestion("Traffic", "x", condition))
    assert isinstance(early, Traffic)
    assert early.variants == ()


def test_traffic_of_a_variant_that_the_new_revision_lacks_is_refused() -> None:
    condition = {"traffic": {"metric": "Invocation5XXErrors", "threshold": 0.05, "variantName": "b"}}
    found = subject(watch(), AlarmQuestion("Traffic", "x", condition))
    assert found == Unusable("Traffic", "traffic.variantName: found b; allowed are B, a")


@pytest.mark.parametrize(
    ("comparison", "below", "equal", "above"),
    [
        ("GreaterThanThreshold", False, False, True),
        ("GreaterThanOrEqualToThreshold", False, True, True),
        ("LessThanThreshold", True, False, False),
        ("LessThanOrEqualToThreshold", True, True, False),
    ],
)
def test_comparisons(comparison: str, below: bool, equal: bool, above: bool) -> None:
    assert [holds(value, comparison, 1.0) for value in (0.5, 1.0, 1.5)] == [below, equal, above]
