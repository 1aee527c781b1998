"""Programs of the operating system: which are missing; on Debian root gets them installed, others a message."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import paths
from localcluster.errors import LocalClusterError
from localcluster.progress import run_logged, step
from localcluster.waiting import exclusive

# Debian keeps the plugins in the first, upstream's archives unpack to the second.
_CNI_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_CNI_PLUGINS = ("bridge", "host-local", "portmap", "loopback")
# A fresh machine upgrades itself first, for minutes.
_LOCK_SECONDS = 900.0
_RETRY_SECONDS = 2.0
# What apt adds when it does not wait any longer.
_AFTER_A_LOCK = re.compile(r"\w+: (Unable to|Be aware)")


@dataclass(frozen=True)
class Requirement:
    """A program, the Debian package that brings it, and a sentence for other systems."""

    program: str
    package: str
    purpose: str


PYTHON = (Requirement("python3 venv", "python3-venv", "makes the Python environment"),)
NODE = (
    Requirement("containerd", "containerd", "runs the pods"),
    Requirement("runc", "runc", "runs containers for containerd"),
    Requirement("CNI plugins", "containernetworking-plugins", "connects the pods"),
    Requirement("iptables", "iptables", "Services, by kube-proxy"),
    Requirement("conntrack", "conntrack", "Services, by kube-proxy"),
    Requirement("ip", "iproute2", "the cluster's own network namespace"),
    Requirement("nsenter", "util-linux", "enters that namespace"),
    Requirement("mount", "mount", "mounts inside that namespace"),
    Requirement("catatonit", "catatonit", "the pause container and the namespace's first process"),
)
IMAGES = (
    Requirement("buildah", "buildah", "builds images without Docker"),
    Requirement("mmdebstrap", "mmdebstrap", "makes the base image without Docker"),
)


def require(
    requirements: Iterable[Requirement], *, lock_seconds: float = _LOCK_SECONDS, retry_seconds: float = _RETRY_SECONDS
) -> None:
    """Make sure that every program is there.

    As root on Debian or Ubuntu the missing packages are named and installed; elsewhere LocalClusterError says which
    programs are missing and what to install. For apt's locks each command waits for lock_seconds.
    """
    missing = [requirement for requirement in requirements if not _present(requirement)]
    if not missing:
        return
    names = sorted({requirement.package for requirement in missing})
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        lines = [f"  {requirement.program}: {requirement.purpose}" for requirement in missing]
        how = f"sudo apt-get install --no-install-recommends {' '.join(names)}"
        advice = (
            f"Install them: {how}" if apt else f"Install them (on Debian they are the packages {', '.join(names)})."
        )
        raise LocalClusterError("\n".join(["these programs are missing:", *lines, advice]))
    log = paths.cache() / "log" / "apt.log"
    what = f"installing Debian packages: {' '.join(names)}"
    with exclusive(paths.cache() / "apt.lock"), step(what, detail=lambda: _awaited(log)):
        log.unlink(missing_ok=True)
        for command in (["update", "--quiet"], ["install", "--yes", "--quiet", "--no-install-recommends", *names]):
            _apt([apt, *command], log, lock_seconds, retry_seconds)
    still = [requirement.program for requirement in missing if not _present(requirement)]
    if still:
        raise LocalClusterError(f"installed {', '.join(names)}, yet these programs are still missing: {still}")


def cni_directory() -> Path | None:
    """The directory that has all CNI plugins the node uses, if there is one."""
    for directory in _CNI_DIRECTORIES:
        if all((directory / plugin).exists() for plugin in _CNI_PLUGINS):
            return directory
    return None


def _apt(argv: Sequence[str], log: Path, lock_seconds: float, retry_seconds: float) -> None:
    """Run apt-get; while another program has one of its locks, wait.

    Raises LocalClusterError where it fails for another reason, or the lock was not free in time.
    """
    deadline = time.monotonic() + lock_seconds
    while True:
        # apt waits for dpkg's locks by itself when it is told to, and for that of the lists (`update`) never.
        left = max(0, round(deadline - time.monotonic()))
        try:
            run_logged(
                [argv[0], "-o", f"DPkg::Lock::Timeout={left}", *argv[1:]],
                log=log,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
            )
            return
        except LocalClusterError:
            if not _awaited(log) or time.monotonic() > deadline:
                raise
        time.sleep(retry_seconds)


def _awaited(log: Path) -> str:
    """The lock that apt could not get according to the end of its log, and who has it; empty if it is not that."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    while lines and _AFTER_A_LOCK.match(lines[-1]):
        lines.pop()
    locked = re.search(r"Could not get lock (.*?)\.*$", lines[-1]) if lines else None
    return f"waiting for the lock {locked[1]}" if locked else ""


def _present(requirement: Requirement) -> bool:
    if requirement.program == "CNI plugins":
        return cni_directory() is not None
    if requirement.program == "python3 venv":
        # Debian splits `ensurepip` off; without it `venv` makes an environment that cannot install anything.
        return importlib.util.find_spec("ensurepip") is not None
    return shutil.which(requirement.program) is not None
