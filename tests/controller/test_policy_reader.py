"""The permission policy is the ConfigMap's, and nothing is permitted when in doubt."""

import asyncio

import pytest
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube

from sluice.controller.configmap import ConfigMapReader
from sluice.controller.instance_types import InstanceTypesFile
from sluice.controller.policy import CONFIG_MAP, parse, read
from sluice.core.permission import Policy
from sluice.ports.kube import Object

ALLOW = 'rules: [{namespaces: ["team"]}]'


def config_map(text: str) -> Object:
    return {
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": "ops"},
        "data": {"policy.yaml": text},
    }


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def kube() -> MemoryKube:
    return MemoryKube()


@pytest.fixture
def reader(kube: MemoryKube, changes: list[str], clock: SteppedClock) -> ConfigMapReader[Policy]:
    return ConfigMapReader(
        kube,
        "ops",
        CONFIG_MAP,
        read,
        empty=Policy(),
        every_seconds=10,
        changed=lambda: changes.append("x"),
        sleep=clock.sleep,
    )


async def test_a_change_is_told_once(kube: MemoryKube, reader: ConfigMapReader[Policy], changes: list[str]) -> None:
    await reader.read()
    assert (reader.content, changes) == (Policy(), [])
    kube.put(config_map(ALLOW))
    await reader.read()
    await reader.read()
    assert [rule.namespaces for rule in reader.content.rules] == [("team",)]
    assert changes == ["x"]
    kube.objects.clear()
    await reader.read()
    assert (reader.content, len(changes)) == (Policy(), 2)


async def test_the_last_policy_stands_while_the_api_server_is_away(
    kube: MemoryKube, reader: ConfigMapReader[Policy]
) -> None:
    kube.put(config_map(ALLOW))
    await reader.read()
    kube.away = True
    await reader.read()
    assert reader.content.rules


async def test_at_the_start_it_is_waited_for(
    kube: MemoryKube, reader: ConfigMapReader[Policy], clock: SteppedClock
) -> None:
    kube.put(config_map(ALLOW))
    kube.away = True
    syncing = asyncio.create_task(reader.sync())
    await clock.step(30)
    assert not syncing.done()
    kube.away = False
    await clock.step(6)
    assert syncing.done()
    assert reader.content.rules


NO_YAML = ("a: [b", "a: 2024-13-45", "a: " + 2000 * "[")
"""What YAML itself cannot read, each in another way."""


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "rules", "rules: {}", "rules: [{namespace: x}]", "rules: [1]"),
        *("rules: [{namespaces: [2024-13-45]}]", "rules: [{namespace: x, on: true}]", *NO_YAML),
    ],
)
def test_what_cannot_be_understood_permits_nothing(text: str | None, caplog: pytest.LogCaptureFixture) -> None:
    assert parse(text) == Policy()
    assert "permits nothing" in caplog.text


@pytest.mark.parametrize("text", NO_YAML)
def test_instance_types_that_cannot_be_understood_change_nothing(text: str, caplog: pytest.LogCaptureFixture) -> None:
    file = InstanceTypesFile()
    known = file.read({"data": {"instance-types.yaml": "ml.own.large: {cpu: 1, memory: 1Gi}"}})
    assert known.find("ml.own.large") is not None
    assert file.read({"data": {"instance-types.yaml": text}}) is known
    assert "the last instance types stand" in caplog.text
