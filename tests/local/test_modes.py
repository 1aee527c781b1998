"""A person with a strict umask has images, nodes and tests that work: others, such as pods, read what they must."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster import __main__ as commands
from localcluster import paths, providers
from localcluster.cluster import Cluster

OURS = paths.CHECKOUT / "Dockerfile"
DOCKERFILES = (
    OURS,
    *sorted((paths.CHECKOUT / "examples").rglob("*Dockerfile")),
    *sorted((paths.CHECKOUT / "local").rglob("*Dockerfile")),
)
OWNER_ONLY = 0o077


@pytest.fixture(autouse=True)
def _strict() -> Iterator[None]:
    before = os.umask(OWNER_ONLY)
    yield
    os.umask(before)


def test_what_the_commands_make_is_read_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> None:
        (tmp_path / "directory").mkdir()
        (tmp_path / "file").touch()

    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(providers, "down", make)
    assert commands.main(["down"]) == 0
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("directory", "file")] == [0o755, 0o644]
    assert os.umask(OWNER_ONLY) == OWNER_ONLY, "the caller has its own again"


def test_tests_make_files_that_pods_read_and_a_shell_makes_those_of_its_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(commands, "_bring_up", lambda: Cluster("named", "kubeconfig", tmp_path / "config", tmp_path))
    said = tmp_path / "said"

    assert commands.main(["enter", "sh", "-c", f"umask > {said}"]) == 0
    assert int(said.read_text(), 8) == OWNER_ONLY

    assert commands._attend(["sh", "-c", f"umask > {said}"], os.environ) == 0
    assert int(said.read_text(), 8) == 0o022


def test_images_have_nothing_of_the_checkouts_modes() -> None:
    """Of files that are copied out of the checkout and run, or read, by another user than root."""
    copied = 0
    for path in DOCKERFILES:
        lines = path.read_text().replace("\\\n", " ").splitlines()
        stage = ""
        for number, line in enumerate(lines):
            if line.startswith("FROM "):
                stage = line.rpartition(" AS ")[2]
            if not line.startswith("COPY ") or "--from=" in line or not _is_image(lines, stage):
                continue
            copied += 1
            target = str(Path(line.split()[-1]))
            opened = [f"chmod -R a+rX {top} " for top in (target, str(Path(target).parent))]
            assert "--chmod=755 " in line or any(word in lines[number + 1] for word in opened), (
                f"{path.relative_to(paths.CHECKOUT)}: {line}"
            )
    assert copied >= 6


def _is_image(lines: list[str], stage: str) -> bool:
    """Whether containers are made of a stage: it says what they run."""
    text = "\n".join(lines).partition(f" AS {stage}\n")[2].partition("\nFROM ")[0]
    return re.search(r"^(CMD|ENTRYPOINT) ", text, re.M) is not None


def test_the_opening_of_a_folder_opens_what_is_compiled_of_it_as_well(tmp_path: Path) -> None:
    """The line of the Dockerfile, with this Python: a compiled file has its source's mode."""
    [line] = {line for line in OURS.read_text().splitlines() if line.startswith("RUN chmod ")}
    (tmp_path / "app" / "package").mkdir(parents=True)
    (tmp_path / "app" / "package" / "module.py").write_text("")
    python = str(paths.VENV_PYTHON)
    command = line.removeprefix("RUN ").replace("/opt/sluice/venv/bin/python", python)
    os.umask(0o022)  # a builder's
    subprocess.run(["sh", "-c", command.replace("/opt/sluice/app", str(tmp_path / "app"))], check=True)  # noqa: S603,S607
    made = list((tmp_path / "app").rglob("*"))
    assert [path.suffix for path in made if path.is_file()].count(".pyc") == 1
    for path in made:
        wanted = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
