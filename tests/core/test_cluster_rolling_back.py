"""Rolling deployments on their way back: each batch has its time, room is made before it is taken, and after one that
failed it goes on from the mix, with time and without alarms. And what no old pod has to answer for holds nothing up."""

import pytest
from tests.core.cluster_stage import AlarmNow, ClusterStage, Fleet, blue_green, rolling
from tests.core.test_cluster_replacing import at_work
from tests.core.watched import deployment, ended, name_of, reach, served, watched

from sluice.api.reasons import Cause, Outcome
from sluice.core.cluster.observation import PodTrouble

FAILED = "UpdateRollbackFailed"


def of(stage: ClusterStage, image: str, variant: str = "a") -> Fleet:
    return next(f for f in stage.cluster.fleets.values() if (f.image, f.variant) == (image, variant))


def share(stage: ClusterStage, image: str) -> float:
    """Percent of the requests that the routes send to the fleet of this image."""
    assert stage.cluster.route is not None
    name = of(stage, image).name
    return sum(fleet.weight for fleet in stage.cluster.route.spec.fleets if fleet.name == name) / 10_000


def stuck() -> ClusterStage:
    """A rollback by its alarm that failed in the second batch for want of room. The spec asks for what went back."""
    stage = watched(rolling(25, wait=30))
    stage.image("two:1")
    reach(stage, "Baking", 2)
    stage.capped[of(stage, "repo/churn:1").name] = 3
    stage.alarms["errors"].state = "ALARM"
    stage.run(10)
    stage.step(3000)
    stage.step()
    assert stage.status.endpoint_status == FAILED
    return stage


def test_what_is_deployed_on_after_a_failed_rollback_goes_on_from_its_step_whatever_alarms_say() -> None:
    stage = stuck()
    stage.annotate(retry="1")
    stage.step()
    assert (deployment(stage).stage, deployment(stage).step, deployment(stage).step_text) == ("Provisioning", 2, "2/4")
    assert stage.percent_new() == 50
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_what_is_deployed_on_after_a_failed_rollback_has_time_again() -> None:
    stage = stuck()
    stage.step((deployment(stage).deadline - stage.now).total_seconds() + 60)
    assert stage.status.endpoint_status == FAILED
    stage.annotate(retry="1")
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_each_batch_on_the_way_back_has_a_time_of_its_own() -> None:
    stage = served(rolling(25, wait=30, back=25))
    stage.image("two:1")
    reach(stage, "Baking", 3)
    stage.cluster.start_seconds = 900
    stage.image("one:1")
    while stage.status.deployment is not None:
        stage.step(10)
        assert stage.status.endpoint_status != FAILED, "two batches take longer than one may"
    assert ended(stage).outcome is Outcome.SUPERSEDED


def test_a_rollback_that_comes_forward_again_has_not_failed_any_more() -> None:
    stage = served(rolling(25, wait=30, back=25))
    stage.image("two:1")
    reach(stage, "Baking", 3)
    old = of(stage, "one:1")
    stage.capped[old.name] = 2
    stage.image("one:1")
    stage.run(10)
    stage.step(3000)
    stage.step()
    assert (stage.status.endpoint_status, share(stage, "two:1")) == (FAILED, 50)
    stage.capped[old.name] = 3
    stage.run(30)
    assert (stage.status.endpoint_status, share(stage, "two:1")) == ("Updating", 25)


def test_requests_that_run_keep_the_last_new_pods_up() -> None:
    stage = served(rolling(50, wait=30))
    stage.image("two:1")
    reach(stage, "Baking", 1)
    new = of(stage, "two:1")
    stage.cluster.routers[0].busy = frozenset({new.name})
    stage.image("one:1")
    stage.run(60)
    assert share(stage, "one:1") == 100
    assert (new.replicas, new.ready, new.gone_at) == (2, 2, None)
    stage.cluster.routers[0].busy = frozenset()
    stage.in_service()
    assert list(stage.cluster.fleets.values()) == [of(stage, "one:1")]


