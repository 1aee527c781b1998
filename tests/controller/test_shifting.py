"""Whose traffic keeps a namespace's router from being brought up to date."""

from typing import Any

import pytest
from tests.controller.clock import SteppedClock
from tests.controller.objects import endpoint

from sluice.api import names
from sluice.controller.cache import Cache, Source
from sluice.controller.sites import shifting

NOW = SteppedClock().now().isoformat()
CREATES = {"operation": "CreateEndpoint", "revision": "churn-1", "time": NOW}
EDITS = {"operation": "UpdateEndpointWeightsAndCapacities", "time": NOW}
BAKES = {"revision": "churn-2", "stage": "Baking"}


def _other(cache: Cache, status: dict[str, Any], *, serving: str = "True") -> str:
    """What Endpoint churn is told of another one."""
    item = endpoint("fraud", status={**status, "conditions": [{"type": "Serving", "status": serving}]})
    item["spec"]["backend"] = names.BACKEND_CLUSTER
    cache.apply(item, Source.WATCH)
    return shifting(cache)("team", "churn")


@pytest.fixture
def cache() -> Cache:
    return Cache()


@pytest.mark.parametrize("status", [{"deployment": BAKES}, {"intent": EDITS}, {"deployment": BAKES, "intent": EDITS}])
def test_a_deployment_and_an_edit_of_weights_move_traffic(cache: Cache, status: dict[str, Any]) -> None:
    assert _other(cache, status) == "fraud"
    assert shifting(cache)("team", "fraud") == "", "of others"
    assert shifting(cache)("team-b", "churn") == ""


def test_a_creation_moves_nobodys_traffic(cache: Cache) -> None:
    """Also one that failed, which may stand for months."""
    assert _other(cache, {"intent": CREATES, "endpointStatus": "Creating"}, serving="False") == ""
    assert _other(cache, {"intent": CREATES, "endpointStatus": "Failed"}, serving="False") == ""
    assert _other(cache, {"intent": CREATES}) == "", "whatever its conditions say"


def test_who_answers_nobody_moves_nobodys_traffic(cache: Cache) -> None:
    """No router is ready: the deployment waits for one, and the router must not wait for the deployment."""
    assert _other(cache, {"deployment": BAKES}, serving="False") == ""


def test_a_status_without_conditions_is_believed(cache: Cache) -> None:
    item = endpoint("fraud", status={"deployment": BAKES})
    item["spec"]["backend"] = names.BACKEND_CLUSTER
    cache.apply(item, Source.WATCH)
    assert shifting(cache)("team", "churn") == "fraud"
