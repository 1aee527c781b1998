"""Alarms of deployments in the cluster: what is watched when, and what each reading does at each moment."""

from typing import Any

import pytest
from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green

from sluice.api.reasons import Cause, Outcome
from sluice.core.cluster.names import fleet_name

TRAFFIC = {"name": "errors", "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.05}}


def watched(
    policy: dict[str, Any] | None = None, *names: str, own: tuple[dict[str, Any], ...] = (), **spec: Any
) -> Any:
    """An Endpoint in service whose deployments heed these alarms of CloudWatch, which are OK, and these of its own."""
    names = names or (() if own else ("errors",))
    config = dict(policy or blue_green("CANARY", wait=60, final=60))
    if names:
        config["autoRollbackConfiguration"] = {"alarms": [{"alarmName": name} for name in names]}
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4},
        deploymentConfig=config,
        **({"kubernetes": {"alarms": list(own)}} if own else {}),
        **spec,
    )
    stage.alarms = {name: AlarmNow() for name in (*names, *(one["name"] for one in own))}
    stage.in_service()
    return stage


def reach(stage: ClusterStage, wanted: str, step: int | None = None, most: int = 300) -> None:
    """Passes until the deployment is in this stage (and step)."""
    for _ in range(most):
        stage.step()
        deployment = stage.status.deployment
        if deployment and deployment.stage == wanted and step in {None, deployment.step}:
            return
    raise AssertionError(f"never {wanted}: {stage.stages} {stage.message()}")


def deployment(stage: ClusterStage) -> Any:
    assert stage.status.deployment is not None, stage.message()
    return stage.status.deployment


def ended(stage: ClusterStage) -> Any:
    assert stage.status.last_deployment is not None
    return stage.status.last_deployment


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
