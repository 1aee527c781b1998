"""What is known to go wrong in progressive delivery elsewhere, as decisions in the cluster: each test names reports of
argo-rollouts (AR) or flagger (FL). What most reports share, traffic before capacity and capacity gone before traffic,
is checked by the stage at every action."""

from typing import Any

import pytest
from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green, rolling
from tests.core.watched import deployment, ended, reach, watched

from sluice.api.reasons import Cause, Outcome
from sluice.core.cluster.actions import DeleteFleet, ScaleFleet
from sluice.core.cluster.observation import PodTrouble

OLD = "repo/churn:1"


def old_of(stage: ClusterStage) -> Any:
    return next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == OLD)


@pytest.mark.parametrize(("at", "step"), [("Baking", 1), ("Baking", 2), ("FinalBaking", 3)])
def test_the_way_back_leads_to_a_fleet_of_full_size(at: str, step: int) -> None:
    """AR#4612, AR#3020: back to a stable set that was scaled for a share of the traffic."""
    stage = watched(blue_green("LINEAR", wait=60, final=60, value=33))
    stage.image("new:1")
    reach(stage, at, step)
    assert (old_of(stage).ready, old_of(stage).replicas) == (4, 4)
    stage.image(OLD)
    stage.step()
    assert stage.percent_new() == 100, "all traffic is on the old revision, which the spec asks for again"
    assert old_of(stage).ready == 4


def test_a_third_revision_goes_over_the_one_in_service() -> None:
    """AR#3372: V3 during V2 sent all traffic to a stable set that was not there yet."""
    stage = watched(blue_green("LINEAR", wait=60, final=60, value=33))
    stage.image("new:1")
    reach(stage, "Baking", 2)
    stage.image("new:2")
    while stage.status.deployment is None or stage.status.deployment.stage != "Shifting":
        stage.step()
        assert old_of(stage).ready == 4
    stage.in_service()


def test_what_a_person_promoted_can_still_be_turned_back() -> None:
    """AR#4461: abort is ignored after promote-full."""
    stage = watched(blue_green("CANARY", wait=600, final=600))
    first = stage.status.revision
    assert first is not None
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.annotate(promote=deployment(stage).revision)
    reach(stage, "Shifting", 2)
    stage.annotate(rollback=first.name)
    stage.until("HeldByRollback", type_="Stalled")
    assert [f.image for f in stage.cluster.fleets.values()] == [OLD]


@pytest.mark.parametrize("seconds", [60, 3600, 86_400])
def test_what_was_rolled_back_is_not_tried_again_by_itself(seconds: int) -> None:
    """AR#2929: an aborted rollout starts again."""
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "ALARM"
    stage.until("RolledBack", type_="Stalled")
    stage.alarms["errors"].state = "OK"
    for _ in range(5):
        stage.step(seconds)
        assert stage.status.deployment is None
    assert [f.image for f in stage.cluster.fleets.values()] == [OLD]


def test_going_back_with_nothing_under_way_changes_nothing() -> None:
    """AR#1292: abort with nothing in flight scales the stable set to 0."""
    stage = watched()
    assert stage.status.revision is not None
    stage.annotate(rollback=stage.status.revision.name)
    for _ in range(30):
        stage.step()
        assert not [a for a in stage.actions if isinstance(a, (ScaleFleet, DeleteFleet))]
    assert stage.condition("Ready") == ("True", "InService")


