"""Simulated time: seconds since the epoch, starting at the real now, then running at a speed or stepped by hand."""

from __future__ import annotations

import time


class Clock:
    """Simulated now. ``speed`` is simulated seconds per real second; 0 stands still until ``advance`` is called."""

    def __init__(self, speed: float) -> None:
        if speed < 0:
            raise ValueError(f"clock speed {speed}: must be 0 (stepped) or more simulated seconds per second")
        self.speed = speed
        self._start = time.time()
        self._real_start = time.monotonic()
        self._skipped = 0.0

    @property
    def stepped(self) -> bool:
        """Whether only ``advance`` moves this clock."""
        return self.speed == 0

    def now(self) -> float:
        """Simulated seconds since the epoch in whole milliseconds, never going back."""
        return round(self._start + self._skipped + (time.monotonic() - self._real_start) * self.speed, 3)

    def pace(self, speed: float) -> None:
        """Goes on from now at another speed."""
        if speed <= 0:
            raise ValueError(f"clock speed {speed}: a running clock takes more than 0 simulated seconds per second")
        if self.stepped:
            raise ValueError("a stepped clock has no speed: only `advance` moves it")
        moment = time.monotonic()
        self._skipped += (moment - self._real_start) * self.speed
        self._real_start = moment
        self.speed = speed

    def advance(self, seconds: float) -> float:
        """Jumps ahead and returns the new now."""
        if seconds < 0:
            raise ValueError(f"cannot advance by {seconds} seconds: time does not go back")
        self._skipped += seconds
        return self.now()
