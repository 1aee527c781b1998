"""A scaler, a person with kubectl, a lost node, an old fleet that fails: at every moment of a deployment, under every
policy, none of them breaks a step, a share or a rollback."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, Fleet, blue_green, rolling

from sluice.api.reasons import Cause, Outcome, Reason
from sluice.core.cluster.actions import EnsureFleet
from sluice.core.cluster.observation import PodTrouble
from sluice.core.observation import CallProblem

OLD, NEW = "repo/churn:1", "new:1"
COUNT = 4
POLICIES: dict[str, dict[str, Any]] = {
    "all at once": {"deploymentConfig": blue_green(final=5)},
    "canary": {"deploymentConfig": blue_green("CANARY", wait=5, final=5)},
    "rolling": {"deploymentConfig": rolling(25, wait=5)},
    "rolling back in batches": {"deploymentConfig": rolling(50, wait=5, back=25)},
    "replace first": {"deploymentConfig": rolling(25, wait=5), "kubernetes": {"replaceFirst": True}},
}


def moments(spec: dict[str, Any]) -> list[ClusterStage]:
    """A deployment under a policy, at each pass in which something changed."""
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": COUNT}, **spec)
    stage.cluster.start_seconds = 2.0
    stage.in_service()
    stage.image(NEW)
    found: list[ClusterStage] = []
    before = None
    for _ in range(200):
        stage.step()
        running = stage.status.deployment
        if running is None and found:
            return found
        seen = running and (running.stage, running.step, [(f.replicas, f.ready) for f in stage.cluster.fleets.values()])
        if running is not None and seen != before:
            found.append(copy.deepcopy(stage))
        before = seen
    raise AssertionError(stage.message())


MOMENTS = [
    pytest.param(stage, id=f"{name}-{number}-{stage.status.deployment.stage}")  # type: ignore[union-attr]
    for name, spec in POLICIES.items()
    for number, stage in enumerate(moments(spec))
]
every_moment = pytest.mark.parametrize("moment", MOMENTS)


def fleet(stage: ClusterStage, image: str) -> Fleet | None:
    return next((f for f in stage.cluster.fleets.values() if f.image == image and f.gone_at is None), None)


def scale(stage: ClusterStage, image: str, replicas: int) -> None:
    """As somebody's `kubectl scale`, or a HorizontalPodAutoscaler."""
    found = fleet(stage, image)
    if found is not None:
        stage.scale(found, replicas)


def bears_its_share(stage: ClusterStage) -> None:
    """Whoever gets more of the requests has the instances for them."""
    running = stage.status.deployment
    assert stage.cluster.route is not None
    for entry in stage.cluster.route.spec.fleets:
        here = stage.cluster.fleets.get(entry.name)
        if entry.weight and here is not None and here.image == NEW and running is not None:
            need = math.ceil(round(entry.weight / 1_000_000 * COUNT, 3)) - (1 if running.replace_first else 0)
            assert here.replicas >= need, f"{entry.weight / 10_000} % on {here.replicas} instances"


def to_the_end(stage: ClusterStage, each: Callable[[ClusterStage], None] = bears_its_share) -> None:
    for _ in range(400):
        stage.step()
        if stage.status.deployment is None:
            return
        each(stage)
    raise AssertionError(stage.message())


def served(stage: ClusterStage) -> list[tuple[str, int, int]]:
    return [(f.image, f.replicas, f.ready) for f in stage.cluster.fleets.values() if f.gone_at is None]


@every_moment
def test_an_operator_that_is_killed_all_the_time_needs_no_more_room(moment: ClusterStage) -> None:
    stage = copy.deepcopy(moment)
    running = stage.status.deployment
    assert running is not None
    if running.policy == "ROLLING":
        batch = 0 if running.replace_first else int(COUNT * running.plan[0].traffic_percent / 100)
        stage.room = COUNT + batch
    for number in range(400):
        stage.step(killed_after=number % 2)
        if stage.status.deployment is None:
            break
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED, stage.message()


