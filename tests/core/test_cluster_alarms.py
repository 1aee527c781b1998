"""Alarms of deployments in the cluster: what is watched when, and what each reading does at each moment."""

from typing import Any

import pytest
from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green, rolling

from sluice.api.reasons import Cause, Outcome
from sluice.core.cluster.names import fleet_name

TRAFFIC = {"name": "errors", "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.05}}


def watched(
    policy: dict[str, Any] | None = None, *names: str, own: tuple[dict[str, Any], ...] = (), **spec: Any
) -> Any:
    """An Endpoint in service whose deployments heed these alarms of CloudWatch, which are OK, and these of its own."""
    names = names or (() if own else ("errors",))
    config = dict(policy or blue_green("CANARY", wait=60, final=60))
    if names:
        config["autoRollbackConfiguration"] = {"alarms": [{"alarmName": name} for name in names]}
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4},
        deploymentConfig=config,
        **({"kubernetes": {"alarms": list(own)}} if own else {}),
        **spec,
    )
    stage.alarms = {name: AlarmNow() for name in (*names, *(one["name"] for one in own))}
    stage.in_service()
    return stage


def reach(stage: ClusterStage, wanted: str, step: int | None = None, most: int = 300) -> None:
    """Passes until the deployment is in this stage (and step)."""
    for _ in range(most):
        stage.step()
        deployment = stage.status.deployment
        if deployment and deployment.stage == wanted and step in {None, deployment.step}:
            return
    raise AssertionError(f"never {wanted}: {stage.stages} {stage.message()}")


def deployment(stage: ClusterStage) -> Any:
    assert stage.status.deployment is not None, stage.message()
    return stage.status.deployment


def ended(stage: ClusterStage) -> Any:
    assert stage.status.last_deployment is not None
    return stage.status.last_deployment


# What is watched ------------------------------------------------------------------------------------------------


def test_nothing_is_watched_while_nothing_is_deployed() -> None:
    stage = watched()
    assert stage.watched is None
    assert stage.status.alarms == ()
    stage.image("new:1")
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED
    stage.run(2)
    assert stage.watched is None
    assert stage.status.alarms_text is None


def test_before_the_start_the_serving_fleets_are_watched_and_then_both() -> None:
    stage = watched(own=(TRAFFIC,))
    stage.image("new:1")
    stage.step()
    stage.step()
    assert stage.watched is not None
    assert [q.source for q in stage.watched.alarms] == ["Traffic"]
    assert stage.watched.alarms[0].condition == TRAFFIC
    serving = stage.status.revision
    assert serving is not None
    old = fleet_name("churn", "a", serving.fleet_hash)
    assert [(f.name, f.variant, f.revision) for f in stage.watched.serving] == [(old, "a", serving.name)]
    assert stage.watched.new == ()
    reach(stage, "Baking", 1)
    assert stage.watched is not None
    new = deployment(stage)
    assert [(f.name, f.revision) for f in stage.watched.new] == [
        (fleet_name("churn", "a", new.fleet_hash), new.revision)
    ]
    assert stage.status.alarms_text == "1 OK"


def test_a_bake_asks_for_a_reading_at_its_end() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Shifting", 1)
    assert stage.watched is not None
    assert stage.watched.read_after is None
    reach(stage, "Baking", 1)
    stage.step()
    assert stage.watched.read_after == deployment(stage).bake_until


# Under traffic --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "step"), [("Shifting", 1), ("Baking", 1), ("Shifting", 2), ("FinalBaking", 2)])
def test_an_alarm_under_traffic_rolls_back_in_the_same_pass(at: str, step: int) -> None:
    stage = watched()
    [old] = stage.cluster.fleets
    stage.image("new:1")
    reach(stage, at, step)
    stage.alarms["errors"] = AlarmNow("ALARM", "5 % of the requests failed")
    stage.step()
    assert stage.percent_new() == 0, "the routes are written by the pass that sees the alarm"
    stage.until("RolledBack", type_="Stalled")
    assert (ended(stage).outcome, ended(stage).cause) == (Outcome.ROLLED_BACK, Cause.ALARM)
    assert ended(stage).message == "CloudWatch alarm errors fired (5 % of the requests failed)"
    assert list(stage.cluster.fleets) == [old]
    stage.run(100)
    assert list(stage.cluster.fleets) == [old], "it stays out"


