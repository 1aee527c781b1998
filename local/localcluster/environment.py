"""The Python environment of the checkout, `.venv`: made from the hash-pinned lock, and made anew when the lock changes.

This runs on the bare system's Python, so neither it nor what it imports may need an installed package.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys

from localcluster import packages, paths
from localcluster.errors import LocalClusterError
from localcluster.progress import run_logged, step
from localcluster.waiting import exclusive

_LOCK = paths.CHECKOUT / "requirements.lock"
_MADE_FROM = paths.VENV / "made-from"
_OLDEST_PYTHON = (3, 11)


def ensure() -> None:
    """Make `.venv` unless it was made from today's lock and works.

    Raises LocalClusterError where Python is too old.
    """
    if sys.version_info < _OLDEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        raise LocalClusterError(f"python3 is {found}; Sluice needs 3.11 or newer: install it and put it first on PATH")
    wanted = hashlib.sha256(_LOCK.read_bytes()).hexdigest()
    if _is_made_from(wanted):
        return
    packages.require(packages.PYTHON)
    with exclusive(paths.cache() / f"venv-{hashlib.sha256(str(paths.VENV).encode()).hexdigest()[:12]}.lock"):
        if _is_made_from(wanted):
            return
        with step("making the Python environment (.venv) from requirements.lock"):
            log = paths.cache() / "log" / "venv.log"
            shutil.rmtree(paths.VENV, ignore_errors=True)
            # Where `.venv` is activated, `python3` is the one that was just removed.
            python = getattr(sys, "_base_executable", "") or sys.executable
            run_logged([python, "-m", "venv", paths.VENV], log=log)
            install = f"install --quiet --disable-pip-version-check --require-hashes --requirement={_LOCK.name}"
            run_logged([paths.VENV_PYTHON, "-m", "pip", *install.split()], log=log, cwd=_LOCK.parent)
            # Written last: an environment whose making was cut off has no mark and is made again.
            _MADE_FROM.write_text(wanted)


def _is_made_from(wanted: str) -> bool:
    if not (paths.VENV_PYTHON.exists() and _MADE_FROM.exists() and _MADE_FROM.read_text() == wanted):
        return False
    # After an upgrade of the system's Python it is a newer one, which does not find what the older installed.
    argv = [str(paths.VENV_PYTHON), "-I", "-c", "import pip"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0
