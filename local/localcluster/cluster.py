"""A running cluster as its users see it: where its kubeconfig is and how to get into its network."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.kubeconfig import write_secret


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up.

    `enter` is put before a command's argv to run it where pod addresses, service addresses and the cluster's DNS
    (10.96.0.10) are reachable; it is empty where nothing is needed, or nothing can be done (kind, a named kubeconfig).
    `bin` has kubectl and helm.
    """

    name: str
    provider: str
    kubeconfig: Path
    bin: Path
    enter: tuple[str, ...] = ()

    @property
    def kubectl(self) -> Path:
        """The kubectl of the tools' release."""
        return self.bin / "kubectl"

    @property
    def helm(self) -> Path:
        """The helm of the tools."""
        return self.bin / "helm"

    def environment(self) -> dict[str, str]:
        """This process's environment with KUBECONFIG set and the tools first on PATH."""
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        }

    def run(
        self, argv: Sequence[str | Path], *, check: bool = True, input_text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the cluster's network with `environment()`; returns it with its captured output."""
        return subprocess.run(
            [*self.enter, *argv],
            input=input_text,
            capture_output=True,
            text=True,
            check=check,
            env=self.environment(),
        )

    def load_image(self, archive: Path, name: str) -> None:
        """Put an image archive (OCI, or Docker's for kind) on the nodes under `name`, unless it is there already."""
        from localcluster import providers  # the providers make Clusters, so they import this module

        providers.provider_of(self).load_image(archive, name)

    def tag_image(self, name: str, alias: str) -> None:
        """Give an image on the nodes another name; an image that had it loses it."""
        self._ctr("images", "tag", "--force", name, alias)

    def push_image(self, name: str, reference: str, *, user: str, password: str) -> str:
        """Push an image on the nodes to a registry that a node reaches without TLS; returns its digest."""
        self._ctr("images", "push", "--plain-http", f"--user={user}:{password}", reference, name)
        listed = self._ctr("images", "list", f"name=={name}").splitlines()
        return next(word for word in listed[1].split() if word.startswith("sha256:"))

    def kill_container(self, container_id: str, signal: str = "SIGKILL") -> None:
        """Send a signal to a container's first process; the id is as in a pod's status, without its scheme."""
        self._ctr("tasks", "kill", "--signal", signal, container_id)

    def signal_program(self, program: str, number: int) -> None:
        """Send a signal to one of the node's own programs, for example kube-apiserver (single-node provider only)."""
        from localcluster import providers  # see load_image

        providers.provider_of(self).signal_program(program, number)

    def _ctr(self, *arguments: str) -> str:
        from localcluster import providers  # see load_image

        done = subprocess.run(providers.provider_of(self).ctr(*arguments), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LocalClusterError(f"`ctr {' '.join(arguments[:2])} ...` on the node failed: {done.stderr.strip()}")
        return done.stdout

    def save(self, file: Path) -> None:
        """Write down what `load` reads."""
        content = {
            "name": self.name,
            "provider": self.provider,
            "kubeconfig": str(self.kubeconfig),
            "bin": str(self.bin),
            "enter": list(self.enter),
        }
        write_secret(file, json.dumps(content, indent=1))

    @staticmethod
    def load(file: Path) -> Cluster:
        """Read what `save` wrote."""
        content = json.loads(file.read_text())
        return Cluster(
            name=content["name"],
            provider=content["provider"],
            kubeconfig=Path(content["kubeconfig"]),
            bin=Path(content["bin"]),
            enter=tuple(content["enter"]),
        )
