"""Which cluster a machine gets, and what a named one refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster import providers
from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError
from localcluster.providers.explicit import Explicit


@pytest.fixture(autouse=True)
def _outside_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(providers.CLUSTER_VARIABLE, raising=False)
    monkeypatch.delenv(providers.KUBECONFIG_VARIABLE, raising=False)
    monkeypatch.setenv("SLUICE_STATE", str(tmp_path / "state"))


def test_a_named_kubeconfig_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(providers.KUBECONFIG_VARIABLE, str(tmp_path / "theirs"))
    assert isinstance(providers.pick(), Explicit)


def test_a_named_kubeconfig_that_does_not_exist_is_an_error_and_never_another_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(providers.KUBECONFIG_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(LocalClusterError, match="which does not exist; correct or unset it"):
        providers.up()


def test_inside_a_run_up_is_the_cluster_of_that_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outer = Cluster("sluice", "node", tmp_path / "kubeconfig", tmp_path / "bin", ("nsenter", "--net=/run/netns/x"))
    outer.save(tmp_path / "cluster.json")
    monkeypatch.setenv(providers.CLUSTER_VARIABLE, str(tmp_path / "cluster.json"))
    assert providers.up() == outer


def test_an_image_is_not_loaded_into_somebody_elses_cluster(tmp_path: Path) -> None:
    with pytest.raises(LocalClusterError, match="push the images to a registry"):
        Explicit(tmp_path / "theirs").load_image(tmp_path / "image.tar", "localhost/x:1")


def test_down_leaves_a_named_cluster_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("kubeconfig")
    Explicit(tmp_path / "theirs").down()
    assert (tmp_path / "theirs").exists()
