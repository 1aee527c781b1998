"""Waiting for a condition with a deadline, and holding a lock that two runs share."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from localcluster.errors import LocalClusterError


def until(condition: Callable[[], bool], *, seconds: float, what: str, why: Callable[[], str] = lambda: "") -> None:
    """Poll `condition` until it holds.

    Raises LocalClusterError after `seconds`, naming `what` was awaited and adding `why()`, typically a log's tail.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            detail = why()
            raise LocalClusterError(f"waited {seconds:.0f} s in vain for {what}" + (f":\n{detail}" if detail else ""))
        time.sleep(0.05)


def log_tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log with its path, for an error message."""
    if not log.exists():
        return f"{log} does not exist"
    return f"the end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold an advisory lock on a file; a second process waits. The kernel drops the lock when its holder dies.

    The holder may remove the file.
    """
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another run that holds {lock}", flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
            # A lock on a file that was removed meanwhile keeps nobody out who comes later and makes a new one.
            if _is(handle, lock):
                yield
                return


@contextmanager
def unless_held(lock: Path) -> Iterator[bool]:
    """Hold the lock of `exclusive` if nobody else does and this user may; yields whether it is held here.

    For files that are never removed. It leaves the file's time, which tells when the lock was waited for last.
    """
    try:
        handle = lock.open("a")
    except PermissionError:
        yield False
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _is(handle: IO[str], file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), file.stat())
    except FileNotFoundError:
        return False