@pytest.mark.parametrize("name", ["metric", "composite"])
def test_any_of_several_alarms_suffices(name: str) -> None:
    stage = watched(None, "metric", "composite")
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms[name].state = "ALARM"
    stage.step()
    assert deployment(stage).stage == "RollingBack"


def test_an_alarm_that_flaps_between_two_passes_rolls_back_all_the_same() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].flapped = True
    stage.step()
    assert deployment(stage).stage == "RollingBack"
    stage.until("RolledBack", type_="Stalled")
    assert ended(stage).message == "CloudWatch alarm errors fired"


def test_an_alarm_that_is_ok_again_changes_nothing_of_the_way_back() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    stage.alarms["errors"].state = "OK"
    stage.until("RolledBack", type_="Stalled")
    assert ended(stage).cause is Cause.ALARM
    assert stage.percent_new() == 0


def test_an_alarm_in_provisioning_does_not_roll_back_but_keeps_traffic_away() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Provisioning")
    stage.alarms["errors"].state = "ALARM"
    stage.run(60)
    assert deployment(stage).stage == "Provisioning", "the new revision has had no request: it says nothing of it"
    assert stage.condition("Reconciling") == ("True", "AlarmFiring")
    assert "before the first traffic" in stage.message()
    assert stage.percent_new() == 0
    stage.alarms["errors"].state = "OK"
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_an_alarm_that_fires_in_provisioning_until_the_deadline_ends_the_deployment() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Provisioning")
    stage.alarms["errors"].state = "ALARM"
    stage.run(30)
    end = deployment(stage).deadline
    stage.step((end - stage.now).total_seconds())
    stage.until("RolledBack", type_="Stalled")
    assert ended(stage).cause is Cause.ALARM
    assert "not finished by" in ended(stage).message


def test_a_firing_alarm_is_ignored_in_provisioning_on_demand_and_counts_once_it_was_ok() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    stage.image("new:1")
    reach(stage, "Provisioning")
    stage.alarms["errors"].state = "ALARM"
    stage.run(30)
    stage.annotate(ignore_firing=deployment(stage).revision)
    reach(stage, "Baking", 1)
    stage.run(5)
    assert deployment(stage).stage == "Baking", "it fired before"
    stage.alarms["errors"].state = "OK"
    stage.step()
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    assert deployment(stage).stage == "RollingBack"


def test_an_alarm_during_clean_up_is_ignored_and_not_even_read() -> None:
    stage = watched(blue_green("CANARY", wait=5, final=5))
    [old] = stage.cluster.fleets
    stage.cluster.routers[0].busy = frozenset({old})
    stage.image("new:1")
    reach(stage, "CleaningUp")
    stage.alarms["errors"].state = "ALARM"
    stage.run(5)
    assert deployment(stage).stage == "CleaningUp"
    assert stage.watched is None
    stage.cluster.routers[0].busy = frozenset()
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(("back", "percents"), [(None, [0]), (25, [25, 0])])
def test_an_alarm_during_rolling_goes_back_in_batches(back: int | None, percents: list[float]) -> None:
    stage = watched(rolling(25, wait=30, back=back))
    stage.image("new:1")
    reach(stage, "Baking", 2)
    stage.seen_percents.clear()
    stage.alarms["errors"].state = "ALARM"
    stage.until("RolledBack", type_="Stalled")
    assert [p for i, p in enumerate(stage.seen_percents) if not i or stage.seen_percents[i - 1] != p] == percents
    assert [(f.image, f.replicas) for f in stage.cluster.fleets.values()] == [("repo/churn:1", 4)]
    assert ended(stage).cause is Cause.ALARM


