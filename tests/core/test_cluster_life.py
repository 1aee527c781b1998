"""Endpoints in the cluster as decisions: creation, live edits, deployments, rollback, deletion, lost status."""

from datetime import timedelta

import pytest
from tests.core.cluster_stage import ClusterStage, Router, blue_green

from sluice.api.reasons import Cause, Outcome
from sluice.api.status import EndpointStatus
from sluice.core.cluster.actions import DeleteFleet, EnsureFleet, EnsureRouter, EvictRouter, ScaleFleet, WriteRoute
from sluice.core.cluster.observation import PodTrouble


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


# Deployments --------------------------------------------------------------------------------------------------------


def test_all_at_once_in_stages() -> None:
    stage = ClusterStage(deploymentConfig=blue_green())
    stage.in_service()
    stage.image("new:1")
    stage.in_service()
    assert stage.stages == ["Provisioning", "Shifting", "FinalBaking", "CleaningUp"]
    assert [fleet.image for fleet in stage.cluster.fleets.values()] == ["new:1"]
    last = stage.status.last_deployment
    assert last is not None
    assert last.outcome is Outcome.SUCCEEDED
    assert (last.end_time - last.start_time).total_seconds() >= 60 + 10  # type: ignore[operator]


@pytest.mark.parametrize(
    ("policy", "count", "percents"),
    [
        (blue_green("CANARY"), 4, [0, 25, 100]),
        (blue_green("CANARY", value=10), 1, [0, 10, 100]),
        (blue_green("CANARY", type="INSTANCE_COUNT", value=1), 4, [0, 25, 100]),
        (blue_green("LINEAR", value=33), 3, [0, 33.3333, 66.6667, 100]),
        (blue_green("LINEAR", value=50), 4, [0, 50, 100]),
    ],
)
def test_shares_move_by_the_plan(policy: dict[str, object], count: int, percents: list[float]) -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": count}, deploymentConfig=policy)
    stage.in_service()
    stage.seen_percents.clear()
    stage.image("new:1")
    stage.in_service()
    moved = [p for i, p in enumerate(stage.seen_percents) if i == 0 or p != stage.seen_percents[i - 1]]
    assert moved == pytest.approx(percents)


def test_a_bake_begins_only_when_every_ready_router_has_confirmed() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY"))
    stage.in_service()
    stage.image("new:1")
    for _ in range(100):
        stage.step()
        if stage.status.deployment and stage.status.deployment.stage == "Shifting":
            break
    slow = stage.cluster.routers[0]
    slow.slow = True
    for _ in range(5):
        stage.step()
        assert stage.status.deployment is not None
        assert stage.status.deployment.stage == "Shifting"
    slow.slow = False
    stage.run(2)
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "Baking"


def test_a_frozen_router_is_evicted_and_the_last_never() -> None:
    stage = ClusterStage(deploymentConfig=blue_green())
    stage.in_service()
    frozen = stage.cluster.routers[0]
    frozen.frozen = True
    stage.image("new:1")
    evicted = False
    for _ in range(200):
        stage.step()
        evicted = evicted or bool(_by_type(stage, EvictRouter))
        if stage.condition("Ready")[0] == "True":
            break
    assert evicted, "it would have been sending to fleets that are to go"
    assert stage.condition("Ready") == ("True", "InService")


def test_running_requests_hold_the_old_fleet_up() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.in_service()
    [old] = stage.cluster.fleets
    stage.cluster.routers[0].busy = frozenset({old})
    stage.image("new:1")
    stage.run(40)
    assert old in stage.cluster.fleets
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "CleaningUp"
    stage.cluster.routers[0].busy = frozenset()
    stage.in_service()
    assert old not in stage.cluster.fleets


def test_a_new_fleet_that_does_not_come_up_rolls_back_and_latches() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY"))
    stage.in_service()
    [old] = stage.cluster.fleets
    stage.cluster.troubles["broken:1"] = PodTrouble("CrashLoop", "exit code 1: no module named churn", 2, final=True)
    stage.image("broken:1")
    stage.until("RolledBack", type_="Stalled")
    assert "no module named churn" in stage.message("Stalled")
    assert list(stage.cluster.fleets) == [old]
    assert stage.status.endpoint_status == "InService"
    assert stage.condition("Serving")[0] == "True"
    assert max(stage.seen_percents[1:], default=0) == 0, "not one request reached it"
    stage.run(300)
    assert list(stage.cluster.fleets) == [old], "a latched revision is not tried again"
    stage.cluster.troubles.clear()
    stage.annotate(retry="1")
    stage.in_service()
    assert [f.image for f in stage.cluster.fleets.values()] == ["broken:1"]


