"""The alarms of all examples as they stand there. Each is OK on clean traffic and in state ALARM when the new revision
answers badly, and of the two revisions it looks at the new one: in a real Prometheus with the rules and the filter of
examples/prometheus, and at a real router."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.alarms.churn import SWAPPED, WATCH, scrape, until
from tests.alarms.routers import Operator
from tests.router.harness.caller import Load
from tests.router.harness.container import Container
from tests.router.harness.envoy import Envoy

from localcluster.prometheus import Prometheus
from sluice.alarms.subjects import Alert, Query, Traffic, subject
from sluice.core.cluster.alarms import asked
from sluice.core.observation import AlarmQuestion

EXAMPLES = Path(__file__).parents[2] / "examples"
MANIFESTS = {
    file: [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if isinstance(document, dict)]
    for file in sorted(EXAMPLES.rglob("*.yaml"))
}
ALARMS: dict[str, AlarmQuestion] = {
    f"{file.parent.name}/{file.stem}: {question.name}": question
    for file, documents in MANIFESTS.items()
    for document in documents
    if document.get("kind") == "Endpoint"
    for question in asked(document["spec"], None)
}
AT_ROUTERS = sorted(name for name, question in ALARMS.items() if question.source == "Traffic")


def config(name: str, key: str) -> Any:
    """What a ConfigMap of examples/prometheus holds there, as Prometheus reads it."""
    documents = MANIFESTS[EXAMPLES / "prometheus" / "prometheus.yaml"]
    [found] = [one for one in documents if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", name)]
    return yaml.safe_load(found["data"][key])


def turn_bad(model: Container) -> None:
    """By every measure: errors, and late ones."""
    model.status, model.delay_seconds = 500, 2.5


def test_examples_show_every_kind_of_alarm() -> None:
    assert {question.source for question in ALARMS.values()} == {"PrometheusAlert", "PromQL", "Traffic"}


def test_what_prometheus_is_asked_tells_the_new_revision_from_the_old(
    envoy: Envoy, churn: dict[str, Container], prometheus: Prometheus
) -> None:
    [group] = config("prometheus-rules", "sluice.yml")["groups"]
    [job] = config("prometheus", "prometheus.yml")["scrape_configs"]
    scrape(prometheus, envoy, rules=group["rules"], metric_relabel_configs=job["metric_relabel_configs"])
    questions = [question for name, question in ALARMS.items() if name not in AT_ROUTERS]
    new, old = ({subject(watch, question) for question in questions} for watch in (WATCH, SWAPPED))
    assert {type(one) for one in new | old} == {Alert, Query}
    with Load(envoy.url, "Churn", concurrency=8, pause=0.05):
        until(prometheus, dict.fromkeys(new | old, "OK"), 90)
        turn_bad(churn["new"])
        until(prometheus, dict.fromkeys(new, "ALARM") | dict.fromkeys(old, "OK"), 120)


@pytest.mark.parametrize("name", AT_ROUTERS)
def test_what_routers_are_asked_tells_the_new_revision_from_the_old(
    envoy: Envoy, churn: dict[str, Container], operator: Operator, name: str
) -> None:
    operator.add(envoy)
    new, old = (subject(watch, ALARMS[name]) for watch in (WATCH, SWAPPED))
    assert isinstance(new, Traffic)
    assert isinstance(old, Traffic)

    def states() -> tuple[str | None, str | None]:
        found = operator.run(operator.source.read({new, old}))
        return found[new].state, found[old].state

    assert states() == ("INSUFFICIENT_DATA", "INSUFFICIENT_DATA")
    with Load(envoy.url, "Churn", concurrency=32, pause=0.1):
        Envoy.until(lambda: states() == ("OK", "OK"), 60)
        turn_bad(churn["new"])
        Envoy.until(lambda: states() == ("ALARM", "OK"), 60)
