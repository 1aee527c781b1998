"""Alarms before a deployment in the cluster starts, and before its first traffic."""

from typing import Any

import pytest
from tests.core.cluster_stage import AlarmNow, blue_green
from tests.core.watched import deployment, ended, reach, watched

from sluice.api.reasons import Outcome


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


def _ignored_while_it_fires() -> Any:
    """A canary in its first bake, whose alarm fires since before the start and was ignored."""
    stage = watched()
    stage.alarms["errors"].state = "ALARM"
    stage.image("new:1")
    stage.until("AlarmFiring", type_="Reconciling")
    assert stage.status.desired_revision is not None
    stage.annotate(ignore_firing=stage.status.desired_revision.name)
    reach(stage, "Baking", 1)
    return stage


def test_an_ignored_alarm_that_loses_its_data_is_ignored_until_it_is_ok() -> None:
    stage = _ignored_while_it_fires()
    stage.alarms["errors"].state = "INSUFFICIENT_DATA"
    stage.run(5)
    stage.alarms["errors"].state = "ALARM"
    stage.run(5)
    assert deployment(stage).stage == "Baking", "it never was OK: it still tells of the time before"
    stage.alarms["errors"].state = "INSUFFICIENT_DATA"
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED, "what is ignored holds nothing either"


def test_an_alarm_that_fired_before_the_start_had_data_and_holds_when_it_has_none_any_more() -> None:
    stage = _ignored_while_it_fires()
    stage.alarms["errors"].state = "OK"
    stage.run(5)
    stage.alarms["errors"].state = "INSUFFICIENT_DATA"
    stage.run(200)
    assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1)
    assert stage.condition("Reconciling") == ("True", "AlarmsUnreadable")


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
