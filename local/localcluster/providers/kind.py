"""kind, where a Docker daemon answers: a node in a container. Pod addresses are not reachable from the host."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from localcluster import paths, tools
from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError
from localcluster.progress import run_logged, step
from localcluster.waiting import exclusive

# What kind puts on the containers that are its nodes, with the cluster's name as its value.
_LABEL = "io.x-k8s.kind.cluster"


class Kind:
    """The provider for kind."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Beside the one of a node without Docker, which is taken for the cluster when its directory is there.
        self._directory = paths.state() / f"{name}.kind"

    def up(self) -> Cluster:
        """Create the cluster, or return it if it answers; one that does not answer is made anew."""
        bin_directory = tools.bin_directory((*tools.CONTROL_PLANE_TOOLS, "helm", "kind"))
        self._directory.mkdir(parents=True, exist_ok=True)
        cluster = Cluster(self._name, "kind", self._directory / "admin.kubeconfig", bin_directory)
        kind = bin_directory / "kind"
        with exclusive(paths.state() / f"{self._name}.lock"):
            if self._runs():
                if self._answers(kind, cluster):
                    return cluster
                self._kind(kind, "delete", "cluster")
            with step("creating a kind cluster"):
                self._kind(kind, "create", "cluster", f"--kubeconfig={cluster.kubeconfig}", "--wait=180s")
        return cluster

    def exists(self) -> bool:
        """Whether a cluster was brought up here and not removed, running or not."""
        return self._directory.exists()

    def down(self) -> None:
        """Delete the cluster and its state directory."""
        lock = paths.state() / f"{self._name}.lock"
        with exclusive(lock):
            if self._runs():
                self._kind(tools.build(["kind"])["kind"], "delete", "cluster")
            shutil.rmtree(self._directory, ignore_errors=True)
            lock.unlink()
        with suppress(OSError):  # another cluster's is still there
            paths.state().rmdir()

    def status(self) -> str:
        """One line for a person."""
        return f"kind cluster {self._name}: {'up' if self._runs() else 'down'}"

    def load_image(self, archive: Path, name: str) -> None:
        """Import the archive into the node's containerd."""
        kind = tools.build(["kind"])["kind"]
        present = subprocess.run(
            ["docker", "exec", f"{self._name}-control-plane", "crictl", "inspecti", name],
            capture_output=True,
            check=False,
        )
        if present.returncode != 0:
            with step(f"loading {name}"):
                self._kind(kind, "load", "image-archive", str(archive))

    def ctr(self, *arguments: str) -> list[str | Path]:
        """The argv of containerd's client in the node's container."""
        return ["docker", "exec", f"{self._name}-control-plane", "ctr", "--namespace=k8s.io", *arguments]

    def signal_program(self, program: str, number: int) -> None:
        """Send it in the node's container."""
        argv = ["docker", "exec", f"{self._name}-control-plane", "pkill", f"-{number}", "-x", program[:15]]
        subprocess.run(argv, check=True)

    def _runs(self) -> bool:
        """Whether there are containers of it: kind's own question, without kind, which would have to be built."""
        argv = ["docker", "ps", "--all", f"--filter=label={_LABEL}={self._name}", "--format={{.ID}}"]
        try:
            listed = subprocess.run(argv, capture_output=True, text=True, check=True)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
            raise LocalClusterError(
                f"the cluster {self._name} is one of kind's, and Docker does not answer: {said}\nStart it, or remove "
                f"{self._directory} if the cluster is gone."
            ) from error
        return bool(listed.stdout.split())

    def _answers(self, kind: Path, cluster: Cluster) -> bool:
        try:
            self._kind(kind, "export", "kubeconfig", f"--kubeconfig={cluster.kubeconfig}")
        except LocalClusterError:
            return False  # its creation was cut off before there was one
        ready: list[str | Path] = [cluster.kubectl, "get", "--raw", "/readyz", "--request-timeout=10s"]
        return cluster.run(ready, check=False).returncode == 0

    def _kind(self, kind: Path, *arguments: str) -> None:
        run_logged([kind, *arguments, f"--name={self._name}"], log=paths.cache() / "log" / "kind.log")
