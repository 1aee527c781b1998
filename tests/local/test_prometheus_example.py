"""The Prometheus of examples/prometheus: what the API server and promtool say of it, and when its alerts fire."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from localcluster import paths, prometheus
from localcluster.controlplane import ControlPlane

MANIFEST = paths.CHECKOUT / "examples" / "prometheus" / "prometheus.yaml"
LABELS = 'namespace="team-a",sluice_endpoint="churn",sluice_variant="main",sluice_revision="churn-2"'
COUNTER = "envoy_cluster_upstream_rq"
SECONDS = 30


def data(name: str) -> dict[str, str]:
    """What a ConfigMap of the example holds."""
    documents = yaml.safe_load_all(MANIFEST.read_text())
    found = next(one for one in documents if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", name))
    return dict(found["data"])


def promtool(directory: Path, *arguments: str) -> None:
    argv = [str(prometheus.program("promtool")), *arguments]
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, timeout=180, check=False)  # noqa: S603  ours
    assert done.returncode == 0, done.stdout + done.stderr


def series(metric: str, label: str, value: str, *, per_second: int) -> dict[str, str]:
    """A series of the new revision as a router serves it, scraped each second."""
    name = f'{metric}{{{label}="{value}",{LABELS}}}'
    return {"series": name, "values": f"0+{per_second}x{SECONDS}"}


def latencies(*, slow: int) -> list[dict[str, str]]:
    """100 answers a second, so many of them slower than 5 seconds."""
    under = {"100": 100 - slow, "5000": 100 - slow, "10000": 100, "+Inf": 100}
    return [series(f"{COUNTER}_time_bucket", "le", le, per_second=count) for le, count in under.items()]


def answers(**by_class: int) -> list[dict[str, str]]:
    """So many answers a second of each class."""
    return [
        series(COUNTER, "envoy_response_code_class", name.removeprefix("of_"), per_second=count)
        for name, count in by_class.items()
    ]


@pytest.mark.apiserver
def test_the_api_server_takes_it(control_plane: ControlPlane) -> None:
    argv = [control_plane.kubectl, "--kubeconfig", control_plane.kubeconfig, "apply", "--validate=strict"]
    done = subprocess.run([*argv, "-f", MANIFEST.parent], capture_output=True, text=True, timeout=180, check=False)  # noqa: S603  ours
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_its_configuration_is_right(tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(data("prometheus")["prometheus.yml"])
    promtool(tmp_path, "check", "config", "--syntax-only", "prometheus.yml")


@pytest.mark.parametrize(
    ("input_series", "firing"),
    [
        (answers(of_2xx=100), set()),
        (answers(of_2xx=96, of_5xx=4), set()),
        (answers(of_2xx=94, of_5xx=6), {"ModelAnswers5xx"}),
        (answers(of_5xx=1), {"ModelAnswers5xx", "ModelErrors"}),
        (answers(of_2xx=75, of_4xx=25), {"ModelErrors"}),
        (answers(of_2xx=0, of_5xx=0), set()),
        (latencies(slow=0), set()),
        (latencies(slow=2), {"ModelIsSlow"}),
    ],
    ids=["well", "4 % 5xx", "6 % 5xx", "nothing but 5xx", "4xx", "quiet", "fast", "2 % slow"],
)
def test_its_alerts_fire_for_the_revision_that_is_bad(
    tmp_path: Path, input_series: list[dict[str, str]], firing: set[str]
) -> None:
    rules = data("prometheus-rules")["sluice.yml"]
    (tmp_path / "sluice.yml").write_text(rules)
    summaries = {one["alert"]: one["annotations"]["summary"] for one in yaml.safe_load(rules)["groups"][0]["rules"]}
    assert firing <= set(summaries)
    labels = dict(pair.split("=") for pair in LABELS.replace('"', "").split(","))
    expected = []
    for name, summary in summaries.items():
        alert = {
            "exp_labels": labels,
            "exp_annotations": {"summary": summary.replace("{{ $labels.sluice_revision }}", labels["sluice_revision"])},
        }
        exp_alerts = [alert] if name in firing else []
        expected.append({"eval_time": f"{SECONDS}s", "alertname": name, "exp_alerts": exp_alerts})
    test = {"interval": "1s", "input_series": input_series, "alert_rule_test": expected}
    whole = {"rule_files": ["sluice.yml"], "evaluation_interval": "1s", "tests": [test]}
    (tmp_path / "test.yml").write_text(json.dumps(whole))
    promtool(tmp_path, "test", "rules", "test.yml")
