"""Endpoints in the cluster as decisions: creation, live edits, deployments, rollback, deletion, lost status."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.core.cluster_stage import ClusterStage, Router, blue_green

from sluice.api.status import EndpointStatus
from sluice.core.cluster.actions import DeleteFleet, EnsureFleet, EnsureRouter, ScaleFleet, WriteRoute
from sluice.core.cluster.observation import PodTrouble
from sluice.core.cluster.routers import HEARD_OF_SECONDS, unheard_of


def _by_type(stage: ClusterStage, type_: type) -> list[object]:
    return [action for action in stage.actions if isinstance(action, type_)]


def test_created_it_serves_when_pods_are_ready_and_routers_have_confirmed() -> None:
    stage = ClusterStage({"variantName": "a", "initialVariantWeight": 2}, {"variantName": "b"})
    stage.step()
    assert stage.endpoint["metadata"]["finalizers"], "the finalizer comes before anything is made"
    assert not stage.cluster.fleets
    stage.step()
    assert stage.status.endpoint_status == "Creating"
    assert len(stage.cluster.fleets) == 2
    stage.in_service()
    assert stage.status.endpoint_status == "InService"
    assert [f.weight for f in stage.cluster.route.spec.fleets] == [666667, 333333]  # type: ignore[union-attr]
    assert all(r.applied for r in stage.cluster.routers)
    assert [v.current_weight for v in stage.status.production_variants] == [2, 1]
    assert stage.status.address == "http://sluice-router.team-a.svc:8080/endpoints/churn/invocations"


def test_not_ready_before_a_router_is() -> None:
    stage = ClusterStage()
    stage.step()
    stage.step()
    stage.cluster.routers = []
    stage.cluster.router_exists = True
    for _ in range(30):
        stage.step()
        for router in stage.cluster.routers:
            router.ready = False
    assert stage.status.endpoint_status == "Creating"
    assert stage.condition("Ready") == ("False", "WaitingForRouters")


def test_not_ready_before_the_nodes_have_heard_of_a_router() -> None:
    """kube-proxy refuses callers of a Service until it knows a pod that is ready."""
    stage = ClusterStage()
    while not any(router.applied for router in stage.cluster.routers):
        stage.step()
        for router in stage.cluster.routers:
            router.readiness_since = stage.now + timedelta(seconds=1)
    stage.cluster.start_seconds = 0.0
    stage.step()
    assert stage.status.endpoint_status == "Creating"
    assert stage.condition("Ready") == ("False", "WaitingForRouters")
    assert "the nodes to hear of a ready router" in stage.message("Reconciling")
    assert stage.decision.look_again is not None
    assert stage.decision.look_again <= stage.now + timedelta(seconds=HEARD_OF_SECONDS)
    stage.step(HEARD_OF_SECONDS)
    assert stage.status.endpoint_status == "InService"
    for router in stage.cluster.routers:
        router.readiness_since = stage.now
    stage.step(0.5)
    assert stage.condition("Ready")[0] == "True", "routers that come later take nothing back"


@pytest.mark.parametrize(("ago", "waits"), [(0.0, 3.0), (1.0, 2.0), (3.0, 0.0), (-1.0, 4.0), (-3600.0, 0.0)])
def test_one_router_that_the_nodes_know_is_enough(ago: float, waits: float) -> None:
    """A node's clock may be a little ahead of the operator's; one that is far ahead tells nothing."""
    stage = ClusterStage()
    stage.in_service()
    first, *others = stage.cluster.routers
    for router in others:
        router.readiness_since = stage.now
    first.readiness_since = stage.now - timedelta(seconds=ago)
    others_wait = HEARD_OF_SECONDS if others else waits
    assert unheard_of(stage.observe(), stage.now) == min(waits, others_wait)


def test_a_fleet_that_never_gets_ready_fails_in_time_and_serves_if_it_does_after_all() -> None:
    stage = ClusterStage()
    stage.image("bad:1")
    stage.run(3)
    assert stage.status.endpoint_status == "Creating"
    stage.step(900 + 480)
    assert stage.status.endpoint_status == "Failed"
    assert "not ready in time" in (stage.status.failure_reason or "")
    assert stage.condition("Stalled") == ("True", "CreationFailed")
    next(iter(stage.cluster.fleets.values())).image = "good:1"
    stage.in_service()
    assert stage.status.failure_reason is None


def test_a_failure_that_repeats_fails_the_creation_at_once_in_words() -> None:
    stage = ClusterStage()
    text = "failed to download model data from s3://b/k: AccessDenied"
    stage.cluster.troubles["denied:1"] = PodTrouble("ModelDataFailed", text, 2, final=True)
    stage.image("denied:1")
    stage.run(4)
    assert stage.status.endpoint_status == "Failed"
    assert text in (stage.status.failure_reason or "")
    assert "2 pods" in (stage.status.failure_reason or "")


def test_any_change_of_the_spec_makes_new_fleets_while_it_never_served() -> None:
    stage = ClusterStage()
    stage.image("bad:1")
    stage.run(4)
    stage.image("good:1")
    stage.in_service()
    stage.run(10)
    assert [fleet.image for fleet in stage.cluster.fleets.values()] == ["good:1"]


@pytest.mark.parametrize("reason", ["Unschedulable", "ImagePull", "CrashLoop", "PingFailing", "Quota"])
def test_what_blocks_pods_is_said_while_creating(reason: str) -> None:
    stage = ClusterStage()
    stage.cluster.troubles["bad:1"] = PodTrouble(reason, "0/3 nodes have nvidia.com/gpu", 1)
    stage.image("bad:1")
    stage.run(5)
    assert "nvidia.com/gpu" in stage.message()
    assert stage.condition("Reconciling")[0] == "True"


def test_weights_are_edited_live_without_a_new_fleet() -> None:
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"})
    stage.in_service()
    before = dict(stage.cluster.fleets)
    stage.edit_variant("a", initialVariantWeight=3)
    stage.step()
    assert stage.status.endpoint_status == "Updating"
    assert _by_type(stage, WriteRoute)
    stage.in_service()
    assert [f.weight for f in stage.cluster.route.spec.fleets] == [750000, 250000]  # type: ignore[union-attr]
    assert dict(stage.cluster.fleets) == before
    assert stage.status.deployment is None
    assert [v.current_weight for v in stage.status.production_variants] == [3, 1]


def test_counts_are_edited_live_and_a_scaler_is_not_fought() -> None:
    stage = ClusterStage()
    stage.in_service()
    [fleet] = stage.cluster.fleets.values()
    fleet.replicas = 7
    stage.run(20)
    assert fleet.replicas == 7, "a count that somebody else changed is shown, not corrected"
    assert stage.status.production_variants[0].desired_instance_count == 7
    stage.edit_variant("a", initialInstanceCount=3)
    stage.step()
    assert _by_type(stage, ScaleFleet) == [ScaleFleet(fleet.name, 3)]
    stage.in_service()
    assert fleet.replicas == 3
    assert not _by_type(stage, EnsureFleet)


def test_a_lost_scale_write_is_made_again() -> None:
    stage = ClusterStage()
    stage.in_service()
    [fleet] = stage.cluster.fleets.values()
    stage.edit_variant("a", initialInstanceCount=5)
    stage.step()
    fleet.replicas = 2  # killed between persisting and acting
    stage.in_service()
    assert fleet.replicas == 5


def test_a_fleet_that_somebody_deleted_is_made_again() -> None:
    stage = ClusterStage()
    stage.in_service()
    [name] = stage.cluster.fleets
    del stage.cluster.fleets[name]
    stage.step()
    assert stage.condition("Ready")[0] == "False"
    assert stage.condition("Serving")[0] == "False"
    assert stage.status.endpoint_status == "OutOfService"
    stage.in_service()
    assert list(stage.cluster.fleets) == [name]


def test_ready_is_not_true_while_a_variant_with_weight_has_no_pod() -> None:
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"})
    stage.in_service()
    fleet = next(f for f in stage.cluster.fleets.values() if f.variant == "b")
    stage.cluster.troubles["b:1"] = PodTrouble("CrashLoop", "exit code 1: out of memory", 2)
    fleet.image = "b:1"
    stage.step()
    assert stage.condition("Ready") == ("False", "CrashLooping")
    assert "out of memory" in stage.message()
    assert stage.condition("Serving")[0] == "True", "the other variant serves"


def test_pods_that_run_another_image_get_no_requests() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    [fleet] = stage.cluster.fleets.values()
    assert fleet.record is not None
    fleet.strangers = ("churn-a-xyz",)
    stage.step()
    assert stage.cluster.route.spec.fleets[0].excluded_pods == ("churn-a-xyz",)  # type: ignore[union-attr]
    assert stage.condition("ImageDrift")[0] == "True"
    stage.in_service()
    assert stage.condition("Ready")[0] == "True", "drift tells something and never affects Ready"


# Deletion and lost status -------------------------------------------------------------------------------------------


def test_deleted_it_drains_before_pods_stop() -> None:
    stage = ClusterStage()
    stage.in_service()
    [name] = stage.cluster.fleets
    stage.cluster.routers[0].busy = frozenset({name})
    stage.delete()
    stage.run(20)
    assert name in stage.cluster.fleets, "a request is still running"
    assert stage.cluster.route is not None
    assert stage.cluster.route.spec.fleets == ()
    stage.cluster.routers[0].busy = frozenset()
    stage.run(20)
    assert stage.gone
    assert not stage.cluster.fleets
    assert stage.cluster.route is None
    assert not stage.cluster.router_exists
    assert not stage.revisions


def test_a_drain_has_a_deadline() -> None:
    stage = ClusterStage()
    stage.in_service()
    for router in stage.cluster.routers:
        router.frozen = True
    stage.delete()
    stage.step()
    assert not _by_type(stage, DeleteFleet)
    deleted_after = 0
    for second in range(200):
        stage.tick(1)
        stage.cluster.routers = [Router(r.pod, r.uid, r.born, frozen=True) for r in stage.cluster.routers]
        stage.step(0)
        if _by_type(stage, DeleteFleet):
            deleted_after = second
            break
    assert 60 <= deleted_after <= 100


def test_the_router_stays_for_the_neighbours() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.cluster.neighbours = 1
    stage.delete()
    stage.run(30)
    assert stage.gone
    assert stage.cluster.router_exists


def test_a_namespace_that_is_going_needs_no_drain() -> None:
    stage = ClusterStage()
    stage.in_service()
    for router in stage.cluster.routers:
        router.frozen = True
    stage.namespace_terminating = True
    stage.delete()
    stage.run(12)
    assert stage.gone


def test_retained_it_goes_on_serving() -> None:
    stage = ClusterStage(deletionPolicy="Retain")
    stage.in_service()
    fleets, route = dict(stage.cluster.fleets), stage.cluster.route
    stage.delete()
    stage.run(5)
    assert stage.gone
    assert stage.retained, "the sweep of orphans must know"
    assert stage.cluster.fleets == fleets
    assert route is not None
    assert stage.cluster.route == replace(route, retained=True)


def test_a_retained_route_that_is_taken_on_again_unchanged_loses_its_mark() -> None:
    stage = ClusterStage(deletionPolicy="Retain")
    stage.in_service()
    route = stage.cluster.route
    assert route is not None
    stage.delete()
    stage.run(5)
    stage.make_again()
    stage.in_service()
    stage.run(3)
    assert stage.cluster.route is not None
    assert not stage.cluster.route.retained, "else the sweep of orphans would spare it for ever"
    assert (stage.cluster.route.spec, stage.cluster.route.generation) == (route.spec, route.generation)


def test_a_lost_status_is_recovered_from_what_stands() -> None:
    stage = ClusterStage({"variantName": "a", "initialVariantWeight": 2}, {"variantName": "b"})
    stage.in_service()
    before = dict(stage.cluster.fleets)
    route = stage.cluster.route
    stage.status = EndpointStatus()
    stage.in_service()
    stage.run(10)
    assert dict(stage.cluster.fleets) == before
    assert stage.cluster.route == route, "nothing is written for it"


def test_a_status_lost_in_mid_canary_serves_what_served() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=600))
    stage.in_service()
    [old] = stage.cluster.fleets
    stage.image("new:1")
    for _ in range(100):
        stage.step()
        if stage.status.deployment and stage.status.deployment.stage == "Baking":
            break
    stage.status = EndpointStatus()
    stage.step()
    assert stage.status.revision is not None
    assert old in stage.cluster.fleets
    stage.run(900)
    stage.in_service()
    assert [f.image for f in stage.cluster.fleets.values()] == ["new:1"]


def test_a_latch_survives_a_lost_status() -> None:
    stage = ClusterStage(deploymentConfig=blue_green())
    stage.in_service()
    stage.cluster.troubles["broken:1"] = PodTrouble("CrashLoop", "exit code 1", 2, final=True)
    stage.image("broken:1")
    stage.until("RolledBack", type_="Stalled")
    stage.run(5)
    stage.status = EndpointStatus()
    stage.run(100)
    assert stage.condition("Stalled") == ("True", "RolledBack")


def test_writing_is_off() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.annotate(reconcile="disabled")
    stage.edit_variant("a", initialInstanceCount=5)
    stage.run(5)
    assert not stage.actions
    assert stage.condition("Stalled") == ("True", "ReconcileDisabled")
    assert "ScaleFleet" in stage.message("Stalled")


def test_steady_means_no_action_and_no_write() -> None:
    stage = ClusterStage({"variantName": "a"}, {"variantName": "A"})
    stage.in_service()
    stage.run(5)
    status = stage.status
    for _ in range(20):
        stage.step(30)
        assert not stage.actions
        assert stage.status == status


def test_a_settled_change_waits_for_others() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.image("new:1")
    stage.step()
    assert stage.condition("Reconciling") == ("True", "Settling")
    assert stage.decision is not None
    assert stage.decision.look_again is not None
    assert stage.decision.look_again <= stage.now + timedelta(seconds=5)


def test_the_router_is_replaced_only_while_nothing_shifts_and_nobody_else_rolls() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=600))
    stage.in_service()
    stage.router_outdated = "the router of namespace b is being replaced"
    stage.run(3)
    assert not any(action.update for action in stage.actions if isinstance(action, EnsureRouter))
    stage.image("new:1")
    for _ in range(100):
        stage.step()
        if stage.status.deployment and stage.status.deployment.stage == "Baking":
            break
    stage.router_outdated = ""
    stage.run(3)
    assert not any(action.update for action in stage.actions if isinstance(action, EnsureRouter)), "it shifts"
    stage.image("repo/churn:1")
    stage.in_service()
    stage.step()
    assert EnsureRouter(update=True) in stage.actions


def test_a_live_edit_is_stored_and_survives_its_objects() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    kubernetes = {"sampleInvocation": {"body": "{}"}}
    stage.edit("Model", primaryContainer={"image": "repo/churn:1"}, kubernetes=kubernetes)
    stage.edit_variant("a", kubernetes={"maxConcurrentRequestsPerInstance": 4})
    stage.in_service()
    stage.run(5)
    assert stage.status.deployment is None
    assert stage.cluster.route is not None
    [fleet] = stage.cluster.route.spec.fleets
    assert (fleet.sample.body if fleet.sample else None, fleet.max_requests_per_instance) == ("{}", 4)
    assert len(stage.revisions) == 2, "the one that was deployed, and the one that is in force"
    route = stage.cluster.route
    stage.objects.pop(("Model", "churn"))
    stage.run(5)
    assert stage.condition("Ready") == ("False", "MissingReference")
    assert stage.cluster.route == route, "it serves as it did"


def test_model_data_that_moved_is_a_condition_of_its_own_while_others_serve() -> None:
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"})
    stage.in_service()
    fleet = next(f for f in stage.cluster.fleets.values() if f.variant == "b")
    stage.cluster.troubles["moved:1"] = PodTrouble("SourceMoved", "s3://b/k: ETag 1 was recorded, found 2", 1)
    fleet.image = "moved:1"
    stage.step()
    assert stage.condition("SourceMoved")[0] == "True"
    assert "ETag 1 was recorded" in stage.message("SourceMoved")
    stage.cluster.troubles.clear()
    fleet.image = "repo/churn:1"
    stage.in_service()
    assert stage.condition("SourceMoved") == ("", "")


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        (1, "1 of 4 pods fail the sample invocation; they get no requests; at least half of the fleet stays in"),
        (2, "2 of 4 pods fail the sample invocation; they get no requests; at least half of the fleet stays in"),
        (3, "3 of 4 pods fail the sample invocation; as at least half of the fleet stays in, all of them get requests"),
    ],
)
def test_pods_in_service_that_fail_the_sample_invocation_are_told_with_how_many_stay(failing: int, said: str) -> None:
    kubernetes = {"sampleInvocation": {"body": "{}", "periodSeconds": 30}}
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4},
        {"variantName": "b"},
        model_spec={"kubernetes": kubernetes},
    )
    stage.in_service()
    assert stage.condition("SampleInvocationFailing") == ("", "")
    fleet = next(f for f in stage.cluster.fleets.values() if f.variant == "a")
    fleet.failing = failing
    stage.run(2)
    assert stage.condition("SampleInvocationFailing") == ("True", "SampleInvocationFailing")
    assert stage.message("SampleInvocationFailing").startswith(f"variant a: {said}")
    assert "variant b" not in stage.message("SampleInvocationFailing")
    assert stage.condition("Ready")[0] == "True", "the others answer"
    stage.cluster.sample_answer = "pod-7 answers 500: out of memory"
    stage.run(2)
    told = said.replace(" invocation;", " invocation (pod-7 answers 500: out of memory);")
    assert stage.message("SampleInvocationFailing").startswith(f"variant a: {told}")
    fleet.failing = 0
    stage.run(2)
    assert stage.condition("SampleInvocationFailing") == ("", "")


def test_without_a_sample_invocation_a_pod_that_a_router_ejected_is_no_condition() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4})
    stage.in_service()
    next(iter(stage.cluster.fleets.values())).failing = 1
    stage.run(2)
    assert stage.condition("SampleInvocationFailing") == ("", "")


def test_new_pods_that_are_asked_for_the_first_time_are_no_condition() -> None:
    stage = ClusterStage(model_spec={"kubernetes": {"sampleInvocation": {"body": "{}"}}})
    stage.in_service()
    stage.edit_variant("a", initialInstanceCount=3)
    stage.step()
    next(iter(stage.cluster.fleets.values())).failing = 1
    stage.run(20)
    assert stage.condition("SampleInvocationFailing") == ("", "")
    assert stage.condition("Ready") == ("False", "SampleInvocationFailed")
    stage.cluster.sample_answer = "pod-7 answers 500: out of memory"
    stage.run(2)
    assert "with status 200 within 5 s: pod-7 answers 500: out of memory" in stage.message()
