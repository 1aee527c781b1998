"""Says in the log how far a download is, at most once every few seconds."""

import logging
import threading
import time
from typing import Final

from sluice.loader.failure import size_text

PERIOD_SECONDS: Final = 5.0

logger = logging.getLogger("sluice.loader")


class Progress:
    """Counts bytes. Thread-safe."""

    def __init__(self, what: str, total_bytes: int | None, period_seconds: float = PERIOD_SECONDS) -> None:
        self._what = what
        self._total = total_bytes
        self._period_seconds = period_seconds
        self._lock = threading.Lock()
        self._began = self._told = time.monotonic()
        self._before = 0
        self._done = 0

    def already(self, count: int) -> None:
        """So many bytes are here from an earlier run."""
        with self._lock:
            self._before += count
        logger.info("%s: %s are here from an earlier try", self._what, size_text(count))

    def add(self, count: int) -> None:
        """So many bytes more (less, where a try starts over)."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._told < self._period_seconds:
                return
            self._told = now
        self._tell(now)

    def end(self) -> None:
        """All is here."""
        self._tell(time.monotonic())

    def _tell(self, now: float) -> None:
        here = self._before + self._done
        share = f" of {size_text(self._total)} ({here / self._total:.0%})" if self._total else ""
        speed = self._done / max(now - self._began, 1e-3) / 1e6
        logger.info("%s: %s%s, %.1f MB/s", self._what, size_text(here), share, speed)
