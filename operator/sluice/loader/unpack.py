"""Unpacks a .tar.gz or .tar that nobody vouches for.

The names and links of all members are judged in a picture of the tree that is held in memory; only what passes is
written, files first and links last, so that nothing is ever written through a link. The archive is read as a stream:
neither it nor a member is ever held in memory."""

import gzip
import io
import math
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from sluice.loader.budget import Budget, check_room, write_failed
from sluice.loader.deadline import Deadline
from sluice.loader.failure import LoadFailed, failed, named, shown, size_text
from sluice.loader.place import DIRECTORY_MODE, FILE_MODE
from sluice.loader.progress import PERIOD_SECONDS, Progress
from sluice.loader.tree import BadMember, Tree

CHUNK_BYTES: Final = 1024 * 1024
MAX_HEADER_BYTES: Final = 32 * 1024
"""Of one extended header; real ones hold a path or two. tarfile's search in it takes time by the square of its size."""
MAX_HEADERS_IN_A_ROW: Final = 16
MAX_GLOBAL_FIELDS: Final = 100
ROOM_CHECK_BYTES: Final = 64 * 1024**2
_GZIP: Final = b"\x1f\x8b"
_LATEST_TIME: Final = 2**32


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an archive may be, whatever the size limit."""

    members: int = 1_000_000
    ratio: int = 200
    """Without a size limit it may unpack to this many times its own size; model weights seldom reach 10."""
    ratio_from_bytes: int = 1024**3
    """What unpacks to less is harmless whatever its ratio."""


ORDINARY: Final = Bounds()


def unpack(
    archive: Path,
    into: Path,
    uri: str,
    budget: Budget,
    deadline: Deadline,
    bounds: Bounds = ORDINARY,
    *,
    told_every_seconds: float = PERIOD_SECONDS,
) -> None:
    """Unpack into a new directory. Raises LoadFailed (BadArchive, TooLarge, TimedOut) with nothing promised about what
    is in the directory then."""
    progress = Progress(f"{shown(uri)}: unpacked", None, told_every_seconds)
    try:
        with archive.open("rb") as file:
            _Unpacking(file, archive.stat().st_size, into, uri, budget, deadline, bounds, progress).run()
    except BadMember as bad:
        raise failed(uri, f"the archive is refused: {bad}", "BadArchive") from bad
    except _DAMAGED as error:
        raise failed(uri, f"the archive is damaged or no .tar.gz: {_words(error)}", "BadArchive") from error
    except OSError as error:
        raise write_failed(uri, error) from error


# What tarfile, gzip and zlib raise for bytes that are not what they should be; RecursionError would be our own bound
# on headers not holding.
_DAMAGED: Final = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)


class _Unpacking:
    def __init__(
        self,
        file: BinaryIO,
        size: int,
        into: Path,
        uri: str,
        budget: Budget,
        deadline: Deadline,
        bounds: Bounds,
        progress: Progress,
    ) -> None:
        self._bounds = bounds
        self._stream = _Bounded(file, size, uri, budget, deadline, bounds)
        self._into = into
        self._uri = uri
        self._budget = budget
        self._deadline = deadline
        self._tree = Tree(len(os.fsencode(into)))
        self._until_room_check = 0
        self._progress = progress

    def run(self) -> None:
        self._into.mkdir(mode=DIRECTORY_MODE)
        self._into.chmod(DIRECTORY_MODE)
        with tarfile.open(
            fileobj=cast(Any, self._stream),
            mode="r|",
            tarinfo=_Member,
            bufsize=CHUNK_BYTES,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            count = 0
            while (member := tar.next()) is not None:
                count += 1
                if count > self._bounds.members:
                    raise BadMember(f"it has more than {self._bounds.members} members")
                self._deadline.check()
                self._unpack(tar, member)
                # tarfile remembers every member for those who seek; a stream has no use for it.
                cast(Any, tar).members = []
        self._stream.read_to_end()
        if not count:
            raise BadMember("it is empty")
        self._link()
        self._progress.end()

    def _unpack(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._tree.add(member)
        if path is None:
            return
        if member.isdir():
            self._make_directory(path)
        elif member.isreg():
            self._count(member.size)
            data = tar.extractfile(member)
            if data is None:
                raise BadMember(f"{named(member.name)} has no content")
            self._write(path, member, data)
        elif member.islnk():
            # Counted like another file: a copy of the tree may have to hold its bytes twice.
            source = self._into / self._tree.linked(member)
            self._count(source.stat().st_size)
            self._make_directory(path.rpartition("/")[0])
            os.link(source, self._into / path, follow_symlinks=False)

    def _write(self, path: str, member: tarfile.TarInfo, data: Any) -> None:
        self._make_directory(path.rpartition("/")[0])
        mode = FILE_MODE | (0o111 if member.mode & 0o100 else 0)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._into / path, flags, mode), "wb", buffering=0) as file:
            left = member.size
            while left > 0:
                self._deadline.check()
                chunk = data.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise BadMember(f"it ends within {named(member.name)}")
                left -= len(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
                self._progress.add(len(chunk))
            os.fchmod(file.fileno(), mode)
            if math.isfinite(member.mtime) and 0 <= member.mtime < _LATEST_TIME:
                os.utime(file.fileno(), (member.mtime, member.mtime))

    def _make_directory(self, path: str) -> None:
        """Only directories of the tree stand in the way of a path here: the tree has no link yet."""
        missing = []
        while path and not (self._into / path).is_dir():
            missing.append(path)
            path = path.rpartition("/")[0]
        for directory in reversed(missing):
            (self._into / directory).mkdir()
            (self._into / directory).chmod(DIRECTORY_MODE)

    def _count(self, size: int) -> None:
        self._budget.place(self._uri, size)
        self._until_room_check -= size
        if self._until_room_check <= 0:
            self._until_room_check = ROOM_CHECK_BYTES
            check_room(self._uri, self._into, size)

    def _link(self) -> None:
        """Make the symbolic links, now that it is known where each of them ends."""
        for path, target in self._tree.links():
            self._deadline.check()
            self._make_directory(path.rpartition("/")[0])
            (self._into / path).symlink_to(target)


class _Bounded(io.RawIOBase):
    """The archive's content, decompressed, up to a bound: what is not there cannot fill a disk or a memory."""

    def __init__(self, file: BinaryIO, size: int, uri: str, budget: Budget, deadline: Deadline, bounds: Bounds) -> None:
        super().__init__()
        start = file.read(len(_GZIP))
        file.seek(0)
        self._source: BinaryIO = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if start == _GZIP else file
        self._uri = uri
        self._deadline = deadline
        self._count = 0
        self._bound = max(bounds.ratio_from_bytes, size * bounds.ratio)
        self._why = f"it unpacks to more than {bounds.ratio} times its size of {size_text(size)}"
        if budget.limit_bytes is not None:
            # Headers and padding are no data: they get as much again.
            self._bound = 2 * budget.limit_bytes + bounds.ratio_from_bytes
            self._why = f"its headers and data go over the limit of {size_text(budget.limit_bytes)}"

    def read(self, size: int = -1) -> bytes:
        """Up to so many bytes. Raises what gzip raises, and LoadFailed."""
        self._deadline.check()
        chunk = self._source.read(min(size, CHUNK_BYTES) if size >= 0 else CHUNK_BYTES)
        self._count += len(chunk)
        if self._count > self._bound:
            raise self._too_large()
        return chunk

    def _too_large(self) -> LoadFailed:
        return failed(self._uri, f"the archive is refused: {self._why}", "TooLarge")

    def read_to_end(self) -> None:
        """What follows the end of the archive: padding, and gzip's checksum over everything."""
        while self.read(CHUNK_BYTES):
            pass


