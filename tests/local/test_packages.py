"""Packages are installed beside a machine that upgrades itself: apt's locks are waited for, and the wait is shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from localcluster import packages, progress
from localcluster.errors import LocalClusterError

MISSING = packages.Requirement("sluice-no-such-program", "no-such-package", "is missing")
LISTS = """E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)
E: Unable to lock directory /var/lib/apt/lists/"""
DPKG = "Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 8 (unattended-upgr)"
GIVEN_UP = f"""E: {DPKG}
N: Be aware that removing the lock file is not a solution and may break your system.
E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?"""


class Machine:
    """A Debian whose `apt-get` is a script; `calls` has the arguments of each call."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._bin = directory / "bin"
        self._bin.mkdir()
        self._calls = directory / "calls"
        self.log = directory / "cache" / "log" / "apt.log"
        monkeypatch.setenv("PATH", f"{self._bin}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("SLUICE_CACHE", str(directory / "cache"))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(progress, "_PLAIN_INTERVAL_SECONDS", 0.02)

    def apt_does(self, update: str = "", install: str = "") -> None:
        """What `apt-get update` and `apt-get install` do; `$nth` is the number of the call."""
        program = self._bin / "sluice-no-such-program"
        self._program(
            "apt-get",
            f'echo "$*" >> {self._calls}\nnth=$(wc -l < {self._calls})\n'
            f'case " $* " in *" update "*)\n:\n{update}\n;;\n*)\n:\n{install}\ncp "$0" {program}\n;;\nesac',
        )

    def calls(self) -> list[str]:
        """The calls, without the seconds that are left."""
        return [re.sub(r"Timeout=\d+", "Timeout=N", line) for line in self._calls.read_text().splitlines()]

    def _program(self, name: str, lines: str) -> None:
        file = self._bin / name
        file.write_text(f"#!/bin/sh\n{lines}\n")
        file.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_apt_is_told_to_wait_for_the_locks_of_dpkg(machine: Machine) -> None:
    machine.apt_does()
    packages.require([MISSING], retry_seconds=0.01)
    assert machine.calls() == [
        "-o DPkg::Lock::Timeout=N update --quiet",
        "-o DPkg::Lock::Timeout=N install --yes --quiet --no-install-recommends no-such-package",
    ]


def test_the_lock_of_the_lists_is_waited_for_too(machine: Machine) -> None:
    machine.apt_does(update=f'[ "$nth" -ge 3 ] || {{ echo "{LISTS}"; exit 100; }}')
    packages.require([MISSING], retry_seconds=0.01)
    assert [call.split()[2] for call in machine.calls()] == ["update", "update", "update", "install"]


def test_the_wait_is_shown_with_what_is_waited_for(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.apt_does(install=f'echo "Waiting for cache lock: {DPKG}..."; sleep 1; echo Reading package lists...')
    packages.require([MISSING], retry_seconds=0.01)
    lines = capsys.readouterr().out.splitlines()
    waiting = "waiting for the lock /var/lib/dpkg/lock-frontend. It is held by process 8 (unattended-upgr))"
    assert any(line.endswith(waiting) for line in lines), lines
    assert lines[-1].endswith(" s) done"), "the wait is over"


def test_what_fails_for_another_reason_fails_at_once(machine: Machine) -> None:
    machine.apt_does(update='echo "E: The repository is not signed."; exit 100')
    with pytest.raises(LocalClusterError, match="not signed"):
        packages.require([MISSING], retry_seconds=0.01)
    assert len(machine.calls()) == 1


def test_a_lock_that_is_never_free_ends_the_wait(machine: Machine) -> None:
    machine.apt_does(install=f'echo "{GIVEN_UP}"; exit 100')
    with pytest.raises(LocalClusterError, match="held by process 8"):
        packages.require([MISSING], lock_seconds=0.2, retry_seconds=0.01)
