"""Deployments in the cluster as decisions: stages, shares, confirmation, rollback, commands."""

import pytest
from tests.core.cluster_stage import ClusterStage, Router, blue_green
from tests.core.watched import reach

from sluice.api.reasons import Cause, Outcome, Reason
from sluice.core.cluster.actions import EvictRouter
from sluice.core.cluster.observation import PodTrouble


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
        evicted = evicted or bool([action for action in stage.actions if isinstance(action, EvictRouter)])
        if stage.condition("Ready")[0] == "True":
            break
    assert evicted, "it would have been sending to fleets that are to go"
    assert stage.condition("Ready") == ("True", "InService")


def test_a_second_frozen_router_is_evicted_while_the_first_still_stops() -> None:
    """Whoever waits for both to be gone waits for one of them."""
    stage = ClusterStage(deploymentConfig=blue_green())
    stage.in_service()
    stage.cluster.routers.append(Router("router-z", "z", stage.now))
    stage.run(3)
    frozen = stage.cluster.routers[:2]
    for router in frozen:
        router.frozen = True
    stage.cluster.stop_seconds = 75
    stage.image("new:1")
    for _ in range(300):
        stage.step()
        stage.cluster.routers = [r for r in stage.cluster.routers if r.stops_by is None or r.stops_by > stage.now]
        if stage.condition("Ready")[0] == "True":
            break
    assert stage.cluster.evicted == {frozen[0].pod: [], frozen[1].pod: [frozen[0].pod]}
    assert stage.condition("Ready") == ("True", "InService")


def test_a_frozen_router_is_evicted_though_the_edit_is_in_force_without_it() -> None:
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"})
    stage.in_service()
    frozen = stage.cluster.routers[0]
    frozen.frozen = True
    stage.edit_variant("a", initialVariantWeight=0.5)
    stage.run(30)
    assert frozen.uid not in {router.uid for router in stage.cluster.routers if not router.terminating}
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


def test_a_rollback_to_other_counts_of_the_fleet_that_serves_is_refused() -> None:
    """What it was deployed with bears its name still; edited counts make no other revision."""
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.in_service()
    first = stage.status.revision
    assert first is not None
    stage.edit_variant("a", initialInstanceCount=3)
    stage.in_service()
    [fleet] = stage.cluster.fleets.values()
    stage.annotate(rollback=first.name)
    stage.run(5)
    assert [(ack.result, ack.message) for ack in stage.status.commands] == [
        (
            "Refused",
            f"found {first.name}, whose fleet serves already; counts, weights and what else changes in place are the "
            "spec's: edit EndpointConfig churn or its Models",
        )
    ]
    assert (fleet.replicas, stage.status.deployment) == (3, None)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


@pytest.mark.parametrize("until", ["Provisioning", "Baking", "CleaningUp"])
def test_a_rollback_to_what_serves_turns_what_is_deployed_back_and_only_that(until: str) -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", final=5))
    stage.in_service()
    stage.image("new:1")
    [old] = stage.cluster.fleets
    stage.cluster.routers[0].busy = frozenset({old})  # so that it does not go at once
    reach(stage, until)
    serving = stage.status.revision
    assert serving is not None
    stage.annotate(rollback=serving.name)
    stage.run(3)
    stage.cluster.routers[0].busy = frozenset()
    if until == "CleaningUp":
        stage.in_service()
    else:
        stage.until("HeldByRollback", type_="Stalled")
    assert [ack.result for ack in stage.status.commands] == ["Refused" if until == "CleaningUp" else "Done"]
    assert stage.status.revision is not None
    assert stage.status.revision.fleet_hash == serving.fleet_hash


def test_a_rollback_to_what_serves_holds_a_deployment_that_waits_to_start() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.in_service()
    serving = stage.status.revision
    assert serving is not None
    stage.image("new:1")
    stage.step()
    stage.annotate(rollback=serving.name)
    stage.until("HeldByRollback", type_="Stalled")
    stage.run(30)
    assert [(ack.result, ack.message) for ack in stage.status.commands] == [
        ("Done", "its fleet serves already, and no other is deployed")
    ]
    assert stage.status.deployment is None


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


