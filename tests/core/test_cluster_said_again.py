"""What a person says a second time, or while the spec names what is not there."""

import pytest
from tests.core.cluster_stage import blue_green
from tests.core.watched import CRASHES, deployment, ended, name_of, reach, served, watched

from sluice.api.reasons import Outcome


@pytest.mark.parametrize("how", ["taken away first", "with something after a slash"])
def test_a_rollback_to_the_same_revision_can_be_said_again(how: str) -> None:
    stage = served(blue_green(final=5))
    first = name_of(stage)
    stage.image("two:1")
    stage.in_service()
    stage.annotate(rollback=first)
    stage.until("HeldByRollback", type_="Stalled")
    stage.image("three:1")
    stage.in_service()
    assert name_of(stage) != first
    if how == "taken away first":
        del stage.endpoint["metadata"]["annotations"]["sluice.dev/rollback"]
        stage.step()
        assert stage.status.commands == ()
        stage.annotate(rollback=first)
    else:
        stage.annotate(rollback=f"{first}/2")
    stage.until("HeldByRollback", type_="Stalled")
    assert name_of(stage) == first
    stage.run(10)
    assert name_of(stage) == first


def test_a_promotion_taken_away_can_be_said_to_the_next_deployment_of_the_revision() -> None:
    stage = watched(blue_green("CANARY", wait=3000, final=0))
    stage.image("two:1")
    for attempt in ("1", "2"):
        reach(stage, "Baking", 1)
        stage.annotate(promote=f"{deployment(stage).revision}/1")
        reach(stage, "CleaningUp" if attempt == "2" else "FinalBaking", 2)
        if attempt == "1":
            stage.alarms["errors"].state = "ALARM"
            stage.until("RolledBack", type_="Stalled")
            stage.alarms["errors"].state = "OK"
            del stage.endpoint["metadata"]["annotations"]["sluice.dev/promote"]
            stage.annotate(retry=attempt)


def test_a_pause_that_stands_does_not_hold_up_what_a_person_brings_back() -> None:
    stage = served()
    good = name_of(stage)
    stage.image("new:1")
    stage.in_service()
    stage.annotate(pause="true", rollback=good)
    stage.until("HeldByRollback", type_="Stalled", most=60)
    assert name_of(stage) == good
    assert ("pause", "Refused") in [(ack.command, ack.result) for ack in stage.status.commands]
    stage.edit("Model", primaryContainer={"image": "third:1"})
    reach(stage, "Provisioning")
    stage.until("Paused", most=60)
    assert ("pause", "Done") in [(ack.command, ack.result) for ack in stage.status.commands]


def test_what_a_person_brings_back_is_paused_by_its_name() -> None:
    stage = served()
    good = name_of(stage)
    stage.image("new:1")
    stage.in_service()
    stage.annotate(pause=good, rollback=good)
    stage.until("Paused", most=60)
    stage.run(60)
    assert name_of(stage) != good
    stage.annotate(pause="")
    stage.until("HeldByRollback", type_="Stalled", most=60)


def test_retry_is_refused_while_what_it_would_try_again_is_still_on_its_way_back() -> None:
    """Its latch is made when it has been rolled back: a retry before that was Done, and nothing came of it."""
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    stage.annotate(retry="1")
    stage.step()
    assert deployment(stage).stage == "RollingBack"
    [said] = stage.status.commands
    assert (said.command, said.value, said.result) == ("retry", "1", "Refused")
    assert "is still being rolled back: say it when it has been" in (said.message or "")
    stage.until("RolledBack", type_="Stalled")
    stage.alarms["errors"].state = "OK"
    stage.run(20)
    assert stage.status.deployment is None
    stage.annotate(retry="2")
    reach(stage, "Baking", 1)


# While the spec names what is not there -------------------------------------------------------------------------


@pytest.mark.parametrize("under_way", [True, False], ids=["under way", "long after"])
def test_a_rollback_that_is_said_while_a_model_is_missing_holds_when_it_is_back(under_way: bool) -> None:
    """What the spec asks for cannot be resolved, so what it asked for last is what is turned away: else it would be
    deployed again by itself, over the head of whoever turned it back."""
    stage = served(blue_green("CANARY", wait=20, final=20))
    good = name_of(stage)
    stage.image("two:1")
    if under_way:
        reach(stage, "Baking", 1)
    else:
        stage.in_service()
    missing = stage.objects.pop(("Model", "churn"))
    stage.step()
    stage.annotate(rollback=good, pause="true")
    stage.run(60)
    assert stage.status.deployment is None, "a pause of true holds no rollback up"
    assert name_of(stage) == good
    assert ended(stage).outcome is (Outcome.ROLLED_BACK if under_way else Outcome.SUCCEEDED)
    stage.objects["Model", "churn"] = missing
    stage.run(60)
    assert stage.condition("Stalled") == ("True", "HeldByRollback")
    stage.annotate(retry="1", pause="")
    reach(stage, "Baking", 1)


def test_a_rollback_is_under_way_when_the_missing_model_is_back() -> None:
    stage = served(blue_green("CANARY", wait=20, final=20))
    good = name_of(stage)
    stage.image("two:1")
    stage.in_service()
    missing = stage.objects.pop(("Model", "churn"))
    stage.step()
    stage.annotate(rollback=good)
    reach(stage, "Provisioning")
    stage.objects["Model", "churn"] = missing
    stage.until("HeldByRollback", type_="Stalled", most=60)
    assert name_of(stage) == good
    assert ended(stage).outcome is Outcome.SUCCEEDED
    stage.image("three:1")
    reach(stage, "Baking", 1)


def test_what_is_brought_back_while_a_model_is_missing_and_fails_leaves_the_latch_as_it_was() -> None:
    stage = served(blue_green("CANARY", wait=20, final=20))
    good = name_of(stage)
    stage.image("two:1")
    stage.in_service()
    stage.image("three:1")
    reach(stage, "Baking", 1)
    stage.annotate(rollback=name_of(stage))
    stage.until("HeldByRollback", type_="Stalled", most=60)
    stage.cluster.troubles["one:1"] = CRASHES
    missing = stage.objects.pop(("Model", "churn"))
    stage.step()
    stage.annotate(rollback=good)
    stage.run(60)
    assert (ended(stage).revision, ended(stage).outcome) == (good, Outcome.ROLLED_BACK)
    stage.objects["Model", "churn"] = missing
    stage.run(60)
    assert stage.status.deployment is None
    assert stage.condition("Stalled") == ("True", "HeldByRollback")
