"""kind, where a Docker daemon answers: a node in a container. Pod addresses are not reachable from the host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from localcluster import paths, tools
from localcluster.cluster import Cluster
from localcluster.progress import run_logged, step
from localcluster.waiting import exclusive


class Kind:
    """The provider for kind."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._directory = paths.state() / name

    def up(self) -> Cluster:
        """Create the cluster, or return it if it answers; one that does not answer is made anew."""
        bin_directory = tools.bin_directory((*tools.CONTROL_PLANE_TOOLS, "helm", "kind"))
        self._directory.mkdir(parents=True, exist_ok=True)
        cluster = Cluster(self._name, "kind", self._directory / "admin.kubeconfig", bin_directory)
        kind = bin_directory / "kind"
        with exclusive(paths.state() / f"{self._name}.lock"):
            if self._exists(kind):
                self._kind(kind, "export", "kubeconfig", f"--kubeconfig={cluster.kubeconfig}")
                ready = cluster.run([cluster.kubectl, "get", "--raw", "/readyz", "--request-timeout=10s"], check=False)
                if ready.returncode == 0:
                    return cluster
                self._kind(kind, "delete", "cluster")
            with step("creating a kind cluster"):
                self._kind(kind, "create", "cluster", f"--kubeconfig={cluster.kubeconfig}", "--wait=180s")
        return cluster

    def down(self) -> None:
        """Delete the cluster and its state directory."""
        kind = tools.build(["kind"])["kind"]
        with exclusive(paths.state() / f"{self._name}.lock"):
            if self._exists(kind):
                self._kind(kind, "delete", "cluster")
            shutil.rmtree(self._directory, ignore_errors=True)
        (paths.state() / f"{self._name}.lock").unlink(missing_ok=True)

    def status(self) -> str:
        """One line for a person."""
        state = "up" if self._exists(tools.build(["kind"])["kind"]) else "down"
        return f"kind cluster {self._name}: {state}"

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

    def _exists(self, kind: Path) -> bool:
        listed = subprocess.run([kind, "get", "clusters"], capture_output=True, text=True, check=True)
        return self._name in listed.stdout.split()

    def _kind(self, kind: Path, *arguments: str) -> None:
        run_logged([kind, *arguments, f"--name={self._name}"], log=paths.cache() / "log" / "kind.log")