def test_an_alarm_counts_while_the_next_batch_comes() -> None:
    stage = watched(rolling(25, wait=30))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    reach(stage, "Provisioning", 1)
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    assert deployment(stage).stage == "RollingBack"


def test_rolling_back_does_not_need_the_deploymentconfig_of_the_spec() -> None:
    """An edit of the policy during the deployment is for the next one."""
    stage = watched(rolling(25, wait=30, back=25))
    stage.image("new:1")
    reach(stage, "Baking", 2)
    stage.edit("Endpoint", deploymentConfig=blue_green())
    stage.run(2)
    stage.seen_percents.clear()
    stage.image("repo/churn:1")
    stage.in_service()
    assert stage.seen_percents == [75, 100], "in batches, as it started"


# No data, no readings -------------------------------------------------------------------------------------------


def test_a_quiet_endpoint_is_deployed_all_night_with_a_warning() -> None:
    stage = watched(own=(TRAFFIC,))
    stage.alarms["errors"].state = "INSUFFICIENT_DATA"
    stage.image("new:1")
    warned = []
    for _ in range(300):
        decision = stage.step()
        warned += [note for note in decision.events if note.reason == "AlarmWithoutData"]
        if stage.condition("Ready") == ("True", "InService"):
            break
    assert ended(stage).outcome is Outcome.SUCCEEDED
    assert len(warned) == 2, "once for each bake that was passed without data"
    assert "traffic alarm errors" in warned[0].message
    assert 120 <= (ended(stage).end_time - ended(stage).start_time).total_seconds() < 150, "its bakes, no longer"


def test_an_alarm_that_loses_its_data_holds_and_goes_on_with_data() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "INSUFFICIENT_DATA"
    stage.run(200)
    assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1)
    assert stage.condition("Reconciling") == ("True", "AlarmsUnreadable")
    assert "no data any more" in stage.message()
    stage.alarms["errors"].state = "OK"
    stage.in_service()


@pytest.mark.parametrize(
    ("policy", "had_data", "outcome"),
    [
        ("Continue", True, Outcome.SUCCEEDED),
        ("Hold", False, None),
        ("RollBack", False, Outcome.ROLLED_BACK),
        (None, True, None),
        (None, False, Outcome.SUCCEEDED),
    ],
)
def test_what_no_data_means_is_the_alarms_to_say(policy: str | None, had_data: bool, outcome: Outcome | None) -> None:
    alarm = {**TRAFFIC, **({"onInsufficientData": policy} if policy else {})}
    stage = watched(own=(alarm,))
    stage.alarms["errors"].state = "OK" if had_data else "INSUFFICIENT_DATA"
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "INSUFFICIENT_DATA"
    stage.run(30)
    assert deployment(stage).stage == "Baking", "no bake ends early"
    stage.run(250)
    if outcome is None:
        assert deployment(stage).stage == "Baking"
        return
    assert ended(stage).outcome is outcome
    if outcome is Outcome.ROLLED_BACK:
        assert ended(stage).cause is Cause.ALARM
        assert "no data at the end of the bake" in ended(stage).message


def test_a_paused_bake_is_not_over_for_an_alarm_without_data() -> None:
    stage = watched(own=({**TRAFFIC, "onInsufficientData": "RollBack"},))
    stage.alarms["errors"].state = "INSUFFICIENT_DATA"
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.annotate(pause="true")
    stage.run(100)
    assert deployment(stage).stage == "Baking"
    stage.endpoint["metadata"]["annotations"].clear()
    stage.run(65)
    assert ended(stage).outcome is Outcome.ROLLED_BACK


