"""The static checks, as `make lint` and the tests run them: one list for both."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from localcluster import paths


@dataclass(frozen=True)
class Check:
    """A command of the environment that must end with 0."""

    name: str
    argv: tuple[str, ...]

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run it over the checkout; its findings are in its output."""
        argv = [str(paths.VENV / "bin" / self.argv[0]), *self.argv[1:]]
        sources = (str(paths.CHECKOUT / folder) for folder in ("operator", "simulator", "local"))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sources)}
        return subprocess.run(
            argv,
            cwd=paths.CHECKOUT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


CHECKS = (
    Check("lint", ("ruff", "check")),
    Check("format", ("ruff", "format", "--check")),
    Check("types", ("mypy",)),
    Check("layers", ("lint-imports",)),
)
