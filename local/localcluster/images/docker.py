"""Builds the images with Docker, where a daemon answers."""

from __future__ import annotations

import os
from pathlib import Path

from localcluster import paths
from localcluster.images.pip_settings import pip_settings, proxy_arguments
from localcluster.progress import run_logged, step

_BASE = "python:3.11-slim"


class Docker:
    """The builder `docker build`, with BuildKit."""

    def base_key(self) -> str:
        """The name of the base image."""
        return _BASE

    def build(self, target: str, name: str, archive: Path) -> None:
        """Build a target of the Dockerfile and save it as a Docker archive."""
        partial = archive.with_name(f"{archive.name}.partial")
        log = paths.cache() / "log" / f"image-{target}.log"
        with step(f"building {name} with Docker"), pip_settings() as settings:
            run_logged(
                [
                    "docker",
                    "build",
                    f"--target={target}",
                    f"--tag={name}",
                    f"--build-arg=BASE={_BASE}",
                    *proxy_arguments(),
                    *settings.secrets(),
                    str(paths.CHECKOUT),
                ],
                log=log,
                env={**os.environ, "DOCKER_BUILDKIT": "1"},
            )
            run_logged(["docker", "save", f"--output={partial}", name], log=log)
        partial.rename(archive)
