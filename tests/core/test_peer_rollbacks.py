"""How other progressive-delivery controllers go back, or do not, as tests; see test_peer_defects.py."""

from datetime import timedelta
from typing import Any

import pytest
from tests.core.cluster_stage import AlarmNow, blue_green, rolling
from tests.core.peers import NEW, OLD, at, edited, images, rolled_back, served, settled, until
from tests.core.watched import watched

from sluice.api.reasons import Outcome
from sluice.core.cluster.actions import DeleteFleet, ScaleFleet
from sluice.core.cluster.observation import PodTrouble

# Rollbacks that do not ------------------------------------------------------------------------------------------


def test_ar_4612_a_fast_rollback_sent_most_traffic_to_a_set_that_was_sized_for_a_few_percent() -> None:
    stage = until(edited(served(rolling(25, wait=5))), at("Baking", 3))
    stage.image(OLD)
    until(stage, settled)  # the stage refuses weight that the ready pods are not for
    assert images(stage) == [(OLD, 4, 4)]


def test_ar_3020_the_stable_spec_was_applied_again_and_got_everything_while_undersized() -> None:
    stage = until(edited(served(rolling(25, wait=5))), at("Provisioning", 3))
    [old] = [fleet for fleet in stage.cluster.fleets.values() if fleet.image == OLD]
    stage.image(OLD)
    for _ in range(200):
        stage.step()
        assert stage.cluster.route is not None
        share = sum(f.weight for f in stage.cluster.route.spec.fleets if f.name == old.name) / 1_000_000
        assert share * 4 <= old.ready + 1e-3
        if settled(stage):
            break
    assert images(stage) == [(OLD, 4, 4)]


@pytest.mark.parametrize("policy", [blue_green("CANARY", wait=600), rolling(25, wait=30)])
def test_ar_3372_a_third_version_during_the_second_moved_all_traffic_before_there_was_capacity(
    policy: dict[str, Any],
) -> None:
    stage = until(edited(served(policy)), at("Baking"))
    stage.image("new:2")
    until(stage, lambda s: {f.image for f in s.cluster.fleets.values()} == {"new:2"}, most=2000)
    until(stage, settled)
    assert images(stage) == [("new:2", 4, 4)]


def test_ar_4461_an_abort_was_ignored_after_a_full_promotion() -> None:
    stage = served(blue_green("CANARY", wait=600, final=600))
    first = stage.status.revision
    assert first is not None
    until(edited(stage), at("Baking"))
    assert stage.status.deployment is not None
    stage.annotate(promote=stage.status.deployment.revision)
    stage.run(4)
    stage.annotate(rollback=first.name)
    until(stage, lambda s: images(s) == [(OLD, 4, 4)] and settled(s))


def test_ar_2929_an_aborted_rollout_was_tried_again_by_itself() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    until(edited(stage), at("Baking"))
    stage.alarms["errors"] = AlarmNow("ALARM")
    until(stage, settled)
    stage.alarms["errors"] = AlarmNow()
    for _ in range(50):
        stage.step(60.0)
        assert stage.status.deployment is None
    assert images(stage) == [(OLD, 4, 4)]
    assert stage.condition("Stalled") == ("True", "RolledBack")


def test_ar_1292_an_abort_with_nothing_in_flight_scaled_the_stable_set_to_zero() -> None:
    stage = served(blue_green())
    assert stage.status.revision is not None
    stage.annotate(rollback=stage.status.revision.name)
    for _ in range(60):
        stage.step()
        assert not [a for a in stage.actions if isinstance(a, ScaleFleet | DeleteFleet)]
    assert images(stage) == [(OLD, 4, 4)]
    assert stage.condition("Ready")[0] == "True"


def test_fl_1591_a_deadline_passed_in_the_promotion_and_it_looped_without_a_rollback() -> None:
    stage = until(edited(served(blue_green(final=3600))), at("FinalBaking"))
    assert stage.status.deployment is not None
    assert stage.status.deployment.deadline is not None
    new = next(f for f in stage.cluster.fleets.values() if f.image == NEW)
    stage.capped[new.name] = new.ready = 1  # short of pods: the last step cannot end
    while stage.now < stage.status.deployment.deadline:
        stage.step(300.0)
        if stage.status.deployment is None:
            break
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.ROLLED_BACK


def test_fl_1801_a_failure_while_a_gate_was_closed_did_not_roll_back() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    until(edited(stage), at("Baking"))
    stage.annotate(pause="true")
    stage.run(100)
    stage.alarms["errors"] = AlarmNow("ALARM")
    stage.step()
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "RollingBack"
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]


def test_fl_1898_a_rollback_deleted_the_only_pods_that_worked() -> None:
    """The old fleet has died while all traffic was on the new one; the way back goes where somebody answers."""
    stage = until(edited(served(blue_green(final=600))), at("FinalBaking"))
    stage.cluster.troubles[OLD] = PodTrouble("CrashLoop", "exit code 1", 4)
    stage.run(5)
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == NEW)
    assert (new.ready, new.gone_at) == (4, None), "what fails at the old fleet takes nothing from the new one"
    until(stage, settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


def test_fl_862_the_same_version_could_not_be_deployed_again_after_a_rollback() -> None:
    stage = rolled_back()
    stage.annotate(retry="again")
    until(stage, settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


def test_fl_1152_an_annotation_outside_the_pod_template_did_not_make_it_try_again() -> None:
    stage = rolled_back()
    stage.annotate(redeploy="2")
    until(stage, settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


def test_ar_3578_a_new_image_after_an_abort_was_not_taken() -> None:
    stage = rolled_back()
    until(edited(stage, "new:2"), settled, most=1000)
    assert images(stage) == [("new:2", 4, 4)]


# Slow rollbacks -------------------------------------------------------------------------------------------------


def test_ar_2168_undoing_a_success_ran_all_steps_again() -> None:
    stage = served(blue_green("LINEAR", wait=600, final=600, value=10), count=10)
    first = stage.status.revision
    assert first is not None
    stage.edit("Endpoint", deploymentConfig=blue_green(final=0))
    until(edited(stage), settled)
    stage.edit("Endpoint", deploymentConfig=blue_green("LINEAR", wait=600, final=600, value=10))
    began = stage.now
    stage.annotate(rollback=first.name)
    until(stage, lambda s: {f.image for f in s.cluster.fleets.values()} == {OLD})
    assert stage.now - began < timedelta(seconds=30), "its pods' start, no bakes"


def test_fl_616_a_revert_went_through_the_whole_analysis() -> None:
    stage = until(edited(served(blue_green("CANARY", wait=3600, final=3600))), at("Baking"))
    began = stage.now
    stage.image(OLD)
    until(stage, lambda s: s.status.deployment is None)
    assert stage.now - began < timedelta(seconds=15)
