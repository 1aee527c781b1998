"""Tries again what another try may mend, with growing pauses, until the deadline or too many failures in a row."""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sluice.loader.deadline import Deadline
from sluice.loader.failure import Transient, failed, shown

T = TypeVar("T")

logger = logging.getLogger("sluice.loader")


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a download is made."""

    concurrency: int = 8
    part_bytes: int = 16 * 1024 * 1024
    attempts: int = 6
    """Tries in a row without a single new byte, after which the source fails."""
    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 20.0


def until_final(uri: str, call: Callable[[], T], deadline: Deadline, tuning: Tuning) -> T:
    """What the call returns, once it does not fail with Transient. Raises LoadFailed."""
    tries = 0
    while True:
        try:
            return call()
        except Transient as error:
            tries += 1
            pause(uri, error, tries, deadline, tuning)


def pause(uri: str, error: Transient, tries: int, deadline: Deadline, tuning: Tuning) -> None:
    """Wait before the next try: what the server asks for, or twice as long each time, spread a little so that the pods
    of a fleet do not come all at once. Raises LoadFailed after too many tries."""
    if tries >= tuning.attempts:
        raise failed(uri, f"{error}; tried {tries} times") from error
    seconds = error.after_seconds
    if seconds is None:
        seconds = tuning.first_pause_seconds * 2.0 ** (tries - 1) * random.uniform(0.7, 1.3)  # noqa: S311
    logger.warning("%s: %s; trying again", shown(uri), error)
    deadline.wait(min(seconds, tuning.longest_pause_seconds))
