"""One file to be downloaded, and how its bytes are read; what S3, https and mounted volumes have in common."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from sluice.loader.version import Version


@dataclass(frozen=True, slots=True)
class Checks:
    """Digests of a whole file that its store knows: algorithm (see checksum.py) -> hexadecimal."""

    digests: dict[str, str] = field(default_factory=dict)


class Reader(Protocol):
    """Reads one file. Its errors: LoadFailed (SourceMoved when the file is not the one found before) and Transient."""

    def read(self, start: int, length: int | None) -> Iterator[bytes]:
        """`length` bytes from `start`, in chunks; None: to the end, from 0, of a file that cannot be read in parts."""

    def checks(self) -> Checks:
        """What the bytes are to be checked against once all are here."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file of a source."""

    path: str
    """Relative, with slashes; checked."""
    size: int | None
    """None: the server does not say."""
    reader: Reader
    in_parts: bool = True
    """Ranges can be asked for, and a change in between is noticed."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a source is now."""

    version: Version
    items: tuple[Item, ...]
    local_path: str | None = None
    """Where the one file is, if it is in a mounted volume: need not be downloaded to be unpacked."""

    @property
    def size(self) -> int | None:
        """Bytes in all, if known."""
        total = 0
        for item in self.items:
            if item.size is None:
                return None
            total += item.size
        return total