# Scaled up ------------------------------------------------------------------------------------------------------


@every_moment
def test_what_a_scaler_adds_to_the_new_fleet_stays(moment: ClusterStage) -> None:
    stage = copy.deepcopy(moment)
    there = fleet(stage, NEW) is not None
    scale(stage, NEW, 7)
    to_the_end(stage)
    stage.run(10)
    assert served(stage) == [(NEW, 7 if there else COUNT, 7 if there else COUNT)]
    assert stage.condition("Ready") == ("True", "InService")


@every_moment
def test_what_a_scaler_adds_to_the_old_fleet_stays_until_it_goes(moment: ClusterStage) -> None:
    stage = copy.deepcopy(moment)
    running = stage.status.deployment
    assert running is not None
    scale(stage, OLD, 8)
    least = 8
    for _ in range(400):
        stage.step()
        now = stage.status.deployment
        if now is None:
            break
        old = fleet(stage, OLD)
        if running.policy != "ROLLING" and now.stage != "CleaningUp":
            assert old is not None
            assert old.replicas == 8, "nothing scales in before clean-up"
        elif old is not None:
            assert old.replicas <= least
            least = old.replicas
    stage.run(10)
    assert served(stage) == [(NEW, COUNT, COUNT)]


@every_moment
def test_what_a_scaler_adds_comes_back_with_a_rollback(moment: ClusterStage) -> None:
    stage = copy.deepcopy(moment)
    old, running = fleet(stage, OLD), stage.status.deployment
    assert running is not None
    if old is None or running.stage == "CleaningUp":
        return
    part = old.replicas / COUNT
    scale(stage, OLD, old.replicas + 5)
    stage.step()
    stage.image(OLD)
    to_the_end(stage, lambda _stage: None)
    stage.run(10)
    [(image, replicas, ready)] = served(stage)
    assert (image, replicas) == (OLD, ready)
    assert replicas >= math.floor((part * COUNT + 5) / part) if part else replicas >= COUNT
    last = stage.status.last_deployment
    assert last is not None
    assert last.outcome is Outcome.SUPERSEDED


@every_moment
def test_a_wish_without_room_holds_nothing_up(moment: ClusterStage) -> None:
    """The scaler asks for twenty; the nodes have room for what was planned, and the batch to spare."""
    stage = copy.deepcopy(moment)
    for image in (OLD, NEW):
        found = fleet(stage, image)
        if found is not None:
            stage.capped[found.name] = COUNT
            scale(stage, image, 20)
    to_the_end(stage)
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED


# Scaled in ------------------------------------------------------------------------------------------------------


@every_moment
@pytest.mark.parametrize(("image", "left"), [(OLD, 0), (OLD, 1), (NEW, 1)])
def test_what_is_scaled_in_comes_back(moment: ClusterStage, image: str, left: int) -> None:
    stage = copy.deepcopy(moment)
    running, found = stage.status.deployment, fleet(stage, image)
    assert running is not None
    if running.stage == "CleaningUp" or found is None or found.replicas <= left:
        return  # then it is anybody's
    before = found.replicas
    stage.scale(found, left)
    stage.step()
    leaving = running.replace_first and image == OLD and running.stage in {"Baking", "Provisioning"}
    assert found.replicas >= before - (1 if leaving else 0), "it is scaled up again, but for a batch that goes anyway"
    to_the_end(stage)
    stage.run(10)
    assert served(stage) == [(NEW, COUNT, COUNT)]
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED


