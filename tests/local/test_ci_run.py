"""What CI runs takes the cluster down however it ends, once, and says with its code how the tests ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localcluster import paths
from localcluster.waiting import until

DEAF = "trap '' INT TERM"
TIDY = 'trap "echo tidied >> $SAID; exit 9" INT TERM'
SLEEPS = "for _ in $(seq 600); do sleep 0.1; done"


@dataclass(frozen=True)
class Ci:
    """`.ci/run` with a `make` that is a script."""

    directory: Path

    def start(self, *, test: str = "", down: str = "") -> subprocess.Popen[str]:
        """Start it; `make test` and `make down` run these lines of sh."""
        self.program("make", f'echo "$1" >> $SAID\nif [ "$1" = test ]; then\n:\n{test}\nelse\n:\n{down}\nfi')
        environment = {**os.environ, "SAID": str(self.directory / "said")}
        environment["PATH"] = f"{self.directory}{os.pathsep}{environment['PATH']}"
        run = [str(paths.CHECKOUT / ".ci" / "run")]
        return subprocess.Popen(run, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)  # noqa: S603  our own

    def program(self, name: str, lines: str) -> None:
        """A script that is found before the machine's program of that name."""
        file = self.directory / name
        file.write_text(f"#!/bin/sh\n{lines}\n")
        file.chmod(0o755)

    def said(self) -> list[str]:
        """What the scripts noted: the targets, and what the test adds."""
        file = self.directory / "said"
        return file.read_text().split() if file.exists() else []


@pytest.fixture
def ci(tmp_path: Path) -> Iterator[Ci]:
    """A shell's background jobs ignore SIGINT, and hand that down; a handler is not handed down."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield Ci(tmp_path)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("test", "down", "code"), [("", "", 0), ("exit 3", "", 3), ("", "exit 4", 1), ("exit 3", "exit 4", 3)]
)
def test_its_code_is_that_of_the_tests_unless_only_the_clean_up_failed(ci: Ci, test: str, down: str, code: int) -> None:
    assert ci.start(test=test, down=down).wait(60) == code
    assert ci.said() == ["test", "down"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("down", ["", "exit 4"])
def test_an_interrupted_run_ends_the_tests_and_takes_the_cluster_down(ci: Ci, number: int, down: str) -> None:
    running = ci.start(test=f"{TIDY}\n{SLEEPS}", down=down)
    until(lambda: "test" in ci.said(), seconds=60, what="the tests to run")

    running.send_signal(number)  # to this process alone, as runners do

    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert ci.said() == ["test", "tidied", "down"]
    assert f"{signal.Signals(number).name}: ending the tests, then taking the cluster down" in said


def test_a_second_signal_does_not_wait_for_tests_that_do_not_end(ci: Ci) -> None:
    running = ci.start(test=f"{DEAF}\necho deaf >> $SAID\n{SLEEPS}\necho ended >> $SAID")
    until(lambda: "deaf" in ci.said(), seconds=60, what="the tests to run")
    assert running.stderr is not None

    running.send_signal(signal.SIGINT)
    assert "ending the tests" in running.stderr.readline()
    running.send_signal(signal.SIGTERM)

    assert running.wait(8) == 130, "it waited for its grace period"
    assert ci.said() == ["test", "deaf", "down"]


def test_signals_do_not_cut_the_clean_up_short(ci: Ci) -> None:
    running = ci.start(test="exit 3", down="sleep 1\necho whole >> $SAID")
    until(lambda: "down" in ci.said(), seconds=60, what="the clean-up to run")

    os.killpg(running.pid, signal.SIGINT)  # as a terminal does

    assert running.wait(60) == 130
    assert ci.said() == ["test", "down", "whole"]


def test_a_clean_up_that_hangs_ends(ci: Ci) -> None:
    timeout = shutil.which("timeout")
    ci.program("timeout", f'[ "$2" -le 900 ] || exit 99\nshift 2\nexec {timeout} --kill-after=1 1 "$@"')
    assert ci.start(down=f"{DEAF}\n{SLEEPS}").wait(30) == 1
    assert ci.said() == ["test", "down"]
