"""What a person says to a deployment in the cluster: pause, promote, retry and rollback, and the policy that is used
again."""

from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green, rolling
from tests.core.watched import deployment, ended, reach, served, watched

from sluice.api.reasons import Cause, Outcome

POLICIES = [blue_green("CANARY", wait=60, final=60), rolling(50, wait=60)]


def acks(stage: ClusterStage) -> list[tuple[str, str, str]]:
    return [(ack.command, ack.value, str(ack.result)) for ack in stage.status.commands]


def let_go(stage: ClusterStage) -> None:
    """The annotation goes."""
    del stage.endpoint["metadata"]["annotations"]["sluice.dev/pause"]


# Pause ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES, ids=["canary", "rolling"])
def test_a_paused_bake_stands_still_and_ends_with_what_was_left(policy: dict[str, Any]) -> None:
    stage = served(policy)
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.run(20)
    stage.annotate(pause="true")
    stage.run(300)
    assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1)
    assert stage.condition("Reconciling") == ("True", "Paused")
    assert "s of the bake left" in stage.message()
    assert acks(stage) == [("pause", "true", "Done")]
    let_go(stage)
    stage.run(35)
    assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1), "some 40 s were left"
    stage.run(10)
    assert (deployment(stage).stage, deployment(stage).step) != ("Baking", 1)
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_a_bake_that_begins_while_paused_lasts_whole_after_it() -> None:
    stage = served(blue_green("CANARY", wait=60, final=60))
    stage.image("new:1")
    reach(stage, "Shifting", 1)
    stage.annotate(pause="true")
    slow = stage.cluster.routers[0]
    slow.slow = True
    stage.run(10)
    slow.slow = False
    stage.run(90)
    assert deployment(stage).stage == "Baking"
    let_go(stage)
    stage.run(58)
    assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1)
    stage.run(5)
    assert deployment(stage).step == 2


@pytest.mark.parametrize("policy", POLICIES, ids=["canary", "rolling"])
def test_a_pause_before_the_start_holds_before_the_first_traffic(policy: dict[str, Any]) -> None:
    stage = served(policy)
    stage.annotate(pause="true")
    stage.step()
    assert acks(stage) == [("pause", "true", "Queued")]
    assert stage.condition("Ready") == ("True", "InService")
    stage.image("new:1")
    stage.run(60)
    assert deployment(stage).stage == "Provisioning"
    assert stage.condition("Reconciling") == ("True", "Paused")
    assert stage.percent_new() == 0
    assert acks(stage) == [("pause", "true", "Done")]
    let_go(stage)
    stage.in_service()


def test_a_pause_may_be_one_revisions_and_other_values_are_refused() -> None:
    stage = served(blue_green("CANARY", wait=60, final=60))
    stage.annotate(pause="churn-other")
    stage.step()
    assert acks(stage) == [("pause", "churn-other", "Refused")]
    stage.image("new:1")
    reach(stage, "Baking", 1)
    assert deployment(stage).paused_since is None
    stage.annotate(pause="false")
    stage.step()
    assert acks(stage) == [("pause", "false", "Refused")]
    stage.annotate(pause=deployment(stage).revision)
    stage.run(100)
    assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1)
    stage.image("new:2")
    stage.in_service()
    assert [f.image for f in stage.cluster.fleets.values()] == ["new:2"], "the pause was the other revision's"


