"""An Endpoint's creation and its deletion at their edges: whose the name is, failures, and what cannot be drained."""

from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, Router

from sluice.api.status import EndpointStatus
from sluice.core.cluster.actions import DeleteFleet, WriteRoute

OLDER, YOUNGER = "2025-12-31T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("created", "status", "taken"),
    [
        (OLDER, {}, True),
        (YOUNGER, {}, False),
        (YOUNGER, {"revision": {"name": "churn-1"}}, True),
        (YOUNGER, {"intent": {"operation": "CreateEndpoint"}}, True),
    ],
    ids=["elder", "younger", "serves", "began"],
)
def test_a_name_is_who_serves_it_or_else_the_elders(created: str, status: dict[str, Any], taken: bool) -> None:
    stage = ClusterStage()
    rival = {"metadata": {"name": "other", "creationTimestamp": created}, "status": status}
    for _ in range(3):
        stage.step(rivals=(rival,))
    assert (stage.condition("Stalled") == ("True", "NameConflict")) is taken
    assert bool(stage.cluster.fleets) is not taken


def _failed() -> ClusterStage:
    """A creation whose pods did not get ready in time."""
    stage = ClusterStage()
    stage.image("bad:1")
    stage.run(5)
    stage.step(1400)
    stage.until("CreationFailed", type_="Stalled")
    return stage


def test_a_creation_that_failed_is_told_once() -> None:
    stage = _failed()
    told = stage.status.history
    stage.run(10)
    assert stage.status.history == told
    assert len(told) == 1


def test_retry_waits_anew_for_the_fleets_of_a_creation_that_failed() -> None:
    stage = _failed()
    assert stage.status.endpoint_status == "Failed"
    fleets = set(stage.cluster.fleets)
    stage.annotate(retry="1")
    stage.step()
    assert stage.status.endpoint_status == "Creating"
    stage.run(100)
    assert (stage.status.endpoint_status, set(stage.cluster.fleets)) == ("Creating", fleets)
    for fleet in stage.cluster.fleets.values():
        fleet.image = "mended:1"
    stage.in_service()


def test_a_drain_has_a_deadline_although_the_status_was_lost() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.delete()
    stage.status = EndpointStatus()
    deleted_after = 0
    for second in range(200):
        stage.tick(1)
        stage.cluster.routers = [Router(r.pod, r.uid, r.born, frozen=True) for r in stage.cluster.routers]
        stage.step(0)
        if any(isinstance(action, DeleteFleet) for action in stage.actions):
            deleted_after = second
            break
    assert 60 <= deleted_after <= 100


def test_in_a_namespace_that_is_going_no_routes_are_written() -> None:
    """Nothing new can be made there: it would be refused until somebody took the finalizer off by hand."""
    stage = ClusterStage()
    stage.in_service()
    stage.cluster.route = None
    stage.namespace_terminating = True
    stage.delete()
    for _ in range(12):
        stage.step()
        assert not any(isinstance(action, WriteRoute) for action in stage.actions)
        if stage.gone:
            break
    assert stage.gone
