"""The directory that agent and Envoy share. Every file appears whole: written beside its place and renamed over it,
which is also the only change that Envoy notices."""

import json
import os
from pathlib import Path
from typing import Any, Final

from sluice.router.bootstrap import CLUSTERS_FILE, SCOPES_FILE

STATE_FILE: Final = "state.json"
EMPTY: Final = '{"version_info":"empty","resources":[]}\n'


class Files:
    """Reads and writes them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def seed(self) -> None:
        """Files without clusters and routes where there are none, so that Envoy starts before the agent has read."""
        for name in (CLUSTERS_FILE, SCOPES_FILE):
            if not (self._directory / name).exists():
                self._write(name, EMPTY)

    def read(self) -> tuple[str, str, dict[str, Any]]:
        """Clusters, scopes, and the state beside them."""
        state = self._directory / STATE_FILE
        return (
            (self._directory / CLUSTERS_FILE).read_text(),
            (self._directory / SCOPES_FILE).read_text(),
            json.loads(state.read_text()) if state.exists() else {},
        )

    def write_clusters(self, text: str) -> None:
        """Envoy takes it up within milliseconds."""
        self._write(CLUSTERS_FILE, text)

    def write_scopes(self, text: str) -> None:
        """As `write_clusters`."""
        self._write(SCOPES_FILE, text)

    def write_state(self, state: dict[str, Any]) -> None:
        """For the agent's next process; written before the file that it describes."""
        self._write(STATE_FILE, json.dumps(state, separators=(",", ":")))

    def _write(self, name: str, text: str) -> None:
        beside = self._directory / f".{name}.new"
        beside.write_text(text)
        os.replace(beside, self._directory / name)
