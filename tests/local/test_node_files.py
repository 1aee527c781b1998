"""What a node's programs read keeps them to the node's own directory, which `make down` removes."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster import packages
from localcluster.node import components
from localcluster.node.components import Layout


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(packages, "cni_directory", lambda: Path("/usr/lib/cni"))
    layout = Layout(tmp_path / "node")
    components.write_files(layout, "sluice-nowhere")
    return layout


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for child in value.values():
            yield from _strings(child)
    elif isinstance(value, list):
        for child in value:
            yield from _strings(child)
    elif isinstance(value, str):
        yield value


def test_containerd_makes_nothing_outside_of_the_nodes_directory(layout: Layout) -> None:
    """The keys are those of `containerd config default`; each defaults to a directory of the host's."""
    config = tomllib.loads((layout.directory / "containerd.toml").read_text())
    made = [
        config["root"],
        config["state"],
        config["grpc"]["address"],
        config["plugins"]["io.containerd.internal.v1.opt"]["path"],
    ]
    for path in made:
        assert Path(path).is_relative_to(layout.directory / "containerd")
    assert len(set(made)) == len(made)


def test_no_program_is_given_another_directory_of_the_host(layout: Layout) -> None:
    config = tomllib.loads((layout.directory / "containerd.toml").read_text())
    kubelet = json.loads((layout.directory / "kubelet.json").read_text())
    paths = {text for text in (*_strings(config), *_strings(kubelet)) if text.startswith("/")}
    outside = {path for path in paths if not Path(path).is_relative_to(layout.directory)}
    # Where programs are read, and a cgroup.
    assert outside == {"/usr/lib/cni", "/sluice-nowhere"}
