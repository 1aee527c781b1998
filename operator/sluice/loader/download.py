"""Brings the files of one source: by ranges in parallel, tried again where that helps, going on where an earlier run
ended, and compared with the store's checksums."""

import os
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from sluice.loader.budget import Budget, check_room, write_failed
from sluice.loader.checksum import STRENGTH, hexdigest
from sluice.loader.deadline import Deadline, Stopped
from sluice.loader.failure import Transient, failed, named, shown
from sluice.loader.item import Found, Item
from sluice.loader.journal import CHECKED, Journal
from sluice.loader.place import FILE_MODE, make_directories, remove
from sluice.loader.progress import Progress
from sluice.loader.retry import Tuning, pause, until_final

HASH_CHUNK_BYTES: Final = 1024 * 1024


class Download:
    """The download of what was found of one source, into one directory."""

    def __init__(
        self, uri: str, found: Found, directory: Path, budget: Budget, deadline: Deadline, tuning: Tuning
    ) -> None:
        self._uri = uri
        self._items = found.items
        self._total = found.size
        self._budget = budget
        self._deadline = deadline.child()
        self._tuning = tuning
        # The URI may be a secret, and the version says enough.
        identity = {"version": found.version.identity, "files": len(found.items), "partBytes": tuning.part_bytes}
        self._journal = Journal(directory, identity)
        self._progress = Progress(shown(uri), found.size)
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._left: dict[int, int] = {}
        self._failures: list[BaseException] = []
        self._damaged = False

    def run(self) -> Path:
        """The directory with the files. Raises LoadFailed; what was brought is then kept for the next try."""
        if self._total is not None:
            self._budget.download(self._uri, self._total)
        try:
            done = self._journal.open()
        except OSError as error:
            raise write_failed(self._uri, error) from error
        try:
            self._resume(done)
            tasks = self._tasks(done)
            threads = [
                threading.Thread(target=self._work, args=(tasks,), name=f"download {n}", daemon=True)
                for n in range(self._tuning.concurrency)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            self._journal.close()
        if self._damaged:
            # Not while others write into it: the removal would fail, and be told instead.
            try:
                remove(self._journal.directory)
            except OSError as error:
                raise write_failed(self._uri, error) from error
        telling = [failure for failure in self._failures if not isinstance(failure, Stopped)]
        if telling:
            raise telling[0]
        self._progress.end()
        return self._journal.content

    def _resume(self, done: set[tuple[int, int]]) -> None:
        """Take from `done` what is not there after all, count the rest, see that there is room for what is missing."""
        here = 0
        for index, item in enumerate(self._items):
            parts = [part for part in range(self._parts(item)) if (index, part) in done]
            if not parts:
                continue
            path = self._path(item)
            if not path.is_file() or (item.size is not None and path.stat().st_size != item.size):
                done.difference_update({(index, part) for part in parts}, {(index, CHECKED)})
                continue
            here += sum(self._range(item, part)[1] or 0 for part in parts)
        if here:
            self._progress.already(here)
        if self._total is not None:
            check_room(self._uri, self._journal.directory, self._total - here)

    def _tasks(self, done: set[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """(file, part) of all that is to be done. A file whose parts are all here is still to be compared."""
        for index, item in enumerate(self._items):
            if (index, CHECKED) in done:
                continue
            parts = [part for part in range(self._parts(item)) if (index, part) not in done]
            with self._lock:
                self._left[index] = len(parts)
            if parts:
                yield from ((index, part) for part in parts)
            else:
                yield index, CHECKED

    def _parts(self, item: Item) -> int:
        if item.size is None or not item.in_parts:
            return 1
        return max(1, -(-item.size // self._tuning.part_bytes))

    def _range(self, item: Item, part: int) -> tuple[int, int | None]:
        if item.size is None or not item.in_parts:
            return 0, item.size
        start = part * self._tuning.part_bytes
        return start, min(self._tuning.part_bytes, item.size - start)

    def _path(self, item: Item) -> Path:
        return self._journal.content / item.path

    def _work(self, tasks: Iterator[tuple[int, int]]) -> None:
        try:
            while True:
                self._deadline.check()
                with self._taking:
                    task = next(tasks, None)
                if task is None:
                    return
                self._do(*task)
        except OSError as error:
            self._give_up(write_failed(self._uri, error))
        except BaseException as error:  # noqa: BLE001 - carried to the thread that waits, which raises it
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        with self._lock:
            self._failures.append(error)
        self._deadline.stop()

    def _do(self, index: int, part: int) -> None:
        item = self._items[index]
        if part != CHECKED:
            self._fetch(item, part)
            self._journal.note(index, part)
            with self._lock:
                self._left[index] -= 1
                if self._left[index]:
                    return
        self._compare(item)
        self._journal.note(index, CHECKED)

    def _fetch(self, item: Item, part: int) -> None:
        """Bring one part. A try that broke off goes on where it ended."""
        start, length = self._range(item, part)
        path = self._path(item)
        make_directories(path.parent, self._journal.content)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        try:
            os.fchmod(file, FILE_MODE)
            os.ftruncate(file, item.size or 0)
            got, idle = 0, 0
            while True:
                before = got
                try:
                    for chunk in item.reader.read(start + got, None if length is None else length - got):
                        got += self._write(file, chunk, start + got, None if length is None else length - got)
                    if length is not None and got != length:
                        raise Transient(f"got {got} of {length} bytes")
                    return
                except Transient as error:
                    # A file that cannot be read in parts starts over: new bytes are no progress then.
                    idle = 1 if item.in_parts and got > before else idle + 1
                    if not item.in_parts:
                        self._progress.add(-got)
                        if length is None:
                            # Counted as it came; and a shorter one must not end with what is left of this.
                            self._budget.download(self._uri, -got)
                            os.ftruncate(file, 0)
                        got = 0
                    pause(self._uri, error, idle, self._deadline, self._tuning)
        finally:
            os.close(file)

    def _write(self, file: int, chunk: bytes, offset: int, room: int | None) -> int:
        self._deadline.check()
        if room is None:
            self._budget.download(self._uri, len(chunk))
        elif len(chunk) > room:
            raise failed(self._uri, "the server sent more bytes than were asked for")
        view = memoryview(chunk)
        while view:
            written = os.pwrite(file, view, offset)
            view, offset = view[written:], offset + written
        self._progress.add(len(chunk))
        return len(chunk)

    def _compare(self, item: Item) -> None:
        """Compare a whole file with the checksum that the store has of it."""
        checks = until_final(self._uri, item.reader.checks, self._deadline, self._tuning)
        algorithm = next((name for name in STRENGTH if name in checks.digests), None)
        if algorithm is None:
            return
        found = self._hash(self._path(item), algorithm)
        if found != checks.digests[algorithm]:
            self._damaged = True
            raise failed(
                self._uri,
                f"{named(item.path)} has {algorithm} {found}, but the store says {checks.digests[algorithm]}: it was "
                "damaged on the way, and is fetched anew at the next try",
            )

    def _hash(self, path: Path, algorithm: str) -> str:
        with path.open("rb", buffering=0) as file:
            return hexdigest(algorithm, self._chunks(file))

    def _chunks(self, file: FileIO) -> Iterator[bytes]:
        while chunk := file.read(HASH_CHUNK_BYTES):
            self._deadline.check()
            yield chunk