@pytest.mark.parametrize("when", ["created", "deployed"])
def test_ready_waits_for_weights_that_were_edited_meanwhile(when: str) -> None:
    """Ready says that what the spec asks for is in force: an edit that waited for the end is not yet."""
    variants = ({"variantName": "a", "initialInstanceCount": 1}, {"variantName": "b", "initialInstanceCount": 1})
    stage = ClusterStage(*variants, deploymentConfig=blue_green())
    if when == "deployed":
        stage.in_service()
        stage.image("new:1")
    under_way = "CleaningUp" if when == "deployed" else "Creating"
    for _ in range(200):
        stage.step()
        deployment = stage.status.deployment
        if under_way in {deployment.stage if deployment else "", stage.status.endpoint_status}:
            break
    stage.edit_variant("a", initialVariantWeight=9)
    for _ in range(400):
        stage.step()
        live = {v.variant_name: v.current_weight for v in stage.status.production_variants}
        if stage.condition("Ready")[0] == "True":
            break
    assert stage.condition("Ready") == ("True", "InService")
    assert live == {"a": 9.0, "b": 1.0}


def test_a_revision_that_was_superseded_may_be_asked_for_again_at_once() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY"))
    stage.in_service()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.image("new:2")
    reach(stage, "Provisioning")
    stage.image("new:1")
    stage.in_service()
    assert [fleet.image for fleet in stage.cluster.fleets.values()] == ["new:1"]


def test_a_router_that_has_not_confirmed_when_the_bake_ends_is_waited_for() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=60))
    stage.in_service()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.run(58)
    fresh = Router("router-new", "u-new", stage.now, slow=True)
    stage.cluster.routers.append(fresh)
    stage.run(10)
    assert stage.status.deployment is not None
    assert (stage.status.deployment.stage, stage.status.deployment.step) == ("Baking", 1)
    assert f"waiting for {fresh.pod}" in stage.message()
    fresh.slow = False
    stage.in_service()


def test_a_count_that_was_never_written_does_not_scale_the_next_revision() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.in_service()
    stage.edit_variant("a", initialInstanceCount=9)
    stage.step(killed_after=0)
    stage.edit_variant("a", initialInstanceCount=3)
    stage.image("new:1")
    while stage.status.deployment is None:
        stage.step(killed_after=0)
    assert stage.status.intent is not None
    stage.in_service()
    stage.run(30)
    assert [(fleet.image, fleet.replicas) for fleet in stage.cluster.fleets.values()] == [("new:1", 3)]


@pytest.mark.parametrize("late", [0, 1])
def test_a_bake_waits_for_whichever_router_is_late(late: int) -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=60))
    stage.in_service()
    stage.image("new:1")
    reach(stage, "Shifting", 1)
    stage.cluster.routers[late].slow = True
    stage.run(5)
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "Shifting"
    assert f"waiting for {stage.cluster.routers[late].pod} to apply" in stage.message()
    stage.cluster.routers[late].slow = False
    reach(stage, "Baking", 1)


def test_a_bake_waits_until_routers_see_a_pod_of_what_gets_more_traffic() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=60))
    stage.in_service()
    stage.image("new:1")
    reach(stage, "Shifting", 1)
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "new:1")
    new.unseen = True
    stage.run(20)
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "Shifting"
    assert f"to see a ready pod of {new.name}" in stage.message()
    new.unseen = False
    reach(stage, "Baking", 1)


def test_a_rollback_to_what_is_on_its_way_changes_nothing_of_it() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=60))
    stage.in_service()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    assert stage.status.deployment is not None
    stage.annotate(rollback=stage.status.deployment.revision)
    stage.run(5)
    assert stage.status.deployment.stage == "Baking"
    stage.in_service()
    assert [fleet.image for fleet in stage.cluster.fleets.values()] == ["new:1"]


def test_a_variant_without_a_pod_gets_no_more_requests_by_an_edit_of_its_weight() -> None:
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"})
    stage.in_service()
    empty = next(fleet for fleet in stage.cluster.fleets.values() if fleet.variant == "b")
    stage.capped[empty.name] = empty.ready = 0
    stage.edit_variant("b", initialVariantWeight=3)
    stage.run(10)
    assert stage.cluster.route is not None
    assert {fleet.weight for fleet in stage.cluster.route.spec.fleets} == {500_000}
    stage.capped.clear()
    stage.run(10)
    assert sorted(fleet.weight for fleet in stage.cluster.route.spec.fleets) == [250_000, 750_000]
