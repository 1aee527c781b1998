"""A node's cache of model data: two pods that need the same version of the same source download it once.

An entry is a directory named by the digest of URI, version and S3 service. It is built beside, under a lock, and
renamed into place with a manifest of its files; a file that is not there or has another size makes it worth nothing.
Nothing is ever evicted: whoever offers the directory (an administrator's volume) bounds it, and when it is full, data
comes without it."""

import errno
import fcntl
import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sluice.loader.deadline import Deadline
from sluice.loader.place import remove

LOCK_POLL_SECONDS: Final = 0.2
COPY_CHUNK_BYTES: Final = 32 * 1024 * 1024
_NO_LINKS: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES})
_NO_KERNEL_COPY: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})

logger = logging.getLogger("sluice.loader")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one version of one source is kept."""

    directory: Path

    @property
    def tree(self) -> Path:
        """The model data."""
        return self.directory / "tree"

    @property
    def building(self) -> Path:
        """Where a new entry is built, and where an unfinished download waits for the next pod."""
        return self.directory.with_name(f"{self.directory.name}.building")

    def whole(self) -> bool:
        """Whether the entry is what its manifest says."""
        try:
            manifest = json.loads((self.directory / "manifest.json").read_text(encoding="utf-8"))
            return bool(manifest == {"formatVersion": 1, "files": _listing(self.tree)})
        except (OSError, ValueError):
            return False

    def publish(self) -> None:
        """What was built becomes the entry; on the disk before it is seen: a node may lose power. Raises OSError."""
        files = _listing(self.building / "tree")
        manifest = self.building / "manifest.json"
        manifest.write_text(json.dumps({"formatVersion": 1, "files": files}), encoding="utf-8")
        for path in (
            manifest,
            *(self.building / "tree" / name for name in files),
            self.building / "tree",
            self.building,
        ):
            if not path.is_symlink():
                _to_disk(path)
        remove(self.directory)
        self.building.rename(self.directory)
        _to_disk(self.directory.parent)


class Cache:
    """The cache's directory. Locks are the kernel's: a pod that dies holds none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def entry(self, key: str, deadline: Deadline, *, to_build: bool) -> Iterator[Entry]:
        """The entry under a lock: others read along, or (`to_build`) nobody else has it. Raises OSError, LoadFailed."""
        self._directory.mkdir(parents=True, exist_ok=True)
        file = os.open(self._directory / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(file, fcntl.LOCK_EX if to_build else fcntl.LOCK_SH, deadline)
            yield Entry(self._directory / key)
        finally:
            os.close(file)


def cache_key(uri: str, identity: str, form: str, service: str | None) -> str:
    """The name of an entry. `form`: how the target is made from the source, since one object can serve in two ways.
    `service`: the URL of another S3 than AWS'; its answers are nobody else's."""
    named = [uri, identity, form] if service is None else [uri, identity, form, service]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def copy_tree(tree: Path, into: Path, deadline: Deadline) -> None:
    """Make `into` like `tree`: by hard links where both are on one mount, else by copies. Raises OSError or
    LoadFailed."""
    into.mkdir()
    into.chmod(stat.S_IMODE(tree.stat().st_mode))
    linking = True
    for name, (kind, _) in _listing(tree).items():
        deadline.check()
        source, place = tree / name, into / name
        if kind == "directory":
            place.mkdir()
            place.chmod(stat.S_IMODE(source.stat().st_mode))
        elif kind == "link":
            place.symlink_to(source.readlink())
        else:
            linking = linking and _linked(source, place)
            if not linking:
                _copy(source, place, deadline)


def tree_bytes(tree: Path) -> int:
    """The sizes of all files."""
    return sum(size for kind, size in _listing(tree).values() if kind == "file")


def _listing(tree: Path, prefix: str = "") -> dict[str, list[Any]]:
    """Relative path -> [kind, size], a directory before what is in it. Raises OSError."""
    found: dict[str, list[Any]] = {}
    pending = [prefix]
    while pending:
        at = pending.pop()
        with os.scandir(tree / at) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{at}{entry.name}"
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    found[name] = ["directory", 0]
                    pending.append(f"{name}/")
                elif stat.S_ISLNK(status.st_mode):
                    found[name] = ["link", 0]
                else:
                    found[name] = ["file", status.st_size]
    return found


def _lock(file: int, how: int, deadline: Deadline) -> None:
    told = False
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not told:
                logger.info("another pod on this node is downloading the same data: waiting for it")
                told = True
            deadline.wait(LOCK_POLL_SECONDS)


def _linked(source: Path, place: Path) -> bool:
    try:
        os.link(source, place)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def _copy(source: Path, place: Path, deadline: Deadline) -> None:
    """By the kernel where it can: some file systems then share the blocks."""
    with source.open("rb", buffering=0) as reading, place.open("xb", buffering=0) as writing:
        status = os.fstat(reading.fileno())
        kernel, left = True, status.st_size
        while left > 0:
            deadline.check()
            done = 0
            if kernel:
                try:
                    done = os.copy_file_range(reading.fileno(), writing.fileno(), min(left, COPY_CHUNK_BYTES))
                except OSError as error:
                    if error.errno not in _NO_KERNEL_COPY:
                        raise
                    kernel = False
            if not kernel:
                done = os.sendfile(writing.fileno(), reading.fileno(), None, min(left, COPY_CHUNK_BYTES))
            if done == 0:
                raise OSError(errno.EIO, "the cached file has become shorter", str(source))
            left -= done
        os.fchmod(writing.fileno(), stat.S_IMODE(status.st_mode))
        os.utime(writing.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))


def _to_disk(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
