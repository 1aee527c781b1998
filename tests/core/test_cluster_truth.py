"""Ready and Serving of Endpoints in the cluster: neither is True while nobody answers, whatever else goes on."""

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import reach

from sluice.api.reasons import Reason
from sluice.core.observation import CallProblem


def served(**spec: object) -> ClusterStage:
    stage = ClusterStage(**spec)  # type: ignore[arg-type]
    stage.in_service()
    stage.run(5)
    return stage


def lose_all_pods(stage: ClusterStage) -> None:
    for fleet in stage.cluster.fleets.values():
        fleet.ready, fleet.image = 0, "bad:1"


def test_routers_that_do_not_follow_do_not_keep_ready_without_a_pod() -> None:
    stage = served()
    for router in stage.cluster.routers:
        router.slow = True
    for fleet in stage.cluster.fleets.values():
        fleet.strangers = ("pod-1",)  # new routes, for a pod that gets no requests
    stage.run(3)
    assert stage.condition("Ready")[0] == "True"
    assert stage.condition("Reconciling") == ("True", "WaitingForRouters")
    lose_all_pods(stage)
    stage.step()
    assert stage.condition("Ready") == ("False", "PingFailing")
    assert stage.condition("Serving")[0] == "False"


def test_trouble_on_the_way_to_the_api_server_does_not_keep_ready_without_a_pod() -> None:
    stage = served()
    stage.router_outdated = ""  # it is to be brought up to date, and that fails
    stage.step(killed_after=0)
    assert stage.actions
    away = CallProblem("EnsureRouter", Reason.UNREACHABLE, "a webhook timed out")
    stage.step(problem=away, killed_after=0)
    assert stage.condition("Ready")[0] == "True"
    assert stage.condition("Reconciling") == ("True", "Unreachable")
    lose_all_pods(stage)
    stage.step(0.2)
    assert not stage.actions, "the next attempt is still to come"
    assert stage.condition("Ready") == ("False", "Unreachable")
    assert "no ready pod of variant a" in stage.message()


@pytest.mark.parametrize("at", ["Provisioning", "Baking"])
def test_while_a_deployment_runs_serving_is_not_true_without_a_pod_or_a_router(at: str) -> None:
    stage = served(deploymentConfig=blue_green("CANARY", wait=600))
    stage.cluster.start_seconds = 60
    stage.image("good:2")
    reach(stage, at)
    stage.step()
    assert stage.condition("Serving") == ("True", "Updating")
    for router in stage.cluster.routers:
        router.ready = False
    stage.step()
    assert stage.condition("Serving")[0] == "False"
    assert "no router is ready" in stage.message("Serving")
    for router in stage.cluster.routers:
        router.ready = True
    lose_all_pods(stage)
    stage.step()
    assert stage.condition("Serving")[0] == "False"
    assert "no fleet with traffic has a ready pod" in stage.message("Serving")


def test_a_look_that_fails_leaves_serving_as_it_was() -> None:
    stage = served(deploymentConfig=blue_green("CANARY", wait=600))
    stage.image("good:2")
    reach(stage, "Baking")
    for alive in (False, True):
        for router in stage.cluster.routers:
            router.ready = alive
        stage.step()
        told = stage.condition("Serving"), stage.message("Serving")
        assert told[0] == (str(alive), "Updating")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage, "observe", lambda: None)
            stage.step(problem=CallProblem("ListFleets", Reason.UNREACHABLE, "no answer within 10 s"))
        assert stage.condition("Reconciling") == ("True", "Unreachable")
        assert (stage.condition("Serving"), stage.message("Serving")) == told


def test_a_deployment_that_ends_without_a_pod_is_not_ready_for_a_moment() -> None:
    stage = served(deploymentConfig=blue_green(final=0))
    stage.image("good:2")
    reach(stage, "CleaningUp")
    lose_all_pods(stage)
    for _ in range(60):
        stage.step()
        assert stage.condition("Ready")[0] == "False"
    assert stage.status.deployment is None
    assert stage.condition("Serving")[0] == "False"


def test_where_writing_is_off_serving_tells_the_truth_all_the_same() -> None:
    stage = served()
    stage.annotate(reconcile="disabled")
    lose_all_pods(stage)
    stage.cluster.routers.clear()
    stage.cluster.router_exists = False
    stage.step()
    assert stage.condition("Serving")[0] == "False"


def test_without_a_ready_router_the_endpoint_is_out_of_service() -> None:
    stage = ClusterStage()
    stage.in_service()
    for router in stage.cluster.routers:
        router.ready = False
    stage.step()
    assert stage.status.endpoint_status == "OutOfService"
    assert stage.condition("Serving")[0] == "False"
