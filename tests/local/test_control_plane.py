"""The private control plane: it starts, forgets nothing over a stop, goes back to a snapshot, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster import paths
from localcluster.controlplane import ControlPlane
from localcluster.errors import LocalClusterError
from localcluster.waiting import until


def kubectl(control_plane: ControlPlane, *arguments: str) -> str:
    argv: list[str | Path] = [control_plane.kubectl, "--kubeconfig", control_plane.kubeconfig, *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout  # noqa: S603  our own kubectl


def test_restore_goes_back_to_the_snapshot_under_the_same_address(tmp_path: Path) -> None:
    with ControlPlane(tmp_path) as control_plane:
        url = control_plane.url
        kubectl(control_plane, "create", "configmap", "before")
        snapshot = control_plane.snapshot()
        kubectl(control_plane, "create", "configmap", "after")
        assert "configmap/after" in kubectl(control_plane, "get", "configmap", "-o", "name")

        control_plane.restore(snapshot)

        names = kubectl(control_plane, "get", "configmap", "-o", "name").split()
        assert "configmap/before" in names
        assert "configmap/after" not in names
        assert control_plane.url == url


def test_a_path_that_is_no_snapshot_is_refused_before_anything_stops(control_plane: ControlPlane) -> None:
    with pytest.raises(LocalClusterError, match="is no snapshot"):
        control_plane.restore(control_plane.directory / "nothing")
    assert kubectl(control_plane, "get", "namespace", "default", "-o", "name") == "namespace/default\n"


def test_the_processes_die_with_a_starter_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from localcluster.controlplane import ControlPlane\n"
        "ControlPlane(pathlib.Path(sys.argv[1])).start(); print('started', flush=True); sys.stdin.read()"
    )
    starter = subprocess.Popen(  # noqa: S603  this Python
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(paths.CHECKOUT / "local")},
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == "started\n"
    assert len(_processes_naming(tmp_path)) >= 4, "etcd, the API server and their keepers"

    starter.send_signal(signal.SIGKILL)
    starter.wait(60)

    until(
        lambda: not _processes_naming(tmp_path, but=starter.pid),
        seconds=10,
        what="the orphaned processes to end",
        why=lambda: str(_processes_naming(tmp_path)),
    )


def test_a_control_plane_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = ControlPlane(tmp_path)
    (tmp_path / "etcd").write_text("a file where etcd wants its directory")
    with pytest.raises(LocalClusterError, match=r"etcd ended with code (?s:.*)etcd\.log"):
        broken.start()
    assert not _processes_naming(tmp_path)


def _processes_naming(path: Path, but: int = -1) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), but):
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:  # it ended while we looked
                continue
            if str(path).encode() in command:
                found.append(command.replace(b"\0", b" ").decode())
    return found
