"""Runs one command for as long as its starter lives; a program of its own, started by `keep`.

The starter holds the write end of this process's standard input. When the starter dies, however it dies, the pipe
ends, and the command is stopped. (A parent-death signal alone would not do: it fires when the starting *thread* ends.)
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 1.0


def keep(argv: Sequence[str], *, log: Path) -> subprocess.Popen[bytes]:
    """Start a command under a keeper with its output appended to `log`. `release` stops it."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-S", "-E", __file__, *argv],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is for the starter alone
        )


def release(kept: subprocess.Popen[bytes]) -> None:
    """Ask a keeper to stop its command: SIGTERM, and after a second SIGKILL. Does not wait for it."""
    if kept.stdin is not None:
        kept.stdin.close()


def _run(argv: Sequence[str]) -> int:
    libc = ctypes.CDLL(None)
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        # This process has one thread at this point, the only case in which a preexec_fn is safe.
        preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
    )

    def stop_at_end_of_input() -> None:
        while os.read(0, 4096):
            pass
        child.terminate()
        try:
            child.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()

    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
