"""What a person sees while something long is made: what, how far, and for how many seconds already."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.waiting import log_tail

_PLAIN_INTERVAL_SECONDS = 20.0


@contextmanager
def step(what: str, *, done: int = 0, of: int = 0, detail: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Show `what` with its elapsed seconds until the block ends.

    `done` of `of` draws a bar; `detail` says what else is to be shown now, for example what is waited for.
    A terminal gets one line rewritten in place; anything else gets a plain line at the start, now and then, at the end.
    """
    finished = threading.Event()
    started = time.monotonic()
    bar = f"[{'#' * done}{'.' * (of - done)}] {done + 1}/{of} " if of else ""
    terminal = sys.stdout.isatty()

    def line() -> str:
        more = detail()
        return f"{bar}{what} ({time.monotonic() - started:.0f} s{f', {more}' if more else ''})"

    def show() -> None:
        while not finished.wait(0.2 if terminal else _PLAIN_INTERVAL_SECONDS):
            print(f"\r\x1b[2K{line()}" if terminal else line(), end="" if terminal else "\n", flush=True)

    if not terminal:
        print(f"{bar}{what}", flush=True)
    painter = threading.Thread(target=show, daemon=True)
    painter.start()
    outcome = "failed"
    try:
        yield
        outcome = "done"
    finally:
        finished.set()
        painter.join()
        print(("\r\x1b[2K" if terminal else "") + f"{line()} {outcome}", flush=True)


def run_logged(
    argv: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> None:
    """Run a command with both its outputs in `log`; raises LocalClusterError with the log's tail if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        code = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env, cwd=cwd, check=False
        ).returncode
    if code != 0:
        raise LocalClusterError(f"`{' '.join(map(str, argv[:6]))} ...` ended with code {code}; {log_tail(log)}")
