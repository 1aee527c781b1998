"""What of the cache goes at `make down`: what nothing has used for a fortnight, and old images in the builder's store.

Programs and images of several checkouts share the cache. Whoever uses something marks it, under the lock under which it
would be removed; what an older checkout uses, which marks nothing, is known by when its files were read or run last.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from localcluster import paths
from localcluster.images.buildah import Buildah
from localcluster.waiting import exclusive, unless_held

_DAY_SECONDS = 24 * 3600.0
_UNUSED_DAYS = 14


def mark_used(entries: Iterable[Path], lock: Path) -> None:
    """Note that these files or directories of the cache are used from now on; what is not there is left out.

    After this call none of them is removed for days, so its user takes no lock.
    """
    old = [entry for entry in entries if entry.exists() and _is_older_than(1, [entry])]
    if not old:
        return
    # In a cache that is another user's, or cannot be written, nothing is marked: its files' times tell of their use.
    with suppress(OSError), exclusive(lock):
        for entry in old:
            with suppress(FileNotFoundError):
                os.utime(entry)


def prune() -> None:
    """Remove what nothing has used for a fortnight; what another run makes, or may be using, stays.

    Raises OSError where the machine does not let it, and LocalClusterError where buildah does not do its part.
    """
    cache = paths.cache()
    if not cache.is_dir():
        return
    # Of a cluster that runs more is used than its processes tell.
    running = _runs_from(cache)
    freed = _prune_images(cache, programs_too=not running)
    if not running:
        freed += _prune_tools(cache)
    for record in sorted(cache.glob("clusters/*.json")):
        freed += _remove_unless_used(record, [record])
    if freed:
        print(f"removed {freed / 1e6:.0f} MB of {cache} that nothing has used for {_UNUSED_DAYS} days")


def _prune_tools(cache: Path) -> int:
    freed = 0
    with unless_held(cache / "tools.lock") as free:
        for directory in sorted(cache.glob("tools/*/*/")) if free else ():
            freed += _remove_unless_used(directory, [directory, *directory.iterdir()])
        for directory in sorted(cache.glob("bin/*/")) if free else ():
            # It is used as long as one of the programs that it leads to; one without any is being made.
            freed += _remove_unless_used(directory, [directory, *(link.resolve() for link in directory.iterdir())])
    with unless_held(cache / "go.lock") as free:
        for directory in sorted(cache.glob("go/*/")) if free else ():
            freed += _remove_unless_used(directory, [directory, directory / "go" / "bin" / "go"])
    return freed


def _prune_images(cache: Path, *, programs_too: bool) -> int:
    freed = 0
    lock = cache / "images.lock"
    with unless_held(lock) as free:
        if not free:
            return 0
        for archive in sorted(cache.glob("images/*.tar*")):
            freed += _remove_unless_used(archive, [archive])
        for directory in sorted(cache.glob("files/*/")) if programs_too else ():
            freed += _remove_unless_used(directory, [directory, *directory.rglob("*")])
        kept = {
            f"localhost/sluice-{named[1]}:{named[2]}"
            for archive in cache.glob("images/*.tar")
            if (named := re.fullmatch(r"(.*)-([0-9a-f]{12})\.tar", archive.name))
        }
        if kept or _is_older_than(_UNUSED_DAYS, [lock]):
            Buildah().keep_only(kept)
    return freed


def _is_older_than(days: float, witnesses: Iterable[Path]) -> bool:
    """Whether none of these was made, marked, read or run within the last days; what is not there was not."""
    since = time.time() - days * _DAY_SECONDS
    for witness in witnesses:
        with suppress(FileNotFoundError):
            status = witness.stat()
            # Whoever lists a directory reads it.
            times = [status.st_mtime] if witness.is_dir() else [status.st_mtime, status.st_atime]
            if max(times) > since:
                return False
    return True


def _runs_from(directory: Path) -> bool:
    """Whether a process of this machine is a program of the directory."""
    inside = f"{directory.resolve()}{os.sep}"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended, or is somebody else's
            if os.readlink(process / "exe").startswith(inside):
                return True
    return False


def _remove_unless_used(entry: Path, witnesses: Iterable[Path]) -> int:
    """Remove a file or directory that is old and this user's; returns the bytes that it had on the disk."""
    if entry.stat().st_uid != os.geteuid() or not _is_older_than(_UNUSED_DAYS, witnesses):
        return 0
    if not entry.is_dir():
        size = entry.stat().st_blocks * 512
        entry.unlink()
        return size
    size = sum(path.lstat().st_blocks for path in entry.rglob("*")) * 512
    # What is removed by half must not have the name of what is whole.
    removed = entry.with_name(f".{entry.name}.removed")
    entry.rename(removed)
    shutil.rmtree(removed)
    return size
