"""One process that is measured: started, stopped, and what it has used by the kernel's account."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster.keeper import keep

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_STOP_SECONDS = 40


@dataclass(frozen=True, slots=True)
class Used:
    """What a process has used since it started."""

    cpu_seconds: float
    resident_megabytes: float
    peak_megabytes: float


class Measured:
    """A command that lives no longer than the benchmark, however that ends."""

    def __init__(self, argv: Sequence[str], *, log: Path) -> None:
        self.log = log
        self.began = time.monotonic()
        self._keeper = keep(argv, log=log)
        self.pid = self._child()

    def used(self) -> Used:
        """CPU and memory now."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        memory = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines() if ":" in line
        )
        return Used(
            (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND,
            int(memory["VmRSS"].split()[0]) / 1024,
            int(memory["VmHWM"].split()[0]) / 1024,
        )

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended; SIGKILL by the keeper after that."""
        if self._keeper.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            try:
                self._keeper.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                assert self._keeper.stdin is not None
                self._keeper.stdin.close()
                self._keeper.wait(_STOP_SECONDS)

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _child(self) -> int:
        deadline = time.monotonic() + 10
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children")
        while time.monotonic() < deadline:
            found = children.read_text().split()
            if found:
                return int(found[0])
            time.sleep(0.01)
        raise RuntimeError(f"the process did not start:\n{self.tail()}")


def machine_busy_seconds() -> float:
    """What all processes of this machine, the benchmark's and everybody else's, have used of its cores since boot."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts = fields[:7]
    return (user + nice + system + interrupts + soft_interrupts) / _TICKS_PER_SECOND
