"""How much of the time the agent's turns may take. With hundreds of routes that change one after the other each change
would be a turn of its own, and two agents would take the cores from Envoy and from those who make the changes. Pure."""

from typing import Final

SHARE: Final = 1 / 3
"""Of the time, in the long run. A turn takes up all changes that came before it, so turns that come later are fewer."""
BURST_SECONDS: Final = 0.1
"""Of rest that may be owed: a change by itself takes some turns (Envoy has the clusters, they are warm, Envoy has the
routes), and waits for nothing."""
LONGEST_SECONDS: Final = 0.25


class Pace:
    """Told of each turn, it says how long to rest."""

    def __init__(self) -> None:
        self._owed = 0.0
        self._ended: float | None = None

    def rest(self, began: float, ended: float) -> float:
        """Seconds to rest after the turn that took from `began` to `ended` (monotonic seconds)."""
        rested = began - self._ended if self._ended is not None else 0.0
        self._ended = ended
        self._owed = max(0.0, self._owed - rested) + (ended - began) * (1 / SHARE - 1)
        # What a turn that took very long owes is not owed for ever: the next change would wait for it.
        self._owed = min(self._owed, BURST_SECONDS + LONGEST_SECONDS)
        return max(0.0, self._owed - BURST_SECONDS)
