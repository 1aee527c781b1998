"""Alarms of deployments in the cluster: what is watched when, and what each reading does at each moment."""

import pytest
from tests.core.cluster_stage import AlarmNow, blue_green, rolling
from tests.core.watched import TRAFFIC, deployment, ended, reach, watched

from sluice.api.reasons import Cause, Outcome
from sluice.core.cluster.names import fleet_name

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
