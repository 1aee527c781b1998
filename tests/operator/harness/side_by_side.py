"""Scenarios side by side: most of one is waiting, and each has a world of its own.

Tests that take `world` or `make_world` are run by a few threads, in their order; each test then waits for its own
scenario and fails with what that failed with. Those that are marked `alone`, because they measure time or are heavy,
run as tests do everywhere, after the others."""

import inspect
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.operator.harness.world import Surroundings, World

AT_ONCE = 4
WORLDS = frozenset({"world", "make_world"})
TESTS = Path(__file__).parents[1]


def runs_beside(item: pytest.Item) -> bool:
    """Whether a test's scenario runs beside others."""
    return (
        isinstance(item, pytest.Function)
        and item.path.is_relative_to(TESTS)
        and not WORLDS.isdisjoint(item.fixturenames)
        and item.get_closest_marker("alone") is None
    )


class SideBySide:
    """The scenarios of a run."""

    def __init__(self, surroundings: Surroundings, directory: Path, items: Sequence[pytest.Function]) -> None:
        self._surroundings = surroundings
        self._directory = directory
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scenario")
        self._runs: dict[str, Future[None]] = {
            item.nodeid: self._pool.submit(self._run, number, item) for number, item in enumerate(items)
        }

    def wait_for(self, item: pytest.Function) -> None:
        """Until the test's scenario is over; raises what it raised."""
        self._runs[item.nodeid].result()

    def close(self) -> None:
        """What has not begun never does."""
        self._pool.shutdown(cancel_futures=True)

    def _run(self, number: int, item: pytest.Function) -> None:
        home = self._directory / str(number)
        home.mkdir()
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        with ExitStack() as worlds:

            def make(**settings: Any) -> World:
                world = World(self._surroundings, home, **settings)
                worlds.callback(world.close)
                return world

            arguments: dict[str, Any] = {}
            for name in inspect.signature(item.function).parameters:
                if name == "world":
                    arguments[name] = make()
                    arguments[name].operator.start()
                else:
                    arguments[name] = make if name == "make_world" else parameters[name]
            item.function(**arguments)
