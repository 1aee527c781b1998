"""What the router's tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.harness.relay import Relay


@pytest.fixture
def envoy(tmp_path: Path) -> Iterator[Envoy]:
    """A running Envoy without routes."""
    made = Envoy(tmp_path / "run")
    Drive(made)
    made.start()
    yield made
    made.kill()
    made.end_serving()


@pytest.fixture
def relay(envoy: Envoy) -> Iterator[Relay]:
    """A running relay of streams beside it."""
    made = Relay(envoy)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def drive(envoy: Envoy) -> Drive:
    """Routes for it."""
    return Drive(envoy)


@pytest.fixture
def container() -> Iterator[Callable[..., Container]]:
    """Starts containers."""
    made: list[Container] = []

    def start(name: str, **rest: object) -> Container:
        made.append(Container(name, **rest).start())  # type: ignore[arg-type] # a test's settings
        return made[-1]

    yield start
    for item in made:
        item.stop()
