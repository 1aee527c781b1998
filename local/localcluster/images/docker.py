"""Builds the images with Docker, where a daemon answers."""

from __future__ import annotations

import os
from pathlib import Path

from localcluster import paths
from localcluster.images.dockerfile import Target
from localcluster.images.pip_settings import pip_settings, proxy_arguments
from localcluster.progress import run_logged, step

_BASE = "python:3.11-slim"


class Docker:
    """The builder `docker build`, with BuildKit."""

    def base_key(self) -> str:
        """The name of the base image."""
        return _BASE

    def build(self, target: Target, name: str, archive: Path) -> None:
        """Build a target of a Dockerfile and save it as a Docker archive."""
        partial = archive.with_name(f"{archive.name}.partial")
        log = paths.cache() / "log" / f"image-{target.name}.log"
        with step(f"building {name} with Docker"):
            _build(target, f"--tag={name}", log=log)
            run_logged(["docker", "save", f"--output={partial}", name], log=log)
        partial.rename(archive)

    def export(self, target: Target, directory: Path) -> None:
        """Build a target of a Dockerfile and write its files into a directory."""
        with step(f"making {target.name} with Docker"):
            log = paths.cache() / "log" / f"files-{target.name}.log"
            _build(target, f"--output=type=local,dest={directory}", log=log)


def _build(target: Target, result: str, *, log: Path) -> None:
    with pip_settings() as settings:
        run_logged(
            [
                "docker",
                "build",
                f"--file={paths.CHECKOUT / target.dockerfile}",
                f"--target={target.stage}",
                result,
                f"--build-arg=BASE={_BASE}",
                *proxy_arguments(),
                *settings.secrets(),
                str(paths.CHECKOUT),
            ],
            log=log,
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
        )
