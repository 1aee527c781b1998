"""What every tier shares: the control plane, the cluster, and the rule that CI skips nothing."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import localcluster
from localcluster import Cluster
from localcluster.controlplane import ControlPlane
from localcluster.prometheus import Prometheus

WHOLE_CLUSTER = Path(__file__).parent / "cluster"

# A busy machine is slow, which is no defect; and a run finds what the run before it found. New examples are looked for
# with --hypothesis-profile=default.
settings.register_profile("same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A started etcd and kube-apiserver of this run; a test that cannot have one fails with the reason."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as started:
        yield started


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """A started Prometheus of this test, on loopback; `configure` gives it rules and targets."""
    directory = tmp_path / "prometheus"
    directory.mkdir()
    with Prometheus(directory) as started:
        yield started


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster that `make test` brought up, or one that is brought up now; fails with the reason."""
    return localcluster.up()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests in the whole cluster come last: the Endpoints that they leave running would slow all others down."""
    items.sort(key=lambda item: item.path.is_relative_to(WHOLE_CLUSTER))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI a skipped test is a failed one: its reason names the capability that is missing."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI, where nothing may be: {report.longrepr}"
    return report
