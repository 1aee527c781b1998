"""A cluster that somebody else runs, named by `SLUICE_KUBECONFIG`. Nothing of it is created or removed here."""

from __future__ import annotations

import subprocess
from pathlib import Path

from localcluster import tools
from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError


class Explicit:
    """The provider for a named kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig.expanduser().absolute()

    def up(self) -> Cluster:
        """Check that the cluster answers. Raises LocalClusterError with kubectl's words if it does not."""
        if not self._kubeconfig.exists():
            raise LocalClusterError(
                f"SLUICE_KUBECONFIG names {self._kubeconfig}, which does not exist; correct or unset it"
            )
        bin_directory = tools.bin_directory((*tools.CONTROL_PLANE_TOOLS, "helm"))
        cluster = Cluster("named", "kubeconfig", self._kubeconfig, bin_directory)
        try:
            cluster.run([cluster.kubectl, "get", "--raw", "/readyz", "--request-timeout=15s"])
        except subprocess.CalledProcessError as error:
            raise LocalClusterError(
                f"the cluster of SLUICE_KUBECONFIG={self._kubeconfig} does not answer: {error.stderr.strip()}"
            ) from error
        return cluster

    def down(self) -> None:
        """Leave it alone: it is not ours."""

    def status(self) -> str:
        """One line for a person."""
        return f"named by SLUICE_KUBECONFIG={self._kubeconfig}; never created or removed from here"

    def load_image(self, archive: Path, name: str) -> None:
        """Refuse: there is no way to put an image on somebody else's nodes."""
        raise LocalClusterError(
            f"cannot load {name} ({archive}) into the cluster of SLUICE_KUBECONFIG: push the images to a registry "
            "it pulls from and name them in SLUICE_OPERATOR_IMAGE, SLUICE_ROUTER_IMAGE, SLUICE_SIMULATOR_IMAGE ..."
        )

    def ctr(self, *arguments: str) -> list[str | Path]:
        """Refuse, for the same reason."""
        raise LocalClusterError(
            f"cannot run `ctr {' '.join(arguments)}`: the nodes of the cluster of SLUICE_KUBECONFIG are not ours"
        )

    def signal_program(self, program: str, number: int) -> None:
        """Refuse, for the same reason."""
        raise LocalClusterError(
            f"cannot send signal {number} to {program}: the nodes of the cluster of SLUICE_KUBECONFIG are not ours"
        )
