"""Images and what else Dockerfiles make: their names, which say what went in, and getting them built.

A tag is a hash of everything that decides what is in an image, so an image that exists is never built again and a
changed file never runs under an old name.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from localcluster import paths, providers
from localcluster.errors import LocalClusterError
from localcluster.images.buildah import Buildah
from localcluster.images.docker import Docker
from localcluster.images.dockerfile import Target
from localcluster.pruning import mark_used
from localcluster.waiting import exclusive

# Put before a command that needs the world outside: the cluster's network, in which tests run, may have no way out.
OUTSIDE_VARIABLE = "SLUICE_OUTSIDE"
_KEPT = 4


OPERATOR = Target("operator", ("locks/operator.lock", "operator/sluice"))
ROUTER = Target("router", ("locks/router.lock", "operator/sluice"))
SIMULATOR = Target("simulator", ("locks/simulator.lock", "simulator"))


@dataclass(frozen=True)
class Image:
    """A built image: its name with tag, and an archive of it."""

    name: str
    archive: Path


class Builder(Protocol):
    """A program that builds Dockerfiles."""

    def base_key(self) -> str:
        """What decides the base image."""
        ...

    def build(self, target: Target, name: str, archive: Path) -> None:
        """Build a target under a name and write it as an archive."""
        ...

    def export(self, target: Target, directory: Path) -> None:
        """Build a target and write the files that it holds into a directory."""
        ...


def build(target: Target) -> Image:
    """The image of a target for today's sources, built unless its archive is in the cache."""
    builder = _builder()
    tag = _key(target, builder)
    name = f"localhost/sluice-{target.name}:{tag}"
    archive = paths.cache() / "images" / f"{target.name}-{tag}.tar"
    mark_used([archive], _lock())
    if not archive.exists() and not _made_outside("images", target):
        with exclusive(_lock()):
            if not archive.exists():
                archive.parent.mkdir(parents=True, exist_ok=True)
                builder.build(target, name, archive)
                _prune(archive.parent.glob(f"{target.name}-????????????.tar"))
    return Image(name, archive)


def export(target: Target) -> Path:
    """The directory with the files of a target for today's sources, made unless it is in the cache."""
    builder = _builder()
    directory = paths.cache() / "files" / f"{target.name}-{_key(target, builder)}"
    mark_used([directory], _lock())
    if not directory.exists() and not _made_outside("files", target):
        with exclusive(_lock()):
            if not directory.exists():
                partial = directory.with_name(f"{directory.name}.partial")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                builder.export(target, partial)
                partial.rename(directory)
                _prune(directory.parent.glob(f"{target.name}-????????????"))
    return directory


def _lock() -> Path:
    return paths.cache() / "images.lock"


def _key(target: Target, builder: Builder) -> str:
    inputs = (paths.CHECKOUT / source for source in (target.dockerfile, *target.sources))
    return content_key(inputs, builder.base_key(), target.name)


def _made_outside(command: str, target: Target) -> bool:
    """Have it made by a process outside of the cluster's network, if this one is inside."""
    outside = os.environ.get(OUTSIDE_VARIABLE)
    if not outside:
        return False
    environment = {name: value for name, value in os.environ.items() if name != OUTSIDE_VARIABLE}
    environment["PYTHONPATH"] = str(paths.CHECKOUT / "local")
    made = subprocess.run(
        [*shlex.split(outside), sys.executable, "-m", "localcluster", command, target.name],
        env=environment,
        check=False,
    )
    if made.returncode != 0:
        raise LocalClusterError(f"making {target.name} ended with code {made.returncode}; its output says why")
    return True


def content_key(inputs: Iterable[Path], *extra: str) -> str:
    """12 hex digits over the names and contents of files (folders whole, without Python's caches) and `extra`."""
    digest = hashlib.sha256()
    for part in extra:
        digest.update(hashlib.sha256(part.encode()).digest())
    for top in inputs:
        files = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
        for file in files:
            if "__pycache__" not in file.parts:
                digest.update(hashlib.sha256(str(file.relative_to(top.parent)).encode()).digest())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _builder() -> Builder:
    return Docker() if providers.docker_answers() else Buildah()


def _prune(found: Iterable[Path]) -> None:
    """Remove all but the newest."""
    for old in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()
