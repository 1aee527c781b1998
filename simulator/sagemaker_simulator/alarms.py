"""The alarms deployments watch: their states, from a CloudWatch endpoint or set by a test, and how fresh those are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

OK = "OK"
ALARM = "ALARM"
INSUFFICIENT_DATA = "INSUFFICIENT_DATA"
STATES = (OK, ALARM, INSUFFICIENT_DATA)


class AlarmBoard:
    """What is known of each alarm by name. A state set by hand holds in every
    region and outranks what CloudWatch says, until it is unset."""

    def __init__(self) -> None:
        self._set: dict[str, str] = {}
        self._read: dict[tuple[str, str], str] = {}
        self.read_at: float | None = None
        """Simulated time of the last reading of CloudWatch; None when no CloudWatch is configured."""

    def set(self, name: str, state: str) -> None:
        """Sets an alarm's state; raises ValueError for a state CloudWatch does not have."""
        if state not in STATES:
            raise ValueError(f"alarm '{name}': state {state!r} is unknown; known are {', '.join(STATES)}")
        self._set[name] = state

    def unset(self, name: str | None = None) -> None:
        """Forgets a state set by hand, or all of them."""
        if name is None:
            self._set.clear()
        else:
            self._set.pop(name, None)

    def reading(self, states: Mapping[tuple[str, str], str], at: float) -> None:
        """Takes over one complete reading, by region and name, that was begun at simulated time ``at``."""
        self._read = dict(states)
        self.read_at = at

    def state(self, region: str, name: str) -> str | None:
        """The alarm's state in a region, or None if nobody has ever heard of it."""
        return self._set.get(name) or self._read.get((region, name))

    def firing(self, region: str, names: Iterable[str]) -> list[str]:
        """Those of the names that are in ALARM, in the order given."""
        return [name for name in names if self.state(region, name) == ALARM]

    def fresh_at(self, moment: float) -> bool:
        """Whether alarms were read at or after that simulated time (always, when no CloudWatch is configured)."""
        return self.read_at is None or self.read_at >= moment

    def as_dict(self) -> dict[str, str]:
        """Every alarm's state by name."""
        return {**{name: state for (_, name), state in self._read.items()}, **self._set}
