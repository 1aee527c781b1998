"""The demo itself: it tells its whole story without a terminal, and exits with 0 only because all of it happened."""

import re

import pytest
from tests.cluster.conftest import Told

from demo.__main__ import main

pytestmark = pytest.mark.cluster

STORY = (
    r"== kubectl apply: Creating, then InService",
    r"\$ kubectl apply -n sluice-demo -f .*examples/quickstart",
    r"Creating \| Ready=False",
    r"InService \| Ready=True InService \| serves churn-\S+ \(churn:1\)",
    r"== A new image",
    r"Updating \| .*CANARY to churn-\S+: Baking 1/2, 25 % new",
    r"CANARY to churn-\S+: FinalBaking 2/2, 100 % new",
    r"InService \| Ready=True InService \| serves churn-\S+ \(churn:2\)",
    r"== A bad image",
    r"CANARY to churn-\S+: Baking 1/2, 25 % new",
    r"CloudWatch: churn-5xx goes to ALARM",
    r"InService \| Ready=False RolledBack \| serves churn-\S+ \(churn:2\) \| Stalled RolledBack",
    r"== The fix",
    r"InService \| Ready=True InService \| serves churn-\S+ \(churn:4\)",
    r"\$ aws s3 cp tree.tar.gz s3://iris-models/tree/model.tar.gz",
    r"\$ aws s3 cp logistic.tar.gz s3://iris-models/logistic/model.tar.gz",
    r"== kubectl apply with backend: Cluster",
    r"\$ kubectl apply -n sluice-demo -f .*examples/cluster/iris.yaml",
    r"Creating \| Ready=False",
    r"InService \| Ready=True InService \| serves iris-\S+ \(sluice-example-mlflow:1\) \| logistic 1, tree 2",
    r"== boto3 asks",
    r"\$ boto3: sagemaker-runtime at http://sluice-router.sluice-demo.svc:8080: InvokeEndpoint iris",
    r"the first answer, from variant (tree|logistic): setosa by \1",
    r"\d+ answers: tree \d\d.\d%, logistic \d\d.\d%; 0 lost",  # the demo itself holds the split to its weights
    r"== kubectl patch",
    r"\| logistic 5, tree 1",
    r"\d+ answers: tree \d\d.\d%, logistic \d\d.\d%; 0 lost",
    r"\$ kubectl apply -f examples/prometheus/prometheus.yaml",
    r"\$ kubectl apply -n sluice-demo -f examples/prometheus/routers.yaml",
    r"\$ kubectl apply -n sluice-demo -f .*examples/guarded/flowers.yaml",
    r"InService \| Ready=True InService \| serves flowers-\S+",
    r"== A new model",
    r"\$ aws s3 cp forest.tar.gz s3://iris-models/forest/model.tar.gz",
    r"CANARY to flowers-\S+: Baking 1/2, 25 % new",
    r"\d+ answers: tree \d\d.\d%, forest \d\d.\d%; 0 lost",
    r"CANARY to flowers-\S+: FinalBaking 2/2, 100 % new",
    r"\d+ answers: forest 100.0%; 0 lost",
    r"== A bad model",
    # An alert may be quicker than the last router's word that it sends the canary its share.
    r"CANARY to flowers-\S+: (Shifting|Baking) 1/2",
    r"errors ALARM",
    r"InService \| Ready=False RolledBack \| serves flowers-\S+ .*Stalled RolledBack",
    # Its server sometimes closes the connection after a 500: the next call's ModelError has status 0.
    r"while the bad model had its share: \d+ answers: forest \d\d.\d%, 5xx \d+.\d%(, error 0 \d.\d%)?; 0 lost",
    r"\d+ answers: forest 100.0%; 0 lost",
    r"Everything is left running",
    r"kubectl get sluice -A",
    r"kubectl -n sluice-demo describe sep churn",
    r"make down",
)


def test_the_demo_tells_its_story_in_order(told: Told) -> None:
    assert told.code == 0, f"{told.output}\n{told.errors}"
    rest = told.output
    for line in STORY:
        found = re.search(line, rest)
        assert found, f"{line!r} does not come after what came before, in:\n{told.output}"
        rest = rest[found.end() :]


def test_without_a_terminal_there_are_no_control_characters(told: Told) -> None:
    assert "\x1b" not in told.output


def test_the_transcript_shows_the_moments_that_matter(told: Told) -> None:
    text = told.transcript.read_text()
    for moment in ("Creating", "Baking", "FinalBaking", "Stalled, RolledBack", "InService"):
        assert re.search(rf"^### .*\({moment}\)$", text, re.MULTILINE), f"no picture of {moment} in:\n{text}"
    assert "old 75 %  new 25 %" in text
    assert re.search(r"tree \d\d.\d%  logistic \d\d.\d%  of \d+, 0 lost", text)


def test_it_fails_and_says_so_where_there_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLUICE_KUBECONFIG", raising=False)
    monkeypatch.setattr("sys.argv", ["demo", "--plain"])

    assert main() == 1

    assert "SLUICE_KUBECONFIG not set" in capsys.readouterr().err
