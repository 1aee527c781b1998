"""Which kind of cluster this machine gets: a named kubeconfig, else the named provider, else kind where Docker answers,
else our own node."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError

# Another name gives another cluster beside the first, for two checkouts at once. It names the network namespace too.
NAME_VARIABLE = "SLUICE_CLUSTER_NAME"
# Set for everything that `make test` and `make demo` run: the cluster they brought up, as a file.
CLUSTER_VARIABLE = "SLUICE_CLUSTER"
KUBECONFIG_VARIABLE = "SLUICE_KUBECONFIG"
PROVIDER_VARIABLE = "SLUICE_PROVIDER"


class Provider(Protocol):
    """A way to get a cluster."""

    def up(self) -> Cluster:
        """Bring the cluster up, or return the one that is up; what an earlier, cut-off call left is recovered."""
        ...

    def down(self) -> None:
        """Remove the cluster and everything it left on the machine; does nothing if there is none."""
        ...

    def status(self) -> str:
        """One line for a person."""
        ...

    def load_image(self, archive: Path, name: str) -> None:
        """Put an image archive on the nodes under `name`, unless it is there."""
        ...

    def ctr(self, *arguments: str) -> list[str | Path]:
        """The argv of containerd's client on the node, in Kubernetes' namespace of images."""
        ...

    def signal_program(self, program: str, number: int) -> None:
        """Send a signal to one of the node's own programs, for example kube-apiserver."""
        ...


def default_name() -> str:
    """The name of the cluster where none is given: `$SLUICE_CLUSTER_NAME`, else `sluice`."""
    return os.environ.get(NAME_VARIABLE) or "sluice"


def pick(name: str | None = None) -> Provider:
    """The provider for this machine and environment."""
    name = name or default_name()
    # It names a directory that `down` removes.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise LocalClusterError(
            f"{NAME_VARIABLE}={name!r} is no name of a cluster: letters, digits, dots, hyphens and underscores, the "
            "first a letter or digit"
        )
    from localcluster.providers.explicit import Explicit
    from localcluster.providers.kind import Kind
    from localcluster.providers.single_node import SingleNode

    kubeconfig = os.environ.get(KUBECONFIG_VARIABLE)
    if kubeconfig:
        return Explicit(Path(kubeconfig))
    node, kind = SingleNode(name), Kind(name)
    named = os.environ.get(PROVIDER_VARIABLE)
    if named:
        if named not in ("node", "kind"):
            raise LocalClusterError(f"{PROVIDER_VARIABLE}={named!r} is no provider of clusters: node or kind")
        return node if named == "node" else kind
    # What was made before Docker was started, or stopped, stays the cluster, else `down` would forget it.
    if node.exists():
        return node
    return kind if kind.exists() or docker_answers() else node


def provider_of(cluster: Cluster) -> Provider:
    """The provider that made a cluster."""
    from localcluster.providers.explicit import Explicit
    from localcluster.providers.kind import Kind
    from localcluster.providers.single_node import SingleNode

    # No `match`: a Python too old for it must get as far as the message that says so (environment.py).
    if cluster.provider == "kubeconfig":
        return Explicit(cluster.kubeconfig)
    if cluster.provider == "kind":
        return Kind(cluster.name)
    if cluster.provider == "node":
        return SingleNode(cluster.name)
    raise LocalClusterError(
        f"cluster {cluster.name}: unknown provider {cluster.provider!r}; run `make down` and `make up`"
    )


def up(name: str | None = None) -> Cluster:
    """Bring up the cluster `name` (default: `default_name`), or return it if it is up already.

    Inside a run of `make test` or `make demo` this is the cluster which that run brought up.
    """
    outer = os.environ.get(CLUSTER_VARIABLE)
    if outer and name is None:
        return Cluster.load(Path(outer))
    return pick(name).up()


def down(name: str | None = None) -> None:
    """Remove the cluster `name` and everything that it left on the machine."""
    pick(name).down()


def docker_answers() -> bool:
    """Whether a Docker daemon can be reached; the client alone is not enough."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        return subprocess.run([docker, "version"], capture_output=True, check=False, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False
