"""The box a node lives in: a named network namespace, and a mount and a process namespace held by one process.

Everything of the node runs inside, so nothing of the host's network, mounts or iptables changes, and killing the
holder, the first process of the process namespace, ends all of it at once, containers and mounts included.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.processes import Detached, ancestors, end_all, recorded, start_detached
from localcluster.waiting import log_tail, until

NODE_ADDRESS = "10.240.0.2"
_GATEWAY = "10.240.0.1"
# Fixed paths of kubelet, containerd's shims and the CNI library. Each node gets its own, under its state directory.
_PRIVATE = ("/var/lib/kubelet", "/var/lib/cni", "/var/log/containers", "/run/containerd")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Namespace:
    """The namespaces of the node `name`, whose state lies in `directory`."""

    name: str
    directory: Path

    @property
    def network(self) -> Path:
        """The network namespace's file."""
        return Path("/run/netns") / self.name

    @property
    def enter_network(self) -> tuple[str, ...]:
        """The argv prefix for a command in the network only. (`ip netns exec` would remount /sys, hiding cgroups.)"""
        return ("nsenter", f"--net={self.network}")

    def holder(self) -> Detached | None:
        """The process that holds the namespaces, if it runs."""
        holder = recorded(self.directory / "holder.json")
        return holder if holder and holder.alive() else None

    def enter(self, argv: Sequence[str | Path]) -> list[str | Path]:
        """The argv of a command inside all of the node's namespaces."""
        holder = self.holder()
        if holder is None:
            raise LocalClusterError(f"the node {self.name} is not up: nothing holds its namespaces")
        proc = f"/proc/{holder.pid}/ns"
        return [
            *self.enter_network,
            f"--mount={proc}/mnt",
            f"--pid={proc}/pid_for_children",
            "--wd=/",
            "--",
            *argv,
        ]

    def open(self) -> None:
        """Make the namespaces; whatever an earlier, cut-off run left of them is removed first."""
        self.close()
        self.directory.mkdir(parents=True, exist_ok=True)
        _run("ip", "netns", "add", self.name)
        self._set_up_network()
        _delegate_controllers()
        for cgroup in self._cgroups():
            cgroup.mkdir(exist_ok=True)
        ready = self.directory / "holder.ready"
        script = ["mount --make-rshared /"]
        for path in _PRIVATE:
            Path(path).mkdir(parents=True, exist_ok=True)
            own = self.directory / "private" / path.strip("/").replace("/", "-")
            own.mkdir(parents=True, exist_ok=True)
            script.append(f"mount --bind {shlex.quote(str(own))} {path}")
        script += [f"touch {shlex.quote(str(ready))}", f"exec {shutil.which('catatonit')} -P"]
        log = self.directory / "holder.log"
        unshare = "unshare --mount --propagation=slave --pid --mount-proc --fork --kill-child=SIGKILL"
        holder = start_detached(
            [*self.enter_network, *unshare.split(), "sh", "-euc", "\n".join(script)],
            record=self.directory / "holder.json",
            log=log,
        )
        until(
            lambda: ready.exists() or not holder.alive(),
            seconds=15,
            what=f"the namespaces of the node {self.name}",
            why=lambda: log_tail(log),
        )
        if not holder.alive():
            raise LocalClusterError(f"the namespaces of the node {self.name} could not be made; {log_tail(log)}")

    def close(self) -> None:
        """End every process of the node and remove its namespaces, cgroups and state directory."""
        holder = self.holder()
        if holder:
            holder.kill()
        if self.network.exists():
            # What an `up` that was killed had not recorded yet, and what somebody runs in the network.
            end_all(self.processes)
            _run("ip", "netns", "delete", self.name)
        # The pods have networks of their own. They end with the holder, but not at once, and a cgroup stays as long as
        # there is a process in it: when the cgroups are gone, so are the pods.
        until(
            lambda: all(_removed(cgroup) for cgroup in self._cgroups()),
            seconds=30,
            what=f"the pods of {self.name} to end",
        )
        if self.directory.exists():
            shutil.rmtree(self.directory)
        others = [path for path in Path("/run/netns").glob("*") if path != self.network]
        for path in _PRIVATE if not others else ():
            # Another node's mount point must stay: removing the directory would detach its mount.
            if Path(path).is_dir() and not any(Path(path).iterdir()):
                Path(path).rmdir()

    def processes(self) -> list[int]:
        """The processes in the node's network, but for this one and those it was started by (a shell inside)."""
        own = ancestors()
        return [pid for pid in map(int, _run("ip", "netns", "pids", self.name).split()) if pid not in own]

    def _cgroups(self) -> list[Path]:
        """The node's own cgroup in each hierarchy: kubelet puts its pods below it instead of beside the host's."""
        if (_CGROUPS / "cgroup.controllers").exists():
            return [_CGROUPS / self.name]
        hierarchies = [path for path in _CGROUPS.iterdir() if (path / "cgroup.procs").exists()]
        return [path.resolve() / self.name for path in hierarchies]

    def _set_up_network(self) -> None:
        # A pair of interfaces with both ends here carries the node's address: not every kernel has the dummy driver.
        for command in (
            "link set lo up",
            "link add node0 type veth peer name node1",
            f"address add {NODE_ADDRESS}/24 dev node0",
            "link set node0 up",
            "link set node1 up",
            # Nothing answers there; but without a default route kubelet and kube-proxy find no node address.
            f"route add default via {_GATEWAY} dev node0",
        ):
            _run("ip", "-netns", self.name, *command.split())
        _run(*self.enter_network, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def _removed(cgroup: Path) -> bool:
    """Remove a cgroup and those below it, as far as no process is left in them; whether all are gone."""
    for directory in (*sorted(cgroup.rglob("*/"), reverse=True), cgroup):
        with suppress(OSError):  # busy, or gone meanwhile
            directory.rmdir()
    return not cgroup.exists()


def _delegate_controllers() -> None:
    """In the unified hierarchy a cgroup has only the controllers that its parent hands on; kubelet wants them all."""
    available = _CGROUPS / "cgroup.controllers"
    for controller in available.read_text().split() if available.exists() else ():
        # One at a time: a controller that cannot be handed on (`cpu` beside realtime tasks) must not keep the others.
        with suppress(OSError):
            (_CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")


def _run(*argv: str) -> str:
    result = subprocess.run(argv, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise LocalClusterError(f"`{' '.join(argv)}` failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout
