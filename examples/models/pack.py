"""Packs a directory as SageMaker takes model data; the same content gives the same bytes.

`python pack.py DIRECTORY ARCHIVE.tar.gz`"""

from __future__ import annotations

import gzip
import sys
import tarfile
from pathlib import Path


def pack(directory: Path, archive: Path) -> None:
    """Write a .tar.gz without times, owners or the order in which a disk lists files."""
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for path in sorted(directory.rglob("*")):
            tar.add(path, str(path.relative_to(directory)), recursive=False, filter=_anonymous)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
