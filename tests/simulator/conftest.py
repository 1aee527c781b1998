"""One simulator for all of these tests, emptied before each: a start costs more than most tests."""

from collections.abc import Iterator

import pytest
from tests.simulator.hosting import Hosting

from sagemaker_simulator.testing import Simulator


@pytest.fixture(scope="session")
def running() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(running: Simulator) -> Iterator[Simulator]:
    running.reset()
    yield running
    assert running.state()["brokenResponses"] == []


@pytest.fixture(scope="session")
def clients(running: Simulator) -> Hosting:
    return Hosting(running)


@pytest.fixture
def hosting(simulator: Simulator, clients: Hosting) -> Hosting:
    """Plain boto3 clients of an empty simulator, and the objects most tests need."""
    assert clients.simulator is simulator
    return clients
