"""Builds the images without Docker: Debian's buildah with chroot isolation, on a base system made by mmdebstrap."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

from localcluster import packages, paths
from localcluster.errors import LocalClusterError
from localcluster.images.dockerfile import Target
from localcluster.images.pip_settings import pip_settings, proxy_arguments
from localcluster.progress import run_logged, step

_BASE_PACKAGES = "python3,python3-venv,ca-certificates"
_OS_RELEASE = Path("/etc/os-release")
_OF_A_TARGET = re.compile(r"localhost/sluice-(?!base:)[\w-]+:[0-9a-f]{12}")


class Buildah:
    """The builder `buildah bud`; its storage, with the cached layers, lies in the cache directory."""

    def base_key(self) -> str:
        """The base system's suite and packages."""
        return f"{_suite()} {_BASE_PACKAGES}"

    def build(self, target: Target, name: str, archive: Path) -> None:
        """Build a target of a Dockerfile and write it as an OCI archive."""
        partial = archive.with_name(f"{archive.name}.partial")
        partial.unlink(missing_ok=True)
        log = _log(f"image-{target.name}")
        base = self._ensure_base()
        with step(f"building {name} with buildah"):
            self._bud(target, base, f"--tag={name}", log=log)
            run_logged([*_buildah(), "push", name, f"oci-archive:{partial}:{name}"], log=log)
        partial.rename(archive)

    def export(self, target: Target, directory: Path) -> None:
        """Build a target of a Dockerfile and write its files into a directory."""
        base = self._ensure_base()
        with step(f"making {target.name} with buildah"):
            self._bud(target, base, f"--output=type=local,dest={directory}", log=_log(f"files-{target.name}"))

    def keep_only(self, names: Collection[str]) -> None:
        """Remove the targets' images that are not named from the store, and what builds that were cut off left in it.

        Base systems, and layers that others share or that a build may use again, stay, unless no image is named.
        Whoever calls holds the lock of builds.
        """
        if shutil.which("buildah") is None or not _storage().is_dir():
            return
        listed = subprocess.run([*_buildah(), "images", "--json"], capture_output=True, text=True, check=True).stdout
        found = [name for image in json.loads(listed or "[]") or () for name in image.get("names") or ()]
        old = [name for name in found if _OF_A_TARGET.fullmatch(name) and name not in names]
        if old or (found and not names):
            with step("removing old images from buildah's store"):
                run_logged([*_buildah(), "rm", "--all"], log=_log("images-removed"))
                run_logged([*_buildah(), "rmi", *(old if names else ["--all", "--force"])], log=_log("images-removed"))

    def _bud(self, target: Target, base: str, result: str, *, log: Path) -> None:
        with pip_settings() as settings:
            wheels = [f"--volume={directory}:{directory}:ro" for directory in settings.wheel_directories]
            run_logged(
                [
                    *_buildah(),
                    "bud",
                    "--layers",
                    "--isolation=chroot",
                    f"--file={paths.CHECKOUT / target.dockerfile}",
                    f"--target={target.stage}",
                    result,
                    f"--build-arg=BASE={base}",
                    *proxy_arguments(),
                    *settings.secrets(),
                    *wheels,
                    str(paths.CHECKOUT),
                ],
                log=log,
            )

    def _ensure_base(self) -> str:
        packages.require(packages.IMAGES)
        key = hashlib.sha256(self.base_key().encode()).hexdigest()[:12]
        name = f"localhost/sluice-base:{key}"
        if subprocess.run([*_buildah(), "inspect", name], capture_output=True, check=False).returncode == 0:
            return name
        with step(f"making the base image from {_suite()} with mmdebstrap"), TemporaryDirectory() as scratch:
            root = Path(scratch) / "root.tar"
            run_logged(_bootstrap(root), log=_log("base"))
            (Path(scratch) / "Dockerfile").write_text("FROM scratch\nADD root.tar /\n")
            run_logged([*_buildah(), "bud", "--isolation=chroot", f"--tag={name}", scratch], log=_log("base"))
        return name


def _buildah() -> list[str]:
    storage = _storage()
    storage.mkdir(parents=True, exist_ok=True)
    # overlay does not stack on itself, which is what it would do inside a container.
    filesystem = subprocess.run(["stat", "--file-system", "--format=%T", storage], capture_output=True, check=True)
    driver = "vfs" if filesystem.stdout.strip() == b"overlayfs" else "overlay"
    return ["buildah", f"--root={storage}/root", f"--runroot={storage}/run", f"--storage-driver={driver}"]


def _storage() -> Path:
    return paths.cache() / "buildah"


def _bootstrap(root: Path) -> list[str]:
    # By itself mmdebstrap takes main alone; Ubuntu has python3-venv, prometheus and docker-registry in universe.
    components = ["--components=main,universe"] if _os_release().get("ID") == "ubuntu" else []
    return ["mmdebstrap", "--variant=minbase", f"--include={_BASE_PACKAGES}", *components, _suite(), str(root)]


def _os_release() -> dict[str, str]:
    lines = _OS_RELEASE.read_text().splitlines() if _OS_RELEASE.exists() else []
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {name: value.strip('"') for name, value in pairs}


def _suite() -> str:
    suite = _os_release().get("VERSION_CODENAME", "")
    if not suite:
        raise LocalClusterError(
            f"{_OS_RELEASE} names no VERSION_CODENAME, so this is no Debian or Ubuntu that mmdebstrap could copy: "
            "install Docker, with which the images are built as well"
        )
    return suite


def _log(name: str) -> Path:
    return paths.cache() / "log" / f"{name}.log"
