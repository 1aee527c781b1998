"""Who is asked first where a round may have no time for all, because some do not answer and the calls at once are few.

Those that were asked longest ago come first. Those that gave nothing the last time may take their whole time again:
some of them come before all others, so that they have their turn, too, the rest after them."""

import math
from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T", bound=str | tuple[str, ...])


class Turns(Generic[T]):
    """Remembers how it went with whom. Times are monotonic seconds."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._last: dict[T, tuple[bool, float]] = {}
        """Whether the last call was in vain, and when that began. One that had no time has not had its turn."""

    def order(self, all_of_them: Collection[T]) -> list[T]:
        """These in turn; all others are forgotten."""
        self._last = {one: turn for one, turn in self._last.items() if one in all_of_them}
        turns = {one: self._last.get(one, (False, -math.inf)) for one in all_of_them}
        ordered = sorted(all_of_them, key=lambda one: (*turns[one], one))
        some = [one for one in ordered if turns[one][0]][: max(1, self._concurrency // 4)]
        first = set(some)
        return [*some, *(one for one in ordered if one not in first)]

    def had(self, one: T, begun: float, *, in_vain: bool) -> None:
        """It has had its turn."""
        self._last[one] = (in_vain, begun)
