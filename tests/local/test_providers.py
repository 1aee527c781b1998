"""Which cluster a machine gets, how it is found again, and what a named one refuses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from localcluster import providers, tools
from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError
from localcluster.node.components import Layout
from localcluster.node.namespace import Namespace
from localcluster.providers.explicit import Explicit
from localcluster.providers.kind import Kind
from localcluster.providers.single_node import SingleNode

# A name that no namespace of this machine has.
NAME = "sluice-nowhere"


class Machine:
    """A machine whose `docker`, `kind` and `kubectl` are scripts; it has one cluster of kind's, or none."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        self._containers = directory / "containers"
        self._said = directory / "said"
        self._program("docker", f'[ "$1" != ps ] || cat {self._containers} 2>/dev/null || true')
        self._program("kubectl", "")
        self.kind_fails_at("nothing")

    def kind_fails_at(self, command: str) -> None:
        """kind ends with 1 where it is called for this."""
        self._program(
            "kind",
            f'echo "$1 $2" >> {self._said}; [ "$1" != "{command}" ] || exit 1',
            f'case "$1" in create) echo abc > {self._containers};; delete) rm {self._containers};; esac',
        )

    def docker_stops(self) -> None:
        """The client is there, and nobody answers it."""
        self._program("docker", "echo 'Cannot connect to the Docker daemon' >&2; exit 1")

    def said_to_kind(self) -> list[str]:
        """What kind was called for."""
        return self._said.read_text().splitlines() if self._said.exists() else []

    def _program(self, name: str, *lines: str) -> None:
        program = self.bin / name
        program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        program.chmod(0o755)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{found.bin}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tools, "build", lambda names: {name: found.bin / name for name in names})
    monkeypatch.setattr(tools, "bin_directory", lambda _: found.bin)
    monkeypatch.setattr(SingleNode, "up", lambda _: pytest.fail("a node without Docker"))
    return found


@pytest.fixture(autouse=True)
def _outside_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(providers.CLUSTER_VARIABLE, raising=False)
    monkeypatch.delenv(providers.KUBECONFIG_VARIABLE, raising=False)
    monkeypatch.delenv(providers.PROVIDER_VARIABLE, raising=False)
    monkeypatch.setenv("SLUICE_STATE", str(tmp_path / "state"))


def test_a_named_kubeconfig_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(providers.KUBECONFIG_VARIABLE, str(tmp_path / "theirs"))
    assert isinstance(providers.pick(), Explicit)


def test_a_named_provider_comes_before_what_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "docker_answers", lambda: True)
    monkeypatch.setenv(providers.PROVIDER_VARIABLE, "node")
    assert isinstance(providers.pick(), SingleNode)
    monkeypatch.setattr(providers, "docker_answers", lambda: False)
    monkeypatch.setenv(providers.PROVIDER_VARIABLE, "kind")
    assert isinstance(providers.pick(), Kind)
    monkeypatch.setenv(providers.PROVIDER_VARIABLE, "minikube")
    with pytest.raises(LocalClusterError, match="'minikube' is no provider of clusters: node or kind"):
        providers.pick()


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


def test_a_cluster_of_kinds_is_found_again_and_removed(machine: Machine, tmp_path: Path) -> None:
    assert providers.up(NAME).provider == "kind"

    assert isinstance(providers.pick(NAME), Kind), "its files are not taken for those of a node"
    assert providers.up(NAME).provider == "kind"
    assert providers.pick(NAME).status() == f"kind cluster {NAME}: up"

    providers.down(NAME)
    assert machine.said_to_kind() == ["create cluster", "export kubeconfig", "delete cluster"]
    assert not (tmp_path / "state").exists()


def test_where_there_is_none_kind_is_not_built_to_say_so(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "build", lambda _: pytest.fail("built"))
    assert providers.pick(NAME).status() == f"kind cluster {NAME}: down"
    providers.down(NAME)
    assert machine.said_to_kind() == []


def test_a_cluster_of_kinds_whose_making_was_cut_off_is_made_anew(machine: Machine) -> None:
    providers.up(NAME)
    machine.kind_fails_at("export")
    assert providers.up(NAME).provider == "kind"
    assert machine.said_to_kind()[-3:] == ["export kubeconfig", "delete cluster", "create cluster"]


def test_a_cluster_of_kinds_is_not_forgotten_while_docker_is_stopped(machine: Machine, tmp_path: Path) -> None:
    providers.up(NAME)
    machine.docker_stops()
    with pytest.raises(LocalClusterError, match="Cannot connect to the Docker daemon\nStart it, or remove"):
        providers.down(NAME)
    assert (tmp_path / "state" / f"{NAME}.kind").exists()


def test_a_node_that_was_made_before_docker_came_stays_the_cluster(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "state" / NAME).mkdir(parents=True)
    assert isinstance(providers.pick(NAME), SingleNode)


@pytest.mark.parametrize("name", ["..", "/", "/tmp", "a/b", ".kind", "-a", "a b"])  # noqa: S108  nothing is made there
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_removed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(providers.NAME_VARIABLE, name)
    monkeypatch.setattr(SingleNode, "down", lambda _: pytest.fail("removed"))
    monkeypatch.setattr(Kind, "down", lambda _: pytest.fail("removed"))
    with pytest.raises(LocalClusterError, match="is no name of a cluster"):
        providers.down()


def test_who_is_not_root_is_told_that_removing_a_node_needs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "state" / NAME).mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(Namespace, "close", lambda _: pytest.fail("removed"))
    with pytest.raises(LocalClusterError, match="needs root, as making it did: sudo -E make down"):
        providers.pick(NAME).down()
    assert (tmp_path / "state" / NAME).exists()


def test_what_a_full_disk_left_of_a_node_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node = SingleNode(NAME)
    layout = Layout(tmp_path / "state" / NAME)
    layout.directory.mkdir(parents=True)
    (layout.directory / "port").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(Namespace, "close", lambda self: shutil.rmtree(self.directory))
    node.down()
    assert not (tmp_path / "state").exists()
