"""Several worlds at once: most of a scenario is waiting, so those that differ in one argument need not wait in turn."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from tests.operator.harness.world import Surroundings, World

T = TypeVar("T")


def side_by_side(
    surroundings: Surroundings, directory: Path, cases: Sequence[tuple[Any, ...]], run: Callable[..., T]
) -> list[Future[T]]:
    """`run(world, *case)` for each case, in a world of its own whose operator runs; what each came to."""

    def one(number: int, case: tuple[Any, ...]) -> T:
        home = directory / f"world-{number}"
        home.mkdir()
        world = World(surroundings, home)
        try:
            world.operator.start()
            return run(world, *case)
        finally:
            world.close()

    with ThreadPoolExecutor(len(cases), thread_name_prefix="world") as pool:
        return [pool.submit(one, number, case) for number, case in enumerate(cases)]
