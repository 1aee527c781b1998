"""Deployments that end only because their time is over (patience.py): the last cluster tests, as they begin with the
first. Alone they take twenty minutes."""

import pytest
from tests.cluster.patience import BUDGET_SECONDS, LATE_SECONDS, SOON_SECONDS, STORIES, Patience

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(BUDGET_SECONDS + LATE_SECONDS + 4 * SOON_SECONDS)]


@pytest.mark.parametrize("name", STORIES)
def test_a_deployment_ends_when_its_time_is_over(patience: Patience, name: str) -> None:
    patience.ended(name)
