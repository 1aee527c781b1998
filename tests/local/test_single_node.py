"""The Docker-free node: it comes up once, mends what died, recovers from a crash half-way, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from localcluster import paths
from localcluster.cluster import Cluster
from localcluster.processes import recorded, running
from localcluster.providers.single_node import SingleNode
from localcluster.waiting import until

# Beside the cluster that the other tests use, with a network and a state directory of its own.
NAME = "sluice-test"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLUICE_STATE", str(directory))
        yield directory
        SingleNode(NAME).down()


@pytest.fixture
def node(state: Path) -> SingleNode:
    return SingleNode(NAME)


def test_down_removes_what_an_up_left_that_was_killed_early(node: SingleNode, state: Path) -> None:
    _up_until_there_is(Path("/run/netns") / NAME)

    node.down()

    assert _traces(state) == []


def test_an_up_that_was_killed_half_way_is_recovered_by_the_next(node: SingleNode, state: Path) -> None:
    _up_until_there_is(state / NAME / "processes" / "etcd.json")
    assert not (state / NAME / "admin.kubeconfig").exists(), "it was killed before the cluster was whole"

    cluster = node.up()

    assert _ready_nodes(cluster) == ["True"]


def test_a_second_up_changes_nothing(node: SingleNode, state: Path) -> None:
    cluster = node.up()
    before = _records(state)

    assert node.up() == cluster

    assert _records(state) == before
    assert {"etcd", "kube-apiserver", "kubelet", "containerd", "forwarder"} <= before.keys()


def test_a_program_that_died_is_started_again_and_the_others_stay(node: SingleNode, state: Path) -> None:
    cluster = node.up()
    cluster.run([cluster.kubectl, "create", "configmap", "kept"])
    before = _records(state)
    [scheduler] = _children(before["kube-scheduler"])
    os.kill(scheduler, signal.SIGKILL)
    record = recorded(state / NAME / "processes" / "kube-scheduler.json")
    assert record is not None
    until(lambda: not record.alive(), seconds=10, what="the scheduler to end")
    assert "['kube-scheduler'] died" in node.status()

    node.up()

    after = _records(state)
    assert {name for name in before if before[name] != after[name]} == {"kube-scheduler"}
    assert cluster.run([cluster.kubectl, "get", "configmap", "kept", "-o", "name"]).stdout == "configmap/kept\n"


def test_a_program_that_was_started_but_not_recorded_is_replaced(node: SingleNode, state: Path) -> None:
    node.up()
    record = state / NAME / "processes" / "kube-proxy.json"
    [unknown] = _children(json.loads(record.read_text())["pid"])
    words = Path(f"/proc/{unknown}/cmdline").read_text().split("\0")[:-1]
    record.unlink()

    node.up()

    assert recorded(record)
    assert unknown not in running(words)
    assert len(running(words)) == 2, "nsenter and the new one"


def test_the_api_server_answers_from_outside_of_its_network(node: SingleNode) -> None:
    cluster = node.up()
    argv: list[str | Path] = [cluster.kubectl, "--kubeconfig", cluster.kubeconfig, "get", "namespaces", "--output=name"]
    outside = subprocess.run(argv, capture_output=True, text=True, check=True)  # noqa: S603  our own kubectl
    assert "namespace/kube-system" in outside.stdout


def test_down_leaves_no_process_mount_network_cgroup_or_file(node: SingleNode, state: Path) -> None:
    node.up()
    assert _traces(state), "the search finds a running node"

    node.down()

    assert _traces(state) == []
    assert not state.exists()
    node.down()


def test_down_waits_for_a_pod_that_ends_later_than_the_rest(node: SingleNode, state: Path) -> None:
    _up_until_there_is(state / NAME / "holder.ready")
    [cgroup, *_] = [path for path in Path("/sys/fs/cgroup").glob(f"**/{NAME}") if (path / "cgroup.procs").exists()]
    (cgroup / "pod").mkdir()
    straggler = subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # noqa: S607  ends when its input does
    (cgroup / "pod" / "cgroup.procs").write_text(str(straggler.pid))

    with ThreadPoolExecutor() as pool:
        down = pool.submit(node.down)
        until(lambda: not (Path("/run/netns") / NAME).exists(), seconds=90, what="the network to be removed")
        assert not down.done(), "the pod still runs"
        straggler.communicate()
        down.result(120)

    assert _traces(state) == []


def _up_until_there_is(file: Path) -> None:
    """Run `up` in a process of its own and kill that as soon as the file exists."""
    program = f"from localcluster.providers.single_node import SingleNode; SingleNode({NAME!r}).up()"
    up = subprocess.Popen(  # noqa: S603  this Python
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(paths.CHECKOUT / "local")},
        stdout=subprocess.DEVNULL,
    )
    until(file.exists, seconds=180, what=f"{file} to exist")
    up.kill()
    up.wait(60)


def _ready_nodes(cluster: Cluster) -> list[str]:
    path = "{.items[*].status.conditions[?(@.type=='Ready')].status}"
    return cluster.run([cluster.kubectl, "get", "nodes", f"--output=jsonpath={path}"]).stdout.split()


def _records(state: Path) -> dict[str, int]:
    files = [
        *(state / NAME / "processes").glob("*.json"),
        state / NAME / "forwarder.json",
        state / NAME / "holder.json",
    ]
    return {file.stem: json.loads(file.read_text())["pid"] for file in files}


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _traces(state: Path) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:  # it ended while we looked
                continue
            if str(state).encode() in command or NAME.encode() in command.split(b"\0"):
                found.append(f"process {process.name}: {command!r}")
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if NAME in line or str(state) in line]
    found += [f"network {path}" for path in Path("/run/netns").glob(NAME)]
    cgroups = Path("/sys/fs/cgroup")
    return found + [f"cgroup {path}" for path in (*cgroups.glob(NAME), *cgroups.glob(f"*/{NAME}"))]
