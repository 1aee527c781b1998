"""Instance types that the operator does not know, or may not know: nothing is made of them, and nothing is taken from
who serves, or from a deployment that is under way."""

from dataclasses import replace

from tests.core.cluster_stage import ClusterStage
from tests.core.watched import deployment, images_of, reach, watched

from sluice.api.reasons import Cause, Outcome
from sluice.core.cluster.actions import EnsureFleet
from sluice.core.cluster.observation import ClusterObservation


def _forget_types(stage: ClusterStage) -> None:
    """The operator starts anew, and cannot understand the ConfigMap."""
    looks = stage.observe

    def observe() -> ClusterObservation:
        return replace(looks(), unknown_instance_types=("ml.m5.large",))

    stage.observe = observe  # type: ignore[method-assign]


def _makes(stage: ClusterStage) -> bool:
    return any(isinstance(action, EnsureFleet) for action in stage.actions)


def test_what_serves_goes_on_serving_and_no_deployment_begins() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    _forget_types(stage)
    stage.image("two:1")
    for _ in range(60):
        stage.step()
        assert not _makes(stage)
    assert stage.status.deployment is None
    assert stage.condition("Serving")[0] == "True"
    assert stage.condition("Stalled") == ("True", "UnknownInstanceType")


def test_nothing_is_created_of_them() -> None:
    stage = ClusterStage()
    _forget_types(stage)
    for _ in range(30):
        stage.step()
        assert not _makes(stage)
    assert stage.condition("Stalled") == ("True", "UnknownInstanceType")


def test_a_deployment_that_is_under_way_is_turned_back_by_its_alarm() -> None:
    stage = watched()
    before = images_of(stage)
    stage.image("two:1")
    reach(stage, "Baking", 1)
    _forget_types(stage)
    stage.run(5)
    assert deployment(stage).stage == "Baking"
    stage.alarms["errors"].state = "ALARM"
    reach(stage, "RollingBack")
    stage.run(60)
    ended = stage.status.last_deployment
    assert ended is not None
    assert (ended.outcome, ended.cause) == (Outcome.ROLLED_BACK, Cause.ALARM)
    assert images_of(stage) == before


def test_or_comes_to_its_end() -> None:
    stage = watched()
    stage.image("two:1")
    reach(stage, "Baking", 1)
    _forget_types(stage)
    stage.run(200)
    assert stage.status.deployment is None
    assert images_of(stage) == ["two:1"]
