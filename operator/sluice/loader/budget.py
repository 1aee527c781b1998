"""How much data a load may bring: the size limit, for all sources together, and the room on the volume."""

import errno
import shutil
import threading
from pathlib import Path
from typing import Final

from sluice.loader.failure import LoadFailed, failed, shown, size_text

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class NoRoom(LoadFailed):
    """A volume is full, whatever the limit."""


class Budget:
    """Counts what is downloaded and what is unpacked against the limit. Thread-safe."""

    def __init__(self, limit_bytes: int | None) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._downloaded = 0
        self._placed = 0

    @property
    def placed_bytes(self) -> int:
        """What the targets hold."""
        return self._placed

    def download(self, uri: str, count: int) -> None:
        """So many bytes more (less, where a try starts over) are going to be downloaded. Raises TooLarge."""
        with self._lock:
            self._downloaded += count
            self._check(uri, self._downloaded, "to download")

    def place(self, uri: str, count: int) -> None:
        """So many bytes more are going to be in a target. Raises TooLarge."""
        with self._lock:
            self._placed += count
            self._check(uri, self._placed, "unpacked")

    def _check(self, uri: str, count: int, what: str) -> None:
        if self.limit_bytes is not None and count > self.limit_bytes:
            raise failed(
                uri,
                f"with {size_text(count)} {what} it goes over the limit of {size_text(self.limit_bytes)}; the limit is "
                "the variant's volumeSizeInGB",
                "TooLarge",
            )


def check_room(uri: str, directory: Path, count: int) -> None:
    """Raises TooLarge when the volume has less room than is needed."""
    free = shutil.disk_usage(directory).free
    if count > free:
        raise _no_room(
            uri,
            f"{size_text(count)} are needed and {size_text(free)} are free on the volume; a larger volumeSizeInGB or "
            "node disk is needed",
        )


def write_failed(uri: str, error: OSError) -> LoadFailed:
    """The failure when the disk does not take what is written."""
    if error.errno in _FULL:
        return _no_room(uri, "there is no room left on the volume")
    return LoadFailed(
        "ModelDataFailed", f"failed to write model data of {shown(uri)}: {error.strerror or error} ({error.filename})"
    )


def _no_room(uri: str, why: str) -> NoRoom:
    return NoRoom("TooLarge", str(failed(uri, why)))
