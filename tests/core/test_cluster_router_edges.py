"""Routers that are new, lost, deleted or see nobody: what Ready says then, and what goes on."""

from datetime import timedelta

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import images_of

from sluice.core.cluster.actions import EnsureFleet


def test_ready_is_not_true_without_a_router_that_answers() -> None:
    stage = ClusterStage()
    stage.in_service()
    for router in stage.cluster.routers:
        router.ready = False
    stage.step()
    assert stage.condition("Ready") == ("False", "WaitingForRouters")
    assert stage.message() == "waiting for a router to be ready"
    assert stage.condition("Serving")[0] == "False"
    for router in stage.cluster.routers:
        router.ready = True
    stage.step()
    assert stage.condition("Ready")[0] == "True"


def test_a_new_router_leaves_ready_as_it_was() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.cluster.routers[0].slow, stage.cluster.routers[0].applied = True, None
    stage.step()
    assert stage.condition("Ready")[0] == "True"
    assert stage.condition("Reconciling") == ("True", "WaitingForRouters")


def test_routes_that_somebody_deleted_are_written_and_confirmed_before_fleets_go() -> None:
    """A slow router still sends by the routes that were deleted."""
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=60))
    stage.in_service()
    stage.image("good:2")
    for _ in range(100):
        stage.step()
        if stage.stages and stage.stages[-1] == "Baking":
            break
    for router in stage.cluster.routers:
        router.slow = True
    stage.cluster.route = None
    stage.image("registry.example/churn:1")
    stage.edit("Model", primaryContainer=ClusterStage().objects["Model", "churn"]["spec"]["primaryContainer"])
    stage.run(4)
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "RollingBack"
    assert len(stage.cluster.fleets) == 2
    for router in stage.cluster.routers:
        router.slow = False
    stage.run(20)
    assert len(stage.cluster.fleets) == 1


def test_deleted_without_its_routes_the_routers_let_go_first() -> None:
    stage = ClusterStage()
    stage.in_service()
    for router in stage.cluster.routers:
        router.slow = True
    stage.cluster.route = None
    stage.delete()
    stage.run(3)
    assert all(fleet.gone_at is None for fleet in stage.cluster.fleets.values())
    for router in stage.cluster.routers:
        router.slow = False
    stage.run(20)
    assert stage.gone
    assert stage.cluster.route is None


def test_a_router_on_a_lost_node_holds_nothing_up_for_ever() -> None:
    """Kubelet is gone, so the pod stays Terminating for days."""
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.in_service()
    lost = stage.cluster.routers[0]
    lost.ready, lost.frozen, lost.terminating = False, True, True
    lost.stops_by = stage.now + timedelta(seconds=60)
    stage.image("good:2")
    stage.run(50)
    assert len(stage.cluster.fleets) == 2, "until it must have stopped it may send"
    stage.run(60)
    assert images_of(stage) == ["good:2"]
    assert stage.status.deployment is None


def test_a_router_that_is_lost_does_not_keep_another_from_being_evicted() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.in_service()
    stage.run(1)
    lost, frozen = stage.cluster.routers
    lost.ready, lost.frozen, lost.terminating, lost.stops_by = False, True, True, stage.now
    frozen.frozen = True
    stage.run(5)
    stage.image("good:2")
    stage.run(120)
    assert images_of(stage) == ["good:2"]


def test_a_fleet_that_no_router_finds_is_not_ready_and_gets_its_service_again() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    (fleet,) = stage.cluster.fleets.values()
    fleet.reachable = False
    stage.step()
    assert [type(action) for action in stage.actions] == [EnsureFleet]
    assert stage.condition("Ready")[0] == "False"
    stage.step()
    assert stage.condition("Ready")[0] == "True"


@pytest.mark.parametrize("sample", [None, {"body": "{}", "periodSeconds": 5}])
def test_ready_is_not_true_where_no_router_sees_a_pod_that_answers(sample: dict[str, object] | None) -> None:
    """/ping says that all is well; the sample invocation, or the EndpointSlices, say otherwise."""
    stage = ClusterStage(model_spec={"kubernetes": {"sampleInvocation": sample}} if sample else None)
    stage.in_service()
    stage.run(3)
    (fleet,) = stage.cluster.fleets.values()
    fleet.unseen = True
    stage.step()
    assert stage.condition("Ready") == ("False", "SampleInvocationFailed" if sample else "PingFailing")
    assert ("sample invocation" if sample else "no router sees one of them") in stage.message()
    assert stage.condition("Serving")[0] == "False"
    fleet.unseen = False
    stage.step()
    assert stage.condition("Ready")[0] == "True"
    assert stage.condition("Serving")[0] == "True"


def test_a_clean_up_ends_though_both_routers_say_for_ever_that_requests_run() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("ALL_AT_ONCE", final=5))
    stage.in_service()
    (old,) = stage.cluster.fleets
    first = {router.pod for router in stage.cluster.routers}
    for router in stage.cluster.routers:
        router.busy = frozenset({old})
    stage.image("good:2")
    stage.run(3000)
    assert stage.status.deployment is None
    assert images_of(stage) == ["good:2"]
    assert len(stage.cluster.routers) == 2
    assert not first & {router.pod for router in stage.cluster.routers}