def test_a_pause_does_not_stop_the_deadline() -> None:
    policy = blue_green("CANARY", wait=60, final=60)
    policy["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = 600
    stage = served(policy)
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.annotate(pause="true")
    stage.run(601)
    stage.until("RolledBack", type_="Stalled")
    assert ended(stage).cause is Cause.DEADLINE
    assert "paused since" in ended(stage).message


def test_a_bake_that_a_late_start_has_put_past_the_deadline_ends_at_the_deadline() -> None:
    policy = blue_green("CANARY", wait=900, final=0)
    policy["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = 1000
    stage = served(policy)
    stage.cluster.start_seconds = 400
    stage.image("new:1")
    reach(stage, "Baking", 1, most=600)
    late = deployment(stage).deadline
    assert deployment(stage).bake_until > late
    assert stage.decision is not None
    assert stage.decision.look_again == late, "nobody else wakes it at that moment"
    stage.step((late - stage.now).total_seconds())
    assert deployment(stage).stage == "RollingBack"


def test_alarms_outrank_a_pause() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.annotate(pause="true")
    stage.run(5)
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    assert deployment(stage).stage == "RollingBack"
    stage.until("RolledBack", type_="Stalled")


def test_what_rolls_back_cannot_be_paused_nor_promoted() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    [router, _] = stage.cluster.routers
    stage.alarms["errors"].state = "ALARM"
    router.slow = True
    stage.step()
    stage.annotate(pause="true", promote=deployment(stage).revision)
    stage.step()
    assert [(command, result) for command, _, result in acks(stage)] == [("pause", "Refused"), ("promote", "Refused")]
    router.slow = False
    stage.until("RolledBack", type_="Stalled")


# Promote --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES, ids=["canary", "rolling"])
def test_promote_skips_one_bake(policy: dict[str, Any]) -> None:
    stage = served(policy)
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.annotate(promote=f"{deployment(stage).revision}/1")
    for _ in range(40):
        stage.step()
        if deployment(stage).step == 2:
            break
    assert deployment(stage).step == 2, "it did not take the 60 s"
    assert [result for _, _, result in acks(stage)] == ["Done"]
    began = stage.now
    stage.in_service()
    assert (stage.now - began).total_seconds() >= 60, "only the one"


@pytest.mark.parametrize("policy", [*POLICIES, blue_green("LINEAR", wait=60, final=60)], ids=["c", "r", "l"])
def test_promote_in_full_skips_what_is_left_but_neither_pods_nor_routers(policy: dict[str, Any]) -> None:
    stage = served(policy)
    stage.image("new:1")
    reach(stage, "Provisioning")
    stage.annotate(promote=deployment(stage).revision)
    reach(stage, "Shifting", 1)
    slow = stage.cluster.routers[0]
    slow.slow = True
    stage.run(5)
    assert (deployment(stage).stage, deployment(stage).step) == ("Shifting", 1)
    slow.slow = False
    began = stage.now
    stage.in_service()
    assert (stage.now - began).total_seconds() < 60
    assert sorted(set(stage.seen_percents))[-1] == 100


@pytest.mark.parametrize("value", ["{}/1/2", "{}//2"], ids=["one bake", "in full"])
def test_promote_is_said_again_when_the_same_revision_is_deployed_again(value: str) -> None:
    """A value is acted on once: what follows the second slash tells it from the same said before."""
    stage = served(blue_green("CANARY", wait=60, final=60))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    revision, serving = deployment(stage).revision, stage.status.revision
    assert serving is not None
    stage.annotate(promote=value.format(revision).removesuffix("/2").removesuffix("/"), rollback=serving.name)
    stage.run(60)
    stage.annotate(retry="1")
    reach(stage, "Baking", 1)
    assert deployment(stage).revision == revision
    stage.annotate(promote=value.format(revision))
    stage.run(40)
    assert ("promote", value.format(revision), "Done") in acks(stage)
    running = stage.status.deployment
    assert running is None or running.step == 2, "it did not take the 60 s"


def test_promote_of_something_else_is_refused() -> None:
    stage = served(blue_green("CANARY", wait=60, final=60))
    stage.annotate(promote="churn-other")
    stage.step()
    assert acks(stage) == [("promote", "churn-other", "Refused")]
    stage.image("new:1")
    reach(stage, "Baking", 1)
    revision = deployment(stage).revision
    for value in ("other", f"{revision}/2", f"{revision}/x", "true", f"{revision}/{'9' * 5000}"):
        stage.annotate(promote=value)
        stage.step()
        assert acks(stage) == [("promote", value[:253], "Refused")]
        assert f"{deployment(stage).revision}/1" in (stage.status.commands[0].message or "")
    assert deployment(stage).promoted_step is None


def test_promote_goes_past_a_pause_and_past_alarms_that_cannot_be_read() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.annotate(pause="true")
    stage.provider_is_away = True
    stage.run(10)
    stage.annotate(promote=f"{deployment(stage).revision}/1")
    reach(stage, "FinalBaking", 2)
    stage.run(100)
    assert deployment(stage).stage == "FinalBaking", "one step, then it is held again"
    stage.annotate(promote=deployment(stage).revision)
    stage.in_service()


def test_promote_never_goes_past_an_alarm() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.annotate(promote=deployment(stage).revision)
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    assert deployment(stage).stage == "RollingBack"


# Back -----------------------------------------------------------------------------------------------------------


def test_back_at_once_while_the_old_fleet_still_stands() -> None:
    stage = served(blue_green("CANARY", wait=5, final=5))
    first = stage.status.revision
    assert first is not None
    [old] = stage.cluster.fleets
    stage.cluster.routers[0].busy = frozenset({old})
    stage.image("new:1")
    reach(stage, "CleaningUp")
    stage.run(5)
    stage.annotate(rollback=first.name)
    stage.run(3)
    assert stage.percent_new() == 0, "no pod had to start"
    assert acks(stage) == [("rollback", first.name, "Done")]
    assert ended(stage).outcome is Outcome.SUCCEEDED
    stage.cluster.routers[0].busy = frozenset()
    stage.until("HeldByRollback", type_="Stalled")
    assert list(stage.cluster.fleets) == [old]
    stage.run(60)
    assert list(stage.cluster.fleets) == [old]


@pytest.mark.parametrize("beside", ["a sample invocation", "a shadow that fails"])
def test_back_at_once_whatever_stands_beside_the_old_instances(beside: str) -> None:
    """Routers tell nothing of how a fleet answers its sample invocation that their routes do not name: that is looked
    at once they do. And a shadow answers nobody."""
    stage = served(blue_green("CANARY", wait=5, final=5))
    if beside == "a sample invocation":
        stage.edit("Model", kubernetes={"sampleInvocation": {"body": "{}"}})
    else:
        [variant] = stage.objects["EndpointConfig", "churn"]["spec"]["productionVariants"]
        stage.edit("EndpointConfig", shadowProductionVariants=[{**variant, "variantName": "s"}])
    stage.step()
    stage.in_service()
    first = stage.status.revision
    assert first is not None
    olds = list(stage.cluster.fleets)
    stage.capped = {fleet.name: 0 for fleet in stage.cluster.fleets.values() if fleet.variant == "s"}
    stage.run(2)
    stage.cluster.routers[0].busy = frozenset(olds)
    stage.image("new:1")
    reach(stage, "CleaningUp")
    stage.annotate(rollback=first.name)
    stage.run(4)
    assert stage.percent_new() == 0, "no pod had to start"
    assert acks(stage) == [("rollback", first.name, "Done")]
    stage.cluster.routers[0].busy = frozenset()
    stage.until("HeldByRollback", type_="Stalled")
    assert list(stage.cluster.fleets) == olds


def test_a_fleet_that_is_not_whole_is_no_way_back_at_once() -> None:
    stage = served(blue_green("CANARY", wait=5, final=5))
    first = stage.status.revision
    assert first is not None
    [old] = stage.cluster.fleets
    stage.cluster.routers[0].busy = frozenset({old})
    stage.image("new:1")
    reach(stage, "CleaningUp")
    stage.cluster.fleets[old].ready, stage.capped[old] = 3, 3
    stage.annotate(rollback=first.name)
    stage.run(3)
    assert acks(stage) == [("rollback", first.name, "Queued")]
    assert stage.percent_new() == 100
    stage.cluster.routers[0].busy, stage.capped = frozenset(), {}
    stage.until("HeldByRollback", type_="Stalled")


def stuck(spec_asks_for_it: bool = False) -> ClusterStage:
    """A rolling deployment that went back and found no room for the last old instance."""
    stage = served(rolling(25, wait=30))
    stage.image("new:1")
    reach(stage, "Baking", 2)
    old = next(f for f in stage.cluster.fleets.values() if f.image == "one:1")
    stage.capped[old.name] = 3
    stage.image("one:1")
    stage.run(10)
    stage.step(3000)
    stage.step()
    assert stage.status.endpoint_status == "UpdateRollbackFailed"
    if spec_asks_for_it:
        stage.image("new:1")
        stage.run(3)
    return stage


def test_a_failed_rollback_is_ended_with_what_stands() -> None:
    stage = stuck()
    first = stage.status.revision
    assert first is not None
    assert f"sluice.dev/rollback: {first.name}" in stage.message("Stalled")
    stage.annotate(rollback=first.name)
    for _ in range(20):
        stage.step()
        if stage.status.deployment is None:
            break
    assert stage.status.deployment is None
    assert stage.percent_new() == 100, "of the revision in service, which the spec asks for"
    assert {f.image for f in stage.cluster.fleets.values() if f.gone_at is None} == {"one:1"}
    stage.capped.clear()
    stage.in_service()
    stage.image("new:2")
    stage.in_service()


def test_a_failed_rollback_without_a_pod_to_go_back_to_cannot_be_ended_like_that() -> None:
    stage = stuck()
    first = stage.status.revision
    assert first is not None
    old = next(f for f in stage.cluster.fleets.values() if f.image == "one:1")
    stage.capped[old.name] = 0
    stage.annotate(rollback=first.name)
    stage.run(3)
    assert acks(stage) == [("rollback", first.name, "Refused")]
    assert stage.status.endpoint_status == "UpdateRollbackFailed"


def test_after_a_failed_rollback_the_same_revision_is_deployed_on_when_asked_for() -> None:
    stage = stuck(spec_asks_for_it=True)
    assert deployment(stage).stage == "RollingBack"
    stage.annotate(retry="1")
    stage.in_service()
    assert [(f.image, f.replicas) for f in stage.cluster.fleets.values()] == [("new:1", 4)]
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_after_a_rollback_that_failed_in_the_last_bake_it_bakes_again() -> None:
    stage = served(rolling(50, wait=30))
    stage.image("new:1")
    reach(stage, "FinalBaking", 2)
    old = next(f for f in stage.cluster.fleets.values() if f.image == "one:1")
    stage.capped[old.name] = 1
    stage.image("one:1")
    stage.run(10)
    stage.step(3000)
    stage.image("new:1")
    stage.run(3)
    assert stage.status.endpoint_status == "UpdateRollbackFailed"
    stage.annotate(retry="1")
    reach(stage, "FinalBaking", 2)
    stage.run(20)
    assert deployment(stage).stage == "FinalBaking"
    stage.in_service()


def test_retry_gives_a_failed_rollback_its_time_again() -> None:
    stage = stuck()
    stage.annotate(retry="1")
    stage.run(5)
    assert deployment(stage).stage == "RollingBack"
    assert stage.status.endpoint_status == "Updating"
    stage.capped.clear()
    stage.in_service()
    assert [(f.image, f.replicas) for f in stage.cluster.fleets.values()] == [("one:1", 4)]


def test_promote_does_not_bring_traffic_past_an_alarm_that_fires_before_the_first() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Provisioning")
    stage.alarms["errors"].state = "ALARM"
    stage.annotate(promote=deployment(stage).revision)
    stage.run(30)
    assert deployment(stage).stage == "Provisioning"
    assert stage.condition("Reconciling") == ("True", "AlarmFiring")
    stage.alarms["errors"].state = "OK"
    stage.in_service()


# The policy of the last deployment ------------------------------------------------------------------------------


def test_the_policy_of_the_last_deployment_is_used_again() -> None:
    stage = served(blue_green("CANARY", wait=30, final=0))
    stage.image("new:1")
    stage.in_service()
    assert stage.status.last_deployment_config == blue_green("CANARY", wait=30, final=0)
    stage.edit("Endpoint", retainDeploymentConfig=True)
    del stage.endpoint["spec"]["deploymentConfig"]
    stage.run(3)
    stage.image("new:2")
    reach(stage, "Baking", 1)
    assert deployment(stage).policy == "CANARY"
    stage.in_service()
    stage.edit("Endpoint", deploymentConfig=blue_green("LINEAR", wait=5, final=0))
    stage.image("new:3")
    reach(stage, "Baking", 1)
    assert deployment(stage).policy == "LINEAR", "one of the spec's own goes first, as on SageMaker"


@pytest.mark.parametrize("deployed", [True, False], ids=["of a deployment", "of the creation"])
def test_its_alarms_are_used_again_too(deployed: bool) -> None:
    """As on SageMaker also where nothing was deployed yet: CreateEndpoint had the DeploymentConfig too."""
    stage = watched()
    if deployed:
        stage.image("new:1")
        stage.in_service()
    stage.edit("Endpoint", retainDeploymentConfig=True)
    del stage.endpoint["spec"]["deploymentConfig"]
    stage.image("new:2")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    assert deployment(stage).stage == "RollingBack"
