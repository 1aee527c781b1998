"""A scaler that takes instances of the old fleet away again and again, because half of its load is gone by plan."""

import pytest
from tests.core.cluster_stage import AlarmNow, ClusterStage, Fleet, blue_green
from tests.core.watched import deployment, reach, watched

from sluice.core.cluster.actions import ScaleFleet


def _baking() -> tuple[ClusterStage, Fleet]:
    stage = watched(blue_green("CANARY", wait=1800, final=60, value=50))
    [old] = stage.cluster.fleets.values()
    stage.cluster.start_seconds = 30
    stage.image("new:1")
    reach(stage, "Baking")
    return stage, old


def _told(stage: ClusterStage) -> bool:
    """Whether the last pass tells of the scaler."""
    return stage.decision is not None and any(event.reason == "ScaledInAgain" for event in stage.decision.events)


def _scaler(stage: ClusterStage, old: Fleet, seconds: int, each: int = 15) -> tuple[list[int], int]:
    """It looks every so many seconds, and wants two instances. When its work was undone, and how often it was told."""
    undone, told = [], 0
    for second in range(seconds):
        if second % each == 0 and old.replicas > 2:
            stage.scale(old, 2)
        stage.step()
        undone += [second for action in stage.actions if isinstance(action, ScaleFleet) and action.name == old.name]
        told += _told(stage)
    return undone, told


def test_it_is_undone_more_and_more_rarely() -> None:
    stage, old = _baking()
    undone, told = _scaler(stage, old, 1200)
    assert undone[:3] == [0, 15, 30], "three times at once"
    assert len(undone) <= 8, f"20 minutes: {undone}"
    assert told == 1
    stage.in_service()


def test_when_an_alarm_fires_it_is_whole_again_at_once() -> None:
    stage, old = _baking()
    _scaler(stage, old, 300)
    stage.scale(old, 2)
    stage.step()
    assert (deployment(stage).stage, old.replicas) == ("Baking", 2)
    stage.alarms["errors"] = AlarmNow("ALARM")
    stage.run(2)
    assert (deployment(stage).stage, old.replicas) == ("RollingBack", 4)


@pytest.mark.parametrize("times", [1, 3])
def test_what_a_person_does_a_few_times_is_undone_at_once(times: int) -> None:
    stage, old = _baking()
    for _ in range(times):
        stage.scale(old, 1)
        stage.run(2)
        assert old.replicas == 4
        assert not _told(stage)
        stage.run(60)
