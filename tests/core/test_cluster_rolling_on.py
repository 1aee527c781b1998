"""Rolling deployments and linear steps under way: what they wait for, and whose counts they keep."""

from typing import Any

from tests.core.cluster_stage import ClusterStage, Fleet, blue_green, rolling
from tests.core.watched import deployment, ended, name_of, reach, served

from sluice.api.reasons import Outcome

FAILED = "UpdateRollbackFailed"


def of(stage: ClusterStage, image: str, variant: str = "a") -> Fleet:
    return next(f for f in stage.cluster.fleets.values() if (f.image, f.variant) == (image, variant))


def two_variants(policy: dict[str, Any]) -> ClusterStage:
    """In service with a and b, of two instances each."""
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"}, deploymentConfig=policy)
    stage.image("one:1")
    stage.in_service()
    return stage


def test_old_instances_stay_while_a_new_one_that_answers_for_them_is_lost() -> None:
    stage = served(rolling(25, wait=30))
    stage.image("two:1")
    reach(stage, "Baking", 2)
    old, new = of(stage, "one:1"), of(stage, "two:1")
    before = old.replicas
    stage.capped[new.name] = new.ready = 1
    stage.run(60)
    assert (deployment(stage).stage, deployment(stage).step, old.replicas) == ("Baking", 2, before)
    assert "old instances go when the new ones that answer for them are there: a 1/2" in stage.message()
    stage.capped.clear()
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_a_step_waits_for_the_instance_that_its_share_begins_to_need() -> None:
    """Three quarters of two instances are two."""
    stage = two_variants(blue_green("LINEAR", wait=30, final=5))
    stage.image("two:1")
    reach(stage, "Baking", 2)
    new = of(stage, "two:1")
    stage.capped[new.name] = new.ready = 1
    stage.run(60)
    assert (deployment(stage).step, stage.percent_new()) == (2, 50)
    assert "waiting for instances that 75% of the traffic needs: a 1/2" in stage.message()
    stage.capped.clear()
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_a_batch_has_its_time_to_start_after_a_bake_that_lasted_longer() -> None:
    stage = served(rolling(50, wait=3600))
    stage.image("two:1")
    reach(stage, "Baking", 1)
    for _ in range(1000):
        stage.step(20)
        if stage.status.deployment is None:
            break
    assert ended(stage).outcome is Outcome.SUCCEEDED, ended(stage).message


def test_a_new_fleet_that_a_scaler_made_larger_is_not_made_smaller_in_mid_deployment() -> None:
    stage = served(rolling(50, wait=30))
    stage.image("two:1")
    reach(stage, "Baking", 1)
    new = of(stage, "two:1")
    stage.scale(new, 7)
    stage.run(3)
    stage.scale(new, 3)
    stage.run(3)
    assert new.replicas == 7, "scaling up is anybody's right, and scaling in waits for the deployment's end"


def test_what_a_scaler_brings_forward_of_the_plan_it_may_take_away_again() -> None:
    """The third instance is the next batch's: it was no wish for more than the plan has."""
    stage = served(rolling(50, wait=60))
    stage.image("two:1")
    reach(stage, "Baking", 1)
    new = of(stage, "two:1")
    stage.scale(new, 3)
    stage.run(3)
    stage.scale(new, 2)
    stage.run(3)
    assert (deployment(stage).step, new.replicas) == (1, 2)
    stage.in_service()
    assert [(f.image, f.replicas) for f in stage.cluster.fleets.values()] == [("two:1", 4)]


def test_what_was_added_to_one_variant_is_kept_when_another_grows_too() -> None:
    stage = two_variants(blue_green("CANARY", wait=300))
    stage.image("two:1")
    reach(stage, "Baking", 1)
    first, second = of(stage, "one:1", "a"), of(stage, "one:1", "b")
    stage.scale(first, 5)
    stage.run(2)
    stage.scale(second, 4)
    stage.run(2)
    for fleet in (first, second):
        stage.scale(fleet, 2)
    stage.run(2)
    assert (first.replicas, second.replicas) == (5, 4), "the way back leads to fleets as large as they had to be"


def test_rollback_said_while_it_goes_back_does_not_make_do_with_fewer_instances() -> None:
    """Only where a rollback has failed is what stands enough."""
    stage = served(rolling(25, wait=30))
    first = name_of(stage)
    stage.image("two:1")
    reach(stage, "Baking", 2)
    stage.capped[of(stage, "one:1").name] = 3
    stage.image("one:1")
    reach(stage, "RollingBack")
    stage.annotate(rollback=first)
    stage.run(30)
    assert deployment(stage).stage == "RollingBack"
    assert stage.percent_new() == 50, "the instances that all requests need are not there"
    stage.capped.clear()
    stage.in_service()
    assert [(f.image, f.replicas) for f in stage.cluster.fleets.values()] == [("one:1", 4)]


def test_a_failed_rollback_that_is_ended_with_what_stands_has_time_for_it() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 8}, deploymentConfig=rolling(25, back=25))
    stage.image("one:1")
    stage.in_service()
    first = name_of(stage)
    stage.image("two:1")
    reach(stage, "Baking", 3)
    stage.capped[of(stage, "one:1").name] = 3
    stage.image("one:1")
    stage.run(10)
    stage.step(3000)
    stage.step()
    assert stage.status.endpoint_status == FAILED
    for router in stage.cluster.routers:
        router.slow = True
    stage.annotate(rollback=first)
    stage.run(4)
    assert stage.status.endpoint_status == "Updating", "routers have not followed yet"
    for router in stage.cluster.routers:
        router.slow = False
    stage.run(60)
    assert stage.status.deployment is None
    assert {f.image for f in stage.cluster.fleets.values()} == {"one:1"}
