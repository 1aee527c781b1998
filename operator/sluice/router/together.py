"""After a break of the connection, what one watch says waits for what the others say: a route of now with the pods of
before the break would send requests to nobody. Pure but for the clock."""

import time
from collections.abc import Callable, Iterable
from typing import Final

Change = Callable[[], None]

PATIENCE_SECONDS: Final = 30.0
"""The longest that a watch which is back waits for another: longer than that one's pause between attempts."""


class Together:
    """Puts changes of several kinds in force, at once or together."""

    def __init__(self, kinds: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost = set(kinds)
        self._unread = set(self._lost)
        self._held: list[Change] = []
        self._since = 0.0
        """When the first of what is held came."""
        self._waits = True
        """False: in vain, so no more until all is known again."""
        self.complete = False
        """All kinds were read once, and that is in force."""

    def lost(self, kind: str) -> None:
        """From now on nobody knows what changes of this kind."""
        self._lost.add(kind)

    def found(self, kind: str, change: Change) -> None:
        """All of a kind was read anew."""
        self._lost.discard(kind)
        self._waits = self._waits or not self._lost
        if kind in self._unread:
            self._unread.discard(kind)
            self._since = self._clock()
        self.take(change)

    def take(self, change: Change) -> None:
        """Something changed."""
        if not self._held:
            self._since = self._clock()
        self._held.append(change)
        self.go_on()

    def go_on(self) -> None:
        """Put in force what is held, if nothing is missing or, once all was read, the patience is at its end."""
        if self._unread:
            return
        if self._lost and self._waits:
            if not self._held or self._clock() - self._since < PATIENCE_SECONDS:
                return
            self._waits = False
        held, self._held = self._held, []
        for change in held:
            change()
        self.complete = True
