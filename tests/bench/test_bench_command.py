"""`make bench` starts, and takes the options that docs/performance.md names, without a cluster."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.bench.__main__ import FAILED, exit_code
from tests.bench.figures import Figure

ROOT = Path(__file__).parents[2]


def test_the_benchmark_is_one_make_away() -> None:
    environment = {**os.environ, "SLUICE_KUBECONFIG": "/nowhere/no-cluster-is-needed"}
    asked = subprocess.run(
        ["make", "--no-print-directory", "bench", "ARGS=--help"],  # noqa: S607 - the make that people have
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    documented = (ROOT / "docs" / "performance.md").read_text()
    options = ("--quick", "--only", "--requests")
    parts = ("router-latency", "router-confirm", "cluster-edits", "lost-pod-killed", "lost-drained")
    alarms = ("alarm-readings-quota", "alarm-reaction", "alarm-reaction-promql", "alarm-reaction-alert")
    clean = ("deployments-clean-traffic", "deployments-clean-thousand")
    deployments = ("deployments-capacity", *clean, "emergency", "lost-deployments")
    for option in (*options, *parts, *alarms, *deployments):
        assert option in asked.stdout
        assert option in documented


@pytest.mark.parametrize(
    ("figure", "code"),
    [
        (Figure("as slow as it may be", "9 s", "< 2 s"), 0),
        (Figure("nothing", "0 lost", "0", zero={"lost": 0, "late": 0}), 0),
        (Figure("something", "3 lost", "0", zero={"lost": 3, "late": 0}), 1),
        (Figure("a measurement", f"{FAILED}: RuntimeError: no Envoy"), 1),
    ],
    ids=lambda value: value.name if isinstance(value, Figure) else "",
)
def test_it_fails_by_what_has_to_be_0_and_by_no_time(figure: Figure, code: int) -> None:
    good = Figure("another", "1 s")
    assert exit_code([good, figure, good]) == code


def test_what_is_not_0_is_named() -> None:
    assert Figure("some", "", zero={"lost": 3, "late": 0, "false rollbacks": 1}).wrong == "3 lost, 1 false rollbacks"
