"""What was asked, by whom and with which outcome: a bounded log, and counters that are never trimmed."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any

KEPT = 50_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One answered request. ``code`` is "OK", an error code, or "Lost" for an answer that never arrived."""

    time: float
    service: str
    operation: str
    role: str
    account: str
    region: str
    target: str
    code: str


class RequestLog:
    """The newest requests in order, and how many there were by operation, role and code."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, entry: Entry) -> None:
        """Records one request."""
        self._entries.append(entry)
        self._counts[entry.operation, entry.role, entry.code] += 1

    def reset(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._counts.clear()

    def as_dict(self) -> dict[str, Any]:
        """The entries, and counters by operation, by role and by code."""
        by_operation: Counter[str] = Counter()
        by_role: dict[str, Counter[str]] = {}
        by_code: Counter[str] = Counter()
        for (operation, role, code), number in self._counts.items():
            by_operation[operation] += number
            by_role.setdefault(role, Counter())[operation] += number
            by_code[code] += number
        return {
            "requests": [asdict(entry) for entry in self._entries],
            "operations": dict(by_operation),
            "roles": {role: dict(counter) for role, counter in by_role.items()},
            "codes": dict(by_code),
        }