def test_a_new_fleet_that_dies_under_traffic_goes_back_at_once() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=600))
    stage.in_service()
    [old] = stage.cluster.fleets
    stage.image("new:1")
    for _ in range(100):
        stage.step()
        if stage.status.deployment and stage.status.deployment.stage == "Baking":
            break
    stage.cluster.troubles["new:1"] = PodTrouble("CrashLoop", "exit code 137", 2)
    stage.step()
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "RollingBack"
    assert stage.percent_new() == 0
    stage.until("RolledBack", type_="Stalled")
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.cause is Cause.HEALTH
    assert list(stage.cluster.fleets) == [old]


def test_reverting_the_spec_goes_back_without_a_latch() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=600))
    stage.in_service()
    stage.image("new:1")
    stage.run(40)
    stage.image("repo/churn:1")
    stage.in_service()
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUPERSEDED
    assert stage.status.latch is None


def test_a_third_revision_rolls_back_first_then_starts_anew() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=600))
    stage.in_service()
    stage.image("new:1")
    stage.run(40)
    stage.image("new:2")
    stage.run(5)
    assert stage.percent_new() == 0
    stage.run(700)
    stage.in_service()
    assert [f.image for f in stage.cluster.fleets.values()] == ["new:2"]


def test_the_deadline_rolls_back() -> None:
    policy = blue_green("CANARY", wait=60)
    policy["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = 600
    stage = ClusterStage(deploymentConfig=policy)
    stage.in_service()
    stage.image("bad:1")
    stage.run(10)
    stage.step(600)
    stage.until("RolledBack", type_="Stalled")
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.cause is Cause.DEADLINE


def test_alarms_and_rolling_are_refused_by_name_before_anything_is_made() -> None:
    config = {**blue_green(), "autoRollbackConfiguration": {"alarms": [{"alarmName": "x"}]}}
    stage = ClusterStage(deploymentConfig=config)
    stage.in_service()
    [old] = stage.cluster.fleets
    stage.image("new:1")
    stage.until("NotSupportedByBackend", type_="Stalled")
    assert "autoRollbackConfiguration" in stage.message("Stalled")
    assert list(stage.cluster.fleets) == [old]
    stage.edit("Endpoint", deploymentConfig=blue_green())
    stage.in_service()


def test_a_person_brings_the_revision_before_back() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.in_service()
    first = stage.status.revision
    assert first is not None
    stage.image("new:1")
    stage.in_service()
    stage.annotate(rollback=first.name)
    stage.until("HeldByRollback", type_="Stalled")
    stage.run(60)
    assert stage.status.revision is not None
    assert stage.status.revision.fleet_hash == first.fleet_hash
    assert [f.image for f in stage.cluster.fleets.values()] == ["repo/churn:1"]
    stage.run(100)
    assert stage.status.revision.fleet_hash == first.fleet_hash, "no sync undoes it while the spec stays the same"


def test_variants_may_be_renamed_in_the_cluster() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY"))
    stage.in_service()
    stage.edit(
        "EndpointConfig",
        productionVariants=[
            {"variantName": "z", "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 1}
        ],
    )
    stage.in_service()
    assert [f.variant for f in stage.cluster.fleets.values()] == ["z"]


def test_live_counts_are_retained_when_asked() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=0), retainAllVariantProperties=True)
    stage.in_service()
    [fleet] = stage.cluster.fleets.values()
    fleet.replicas = 6
    stage.run(3)
    stage.image("new:1")
    stage.in_service()
    assert [f.replicas for f in stage.cluster.fleets.values()] == [6]
    stage.run(20)
    assert [f.replicas for f in stage.cluster.fleets.values()] == [6]


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
    assert stage.cluster.route == route


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