@every_moment
def test_traffic_waits_for_instances_that_were_scaled_in_at_the_last_moment(moment: ClusterStage) -> None:
    """In each pass a scaler takes the new fleet down to one: no step takes more traffic than that one is for."""
    stage = copy.deepcopy(moment)
    running = stage.status.deployment
    assert running is not None
    if running.stage == "CleaningUp":
        return
    share = stage.percent_new()
    for _ in range(60):
        found = fleet(stage, NEW)
        if found is not None and found.replicas > 1:
            stage.scale(found, 1)
        stage.step()
        now = stage.status.deployment
        if now is None or now.stage in {"RollingBack", "CleaningUp"}:
            break
        moved = stage.percent_new()
        most = 100 / (COUNT - 1) if running.replace_first else 100 / COUNT
        if running.stage == "Shifting":
            most = max(most, running.plan[(running.step or 1) - 1].traffic_percent)
        assert moved <= max(share, most) + 0.01


# A node is lost -------------------------------------------------------------------------------------------------


@every_moment
def test_a_lost_node_delays_and_breaks_nothing(moment: ClusterStage) -> None:
    """With one pod of each fleet; they come back elsewhere, later."""
    stage = copy.deepcopy(moment)
    for found in stage.cluster.fleets.values():
        if found.gone_at is None and found.ready > 1:
            found.ready -= 1
            found.born = stage.now
    to_the_end(stage)
    stage.run(10)
    assert served(stage) == [(NEW, COUNT, COUNT)]
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED


@every_moment
def test_pods_that_come_and_go_delay_and_break_nothing(moment: ClusterStage) -> None:
    """Nodes are consolidated all the time: every seventh second one new pod is being replaced."""
    stage = copy.deepcopy(moment)
    stage.cluster.start_seconds = 1.0
    for number in range(400):
        if number % 7 == 0:
            for found in stage.cluster.fleets.values():
                if found.gone_at is None and found.ready > 1:
                    found.ready -= 1
                    found.born = stage.now
        stage.step()
        if stage.status.deployment is None:
            break
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED


# The old fleet fails --------------------------------------------------------------------------------------------


@every_moment
@pytest.mark.parametrize("final", [False, True])
def test_an_old_fleet_that_fails_holds_up_nothing(moment: ClusterStage, final: bool) -> None:
    stage = copy.deepcopy(moment)
    stage.cluster.troubles[OLD] = PodTrouble("CrashLoop", "exit code 1", COUNT, final=final)
    to_the_end(stage)
    stage.run(10)
    assert served(stage) == [(NEW, COUNT, COUNT)]
    last = stage.status.last_deployment
    assert last is not None
    assert (last.outcome, last.cause) == (Outcome.SUCCEEDED, Cause.NONE)


@every_moment
def test_an_old_fleet_that_cannot_be_made_again_holds_up_nothing(moment: ClusterStage) -> None:
    """Somebody deleted it, and the API server refuses another one: a quota, a webhook."""
    stage = copy.deepcopy(moment)
    running, old = stage.status.deployment, fleet(stage, OLD)
    assert running is not None
    if running.stage == "CleaningUp" or old is None or not stage.percent_new():
        return
    del stage.cluster.fleets[old.name]
    problem: CallProblem | None = None
    for _ in range(600):
        stage.step(problem=problem, refusing=old.name)
        failed = any(isinstance(action, EnsureFleet) and action.name == old.name for action in stage.actions)
        text = f'deployments "{old.name}" is forbidden: exceeded quota'
        problem = CallProblem("EnsureFleet", Reason.QUOTA_EXCEEDED, text, transient=False) if failed else None
        if stage.status.deployment is None:
            break
    assert stage.status.deployment is None, stage.message()
    stage.run(10)
    assert served(stage) == [(NEW, COUNT, COUNT)]


def test_a_scaler_is_not_fought_once_the_count_of_an_edit_stood_though_its_pods_were_not_ready() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.edit_variant("a", initialInstanceCount=5)
    stage.run(2)
    (fleet,) = stage.cluster.fleets.values()
    assert (fleet.replicas, fleet.ready) == (5, 2)
    stage.scale(fleet, 3)
    stage.run(30)
    assert fleet.replicas == 3