@pytest.mark.parametrize("what", ["paused", "provider away", "alarm missing", "router frozen"])
def test_no_gate_outlasts_the_deadline(what: str) -> None:
    """FL#1591, FL#1801, FL#1450, AR#4128: waiting at a gate for ever, and no rollback."""
    policy = blue_green("CANARY", wait=60, final=60)
    policy["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = 600
    stage = watched(policy)
    stage.image("new:1")
    reach(stage, "Provisioning" if what == "router frozen" else "Baking")
    if what == "paused":
        stage.annotate(pause="true")
    elif what == "provider away":
        stage.provider_is_away = True
    elif what == "alarm missing":
        stage.alarms.clear()
    else:
        for router in stage.cluster.routers:
            router.slow = True
    end = deployment(stage).deadline
    while stage.now < end:
        stage.step(10)
    stage.step()
    assert deployment(stage).stage == "RollingBack"
    for router in stage.cluster.routers:
        router.slow = False
    stage.until("RolledBack", type_="Stalled")
    assert ended(stage).cause in {Cause.DEADLINE, Cause.ALARMS_UNREADABLE}


def test_a_rollback_of_the_last_bake_keeps_the_pods_that_work() -> None:
    """FL#1898: rollback after a failed promotion deletes the only working pods."""
    stage = watched()
    [old] = stage.cluster.fleets
    stage.image("new:1")
    reach(stage, "FinalBaking", 2)
    stage.cluster.troubles["new:1"] = PodTrouble("CrashLoop", "exit code 1", 4)
    for _ in range(60):
        stage.step()
        assert stage.cluster.fleets[old].gone_at is None
    assert ended(stage).cause is Cause.HEALTH


@pytest.mark.parametrize("policy", [blue_green("CANARY", wait=5, final=5), rolling(50, wait=5)], ids=["canary", "roll"])
@pytest.mark.parametrize("ready", [0, 3])
def test_a_broken_fleet_in_service_does_not_block_its_fix(policy: dict[str, Any], ready: int) -> None:
    """AR#1774, AR#3110, AR#4365, FL#639: an unhealthy stable set blocks the revision that mends it."""
    stage = watched(policy)
    stage.capped[old_of(stage).name] = ready
    stage.run(3)
    stage.image("fix:1")
    stage.in_service()
    assert [(f.image, f.ready) for f in stage.cluster.fleets.values()] == [("fix:1", 4)]


def test_a_way_back_long_after_success_skips_the_bakes() -> None:
    """AR#2168, AR#574, FL#616: undo runs all steps and analyses again."""
    stage = watched(blue_green("LINEAR", wait=3600, final=3600, value=10))
    first = stage.status.revision
    assert first is not None
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.annotate(promote=deployment(stage).revision)
    stage.in_service()
    began = stage.now
    stage.annotate(rollback=first.name)
    stage.until("HeldByRollback", type_="Stalled")
    assert (stage.now - began).total_seconds() < 30


def test_the_same_version_can_be_deployed_again_when_a_person_says_so() -> None:
    """FL#862, FL#1152: the failed version cannot be deployed again."""
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "ALARM"
    stage.until("RolledBack", type_="Stalled")
    stage.alarms["errors"].state = "OK"
    stage.annotate(retry="1")
    stage.in_service()
    assert [f.image for f in stage.cluster.fleets.values()] == ["new:1"]


def test_an_outage_of_the_metrics_rolls_nothing_back() -> None:
    """AR#2771, AR#1905, FL#1035: five failed queries, or none that answers, are a failed canary."""
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.provider_is_away = True
    stage.run(300)
    assert deployment(stage).stage == "Baking"
    stage.provider_is_away = False
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_a_misspelt_alarm_never_passes_in_silence() -> None:
    """FL#1581: a misnamed metric silently passes."""
    stage = watched()
    stage.alarms = {"erors": AlarmNow()}
    stage.image("new:1")
    stage.until("AlarmMissing", type_="Stalled")
    stage.run(100)
    assert stage.status.deployment is None


@pytest.mark.parametrize("away_seconds", [1, 20, 59])
def test_an_operator_that_was_away_neither_shortens_nor_lengthens_a_bake(away_seconds: int) -> None:
    """Flagger's ticker fires at once when it starts: each restart cuts the bake short."""
    stage = watched(blue_green("CANARY", wait=60, final=0))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    until = deployment(stage).bake_until
    stage.step(away_seconds)
    assert (deployment(stage).step, deployment(stage).bake_until) == (1, until)
    while deployment(stage).step == 1:
        stage.step()
    assert 0 <= (stage.now - until).total_seconds() <= 2


def test_a_scaler_meets_no_fleet_below_its_share() -> None:
    """AR#2857, AR#4347, FL#1600: one scaler over both sets, and a stable set that shrinks too early."""
    stage = watched(blue_green("CANARY", wait=30, final=30))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    old_of(stage).replicas = 6
    stage.run(5)
    assert old_of(stage).replicas == 6, "it is not fought"
    stage.alarms["errors"].state = "ALARM"
    stage.until("RolledBack", type_="Stalled")
    assert [f.replicas for f in stage.cluster.fleets.values()] == [6]