def test_what_a_step_had_brought_goes_before_old_instances_come() -> None:
    stage = served(rolling(50, wait=30))
    stage.image("two:1")
    reach(stage, "Shifting", 2)
    for router in stage.cluster.routers:
        router.slow = True
    stage.image("one:1")
    stage.run(5)
    for router in stage.cluster.routers:
        router.slow = False
    stage.in_service()
    assert stage.most_pods == 6, "there is room for one batch"


def test_a_variant_without_requests_holds_no_way_back_up() -> None:
    stage = ClusterStage(
        {"variantName": "a"},
        {"variantName": "b", "initialVariantWeight": 0.0},
        deploymentConfig=blue_green("CANARY", wait=60, value=50),
    )
    stage.image("one:1")
    stage.in_service()
    stage.image("two:1")
    reach(stage, "Baking", 1)
    idle = of(stage, "one:1", "b")
    stage.capped[idle.name] = idle.ready = 0
    stage.image("one:1")
    stage.step()
    assert share(stage, "one:1") == 100


def test_what_had_no_traffic_yet_goes_at_once_also_without_an_old_pod() -> None:
    stage = served()
    stage.annotate(pause="true")
    stage.image("two:1")
    stage.until("Paused")
    assert deployment(stage).stage == "Provisioning"
    stage.cluster.troubles["one:1"] = PodTrouble("CrashLoop", "exit code 1", 4, final=True)
    of(stage, "one:1").ready = 0
    stage.image("one:1")
    stage.run(40)
    assert stage.status.deployment is None
    assert ended(stage).outcome is Outcome.SUPERSEDED


@pytest.mark.parametrize("replace_first", [False, True])
def test_what_answers_no_sample_invocation_loses_all_its_traffic_at_once_and_for_good(replace_first: bool) -> None:
    """All its pods are Ready, and in batches its share would be unanswered until the last old pod has come."""
    kubernetes = {"replaceFirst": True} if replace_first else {}
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(25, back=25), kubernetes=kubernetes
    )
    stage.in_service()
    stage.edit("Model", kubernetes={"sampleInvocation": {"body": "{}", "periodSeconds": 5}})
    stage.in_service()
    stage.image("new:1")
    reach(stage, "Baking", 2)
    assert stage.percent_new() == 50
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "new:1")
    new.failing = 2
    shares = []
    for _ in range(400):
        stage.step()
        shares.append(stage.percent_new())
        if stage.status.deployment is None:
            break
    assert shares[2] == 0
    assert shares == sorted(shares, reverse=True), "a share that went does not come back"
    assert stage.status.last_deployment is not None
    assert (stage.status.last_deployment.outcome, stage.status.last_deployment.cause) == (
        Outcome.ROLLED_BACK,
        Cause.HEALTH,
    )


def test_a_pod_that_crashes_again_and_again_gets_nothing_back() -> None:
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=rolling(25, back=25))
    stage.in_service()
    stage.image("new:1")
    reach(stage, "Baking", 2)
    stage.cluster.routers[0].slow = True  # the way back is not confirmed meanwhile
    stage.cluster.troubles["new:1"] = PodTrouble("CrashLoop", "exit code 137", 2)
    stage.step()
    stage.step()
    assert stage.percent_new() == 0
    for _ in range(5):
        stage.cluster.troubles.pop("new:1", None)
        stage.step()
        stage.step()
        assert stage.percent_new() == 0
        stage.cluster.troubles["new:1"] = PodTrouble("CrashLoop", "exit code 137", 2)
        stage.step()
        assert stage.percent_new() == 0


def test_a_person_can_be_content_with_less_also_where_a_variant_was_scaled_to_nothing() -> None:
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4},
        {"variantName": "b", "initialInstanceCount": 2},
        deploymentConfig=rolling(25, back=25),
    )
    stage.in_service()
    serving = stage.status.revision
    assert serving is not None
    stage.scale(of(stage, "repo/churn:1", "b"), 0)
    stage.run(5)
    stage.image("two:1")
    reach(stage, "Baking", 2)
    stage.capped[of(stage, "repo/churn:1").name] = of(stage, "repo/churn:1").ready
    stage.annotate(rollback=serving.name)
    stage.run(10)
    stage.step(3000)
    stage.step()
    assert stage.status.endpoint_status == FAILED
    stage.annotate(rollback=f"{serving.name}/again")
    for _ in range(200):
        stage.step()
        if stage.status.deployment is None:
            break
    assert ended(stage).outcome is Outcome.ROLLED_BACK
    assert {fleet.image for fleet in stage.cluster.fleets.values()} == {"repo/churn:1"}


