"""What routers' reports mean: who has newer routes, starts, stops, or sees nobody, and what goes on then."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.core.cluster_stage import ClusterStage, Router, blue_green
from tests.core.watched import images_of, reach, watched

from sluice.core.cluster import routers
from sluice.core.cluster.actions import EvictRouter
from sluice.core.cluster.observation import ClusterObservation, RouterSeen


def in_service() -> ClusterStage:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    return stage


def told(router: RouterSeen, **changes: object) -> RouterSeen:
    """A router whose report of the routes says this instead."""
    assert router.report is not None
    [found] = router.report.routes
    routes = (found.model_copy(update=changes),)
    return replace(router, report=router.report.model_copy(update={"routes": routes}))


def test_a_router_that_has_newer_routes_than_were_seen_is_not_behind() -> None:
    """What was seen of the routes may be older than what routers were told."""
    stage = in_service()
    seen = stage.observe()
    assert seen.route is not None
    ahead = told(seen.routers[0], generation=seen.route.generation + 1)
    seen = replace(seen, routers=(ahead, *seen.routers[1:]))
    assert routers.advance(seen).done
    assert routers.destroy(seen, ["the-fleet-that-went"], stage.now).done
    later = stage.now + timedelta(seconds=600)
    assert routers.to_evict(seen, later, since=stage.now, rolling_back=True, longest_seconds=60) is None


def test_a_shadow_that_the_routes_name_does_not_go() -> None:
    stage = ClusterStage()
    variant = {"variantName": "s", "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 1}
    stage.edit("EndpointConfig", shadowProductionVariants=[variant])
    stage.in_service()
    [shadow] = [fleet.name for fleet in stage.cluster.fleets.values() if fleet.variant == "s"]
    found = routers.destroy(stage.observe(), [shadow], stage.now)
    assert (found.done, found.waiting_for) == (False, f"the routes to let go of {shadow}")


def test_a_router_on_a_lost_node_is_given_the_time_that_it_may_take_to_stop() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.in_service()
    lost = stage.cluster.routers[0]
    lost.ready, lost.frozen, lost.terminating = False, True, True
    lost.stops_by = stage.now + timedelta(seconds=60)
    stage.image("good:2")
    stage.run(70)
    assert images_of(stage) == ["good:2", "repo/churn:1"], "it may still send"
    stage.run(15)
    assert images_of(stage) == ["good:2"]


def test_one_router_that_sees_no_pod_does_not_speak_for_those_that_do() -> None:
    stage = in_service()
    seen = stage.observe()
    [name] = stage.cluster.fleets

    def blind(router: RouterSeen) -> RouterSeen:
        assert router.report is not None
        fleets = tuple(f.model_copy(update={"healthy": 0}) for f in router.report.routes[0].fleets)
        return told(router, fleets=fleets)

    first, second = seen.routers
    one, all_ = replace(seen, routers=(blind(first), second)), replace(seen, routers=(blind(first), blind(second)))
    assert (routers.sees_none(one, name), routers.unanswered(one)) == (False, "")
    assert (routers.sees_none(all_, name), routers.unanswered(all_)) == (True, "no fleet with traffic has a ready pod")


def test_while_a_deployment_runs_serving_is_not_true_of_pods_that_no_router_finds() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=600))
    stage.in_service()
    stage.image("good:2")
    reach(stage, "Baking", 1)
    for fleet in stage.cluster.fleets.values():
        fleet.reachable = False
    stage.step()
    assert stage.condition("Serving")[0] == "False"
    stage.step()
    assert stage.condition("Serving")[0] == "True"


def test_a_router_that_never_got_to_say_anything_is_not_evicted_again_and_again() -> None:
    """Its image cannot be pulled: evicting it only makes another that cannot start."""
    stage = in_service()
    stage.cluster.routers.append(Router("starting", "starting", stage.now, starts=True))
    for _ in range(40):
        stage.step(10)
        assert not any(isinstance(action, EvictRouter) for action in stage.actions)
    assert stage.condition("Ready")[0] == "True"


def test_the_only_router_is_not_evicted_for_requests_that_never_end() -> None:
    stage = in_service()
    stuck = stage.cluster.routers[0]
    stuck.busy = frozenset({"the-fleet-that-went"})
    later = stage.now + timedelta(seconds=1000)

    def evicted(seen: ClusterObservation) -> str | None:
        gone = routers.to_evict(seen, later, since=stage.now, rolling_back=False, longest_seconds=480)
        return gone.pod if gone is not None else None

    assert evicted(stage.observe()) == stuck.pod
    stage.cluster.routers = [stuck]
    assert evicted(stage.observe()) is None


def test_where_requests_of_all_routers_never_end_one_goes_at_a_time() -> None:
    """Both held the clean-up up for ever, each because of the other."""
    stage = in_service()
    assert len(stage.cluster.routers) == 2
    for router in stage.cluster.routers:
        router.busy = frozenset({"the-fleet-that-went"})
    later = stage.now + timedelta(seconds=1000)
    seen = stage.observe()
    first = routers.to_evict(seen, later, since=stage.now, rolling_back=False, longest_seconds=480)
    assert first is not None
    gone = replace(seen, routers=tuple(replace(r, terminating=r.pod == first.pod) for r in seen.routers))
    assert routers.to_evict(gone, later, since=stage.now, rolling_back=False, longest_seconds=480) is None, (
        "the last one that answers stays until another is there"
    )


@pytest.mark.parametrize("back", [False, True])
def test_a_router_that_no_node_has_room_for_holds_up_no_clean_up(back: bool) -> None:
    """Where the old fleet has the room, the router would wait for it to go, and it for the router."""
    stage = watched(blue_green(wait=10, final=10))
    stage.cluster.routers.append(Router("pending", "pending", stage.now, ready=False, starts=True, never_ran=True))
    stage.image("two:1")
    reach(stage, "FinalBaking")
    if back:
        stage.alarms["errors"].state = "ALARM"
    reach(stage, "RollingBack" if back else "CleaningUp")
    stage.run(5)
    assert len(stage.cluster.fleets) == 2, "one that has just been made may be there in a moment"
    stage.step(routers.START_SECONDS + 1)
    for _ in range(30):
        stage.step()
        assert not any(isinstance(action, EvictRouter) for action in stage.actions), "that brings no room"
    assert stage.status.deployment is None
    assert len(stage.cluster.fleets) == 1


def test_a_router_that_has_run_holds_it_up_however_long_it_does_not_now() -> None:
    stage = in_service()
    crashed = Router("crashed", "crashed", stage.now, ready=False, starts=True)
    stage.cluster.routers.append(crashed)
    stage.step(routers.START_SECONDS + 1)
    assert not routers.destroy(stage.observe(), ("a-fleet-that-went",), stage.now).done
    crashed.never_ran = True
    assert routers.destroy(stage.observe(), ("a-fleet-that-went",), stage.now).done


def test_a_router_that_does_not_follow_goes_before_one_that_no_node_has_room_for() -> None:
    stage = in_service()
    seen = stage.observe()
    follows, behind = seen.routers[0], replace(seen.routers[1], report=None)
    pending = RouterSeen("a-pending", "p", ready=False, terminating=False, since=stage.now, never_ran=True)
    seen = replace(seen, routers=(pending, behind, follows))
    later = stage.now + timedelta(seconds=routers.START_SECONDS + 1)
    late = routers.to_evict(seen, later, since=stage.now, rolling_back=False, longest_seconds=480)
    assert late is not None
    assert late.pod == behind.pod
