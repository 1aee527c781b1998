"""Processes that outlive the command that started them, recorded so that no other process is ever taken for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from localcluster.kubeconfig import write_secret
from localcluster.waiting import until


@dataclass(frozen=True)
class Detached:
    """A recorded process. A pid is reused sooner or later, a pid with its start time within one boot is not."""

    pid: int
    started_ticks: int
    boot: str

    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        return self.boot == _boot() and _started_ticks(self.pid) == self.started_ticks

    def kill(self) -> None:
        """SIGKILL it, if it is still the recorded process, and wait until it is gone."""
        if not self.alive():
            return
        os.kill(self.pid, signal.SIGKILL)
        until(lambda: not self.alive(), seconds=10, what=f"process {self.pid} to end")


def start_detached(argv: Sequence[str | Path], *, record: Path, log: Path) -> Detached:
    """Start a command in a session of its own, its output appended to `log`, and record it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
    # Read at once: a child that already ended is a zombie until we wait for it, so its entry is still there.
    detached = Detached(process.pid, _started_ticks(process.pid) or 0, _boot())
    write_secret(record, json.dumps(vars(detached)))
    return detached


def recorded(record: Path) -> Detached | None:
    """The process a record names, whether it still runs or not; None if nothing was recorded."""
    return Detached(**json.loads(record.read_text())) if record.exists() else None


def end_all(find: Callable[[], Iterable[int]]) -> None:
    """SIGKILL the processes that `find` returns until it finds none."""

    def none_left() -> bool:
        found = list(find())
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not found

    until(none_left, seconds=15, what="leftover processes to end", why=lambda: str(list(find())))


def running(words: Sequence[str], pids: Iterable[int] | None = None) -> list[int]:
    """Those of `pids` (default: all there are) whose command ends with these words."""
    wanted = list(words)
    candidates = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()) if pids is None else pids
    return [pid for pid in candidates if _command(pid)[-len(wanted) :] == wanted]


def ancestors() -> set[int]:
    """This process and those it descends from."""
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def _command(pid: int) -> list[str]:
    with suppress(OSError):  # it ended while we looked
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    return []


def _started_ticks(pid: int) -> int | None:
    try:
        # The command's name (field 2) may hold blanks and brackets; the fields after its last bracket do not.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
