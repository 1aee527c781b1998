"""A router that an Endpoint of its own namespace keeps from being brought up to date is told of: in the log once that
lasts long, and as a metric at once."""

import logging
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from tests.controller.clock import SteppedClock
from tests.controller.objects import endpoint
from tests.controller.test_cluster_site import Nodes
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import reach

from sluice.api import names
from sluice.controller.cache import Cache, Source
from sluice.controller.cluster_metrics import ClusterMetrics
from sluice.controller.router_holds import LONG_SECONDS
from sluice.controller.sites import ClusterSite
from sluice.controller.slots import Slots
from sluice.controller.wakes import Wakes
from sluice.core.cluster.observation import ClusterObservation, RouterDeployment
from sluice.core.cluster.peers import Bounds
from sluice.core.endpoint.draft import Pass
from sluice.core.identity import Key
from sluice.core.observation import Observation, Presence

KEY = Key(names.ENDPOINT, "team-a", "churn")
HELD = RouterDeployment(exists=True, complete=True, held="Endpoint fraud shifts traffic")


class Place:
    """Endpoint churn, whose router is outdated, and its site."""

    def __init__(self) -> None:
        self.stage = ClusterStage(deploymentConfig=blue_green("CANARY"))
        self.stage.in_service()
        self.clock, self.cache, self.registry = SteppedClock(), Cache(), CollectorRegistry()
        self.seen = replace(self.stage.observe(), router=HELD)
        self.site = ClusterSite(
            Nodes(self.stage, None),
            self.cache,
            self.clock,
            Wakes(self.cache, lambda key: None, lambda key, seconds: None),
            Slots(self.cache, Bounds(), lambda key: None),
            ClusterMetrics(self.registry, self.clock),
        )

    def fraud(self, *, deploys: bool) -> None:
        item = endpoint("fraud", namespace="team-a", status={"deployment": {"stage": "Baking"}} if deploys else {})
        item["spec"]["backend"] = names.BACKEND_CLUSTER
        self.cache.apply(item, Source.WATCH)

    def a_pass(self, seen: ClusterObservation | None = None, key: Key = KEY) -> None:
        """One that decides what its status says already."""
        given = Pass(
            endpoint=self.stage.endpoint,
            status=self.stage.status,
            resolution=self.stage.resolution(),
            observation=Observation(Presence.DESCRIBED, self.clock.now()),
            now=self.clock.now(),
            cluster=seen or self.seen,
        )
        self.site.decided(key, given, self.stage.status)

    def passes(self, seconds: float) -> None:
        for _ in range(int(seconds) // 10):
            self.clock.skip(10)
            self.a_pass()

    def shown(self) -> dict[str, float]:
        """Endpoint -> how many routers it keeps."""
        return {
            sample.labels["name"]: sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "sluice_routers_held_by_endpoint"
        }


@pytest.fixture
def place() -> Place:
    return Place()


def test_another_endpoint_that_holds_the_router_is_named(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sluice.controller")
    place.fraud(deploys=True)
    place.passes(LONG_SECONDS)
    assert (place.shown(), caplog.messages) == ({"fraud": 1}, [])
    place.passes(300)
    [message] = caplog.messages
    assert "the router of namespace team-a" in message
    assert "Endpoint fraud" in message
    assert "kubectl describe endpoints.sluice.dev -n team-a fraud" in message


def test_so_is_one_that_holds_it_itself(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """As one whose rollback failed, alone in its namespace: for months."""
    place.stage.image("two:1")
    reach(place.stage, "Baking")
    place.seen = replace(place.seen, router=replace(HELD, held=""))
    place.passes(LONG_SECONDS + 60)
    assert place.shown() == {"churn": 1}
    assert "Endpoint churn" in caplog.text


def test_a_hold_that_ends_is_forgotten_and_the_next_one_is_another_time(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.fraud(deploys=True)
    for lasts in (LONG_SECONDS - 60, LONG_SECONDS + 60):
        place.passes(lasts)
        place.a_pass(replace(place.seen, router=replace(HELD, current=True)))
        assert place.shown() == {}
    assert len(caplog.messages) == 1


def test_it_lasts_as_long_as_one_of_the_namespace_sees_it(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.fraud(deploys=True)
    other = Key(names.ENDPOINT, "team-a", "third")
    for _ in range(int(LONG_SECONDS) // 10 + 2):
        place.clock.skip(10)
        place.a_pass()
        place.a_pass(key=other)
    place.site.forget(KEY)
    place.a_pass(key=other)
    assert (place.shown(), len(caplog.messages)) == ({"fraud": 1}, 1)
    place.site.forget(other)
    assert place.shown() == {}


@pytest.mark.parametrize(
    "router",
    [
        replace(HELD, current=True),
        replace(HELD, held="the router of namespace team-z is being replaced", held_by="team-z"),
        replace(HELD, held=""),
        RouterDeployment(exists=False),
    ],
    ids=["current", "another namespace's turn", "free", "none"],
)
def test_nothing_else_is_told_here(place: Place, router: RouterDeployment) -> None:
    place.fraud(deploys=True)
    place.a_pass(replace(place.seen, router=router))
    assert place.shown() == {}


def test_without_a_router_that_is_ready_nobody_holds_it(place: Place) -> None:
    place.fraud(deploys=True)
    place.a_pass(replace(place.seen, routers=()))
    assert place.shown() == {}


def test_a_pass_that_could_not_look_says_nothing_about_it(place: Place) -> None:
    place.fraud(deploys=True)
    place.a_pass()
    given = Pass(
        endpoint=place.stage.endpoint,
        status=place.stage.status,
        resolution=place.stage.resolution(),
        observation=Observation(Presence.UNKNOWN, place.clock.now()),
        now=place.clock.now(),
    )
    place.site.decided(KEY, given, place.stage.status)
    assert place.shown() == {"fraud": 1}
