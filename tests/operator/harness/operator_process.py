"""One installation of the operator: its settings, and its process through starts, stops and crashes."""

import signal
from collections.abc import Mapping
from pathlib import Path

from tests.operator.harness.nursery import Child, Nursery

START_SECONDS = 120.0
STOP_SECONDS = 120.0


class Operator:
    """The operator as a subprocess. The identity is fixed, so that a restart takes its own Lease back at once."""

    def __init__(self, nursery: Nursery, *, kubeconfig: Path, log: Path, environment: Mapping[str, str]) -> None:
        self._nursery = nursery
        self._child: Child | None = None
        self.log = log
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": str(log.parent), "KUBECONFIG": str(kubeconfig)}
        self.environment |= environment

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.code is None

    def start(self, **environment: str | None) -> "Operator":
        """Start it, with changes to its environment that stay (None: taken out)."""
        assert not self.running, "the operator runs already"
        for name, value in environment.items():
            if value is None:
                self.environment.pop(name, None)
            else:
                self.environment[name] = value
        self._child = self._nursery.start(self.environment, self.log)
        return self

    def stop(self) -> None:
        """SIGTERM, and wait for a clean end."""
        if self._child is None:
            return
        self._child.signal(signal.SIGTERM)
        code = self._child.wait(STOP_SECONDS)
        assert code == 0, f"the operator ended with {code}:\n{self.tail()}"
        self._child = None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._child is None:
            return
        self._child.signal(signal.SIGKILL)
        self._child.wait(STOP_SECONDS)
        self._child = None

    def signal_and_wait(self, number: signal.Signals) -> None:
        """A signal from another thread, and wait until the process is gone."""
        child = self._child
        if child is not None:
            child.signal(number)
            child.wait(STOP_SECONDS)

    def restart(self, **environment: str | None) -> None:
        """Stop cleanly and start."""
        self.stop()
        self.start(**environment)

    def exit_code(self, seconds: float) -> int:
        """Wait until it ends by itself."""
        assert self._child is not None
        return self._child.wait(seconds)

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
