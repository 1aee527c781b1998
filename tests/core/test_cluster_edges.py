"""Endpoints in the cluster where something goes wrong in between: passes that are killed, objects that go by hand,
nodes that are lost, people who change their mind late."""

from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import deployment, images_of, reach

from sluice.api.reasons import CommandResult, Reason
from sluice.core.actions import StoreRevision
from sluice.core.cluster.actions import DeleteFleet, EnsureFleet, EnsureRouter, ScaleFleet, WriteRoute
from sluice.core.observation import CallProblem

# A pass that is killed --------------------------------------------------------------------------------------------


def test_a_revision_whose_storing_was_lost_at_creation_is_stored_all_the_same() -> None:
    stage = ClusterStage()
    stage.step()
    stage.step(killed_after=0)
    assert any(isinstance(action, StoreRevision) for action in stage.actions)
    stage.in_service()
    assert list(stage.revisions) == [stage.status.revision.name]  # type: ignore[union-attr]


def test_a_revision_whose_storing_was_lost_when_its_deployment_started_is_stored_all_the_same() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.image("good:2")
    stage.step()
    stage.step(10.0, killed_after=0)
    assert stage.status.deployment is not None
    assert any(isinstance(action, StoreRevision) for action in stage.actions)
    stage.in_service()
    assert stage.status.revision is not None
    assert stage.status.revision.name in stage.revisions
    stage.image("good:3")
    stage.in_service()
    assert images_of(stage) == ["good:3"]


def test_a_stored_revision_that_somebody_deleted_is_stored_again_while_the_spec_has_it() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.revisions.clear()
    stage.run(2)
    assert stage.status.revision is not None
    assert list(stage.revisions) == [stage.status.revision.name]
    assert stage.condition("Ready")[0] == "True"


# What is refused --------------------------------------------------------------------------------------------------


def _refused(operation: str) -> CallProblem:
    return CallProblem(operation, Reason.QUOTA_EXCEEDED, "exceeded quota", transient=False)


def test_what_is_refused_again_and_again_is_tried_ever_more_seldom() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.cluster.fleets.clear()
    failed, tried = None, 0
    for _ in range(600):
        stage.step(problem=failed, killed_after=0)
        failed = _refused("EnsureFleet") if stage.actions else None
        tried += bool(stage.actions)
    assert 5 <= tried <= 12
    assert stage.condition("Stalled") == ("True", "QuotaExceeded")
    stage.step(600.0)
    stage.in_service()
    assert stage.status.problem is None


def test_what_was_refused_and_is_not_needed_any_more_is_forgotten() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    held = dict(stage.cluster.fleets)
    stage.cluster.fleets.clear()
    stage.step(killed_after=0)
    stage.step(problem=_refused("EnsureFleet"))
    assert stage.status.problem is not None
    stage.cluster.fleets.update(held)
    stage.step()
    assert stage.status.problem is None
    assert stage.condition("Ready")[0] == "True"


def test_traffic_goes_back_although_something_else_is_refused() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=60))
    stage.in_service()
    stage.image("good:2")
    for _ in range(100):
        stage.step()
        if stage.stages and stage.stages[-1] == "Baking":
            break
    for fleet in stage.cluster.fleets.values():
        fleet.record = None
    stage.step(killed_after=0)
    stage.step(problem=_refused("RecordFleet"))
    assert not stage.actions
    stage.edit("Model", primaryContainer=ClusterStage().objects["Model", "churn"]["spec"]["primaryContainer"])
    stage.step()
    assert [type(action) for action in stage.actions] == [WriteRoute]
    assert stage.percent_new() == 100


def test_a_router_that_cannot_be_brought_up_to_date_holds_nothing_up() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    stage.router_outdated = ""
    stage.step(killed_after=0)
    stage.step(problem=_refused("EnsureRouter"), killed_after=0)
    assert stage.condition("Stalled") == ("True", "QuotaExceeded")
    stage.cluster.fleets.clear()
    stage.step()
    assert [type(action) for action in stage.actions] == [EnsureFleet]
    stage.cluster.fleets.clear()
    stage.cluster.route = None
    stage.status = stage.status.model_copy(update={"problem": None})
    stage.step()
    assert [type(action) for action in stage.actions] == [EnsureFleet, WriteRoute, EnsureRouter]