def test_what_is_deployed_on_from_before_its_first_step_is_turned_back_when_its_instances_fail() -> None:
    """It has a part of the first step's traffic."""
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 10}, deploymentConfig=rolling(30, wait=30, back=10)
    )
    stage.in_service()
    stage.image("two:1")
    reach(stage, "Baking", 1)
    stage.annotate(rollback=name_of(stage))
    stage.capped[of(stage, "repo/churn:1").name] = 8
    stage.run(10)
    stage.step(5000)
    stage.step()
    assert stage.status.endpoint_status == FAILED
    stage.annotate(retry="1")
    stage.step()
    assert (deployment(stage).stage, deployment(stage).step, stage.percent_new()) == ("Provisioning", 0, 20)
    new = of(stage, "two:1")
    stage.capped[new.name] = new.ready = 0
    stage.run(2)
    assert (deployment(stage).stage, deployment(stage).cause) == ("RollingBack", Cause.HEALTH)


@pytest.mark.parametrize(
    ("count", "batch", "back", "at", "step"),
    [
        (4, 50, 50, "FinalBaking", 2),
        (4, 25, 25, "Baking", 3),
        (8, 50, 25, "FinalBaking", 2),  # the mix is one between two steps
        (8, 25, 50, "Baking", 3),
        (10, 30, 10, "Baking", 1),
    ],
)
def test_what_replaces_first_is_deployed_on_in_the_room_that_there_is(
    count: int, batch: int, back: int, at: str, step: int
) -> None:
    """New instances have gone, and in their room the old ones that are to come find no node."""
    stage = at_work(count, batch, back=back)
    config = stage.endpoint["spec"]["deploymentConfig"]
    stage.edit("Endpoint", deploymentConfig={**config, "autoRollbackConfiguration": {"alarms": [{"alarmName": "e"}]}})
    stage.alarms = {"e": AlarmNow()}
    stage.run(5)
    stage.image("new:1")
    reach(stage, at, step)
    old = of(stage, "repo/churn:1")
    stage.capped[old.name] = old.ready
    stage.alarms["e"].state = "ALARM"
    stage.run(30)
    stage.step(3000)
    stage.step()
    assert stage.status.endpoint_status == FAILED
    serve = sum(fleet.ready for fleet in stage.cluster.fleets.values())
    stage.annotate(retry="1")
    for _ in range(100):
        stage.step()
        fleets = [fleet for fleet in stage.cluster.fleets.values() if fleet.gone_at is None]
        pods = [(fleet.image, fleet.replicas, fleet.stopping) for fleet in fleets]
        assert sum(replicas + stopping for _, replicas, stopping in pods) <= count, f"more than there were: {pods}"
        assert sum(fleet.ready for fleet in fleets) >= min(serve, count * (100 - batch) // 100), pods
    assert [(fleet.image, fleet.ready) for fleet in stage.cluster.fleets.values()] == [("new:1", count)]
    assert ended(stage).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("after", [0, 3])
def test_what_a_scaler_adds_to_the_new_fleet_stays_while_it_has_traffic(step: int, after: int) -> None:
    """In the very second in which it turns back, or when it does already."""
    stage = served(rolling(25, wait=30, back=25))
    stage.image("two:1")
    reach(stage, "Baking", step)
    new = of(stage, "two:1")
    for second in range(60):
        if second == after:
            stage.scale(new, 8)
        stage.image("one:1")
        stage.step()
        if new.gone_at is not None:
            break
        assert second < after or new.replicas >= 8 * share(stage, "two:1") / 100, f"{second} s"
    stage.in_service()
    assert [(fleet.image, fleet.ready) for fleet in stage.cluster.fleets.values()] == [("one:1", 4)]
