"""Which parts of a download are done, in a file beside them: what lets a restarted container go on."""

import json
import os
from pathlib import Path
from typing import Any, Final

from sluice.loader.place import remove

CHECKED: Final = -1
"""Instead of a part's number: the whole file was compared with its checksum."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Journal:
    """The directory of one download: the journal and, in `content`, the files."""

    def __init__(self, directory: Path, identity: dict[str, Any]) -> None:
        self.directory = directory
        self.content = directory / "content"
        self._path = directory / "journal"
        self._header = {**identity, "boot": boot_id()}
        self._fd = -1

    def open(self) -> set[tuple[int, int]]:
        """Ready to note; (file, part) of what an earlier run has done. What belongs to another download is removed."""
        done = self._read()
        if done is None:
            remove(self.directory)
            self.content.mkdir(parents=True)
            # The header is there at once or not at all: a journal without one is nobody's.
            fresh = self.directory / "journal.new"
            fresh.write_text(json.dumps(self._header) + "\n", encoding="utf-8")
            fresh.rename(self._path)
            done = set()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        return done

    def note(self, index: int, part: int) -> None:
        """The part is written. One append: threads do not mix, and a torn last line is not read."""
        os.write(self._fd, f"\n{index} {part};\n".encode())

    def close(self) -> None:
        """Nothing more is noted."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> set[tuple[int, int]] | None:
        try:
            header, *lines = self._path.read_text(encoding="utf-8").split("\n")
            if json.loads(header) != self._header:
                return None
        except (OSError, ValueError):
            return None
        done = set()
        for line in lines:
            if line.endswith(";"):
                index, _, part = line[:-1].partition(" ")
                done.add((int(index), int(part)))
        return done


def boot_id() -> str:
    """Of this run of the node. A page that was written survives the death of a process, not that of the node; so what
    an earlier run of the node has noted is not believed, and nothing need be forced to the disk."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
