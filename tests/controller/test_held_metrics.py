"""How many deployments the limits keep from starting, and how many routers wait for another one, as Prometheus sees
it."""

from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from tests.controller.clock import SteppedClock
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import reach

from sluice.api.reasons import Reason
from sluice.controller.cluster_metrics import ClusterMetrics
from sluice.core.cluster.observation import ClusterObservation, RouterDeployment
from sluice.core.cluster.peers import Bounds, ImageRollback, Peer
from sluice.core.identity import Key

KEY, OTHER = Key("Endpoint", "team-a", "churn"), Key("Endpoint", "team-a", "other")


class Shown:
    """The metric, as it is scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = ClusterMetrics(self.registry, SteppedClock())

    def held(self, reason: Reason, namespace: str = "team-a") -> float | None:
        labels = {"namespace": namespace, "reason": str(reason)}
        return self.registry.get_sample_value("sluice_deployments_held", labels)

    def routers_held(self, by: str) -> float | None:
        return self.registry.get_sample_value("sluice_routers_held", {"by": by})


@pytest.fixture
def shown() -> Shown:
    return Shown()


def in_service(bounds: Bounds) -> ClusterStage:
    stage = ClusterStage(deploymentConfig=blue_green())
    stage.settings = type(stage.settings)(bounds=bounds)
    stage.in_service()
    return stage


def test_who_waits_for_its_turn_is_counted_until_it_starts(shown: Shown) -> None:
    stage = in_service(Bounds(deployments=1))
    stage.peers = (Peer("team-b", "busy", deploying=True),)
    shown.metrics.decided(KEY, stage.status)
    assert shown.held(Reason.DEPLOYMENT_QUEUED) is None
    stage.image("new:1")
    stage.until("DeploymentQueued", type_="Reconciling")
    shown.metrics.decided(KEY, stage.status)
    shown.metrics.decided(OTHER, stage.status)
    assert shown.held(Reason.DEPLOYMENT_QUEUED) == 2
    assert shown.held(Reason.IMAGE_BRAKED) is None
    shown.metrics.forget(OTHER)
    assert shown.held(Reason.DEPLOYMENT_QUEUED) == 1
    stage.peers = ()
    reach(stage, "Provisioning")
    shown.metrics.decided(KEY, stage.status)
    assert shown.held(Reason.DEPLOYMENT_QUEUED) is None


def test_whom_the_brake_holds_is_counted(shown: Shown) -> None:
    stage = in_service(Bounds(rollbacks_of_one_image=1))
    moment = stage.now + timedelta(seconds=30)
    stage.peers = (Peer("team-b", "failed", rollbacks=(ImageRollback(frozenset({"bad:1"}), moment),)),)
    stage.image("bad:1")
    stage.until("ImageBraked", type_="Stalled")
    shown.metrics.decided(KEY, stage.status)
    assert shown.held(Reason.IMAGE_BRAKED) == 1
    stage.image("good:1")
    reach(stage, "Provisioning")
    shown.metrics.decided(KEY, stage.status)
    assert shown.held(Reason.IMAGE_BRAKED) is None


def test_namespaces_whose_routers_wait_are_counted_by_the_one_that_they_wait_for(shown: Shown) -> None:
    waits = ClusterObservation(router=RouterDeployment(exists=True, held="it is being replaced", held_by="team-z"))
    shifts = ClusterObservation(router=RouterDeployment(exists=True, held="Endpoint fraud shifts traffic"))
    elsewhere = Key("Endpoint", "team-b", "churn")
    for key in (KEY, OTHER, elsewhere):
        shown.metrics.saw(key, waits)
    shown.metrics.saw(Key("Endpoint", "team-c", "churn"), shifts)
    assert shown.routers_held("team-z") == 2
    assert shown.routers_held("") is None
    shown.metrics.saw(KEY, ClusterObservation())
    assert shown.routers_held("team-z") == 2, "another Endpoint of the namespace has not looked since"
    shown.metrics.forget(OTHER)
    assert shown.routers_held("team-z") == 1
    shown.metrics.saw(elsewhere, ClusterObservation())
    assert shown.routers_held("team-z") is None
