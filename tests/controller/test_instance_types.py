"""Instance types that cannot be read or understood: what was understood stands, and at the start, where nothing was,
nobody takes a type for the built-in one that the ConfigMap may say something of."""

import asyncio

import pytest
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube
from tests.controller.objects import meta
from tests.controller.test_policy_reader import NO_YAML

from sluice.controller.configmap import ConfigMapReader
from sluice.controller.instance_types import InstanceTypesFile
from sluice.core.instance_types import BUILT_IN, CONFIG_MAP, InstanceTypes
from sluice.ports.kube import Object

OVERRIDE = 'ml.m5.large: {nodeSelector: {pool: "own"}}\nml.own.large: {cpu: 1, memory: 1Gi}\n'


def config_map(text: str | None) -> Object:
    data = {} if text is None else {"instance-types.yaml": text}
    return {**meta("ConfigMap", CONFIG_MAP, namespace="ops"), "data": data}


@pytest.mark.parametrize("wrong", [*(f"{OVERRIDE}\n{text}" for text in NO_YAML), OVERRIDE + "ml.other.large: {cpu: 1}"])
def test_at_the_start_types_that_its_text_names_are_known_to_nobody(
    wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Fleets of them would be made without their nodes; of those that stand nothing is said, and they serve."""
    types = InstanceTypesFile().read(config_map(wrong))
    assert types.find("ml.m5.large") is None, "overridden, nobody knows how"
    assert types.find("ml.own.large") is None
    assert types.find("ml.m5.xlarge") == BUILT_IN["ml.m5.xlarge"], "what it does not name is as built in"
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert "the instance types that it names (ml.m5.large," in record.getMessage()


def test_a_name_in_other_letters_is_taken_for_what_it_was_meant_to_be() -> None:
    types = InstanceTypesFile().read(config_map('ML.M5.Large: {nodeSelector: {pool: "own"}}'))
    assert types.find("ml.m5.large") is None


def test_a_text_that_names_none_is_the_built_in_ones() -> None:
    assert InstanceTypesFile().read(config_map("[oops")).types == BUILT_IN


@pytest.mark.parametrize("nothing", [None, ""])
def test_nothing_in_it_is_nothing_wrong(nothing: str | None, caplog: pytest.LogCaptureFixture) -> None:
    assert InstanceTypesFile().read(config_map(nothing)).types == BUILT_IN
    assert InstanceTypesFile().read(None).types == BUILT_IN
    assert not caplog.records


def test_what_was_understood_once_stands_whatever_follows() -> None:
    file = InstanceTypesFile()
    known = file.read(config_map(OVERRIDE))
    assert file.read(config_map(OVERRIDE + "ml.other.large: {cpu: 1}")) is known
    assert file.read(config_map("[")) is known
    assert file.read(None).types == BUILT_IN, "somebody deleted it"
    assert file.read(config_map(OVERRIDE + "[")).types == BUILT_IN, "which was understood"


class Started:
    """The reader as the operator wires it."""

    def __init__(self) -> None:
        self.kube, self.clock, self.changes = MemoryKube(), SteppedClock(), 0
        file = InstanceTypesFile()
        self.reader: ConfigMapReader[InstanceTypes] = ConfigMapReader(
            self.kube,
            "ops",
            CONFIG_MAP,
            file.read,
            empty=file.last,
            every_seconds=10,
            changed=self._changed,
            sleep=self.clock.sleep,
        )

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def started() -> Started:
    return Started()


async def test_one_that_cannot_be_asked_for_is_waited_for(started: Started) -> None:
    """No pass takes the built-in types for what it may say."""
    started.kube.put(config_map(OVERRIDE))
    started.kube.away = True
    syncing = asyncio.create_task(started.reader.sync())
    await started.clock.step(60)
    assert not syncing.done()
    started.kube.away = False
    await started.clock.step(6)
    assert syncing.done()
    assert started.reader.content.find("ml.own.large") is not None


async def test_one_that_cannot_be_understood_stops_no_start_and_is_taken_up_when_it_is_mended(started: Started) -> None:
    """Alarms turn deployments back meanwhile, and what needs none of its types goes on."""
    started.kube.put(config_map(OVERRIDE + "["))
    await started.reader.sync()
    assert started.reader.content.find("ml.m5.large") is None
    changes = started.changes
    started.kube.put(config_map(OVERRIDE))
    await started.reader.read()
    found = started.reader.content.find("ml.m5.large")
    assert found is not None
    assert dict(found.node_selector) == {"pool": "own"}
    assert started.changes == changes + 1, "all Endpoints are woken"
