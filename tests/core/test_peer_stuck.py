"""How other progressive-delivery controllers get stuck, or heed metrics that say nothing, as tests; see
test_peer_defects.py."""

from datetime import timedelta
from typing import Any

import pytest
from tests.core.cluster_stage import AlarmNow, blue_green, rolling
from tests.core.peers import NEW, OLD, at, edited, images, served, settled, until
from tests.core.watched import watched

from sluice.api.reasons import Cause, Outcome
from sluice.api.status import EndpointStatus
from sluice.core.cluster.observation import PodTrouble

# Stuck ----------------------------------------------------------------------------------------------------------


def test_ar_4128_a_bad_image_neither_met_its_deadline_nor_could_be_aborted() -> None:
    stage = edited(served(blue_green("CANARY", wait=60)), "bad:1")
    stage.run(10)
    assert stage.status.deployment is not None
    stage.image(OLD)
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]
    stage.image("bad:1")
    stage.run(10)
    stage.step(10_000.0)
    until(stage, settled)
    assert stage.condition("Stalled") == ("True", "RolledBack")


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(PodTrouble("CrashLoop", "exit code 1", 4, final=True), id="ar_1774_a_broken_stable_set"),
        pytest.param(PodTrouble("Quota", "exceeded quota", 4), id="ar_3110_a_stable_set_in_replica_failure"),
        pytest.param(PodTrouble("PingFailing", "no answer", 4), id="fl_639_an_unhealthy_primary"),
    ],
)
@pytest.mark.parametrize("policy", [blue_green("CANARY", wait=5, final=5), rolling(25, wait=5)])
def test_the_fix_was_blocked_by(trouble: PodTrouble, policy: dict[str, Any]) -> None:
    stage = served(policy)
    stage.cluster.troubles[OLD] = trouble
    stage.run(5)
    stage.image("fix:1")
    for _ in range(600):
        stage.step()
        if settled(stage):
            break
    assert images(stage) == [("fix:1", 4, 4)]


def test_ar_4365_nodes_came_and_went_and_the_promotion_never_found_all_pods_available() -> None:
    stage = edited(served(blue_green("LINEAR", wait=10, final=10, value=50)))
    stage.cluster.start_seconds = 2.0
    for number in range(200):
        new = next((f for f in stage.cluster.fleets.values() if f.image == NEW), None)
        if number % 4 == 0 and new is not None and new.ready:
            new.ready -= 1
            new.born = stage.now
        stage.step()
        if stage.status.deployment is None and number > 10:
            break
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED


def test_fl_1588_it_was_stuck_in_the_promotion_and_could_not_go_back() -> None:
    stage = until(edited(served(blue_green(final=3600))), at("FinalBaking"))
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == NEW)
    stage.capped[new.name] = new.ready = 1
    stage.run(30)
    stage.image(OLD)
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]


def test_fl_1450_a_gate_kept_it_waiting_for_hours_without_a_time_limit() -> None:
    stage = until(edited(served(blue_green("CANARY", wait=60, final=60))), at("Baking"))
    stage.annotate(pause="true")
    stage.step()
    assert stage.status.deployment is not None
    deadline = stage.status.deployment.deadline
    assert deadline is not None
    stage.step((deadline - stage.now) / timedelta(seconds=1) + 1)
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.cause is Cause.DEADLINE


# Metrics that are away, or say nothing --------------------------------------------------------------------------


def test_ar_2771_errors_of_the_provider_aborted_a_good_rollout() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    until(edited(stage), at("Baking"))
    stage.provider_is_away = True
    for _ in range(27):
        stage.step(100.0)  # 45 minutes
        assert stage.status.deployment is not None
        assert stage.status.deployment.stage == "Baking"
    stage.provider_is_away = False
    until(stage, settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


def test_ar_1905_an_empty_result_rolled_back_instead_of_waiting() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    until(edited(stage), at("Baking"))
    stage.alarms["errors"] = AlarmNow("INSUFFICIENT_DATA")
    stage.run(200)
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "Baking"
    stage.alarms["errors"] = AlarmNow()
    until(stage, settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


def test_fl_1035_an_idle_canary_was_rolled_back_for_lack_of_traffic() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    stage.alarms["errors"] = AlarmNow("INSUFFICIENT_DATA")  # nobody has called all night
    until(edited(stage), settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


# False success --------------------------------------------------------------------------------------------------


def test_fl_1581_a_metric_with_a_wrong_name_passed_in_silence() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    del stage.alarms["errors"]
    stage.image(NEW)
    stage.until("AlarmMissing", type_="Stalled")
    stage.run(100)
    assert images(stage) == [(OLD, 4, 4)]
    assert "errors" in stage.message("Stalled")


# Stuck until the controller was restarted -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage_word", ["Provisioning", "Shifting", "Baking", "FinalBaking", "CleaningUp", "RollingBack"]
)
def test_ar_2522_only_a_restart_of_the_controller_got_it_going_again(stage_word: str) -> None:
    """Nothing of a deployment is remembered outside of its status: what a new process makes of it, the old one does.
    The status goes through JSON at every pass; here a field that only a newer operator knows is in it too."""
    stage = served(blue_green("CANARY", wait=5, final=5))
    stage.image("bad:1" if stage_word == "RollingBack" else NEW)
    if stage_word == "RollingBack":
        until(stage, at("Provisioning")).image(OLD)
    until(stage, at(stage_word))
    stage.status = EndpointStatus.from_manifest({**stage.status.to_manifest(), "whatIsNewer": {"a": 1}})
    until(stage, settled)
    assert stage.condition("Ready")[0] == "True"
