"""What the commands do around what they run: a Ctrl-C, a machine that lacks something, a lock whose file goes."""

from __future__ import annotations

import ast
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster import __main__ as commands
from localcluster import environment, paths, providers
from localcluster.errors import LocalClusterError
from localcluster.waiting import exclusive, until

CLEANS_UP = """
import pathlib, sys, time
try:
    print("started", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    pathlib.Path(sys.argv[1]).touch()
    sys.exit(7)
"""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell's background jobs ignore SIGINT, and hand that down; a handler is not handed down."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_what_is_run_has_its_time_to_clean_up_after_a_ctrl_c(tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"
    program = "import os, sys; from localcluster.__main__ import _attend; sys.exit(_attend(sys.argv[1:], os.environ))"
    attending = subprocess.Popen(  # noqa: S603  this Python
        [sys.executable, "-c", program, sys.executable, "-c", CLEANS_UP, str(cleaned)],
        env={**os.environ, "PYTHONPATH": str(paths.CHECKOUT / "local")},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert attending.stdout is not None
    assert attending.stdout.readline() == "started\n"

    os.killpg(attending.pid, signal.SIGINT)  # as a terminal does: to all of them

    assert attending.wait(60) == 7
    assert cleaned.exists()


@pytest.mark.usefixtures("interruptible")
def test_a_command_that_a_signal_ended_has_the_code_of_a_shell() -> None:
    assert commands._attend(["/bin/sh", "-c", "kill -INT $$"], os.environ) == 130
    assert commands._attend(["/bin/sh", "-c", "exit 3"], os.environ) == 3


def test_what_the_machine_lacks_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("SLUICE_STATE", str(tmp_path / "elsewhere"))

    def read_only() -> None:
        raise OSError(30, "Read-only file system", str(tmp_path / "lock"))

    monkeypatch.setattr(providers, "down", read_only)
    assert commands.main(["down"]) == 1
    said = capsys.readouterr().err
    assert f"error: [Errno 30] Read-only file system: '{tmp_path}/lock'\n" in said
    assert f"{tmp_path}/elsewhere (SLUICE_STATE)" in said


def test_a_program_that_failed_is_named_with_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["/bin/sh", "-c", "echo no such thing >&2; exit 4"]
    monkeypatch.setattr(
        providers,
        "down",
        lambda: subprocess.run(argv, capture_output=True, text=True, check=True),  # noqa: S603  a shell's own words
    )
    assert commands.main(["down"]) == 1
    assert "...` ended with code 4: no such thing" in capsys.readouterr().err


def test_an_error_of_our_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "down", lambda: Path("/nowhere/at/all").read_text())
    with pytest.raises(FileNotFoundError):
        commands.main(["down"])


def test_a_lock_whose_file_is_removed_by_its_holder_still_lets_in_one_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "sluice.lock"
    inside, leave = threading.Event(), threading.Event()

    def second() -> None:
        with exclusive(lock):
            inside.set()
            leave.wait(60)

    waiting = threading.Thread(target=second, daemon=True)
    with exclusive(lock):
        waiting.start()
        until(lambda: "waiting for another run" in capsys.readouterr().out, seconds=60, what="the second to wait")
        lock.unlink()
    assert inside.wait(60)

    with lock.open("w") as third, pytest.raises(BlockingIOError):
        fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
    leave.set()
    waiting.join(60)


def test_a_python_that_is_too_old_gets_as_far_as_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (paths.CHECKOUT / "local" / "localcluster").rglob("*.py"):
        ast.parse(source.read_text(), filename=str(source), feature_version=(3, 9))
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    with pytest.raises(LocalClusterError, match=r"python3 is 3\.9\.2; Sluice needs 3\.11"):
        environment.ensure()


class Environment:
    """A checkout's environment whose making is only noted: `made` has what was run for it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.python = directory / ".venv" / "bin" / "python"
        self.made: list[list[str]] = []
        lock = directory / "requirements.lock"
        lock.touch()
        monkeypatch.setenv("SLUICE_CACHE", str(directory / "cache"))
        monkeypatch.setattr(environment, "_LOCK", lock)
        monkeypatch.setattr(environment, "_MADE_FROM", directory / ".venv" / "made-from")
        monkeypatch.setattr(paths, "VENV", directory / ".venv")
        monkeypatch.setattr(paths, "VENV_PYTHON", self.python)
        monkeypatch.setattr(environment, "run_logged", self._run)

    def python_is(self, *lines: str) -> None:
        """What its Python does."""
        self.python.parent.mkdir(parents=True, exist_ok=True)
        self.python.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        self.python.chmod(0o755)

    def _run(self, argv: list[str | Path], **_: object) -> None:
        self.made.append([str(word) for word in argv])
        self.python_is()


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    return Environment(tmp_path, monkeypatch)


def test_an_environment_is_made_once(made: Environment) -> None:
    environment.ensure()
    assert [argv[2] for argv in made.made] == ["venv", "pip"]
    environment.ensure()
    assert len(made.made) == 2


def test_an_environment_whose_python_became_another_is_made_anew(made: Environment) -> None:
    environment.ensure()
    made.made.clear()
    made.python_is("echo \"No module named 'pip'\" >&2", "exit 1")
    environment.ensure()
    assert [argv[2] for argv in made.made] == ["venv", "pip"]


def test_an_environment_is_not_made_by_its_own_python_which_is_gone_by_then(
    made: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.python_is()
    monkeypatch.setattr(sys, "executable", str(made.python))
    monkeypatch.setattr(sys, "_base_executable", "/usr/bin/python3")
    environment.ensure()
    assert made.made[0][0] == "/usr/bin/python3"
