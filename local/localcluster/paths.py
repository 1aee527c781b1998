"""Where the local cluster keeps things: the checkout, the cache outside it, and the state of running clusters."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
VENV = CHECKOUT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
TOOL_MODULES = CHECKOUT / "local" / "tools"


def cache() -> Path:
    """What may be kept for the next run and can be made again: `$SLUICE_CACHE`, default `~/.cache/sluice`."""
    return _directory("SLUICE_CACHE", "~/.cache/sluice")


def state() -> Path:
    """What running clusters own, one directory per cluster: `$SLUICE_STATE`, default `~/.local/state/sluice`."""
    return _directory("SLUICE_STATE", "~/.local/state/sluice")


def _directory(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().absolute()
