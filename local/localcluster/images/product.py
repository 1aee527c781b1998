"""The product's images: their names, which say what went in, and getting them built.

An image's tag is a hash of everything that decides what is in it, so an image that exists is never built again and a
changed file never runs under an old name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from localcluster import paths, providers
from localcluster.images.buildah import Buildah
from localcluster.images.docker import Docker
from localcluster.waiting import exclusive

_ARCHIVES_KEPT = 4


@dataclass(frozen=True)
class Target:
    """A target of the Dockerfile, and the paths in the checkout that it copies."""

    name: str
    sources: tuple[str, ...]


OPERATOR = Target("operator", ("locks/operator.lock", "operator/sluice"))
SIMULATOR = Target("simulator", ("locks/simulator.lock", "simulator"))


@dataclass(frozen=True)
class Image:
    """A built image: its name with tag, and an archive of it."""

    name: str
    archive: Path


class Builder(Protocol):
    """A program that builds the Dockerfile."""

    def base_key(self) -> str:
        """What decides the base image."""
        ...

    def build(self, target: str, name: str, archive: Path) -> None:
        """Build a target under a name and write it as an archive."""
        ...


def build(target: Target) -> Image:
    """The image of a target for today's sources, built unless its archive is in the cache."""
    builder = _builder()
    inputs = [paths.CHECKOUT / "Dockerfile", *(paths.CHECKOUT / source for source in target.sources)]
    tag = content_key(inputs, builder.base_key(), target.name)
    name = f"localhost/sluice-{target.name}:{tag}"
    directory = paths.cache() / "images"
    archive = directory / f"{target.name}-{tag}.tar"
    if not archive.exists():
        directory.mkdir(parents=True, exist_ok=True)
        with exclusive(paths.cache() / "images.lock"):
            if not archive.exists():
                builder.build(target.name, name, archive)
                _prune(directory, target.name)
    return Image(name, archive)


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


def _prune(directory: Path, target: str) -> None:
    archives = sorted(directory.glob(f"{target}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for archive in archives[_ARCHIVES_KEPT:]:
        archive.unlink()
