"""The key of a built tool: it changes with everything that decides the build, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster import paths, tools


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "go.mod").write_text("module example\n\nrequire k8s.io/kubernetes v1.35.4\n")
    (tmp_path / "go.sum").write_text("k8s.io/kubernetes v1.35.4 h1:abc\n")
    return tmp_path


def test_the_same_inputs_have_the_same_key(module: Path) -> None:
    key = tools.cache_key(module, "go1.26.3")
    (module / "README").write_text("not part of the build")
    assert tools.cache_key(module, "go1.26.3") == key


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("go.mod", "module example\n\nrequire k8s.io/kubernetes v1.35.5\n"),
        ("go.sum", "k8s.io/kubernetes v1.35.4 h1:other\n"),
    ],
)
def test_a_changed_pin_has_another_key(module: Path, file: str, content: str) -> None:
    key = tools.cache_key(module, "go1.26.3")
    (module / file).write_text(content)
    assert tools.cache_key(module, "go1.26.3") != key


def test_another_go_has_another_key(module: Path) -> None:
    assert tools.cache_key(module, "go1.26.3") != tools.cache_key(module, "go1.26.4")


def test_every_tool_is_pinned_with_sums() -> None:
    for tool in tools.TOOLS.values():
        pins = paths.TOOL_MODULES / tool.module
        assert tool.package in (pins / "go.mod").read_text(), f"{tool.name}: go.mod names no tool {tool.package}"
        assert (pins / "go.sum").stat().st_size > 0
