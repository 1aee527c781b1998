"""What the crash tests of both backends share: a scenario, its undisturbed record, a run for each point with a SIGKILL
there, and how two ends differ."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
from tests.operator.harness.kube import Object
from tests.operator.harness.operator_process import Operator
from tests.operator.harness.proxy import Point, Proxies
from tests.operator.harness.world import World

W = TypeVar("W", bound=World)

SECONDS = 180.0
"""Bounds what never comes; nothing that comes depends on it."""
EVERY_CALL = os.environ.get("SLUICE_TEST_EVERY_CALL") == "1"
"""As `make soak` does it: every recorded point is tried."""
ENOUGH = 6
"""So many problems end the run: the rest would say the same."""
_MOVING = frozenset(
    {
        "accepted", "attempt", "bakeUntil", "baseline", "contentHash", "creationTime", "creationTimestamp", "deadline",
        "digest", "endTime", "lastModifiedTime", "lastTransitionTime", "managedFields", "nextAttempt", "now",
        "resolutionTime", "resourceVersion", "since", "startTime", "time", "uid", "until",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scenario(Generic[W]):
    """`prepare` runs before calls count (None: they count from the operator's start, after the change); `change` sets
    off what is tried; `finish` waits for its end."""

    prepare: Callable[[W], None] | None
    change: Callable[[W], None]
    finish: Callable[[W], None]

    def begin(self, world: W) -> None:
        """Prepared, and the operator runs."""
        if self.prepare is not None:
            world.operator.start()
            self.prepare(world)

    def set_off(self, world: W) -> None:
        """Where the operator's start is a part of it, it starts into what was applied: in which order watches would
        tell several new objects is anybody's guess, and each order has calls of its own."""
        self.change(world)
        if self.prepare is None:
            world.operator.start()


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a run without a crash came to."""

    end: Object
    points: tuple[Point, ...]
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Crashes:
    """What the runs with a crash came to: what went wrong, in words, and the points that a run did not come to, though
    it came to the same end."""

    problems: list[str]
    left_out: list[Point]

    def judge(
        self,
        name: str,
        record: Undisturbed,
        points: Sequence[Point],
        pytestconfig: pytest.Config,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """Say what was tried; fail with what went wrong."""
        told = f"{name}: killed at {len(points) - len(self.left_out)} of {len(points)} points"
        if len(points) != len(record.points):
            told += f" ({len(record.points)} in all)"
        if self.left_out:
            told += f"; the same end without {', '.join(map(str, self.left_out))}"
        with capfd.disabled():
            pytestconfig.get_terminal_writer().line(f"\n{told}")
        problems = "\n\n".join(self.problems)
        assert not problems, f"{len(self.problems)} of {len(points)} points:\n{problems}"


def recorded(names: Iterable[str], record: Callable[[str], Undisturbed]) -> dict[str, Future[Undisturbed]]:
    """The records of these scenarios, made side by side: they too are mostly waiting."""
    each = [*names]
    with ThreadPoolExecutor(len(each), thread_name_prefix="record") as pool:
        return {name: pool.submit(record, name) for name in each}


def most_telling(points: Sequence[Point], name: str) -> list[Point]:
    """After each write, and of the other points one in six, the same for a scenario each time. Killed before a call, or
    at a read, the world is as it was after the write before; and events move nothing."""
    writes = [point for point in points if point.side == "after" and point.writes]
    others = [point for point in points if point not in writes]
    chosen = random.Random(name).sample(others, len(others) // 6)  # noqa: S311 - not for secrets
    return [point for point in points if point in writes or point in chosen]


def at_each(
    points: Sequence[Point], directory: Path, run: Callable[[Path, Point], bool], *, at_once: int, most_left_out: int
) -> Crashes:
    """One run for each point, in a directory of its own: whether it came to the point. AssertionErrors are problems."""
    crashes = Crashes([], [])

    def one(numbered: tuple[int, Point]) -> None:
        number, point = numbered
        if len(crashes.problems) >= ENOUGH:
            return
        home = directory / f"crash-{number}"
        home.mkdir()
        try:
            if not run(home, point):
                crashes.left_out.append(point)
        except AssertionError as error:
            crashes.problems.append(f"{point}: {error}")
            (home / "problem.txt").write_text(crashes.problems[-1])

    with ThreadPoolExecutor(at_once, thread_name_prefix="crash") as pool:
        list(pool.map(one, enumerate(points)))
    if len(crashes.left_out) > most_left_out:
        crashes.problems.append(f"not come to, and too many of them: {', '.join(map(str, crashes.left_out))}")
    return crashes


@contextmanager
def reviving(operator: Operator, proxies: Proxies) -> Iterator[None]:
    """The operator is started again when it was killed."""
    over = threading.Event()

    def revive() -> None:
        while not over.is_set():
            if proxies.fired.wait(0.1):
                operator.kill()
                operator.start()
                return

    reviver = threading.Thread(target=revive, name="reviver")
    reviver.start()
    try:
        yield
    finally:
        over.set()
        reviver.join()


class End:
    """The end that a run must come to."""

    def __init__(self, found: Callable[[], Object], wanted: Object) -> None:
        self._found = found
        self._wanted = wanted
        self.differences: list[str] = []
        """Of the last look."""

    def same(self) -> bool:
        """Whether the run has come to it."""
        self.differences = diff(self._found(), self._wanted)
        return not self.differences

    def awaited(self, world: World, *, seconds: float, every: float) -> None:
        """Until the run has come to it; an AssertionError says how it differs."""
        try:
            world.wait(self.same, "the end state", seconds=seconds, every=every)
        except AssertionError as error:
            raise AssertionError(f"ended otherwise: {'; '.join(self.differences)}\n{error}") from None


def without_moving(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_moving(item) for key, item in value.items() if key not in _MOVING}
    if isinstance(value, list):
        return [without_moving(item) for item in value]
    return value


def diff(found: Any, wanted: Any, path: str = "") -> list[str]:
    """`path: found x, undisturbed y` for each difference."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted({*found, *wanted})
            for line in diff(found.get(key), wanted.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [line for i, (a, b) in enumerate(zip(found, wanted, strict=True)) for line in diff(a, b, f"{path}[{i}]")]
    return [] if found == wanted else [f"{path}: found {found!r}, undisturbed {wanted!r}"]
