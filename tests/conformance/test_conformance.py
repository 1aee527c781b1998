"""Both backends show the same of every scenario, or exactly what the table says they must show instead."""

from dataclasses import fields

import pytest
from tests.conformance.conftest import Results
from tests.conformance.scenario import BACKENDS, Backend, Scenario
from tests.conformance.table import TABLE

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", TABLE, ids=lambda scenario: scenario.name)
def test_a_scenario(scenario: Scenario, backend: Backend, results: Results) -> None:
    seen = results[(scenario.name, backend)].result()
    wanted = scenario.wanted(backend)
    for one in fields(wanted):
        assert getattr(seen, one.name) == getattr(wanted, one.name), f"{one.name} of {seen}"


def test_every_difference_is_one_and_says_why() -> None:
    for scenario in TABLE:
        assert bool(scenario.differs) == bool(scenario.source), scenario.name
        for backend, seen in scenario.differs.items():
            assert seen != scenario.seen, f"{scenario.name}: {backend} shows nothing else any more"