def test_a_provider_that_is_away_for_45_minutes_holds_and_then_it_goes_on() -> None:
    policy = blue_green("CANARY", wait=60, final=60)
    policy["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = 7200
    stage = watched(policy)
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.provider_is_away = True
    for _ in range(45 * 6):
        stage.step(10)
        assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1)
    assert stage.condition("Reconciling") == ("True", "AlarmsUnreadable")
    assert stage.percent_new() == 25
    stage.provider_is_away = False
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_a_provider_that_stays_away_rolls_back_at_the_deadline() -> None:
    policy = blue_green("CANARY", wait=60, final=60)
    policy["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = 600
    stage = watched(policy)
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.provider_is_away = True
    end = deployment(stage).deadline
    while stage.now < end:
        assert deployment(stage).stage == "Baking"
        stage.step(10)
    stage.until("RolledBack", type_="Stalled")
    assert ended(stage).cause is Cause.ALARMS_UNREADABLE
    assert "CloudWatch alarm errors is Unreadable" in ended(stage).message
    assert (stage.now - end).total_seconds() < 30


def test_an_alarm_that_is_deleted_under_way_holds_until_it_is_back_or_taken_out() -> None:
    stage = watched(None, "errors", "latency")
    stage.image("new:1")
    reach(stage, "Baking", 1)
    latency = stage.alarms.pop("latency")
    stage.run(200)
    assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1)
    assert "CloudWatch alarm latency is Missing" in stage.message()
    stage.alarms["latency"] = latency
    reach(stage, "FinalBaking", 2)
    del stage.alarms["latency"]
    stage.run(200)
    assert deployment(stage).stage == "FinalBaking"
    config = {**blue_green("CANARY"), "autoRollbackConfiguration": {"alarms": [{"alarmName": "errors"}]}}
    stage.edit("Endpoint", deploymentConfig=config)
    stage.in_service()


def test_a_bake_ends_only_with_a_reading_from_after_its_end() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.run(30)
    stage.alarms["errors"].stuck = True
    stage.run(60)
    assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1), "the last reading is from before"
    assert stage.condition("Reconciling") == ("True", "AlarmsUnreadable")
    assert "waiting for a reading of CloudWatch alarm errors" in stage.message()
    stage.alarms["errors"].stuck = False
    stage.run(3)
    assert deployment(stage).step == 2


def test_a_reading_that_is_only_a_moment_away_is_no_trouble() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.run(55)
    stage.alarms["errors"].stuck = True
    reasons = []
    for _ in range(15):
        stage.step()
        reasons.append(stage.condition("Reconciling")[1])
    first = reasons.index("AlarmsUnreadable")
    assert set(reasons[:first]) == {"Deploying"}
    assert set(reasons[first:]) == {"AlarmsUnreadable"}
    assert deployment(stage).bake_until is not None
    assert 9 <= first <= 12, reasons


def test_without_a_bake_there_is_still_a_reading_after_each_step() -> None:
    stage = watched(blue_green("CANARY", wait=0, final=0))
    stage.image("new:1")
    reach(stage, "Shifting", 1)
    stage.alarms["errors"].stuck = True
    stage.run(20)
    assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1)
    stage.alarms["errors"].stuck = False
    stage.in_service()


def test_an_alarm_that_is_added_under_way_is_the_next_deployments() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    config = dict(stage.endpoint["spec"]["deploymentConfig"])
    config["autoRollbackConfiguration"] = {"alarms": [{"alarmName": "errors"}, {"alarmName": "new"}]}
    stage.alarms["new"] = AlarmNow("ALARM")
    stage.edit("Endpoint", deploymentConfig=config)
    stage.step()
    assert stage.watched is not None
    assert [question.name for question in stage.watched.alarms] == ["errors"]
    stage.in_service()
    stage.image("new:2")
    stage.until("AlarmFiring", type_="Reconciling")


# The start ------------------------------------------------------------------------------------------------------


