"""The relay of streams: the real process, beside an Envoy."""

import os
import subprocess
import sys
from pathlib import Path

from tests.router.harness.envoy import Envoy

ROOT = Path(__file__).parents[3]


class Relay:
    """Started with `start`, always stopped by the fixture."""

    def __init__(self, envoy: Envoy, *, before: str = "", **settings: str) -> None:
        """before: Python that runs in the process first; settings: SLUICE_ROUTER_ variables."""
        self._envoy, self._before = envoy, before
        self._settings = {f"SLUICE_ROUTER_{name.upper()}": value for name, value in settings.items()}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run it, until it takes streams."""
        directory = self._envoy.directory
        self.process = subprocess.Popen(  # noqa: S603 - the program under test
            [
                sys.executable,
                "-c",
                f"{self._before}\nimport sys\nfrom sluice.router.__main__ import main\nsys.exit(main(['relay']))",
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "operator"),
                "SLUICE_ROUTER_RUN_DIRECTORY": str(directory),
                **self._settings,
            },
            stdout=subprocess.DEVNULL,
            stderr=(directory / "relay.log").open("ab"),
        )
        Envoy.until((directory / "relay.sock").exists, 60)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None
            (self._envoy.directory / "relay.sock").unlink(missing_ok=True)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(60)
        self.process = None
        return code

    def log(self) -> str:
        """What it said."""
        return (self._envoy.directory / "relay.log").read_text()