def test_what_cannot_be_deleted_does_not_hold_up_the_fleets_in_service() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.in_service()
    stage.image("good:2")
    for _ in range(100):
        stage.step(killed_after=0 if any(isinstance(action, DeleteFleet) for action in stage.actions) else None)
        if stage.stages and stage.stages[-1] == "CleaningUp":
            break
    new = next(name for name, fleet in stage.cluster.fleets.items() if fleet.image == "good:2")
    for _ in range(5):
        del stage.cluster.fleets[new]
        stage.step(killed_after=0)
        if any(isinstance(action, DeleteFleet) for action in stage.actions):
            break
        stage.do(next(action for action in stage.actions if isinstance(action, EnsureFleet)))
    assert [type(action) for action in stage.actions][:2] == [EnsureFleet, DeleteFleet]


def test_in_a_rollback_the_routes_come_first() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=60))
    stage.in_service()
    old = next(iter(stage.cluster.fleets))
    stage.image("good:2")
    for _ in range(100):
        stage.step()
        if stage.stages and stage.stages[-1] == "Baking":
            break
    del stage.cluster.fleets[old]
    for fleet in stage.cluster.fleets.values():
        fleet.ready, fleet.image = 0, "bad:1"
    stage.step()
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "RollingBack"
    assert [type(action) for action in stage.actions][:1] == [WriteRoute]
    assert len(stage.actions) > 1


def test_what_serves_and_is_stored_nowhere_is_left_alone_until_a_person_says_retry() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    stage.revisions.clear()
    stage.image("good:2")
    stage.run(20)
    assert stage.condition("Stalled") == ("True", "Drifted")
    assert "sluice.dev/retry" in stage.message("Stalled")
    assert len(stage.cluster.fleets) == 1
    stage.annotate(retry="1")
    stage.run(4)
    assert len(stage.cluster.fleets) == 2, "what serves goes on until the new fleets answer"
    assert stage.percent_new() == 0
    stage.in_service()
    stage.run(10)
    assert images_of(stage) == ["good:2"]


def test_what_serves_and_is_stored_nowhere_goes_when_all_that_follow_it_are_there() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4})
    stage.in_service()
    stage.run(3)
    [old] = stage.cluster.fleets
    stage.revisions.clear()
    stage.image("good:2")
    stage.run(10)
    stage.room = 5  # one pod more than there are
    stage.annotate(retry="1")
    stage.run(60)
    assert old in stage.cluster.fleets
    assert stage.percent_new() == 0, "one pod cannot answer what four did"
    assert "a 1/4 instances ready" in stage.message()
    stage.room = None
    stage.in_service()
    assert stage.percent_new() == 100
    stage.run(10)
    assert images_of(stage) == ["good:2"]


def test_a_deadline_that_ends_within_the_waits_keeps_the_deployment_from_starting() -> None:
    config = blue_green("LINEAR", wait=600, final=0, value=10)
    config["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = 1800
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 1}, deploymentConfig=config)
    stage.in_service()
    stage.image("good:2")
    stage.until("InvalidDeploymentConfig", type_="Stalled", most=20)
    assert "the waits alone take 5400 s" in stage.message()
    assert len(stage.cluster.fleets) == 1
    config["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = 7200
    stage.edit("Endpoint", deploymentConfig=config)
    stage.until("Deploying", type_="Reconciling", most=20)


# Edits and commands at the wrong moment ---------------------------------------------------------------------------


def test_a_count_that_never_came_into_force_does_not_scale_the_next_revision() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 2}, deploymentConfig=blue_green(final=0))
    stage.in_service()
    stage.edit_variant("a", initialInstanceCount=9)
    stage.step()
    (fleet,) = stage.cluster.fleets.values()
    assert fleet.replicas == 9
    fleet.image = "bad:no-room"  # the pods do not get ready
    stage.run(3)
    assert stage.status.intent is not None
    stage.edit_variant("a", initialInstanceCount=3)
    stage.image("good:2")
    stage.step()
    stage.in_service()
    stage.run(30)
    assert [fleet.replicas for fleet in stage.cluster.fleets.values()] == [3]


def test_a_clock_that_goes_back_delays_no_start() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=5))
    stage.in_service()
    stage.image("good:2")
    stage.step()
    stage.step(-3600)
    stage.run(10)
    assert stage.status.deployment is not None


def test_a_clock_that_goes_back_does_not_put_off_what_was_refused_before() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.cluster.fleets.clear()
    stage.step(killed_after=0)
    stage.step(problem=_refused("EnsureFleet"), killed_after=0)
    assert not stage.actions
    stage.step(-7200)
    assert stage.cluster.fleets, "due is what is further away than any attempt is put off"
    stage.cluster.fleets.clear()
    stage.step(killed_after=0)
    stage.step(problem=_refused("EnsureFleet"), killed_after=0)
    assert not stage.actions, "and from then on it is put off as ever"
    stage.step(60.0)
    assert stage.cluster.fleets


