"""One simulator for all of these tests, emptied before each, reached as the operator reaches AWS: by environment."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.sagemaker.world import CountingTelemetry, Hosting, aws

from sagemaker_simulator.testing import Simulator
from sluice.sagemaker.clients import AwsCalls

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(scope="session")
def running() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No AWS setting of the machine reaches the test."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.upper() in _PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture
def simulator(running: Simulator, bare: None, monkeypatch: pytest.MonkeyPatch) -> Simulator:
    running.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "operator")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret-of-anybody")
    return running


@pytest.fixture(scope="session")
def somebody(running: Simulator) -> Hosting:
    return Hosting(running)


@pytest.fixture
def hosting(simulator: Simulator, somebody: Hosting) -> Hosting:
    assert somebody.simulator is simulator
    return somebody


@pytest.fixture
def telemetry() -> CountingTelemetry:
    return CountingTelemetry()


@pytest.fixture
async def calls(simulator: Simulator, telemetry: CountingTelemetry) -> AsyncIterator[AwsCalls]:
    door = aws(telemetry)
    yield door
    door.close()
