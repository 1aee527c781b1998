"""The absolute end of a load, seen by every thread of it."""

import threading
import time
from typing import Final

from sluice.loader.failure import LoadFailed

LONGEST_SOCKET_WAIT_SECONDS: Final = 30.0


class Deadline:
    """Says when to stop: the time is over, or another thread has failed. Thread-safe."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends_at = time.monotonic() + seconds
        self._stopped = threading.Event()

    @property
    def remaining_seconds(self) -> float:
        """Until the end; 0 when it is over."""
        return max(0.0, self._ends_at - time.monotonic())

    def check(self) -> None:
        """Raises LoadFailed when the time is over, Stopped when the load was given up elsewhere."""
        if self._stopped.is_set():
            raise Stopped
        if self.remaining_seconds <= 0:
            raise self.over()

    def over(self) -> LoadFailed:
        """The failure when the time is over."""
        return LoadFailed(
            "TimedOut",
            f"the model data was not in place within {self.seconds:.0f} s: give it more time with "
            "modelDataDownloadTimeoutInSeconds, or make it smaller",
        )

    def wait(self, seconds: float) -> None:
        """Sleep, at most to the end. Raises as check() does."""
        self._stopped.wait(min(seconds, self.remaining_seconds))
        self.check()

    def child(self) -> "Deadline":
        """One with the same end that can be stopped without this one."""
        child = Deadline(self.seconds)
        child._ends_at = self._ends_at
        return child

    def stop(self) -> None:
        """Another thread has failed: end soon."""
        self._stopped.set()


class Stopped(Exception):
    """This thread's work is not wanted any more."""