def test_a_clock_that_goes_back_begins_the_bake_anew_and_no_longer() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=60, final=5))
    stage.in_service()
    stage.image("good:2")
    for _ in range(60):
        stage.step()
        if stage.stages and stage.stages[-1] == "Baking":
            break
    stage.run(40)
    stage.step(-3600)
    stage.run(58)
    assert stage.stages[-1] == "Baking"
    stage.run(4)
    assert stage.stages[-1] != "Baking"


def test_a_rollback_said_while_the_old_fleet_goes_is_done_afterwards() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=5))
    stage.in_service()
    first = stage.status.revision
    assert first is not None
    stage.image("good:2")
    for _ in range(100):
        stage.step()
        if any(fleet.gone_at is not None for fleet in stage.cluster.fleets.values()):
            break
    stage.annotate(rollback=first.name)
    stage.step()
    (ack,) = stage.status.commands
    assert ack.result is CommandResult.QUEUED
    before = stage.status.commands, stage.status.latch
    stage.step(0.1)
    if stage.status.deployment is not None:
        assert (stage.status.commands, stage.status.latch) == before, "said once"
    stage.run(100)
    assert stage.status.revision is not None
    assert stage.status.revision.name == first.name
    assert stage.status.commands[0].result is CommandResult.DONE
    assert stage.condition("Stalled") == ("True", "HeldByRollback")


def test_a_rollback_that_waits_finds_its_revision_also_where_that_never_was_in_service() -> None:
    """What was kept as the last that failed is no more when the one that goes back now has failed, too."""
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=600))
    stage.in_service()
    stage.image("good:2")
    reach(stage, "Baking", 1)
    wanted = deployment(stage).revision
    stage.image("good:3")
    stage.run(5)
    reach(stage, "Baking", 1)
    assert deployment(stage).revision != wanted
    stage.annotate(rollback=wanted)
    for _ in range(200):
        stage.step()
        if stage.status.deployment is not None and deployment(stage).revision == wanted:
            break
    assert deployment(stage).revision == wanted


def test_a_rollback_to_a_third_revision_is_done_when_the_deployment_has_gone_back() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=5))
    stage.in_service()
    first = stage.status.revision
    assert first is not None
    stage.image("good:2")
    stage.step()
    stage.in_service()
    stage.image("good:3")
    stage.run(12)
    assert stage.status.deployment is not None
    stage.annotate(rollback=first.name)
    stage.run(100)
    assert stage.status.revision is not None
    assert stage.status.revision.name == first.name
    assert images_of(stage) == ["registry.example/churn:1"] or len(stage.cluster.fleets) == 1


def test_a_scaler_that_does_not_allow_the_count_is_not_fought() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4})
    stage.in_service()
    stage.run(3)
    (fleet,) = stage.cluster.fleets.values()
    stage.edit_variant("a", initialInstanceCount=1)
    written = 0
    for number in range(60):
        stage.step()
        written += sum(isinstance(action, ScaleFleet) for action in stage.actions)
        if number % 15 == 14:
            fleet.replicas = max(fleet.replicas, 3)  # its least
    assert written == 1
    assert fleet.replicas == 3
    assert stage.condition("Ready")[0] == "True"


# Lost status ------------------------------------------------------------------------------------------------------


def test_a_status_lost_in_the_final_bake_does_not_promote_what_was_never_in_service() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=300))
    stage.in_service()
    first = stage.status.revision
    assert first is not None
    stage.image("good:2")
    for _ in range(100):
        stage.step()
        if stage.stages and stage.stages[-1] == "FinalBaking":
            break
    stage.status = type(stage.status)()
    stage.step()
    assert stage.status.revision is not None
    assert stage.status.revision.name == first.name
    stage.run(60)
    assert stage.status.deployment is not None, "it bakes anew"
    assert len(stage.cluster.fleets) == 2


def test_a_deletion_waits_for_streams_longer_than_for_a_router_that_does_not_let_go() -> None:
    stage = ClusterStage()
    stage.in_service()
    [fleet] = stage.cluster.fleets
    for router in stage.cluster.routers:
        router.busy = frozenset({fleet})
    stage.delete()
    stage.run(400)
    assert not stage.gone, "a stream may run for 480 s"
    assert stage.condition("Ready") == ("False", "Draining")
    for router in stage.cluster.routers:
        router.busy = frozenset()
    stage.run(30)
    assert stage.gone
