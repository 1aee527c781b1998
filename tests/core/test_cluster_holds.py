"""What a held deployment in the cluster still does at its moments: a deadline, a late reading, a promotion said in two
ways."""

import pytest
from tests.core.cluster_stage import blue_green
from tests.core.watched import TRAFFIC, deployment, ended, reach, served, watched

from sluice.api.reasons import Cause, Outcome


def limited(seconds: int) -> dict[str, object]:
    """A canary with an end."""
    policy = blue_green("CANARY", wait=60, final=60)
    policy["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = seconds
    return policy


def test_promoted_in_full_it_stays_so_whatever_step_is_promoted_afterwards() -> None:
    stage = served(blue_green("LINEAR", wait=60, final=60))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.cluster.routers[0].slow = True  # it stays in its step
    stage.annotate(promote=deployment(stage).revision)
    stage.step()
    reach(stage, "Shifting", 2)
    stage.annotate(promote=f"{deployment(stage).revision}/2")
    stage.step()
    assert stage.status.commands[-1].result == "Done"
    stage.cluster.routers[0].slow = False
    began = stage.now
    stage.in_service()
    assert (stage.now - began).total_seconds() < 60, "all bakes that were left are skipped"


def test_routers_that_do_not_follow_until_the_deadline_are_no_alarm_that_nobody_can_read() -> None:
    stage = watched(limited(300))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.cluster.routers[0].slow = stage.cluster.routers[1].slow = True
    reach(stage, "Shifting", 2)
    stage.provider_is_away = True
    stage.step((deployment(stage).deadline - stage.now).total_seconds())
    assert deployment(stage).stage == "RollingBack"
    assert deployment(stage).cause is Cause.DEADLINE


def test_a_paused_deployment_is_looked_at_when_its_deadline_comes() -> None:
    stage = served(limited(300))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.annotate(pause="true")
    late = deployment(stage).deadline
    stage.step((late - stage.now).total_seconds() - 20)
    assert deployment(stage).stage == "Baking"
    assert stage.decision is not None
    assert stage.decision.look_again == late, "nobody else wakes it at that moment"


def test_a_deployment_that_does_not_bake_is_looked_at_every_few_seconds() -> None:
    """In case an event was lost; its deadline may be hours away."""
    stage = served()
    stage.image("new:1")
    reach(stage, "Provisioning")
    stage.annotate(pause="true")
    stage.run(20)
    assert (deployment(stage).stage, stage.condition("Reconciling")) == ("Provisioning", ("True", "Paused"))
    assert stage.decision is not None
    assert stage.decision.look_again is not None
    assert (stage.decision.look_again - stage.now).total_seconds() <= 10


def test_a_bake_that_was_skipped_before_it_began_ends_at_once() -> None:
    stage = served()
    stage.image("new:1")
    reach(stage, "Provisioning")
    stage.annotate(promote=deployment(stage).revision)
    reach(stage, "Baking", 1)
    assert stage.decision is not None
    assert stage.decision.look_again == stage.now, "nobody else wakes it before the bake would have ended"


def test_a_reading_that_is_late_is_not_asked_for_without_a_pause() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].stuck = True
    stage.run(100)
    assert stage.condition("Reconciling") == ("True", "AlarmsUnreadable")
    assert stage.decision is not None
    assert stage.decision.look_again is not None
    assert (stage.decision.look_again - stage.now).total_seconds() >= 1


@pytest.mark.parametrize("step", [1, 2])
def test_a_bake_that_a_person_skipped_is_not_over_for_an_alarm_without_data(step: int) -> None:
    stage = watched(blue_green("CANARY", wait=2, final=2), own=({**TRAFFIC, "onInsufficientData": "RollBack"},))
    stage.alarms["errors"].state = "INSUFFICIENT_DATA"
    stage.image("new:1")
    reach(stage, "Shifting", 1)
    stage.annotate(promote=deployment(stage).revision)
    reach(stage, "Baking" if step == 1 else "FinalBaking", step)
    stage.step(5)
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED
