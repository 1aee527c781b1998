"""Model data in a mounted volume: a file, or a folder with everything below it."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sluice.loader.failure import failed, named
from sluice.loader.item import Checks, Found, Item
from sluice.loader.paths import BadName, check_component
from sluice.loader.request import Source
from sluice.loader.version import Version, digest_of, moved

CHUNK_BYTES: Final = 1024 * 1024
MAX_FILES: Final = 1_000_000


def find_in_volume(source: Source) -> Found:
    """What the source is now. Raises LoadFailed."""
    path = Path(source.uri.removeprefix("file://"))
    try:
        if not path.resolve(strict=True).is_relative_to(_volume_of(path)):
            raise failed(source.uri, "it is a link that leads out of the volume")
        if source.kind == "Prefix":
            return _find_folder(source, path)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise failed(source.uri, "it is not a file; a folder is named with a slash at its end (kind Prefix)")
        e_tag = mark(status)
        version = Version(e_tag=e_tag, size=status.st_size)
        return Found(version, (_item(source, path, path.name, status),), local_path=str(path))
    except OSError as error:
        raise failed(source.uri, f"{error.strerror or error}") from error
    except RuntimeError as error:  # pathlib's word for it before Python 3.13
        raise failed(source.uri, os.strerror(errno.ELOOP)) from error


def _volume_of(path: Path) -> Path:
    """Where the volume is mounted that the path is in."""
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def _find_folder(source: Source, folder: Path) -> Found:
    items: list[Item] = []
    entries: list[tuple[str, str, int]] = []
    root = folder.resolve(strict=True)
    for path, relative in _files(source, folder, ""):
        real = path.resolve(strict=True)
        if not real.is_relative_to(root):
            raise failed(source.uri, f"{named(relative)} is a link that leads out of the folder")
        status = real.stat()
        if not stat.S_ISREG(status.st_mode):
            raise failed(source.uri, f"{named(relative)} is neither a file nor a folder")
        items.append(_item(source, real, relative, status))
        entries.append((relative, mark(status), status.st_size))
        if len(items) > MAX_FILES:
            raise failed(source.uri, f"more than {MAX_FILES} files", "TooLarge")
    if not items:
        raise failed(source.uri, "there is no file in this folder")
    items.sort(key=lambda item: item.path)
    return Found(Version(digest=digest_of(entries), size=sum(entry[2] for entry in entries)), tuple(items))


def _files(source: Source, folder: Path, prefix: str, depth: int = 0) -> Iterator[tuple[Path, str]]:
    """Files below the folder. Links to files are followed, links to folders are refused: they could go in circles."""
    if depth > 100:
        raise failed(source.uri, f"{named(prefix)} is more than 100 folders deep")
    with os.scandir(folder) as found:
        for entry in found:
            relative = f"{prefix}{entry.name}"
            try:
                check_component(entry.name)
            except BadName as bad:
                raise failed(source.uri, f"{named(relative)}: {bad}") from bad
            if entry.is_dir(follow_symlinks=False):
                if not (depth == 0 and entry.name == "lost+found"):
                    yield from _files(source, Path(entry.path), f"{relative}/", depth + 1)
            elif entry.is_dir():
                raise failed(source.uri, f"{named(relative)} is a link to a folder")
            else:
                yield Path(entry.path), relative


def _item(source: Source, path: Path, relative: str, status: os.stat_result) -> Item:
    return Item(relative, status.st_size, VolumeFile(source.uri, path, mark(status)))


def mark(status: os.stat_result) -> str:
    """What stands for an ETag in a file system: time of the last change and size."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


class VolumeFile:
    """One file. Implements Reader. There may be a million, and a Path is several times as large as its text."""

    __slots__ = ("_found", "_path", "_uri")

    def __init__(self, uri: str, path: Path, found: str) -> None:
        self._uri = uri
        self._path = str(path)
        self._found = found

    @property
    def _name(self) -> str:
        return Path(self._path).name

    def read(self, start: int, length: int | None) -> Iterator[bytes]:
        """See Reader."""
        try:
            with Path(self._path).open("rb", buffering=0) as file:
                now = mark(os.fstat(file.fileno()))
                if now != self._found:
                    raise moved(self._uri, self._found, f"{named(self._name)} {now}", "the copy began with")
                file.seek(start)
                left = length or 0
                while left > 0:
                    chunk = file.read(min(CHUNK_BYTES, left))
                    if not chunk:
                        raise moved(self._uri, self._found, "a shorter file", "the copy began with")
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise failed(self._uri, f"{named(self._name)}: {error.strerror or error}") from error

    def checks(self) -> Checks:
        """See Reader: the volume is trusted."""
        return Checks()
