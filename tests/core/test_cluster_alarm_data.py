"""Alarms of deployments in the cluster without data, without readings, or with late ones."""

import pytest
from tests.core.cluster_stage import AlarmNow, blue_green
from tests.core.watched import TRAFFIC, deployment, ended, reach, watched

from sluice.api.reasons import Cause, Outcome


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


def test_what_was_read_before_the_end_of_the_bake_does_not_say_that_it_ended_without_data() -> None:
    stage = watched(own=({**TRAFFIC, "onInsufficientData": "RollBack"},))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "INSUFFICIENT_DATA"
    stage.run(50)
    stage.alarms["errors"].stuck = True
    stage.run(12)
    assert deployment(stage).bake_until < stage.now
    assert deployment(stage).stage == "Baking", "requests came since then, for all that is known"
    stage.alarms["errors"] = AlarmNow()
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


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


@pytest.mark.parametrize("retained", [False, True])
def test_alarms_are_taken_out_with_the_whole_deploymentconfig_unless_it_is_retained(retained: bool) -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    del stage.alarms["errors"]
    del stage.endpoint["spec"]["deploymentConfig"]
    stage.edit("Endpoint", retainDeploymentConfig=retained)
    stage.run(300)
    running = stage.status.deployment
    assert (running is not None and running.step == 1) is retained
    assert ("CloudWatch alarm errors is Missing" in stage.message()) is retained


def test_alarms_that_are_all_taken_out_are_shown_no_more() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    del stage.alarms["errors"]
    stage.run(2)
    assert stage.status.alarms_text == "Missing errors"
    stage.edit("Endpoint", deploymentConfig=blue_green("CANARY", wait=60, final=60))
    stage.run(2)
    assert deployment(stage).stage == "Baking"
    assert (stage.status.alarms, stage.status.alarms_text) == ((), None)


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
    reasons, before = [], stage.status
    for _ in range(15):
        stage.step()
        reasons.append(stage.condition("Reconciling")[1])
        if reasons[-1] == "Deploying":
            assert stage.status == before, "nor worth a write: the bake's end is said already"
    first = reasons.index("AlarmsUnreadable")
    assert set(reasons[:first]) == {"Deploying"}
    assert set(reasons[first:]) == {"AlarmsUnreadable"}
    assert deployment(stage).bake_until is not None
    assert 9 <= first <= 12, reasons


def test_where_something_else_was_said_last_the_reading_that_is_waited_for_is_told() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].stuck = True
    said = deployment(stage).model_copy(update={"message": "paused since 00:00:05 UTC"})
    stage.status = stage.status.model_copy(update={"deployment": said})
    stage.step(61)
    assert deployment(stage).message.startswith("waiting for a reading of CloudWatch alarm errors")
    assert stage.condition("Reconciling") == ("True", "Deploying")


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
