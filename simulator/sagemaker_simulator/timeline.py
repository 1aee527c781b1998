"""What is due when: a heap of future steps, so that passing time costs only what happens in it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Timeline:
    """Future steps in order of time, then of planning. A step that no longer applies checks that itself."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def plan(self, due: float, step: Callable[[], None]) -> None:
        """Runs ``step`` when simulated time reaches ``due`` (seconds since the epoch, to the millisecond)."""
        heapq.heappush(self._heap, (round(due, 3), next(self._order), step))

    def next_due(self, until: float) -> tuple[float, Callable[[], None]] | None:
        """Takes the earliest step that is due by ``until``."""
        if not self._heap or self._heap[0][0] > until:
            return None
        due, _, step = heapq.heappop(self._heap)
        return due, step