def test_firing_before_the_start_holds_and_starts_by_itself() -> None:
    stage = watched()
    [old] = stage.cluster.fleets
    stage.alarms["errors"] = AlarmNow("ALARM", "since Tuesday")
    stage.image("new:1")
    stage.until("AlarmFiring", type_="Reconciling")
    stage.run(100)
    assert list(stage.cluster.fleets) == [old]
    assert stage.status.deployment is None
    assert "CloudWatch alarm errors (since Tuesday) in ALARM before the start" in stage.message()
    assert stage.status.alarms_text == "ALARM errors"
    stage.alarms["errors"] = AlarmNow()
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_ignore_firing_starts_now_and_the_alarm_counts_once_it_was_ok() -> None:
    stage = watched()
    stage.alarms["errors"].state = "ALARM"
    stage.image("new:1")
    stage.until("AlarmFiring", type_="Reconciling")
    stage.annotate(ignore_firing="churn-other")
    stage.run(2)
    assert [(a.command, a.result) for a in stage.status.commands] == [("ignore-firing", "Refused")]
    assert stage.status.deployment is None
    desired = stage.status.desired_revision
    assert desired is not None
    stage.annotate(ignore_firing=desired.name)
    reach(stage, "Baking", 1)
    assert [(a.command, a.result) for a in stage.status.commands] == [("ignore-firing", "Done")]
    assert deployment(stage).alarms[0].ignored is True
    reach(stage, "FinalBaking", 2)
    stage.alarms["errors"].state = "OK"
    stage.step()
    assert deployment(stage).alarms[0].ignored is None
    assert deployment(stage).stage == "FinalBaking", "that it fired until now does not count"
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    assert deployment(stage).stage == "RollingBack"


def test_an_ignored_alarm_that_never_gets_ok_does_not_keep_the_deployment_from_its_end() -> None:
    stage = watched()
    stage.alarms["errors"].state = "ALARM"
    stage.image("new:1")
    stage.until("AlarmFiring", type_="Reconciling")
    desired = stage.status.desired_revision
    assert desired is not None
    stage.annotate(ignore_firing=desired.name)
    reach(stage, "Provisioning")
    stage.endpoint["metadata"]["annotations"].clear()  # it was acted on
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (None, "AlarmMissing", "CloudWatch alarm errors is Missing: create it"),
        ("Unfit", "AlarmUnfit", "CloudWatch alarm errors is Unfit (of AWS/SageMaker): change it"),
    ],
)
def test_what_no_alarm_can_tell_is_refused_before_anything_is_made(state: str | None, reason: str, words: str) -> None:
    stage = watched()
    [old] = stage.cluster.fleets
    del stage.alarms["errors"]
    if state is not None:
        stage.alarms["errors"] = AlarmNow(state, "of AWS/SageMaker")
    stage.image("new:1")
    stage.until(reason, type_="Stalled")
    assert words in stage.message("Stalled")
    stage.run(30)
    assert list(stage.cluster.fleets) == [old]
    stage.alarms["errors"] = AlarmNow()
    stage.in_service()


def test_unreadable_before_the_start_holds() -> None:
    stage = watched()
    stage.provider_is_away = True
    stage.image("new:1")
    stage.until("AlarmsUnreadable", type_="Reconciling")
    stage.run(100)
    assert stage.status.deployment is None
    stage.provider_is_away = False
    stage.in_service()


def test_a_person_goes_back_with_the_alarm_firing() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    first = stage.status.revision
    assert first is not None
    stage.image("new:1")
    stage.in_service()
    stage.alarms["errors"].state = "ALARM"
    stage.annotate(rollback=first.name)
    began = stage.now
    stage.until("HeldByRollback", type_="Stalled")
    assert stage.status.revision is not None
    assert stage.status.revision.fleet_hash == first.fleet_hash
    assert (stage.now - began).total_seconds() <= stage.cluster.start_seconds + 5 + 5, "pods, traffic, and clean-up"
    assert stage.watched is None
    assert ended(stage).outcome is Outcome.SUCCEEDED
    stage.run(100)
    assert stage.status.revision.fleet_hash == first.fleet_hash, "no sync undoes it while the spec stays the same"


def test_a_long_hold_before_the_first_traffic_does_not_use_up_the_time_to_get_ready() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Provisioning")
    stage.alarms["errors"].state = "ALARM"
    for _ in range(200):
        stage.step(10)
    new = next(f for f in stage.cluster.fleets.values() if f.image == "new:1")
    new.ready, new.born = 0, stage.now
    stage.run(3)
    assert deployment(stage).stage == "Provisioning", "a pod that is replaced has its time again"
