"""The backend whole, on real clocks: an endpoint's changes wake its Endpoint, as the controller is told."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest
from tests.sagemaker.world import KEY, OWN, OWNER, REGION, TARGET, Hosting, NoAlarms

from sagemaker_simulator.testing import Simulator
from sluice.api.status import EndpointStatus
from sluice.core.identity import Credentials, Key, Owner, Target
from sluice.core.observation import Presence, Questions
from sluice.ports.backend import ActFailed, Backend
from sluice.ports.clock import SystemClock
from sluice.sagemaker.backend import SageMakerBackend
from sluice.sagemaker.clients import AwsCalls
from sluice.sagemaker.sweep import SweepSettings

QUICK = SweepSettings(
    backoff_seconds=0.2,
    steady_seconds=0.2,
    moving_seconds=0.1,
    full_seconds=0.5,
    look_seconds=0.3,
    overlap_seconds=0.5,
    stale_seconds=0.5,
)
EMPTY = EndpointStatus()


@pytest.fixture
async def backend(calls: AwsCalls) -> AsyncIterator[SageMakerBackend]:
    backend = SageMakerBackend(calls, NoAlarms(), SystemClock(), QUICK)
    await backend.start()
    yield backend
    await backend.stop()


@pytest.fixture
def woken(backend: SageMakerBackend) -> list[Key]:
    keys: list[Key] = []
    backend.on_moved(keys.append)
    return keys


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


async def test_it_is_a_backend(backend: SageMakerBackend) -> None:
    port: Backend = backend
    assert await port.account_id(TARGET) == "111122223333"


async def test_a_change_wakes_and_the_next_look_quiets(
    backend: SageMakerBackend, hosting: Hosting, woken: list[Key]
) -> None:
    hosting.everything()
    await backend.observe(TARGET, EMPTY, Questions(describe=True))
    backend.watch(KEY, TARGET, moving=False)
    hosting.simulator.change_endpoint("churn", region=REGION, weights={"a": 2.0}, immediate=True)
    await until(lambda: woken == [KEY])
    seen = await backend.observe(TARGET, EMPTY, Questions(describe=True))
    assert seen.endpoint is not None
    assert seen.endpoint.variants[0].current_weight == 2.0
    hosting.simulator.delete_endpoint("churn", region=REGION, now=True)
    await until(lambda: len(woken) >= 2)
    assert (await backend.observe(TARGET, EMPTY, Questions())).presence is Presence.MISSING


async def test_what_moves_is_looked_at(backend: SageMakerBackend, hosting: Hosting, woken: list[Key]) -> None:
    hosting.everything(in_service=False)
    await backend.observe(TARGET, EMPTY, Questions(describe=True))
    backend.watch(KEY, TARGET, moving=True)
    await until(lambda: len(woken) >= 3)
    backend.watch(KEY, TARGET, moving=False)
    backend.forget(KEY)


async def test_missing_credentials_wake_everybody_when_they_come(
    backend: SageMakerBackend, woken: list[Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ActFailed, match="no usable AWS credentials"):
        await backend.account_id(TARGET)
    backend.watch(KEY, TARGET, moving=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "operator")
    await until(lambda: KEY in woken, seconds=30)
    assert await backend.account_id(TARGET) == "111122223333"


async def test_an_endpoint_that_changes_its_role_leaves_its_old_sweep(
    backend: SageMakerBackend, simulator: Simulator
) -> None:
    backend.watch(KEY, TARGET, moving=False)
    other = Target(OWNER, Credentials(REGION, "arn:aws:iam::111122223333:role/other"), "churn")
    backend.watch(KEY, other, moving=False)
    await until(lambda: simulator.counts(role="other").get("ListEndpoints", 0) >= 2)
    simulator.clear_requests()
    await until(lambda: simulator.counts(role="other").get("ListEndpoints", 0) >= 3)
    assert "ListEndpoints" not in simulator.counts(role="operator")


async def test_many_first_looks_at_once_cost_one_listing(backend: SageMakerBackend, simulator: Simulator) -> None:
    targets = [Target(Owner("prod-1", "team-a", f"e{index}"), OWN, f"e{index}") for index in range(100)]
    seen = await asyncio.gather(*(backend.observe(target, EMPTY, Questions()) for target in targets))
    assert {one.presence for one in seen} == {Presence.MISSING}
    assert simulator.counts()["ListEndpoints"] == 1


async def test_stop_ends_every_sweep(calls: AwsCalls, simulator: Simulator) -> None:
    backend = SageMakerBackend(calls, NoAlarms(), SystemClock(), QUICK)
    await backend.start()
    backend.watch(KEY, TARGET, moving=True)
    await until(lambda: simulator.counts().get("ListEndpoints", 0) >= 2)
    await backend.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("sweep")]