class _Member(tarfile.TarInfo):
    """A header, read with bounds that tarfile does not have."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        row = getattr(tar, "headers_in_a_row", 0)
        if self.size < 0:
            raise BadMember(f"{named(self.name)} has a size below 0")
        if self.type in _EXTENDED:
            if self.size > MAX_HEADER_BYTES:
                raise BadMember(f"a header has {size_text(self.size)}, allowed are {size_text(MAX_HEADER_BYTES)}")
            if row >= MAX_HEADERS_IN_A_ROW:
                raise BadMember(f"more than {MAX_HEADERS_IN_A_ROW} headers stand before one member")
            if len(tar.pax_headers) > MAX_GLOBAL_FIELDS:
                raise BadMember(f"its global headers have more than {MAX_GLOBAL_FIELDS} fields")
            cast(Any, tar).headers_in_a_row = row + 1
        else:
            if self.type == tarfile.GNUTYPE_SPARSE:
                raise BadMember(f"{named(self.name)} is a sparse file")
            cast(Any, tar).headers_in_a_row = 0
        return cast(tarfile.TarInfo, super()._proc_member(tar))  # type: ignore[misc]

    def _refuse_sparse(self, following: tarfile.TarInfo, *_: object) -> None:
        raise BadMember(f"{named(following.name)} is a sparse file")

    # tarfile would read the maps of sparse files into memory, however long they are.
    _proc_gnusparse_00 = _refuse_sparse
    _proc_gnusparse_01 = _refuse_sparse
    _proc_gnusparse_10 = _refuse_sparse

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Member":
        """The next header. An archive that just stops, without the block of zeros that ends one, is cut off."""
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # the end mark
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise BadMember("it ends without an end mark: it was cut off") from error
        except tarfile.HeaderError as error:
            # After the first member, tarfile would take some of these for the end.
            raise BadMember(f"it is damaged, cut off, or no tar archive ({error})") from error


_EXTENDED: Final = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


def _words(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return ascii(text)[1:-1][:200]
