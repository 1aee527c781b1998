"""`make bench` starts, and takes the options that docs/performance.md names, without a cluster."""

import os
import subprocess
from pathlib import Path

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
    deployments = ("deployments-capacity", "deployments-clean-traffic", "emergency", "lost-deployments")
    for option in (*options, *parts, *alarms, *deployments):
        assert option in asked.stdout
        assert option in documented
