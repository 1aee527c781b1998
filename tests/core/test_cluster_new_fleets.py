"""New fleets that fail, in each way that pods can: the deployment goes back with the reason, and nothing else moves."""

from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green, rolling
from tests.core.watched import deployment, ended, reach

from sluice.api.reasons import Cause, Outcome
from sluice.api.routes import RouteFleet
from sluice.core.cluster.actions import WriteRoute
from sluice.core.cluster.fleets import PLACE_SECONDS, STARTUP_SECONDS
from sluice.core.cluster.observation import PodTrouble

POLICIES = [blue_green("CANARY", wait=60, final=60), rolling(50, wait=60)]
FAILURES = [
    ("ImagePull", False, Cause.HEALTH),
    ("ImagePull", True, Cause.HEALTH),
    ("ContainerConfig", False, Cause.HEALTH),
    ("CrashLoop", True, Cause.HEALTH),
    ("PingFailing", False, Cause.HEALTH),
    ("ModelDataFailed", True, Cause.MODEL_DATA),
    ("ModelDataFailed", False, Cause.MODEL_DATA),
    ("SourceMoved", True, Cause.MODEL_DATA),
    ("Unschedulable", False, Cause.CAPACITY),
    ("Quota", False, Cause.CAPACITY),
    ("Refused", False, Cause.CAPACITY),
]


def served(policy: dict[str, Any], **spec: Any) -> ClusterStage:
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=policy, kubernetes={}, **spec
    )
    stage.image("one:1")
    stage.in_service()
    return stage


def went_back(stage: ClusterStage, cause: Cause, words: str) -> None:
    stage.until("RolledBack", type_="Stalled")
    assert (ended(stage).outcome, ended(stage).cause) == (Outcome.ROLLED_BACK, cause)
    assert words in ended(stage).message
    assert words in (stage.status.failure_reason or "")
    assert stage.status.endpoint_status == "InService"
    stage.run(5)
    assert [(fleet.image, fleet.replicas, fleet.ready) for fleet in stage.cluster.fleets.values()] == [("one:1", 4, 4)]


@pytest.mark.parametrize("policy", POLICIES, ids=["canary", "rolling"])
@pytest.mark.parametrize(("reason", "final", "cause"), FAILURES, ids=[f"{one[0]}-{one[1]}" for one in FAILURES])
def test_a_fleet_that_does_not_get_ready_goes_back_with_the_reason(
    policy: dict[str, Any], reason: str, final: bool, cause: Cause
) -> None:
    stage = served(policy)
    stage.cluster.troubles["two:1"] = PodTrouble(reason, f"told of {reason}", 2, final=final)
    stage.image("two:1")
    reach(stage, "Provisioning")
    if not final:  # it may mend itself as long as a start may take
        stage.run(20)
        stage.step(PLACE_SECONDS + STARTUP_SECONDS - 40)
        assert deployment(stage).stage == "Provisioning"
        assert f"told of {reason}" in stage.message()
        stage.step(40)
    else:
        stage.run(2)
    assert stage.percent_new() == 0
    assert deployment(stage).stage == "RollingBack"
    went_back(stage, cause, f"told of {reason}")


@pytest.mark.parametrize("policy", POLICIES, ids=["canary", "rolling"])
def test_pods_that_do_not_answer_the_sample_invocation_get_no_traffic_and_go_back(policy: dict[str, Any]) -> None:
    stage = served(policy)
    stage.edit("Model", kubernetes={"sampleInvocation": {"body": "{}", "expectedStatus": 201}})
    stage.in_service()
    stage.image("two:1")
    reach(stage, "Provisioning")
    stage.step()
    for fleet in stage.cluster.fleets.values():
        fleet.failing = 4 if fleet.image == "two:1" else 0
    stage.run(30)
    assert deployment(stage).stage == "Provisioning"
    assert "with status 201" in stage.message()
    stage.step(PLACE_SECONDS + STARTUP_SECONDS)
    assert stage.percent_new() == 0
    went_back(stage, Cause.HEALTH, "do not answer the sample invocation with status 201")


@pytest.mark.parametrize("policy", POLICIES, ids=["canary", "rolling"])
def test_pods_that_run_another_image_get_nothing_of_the_first_traffic_either(policy: dict[str, Any]) -> None:
    stage = served(policy)
    stage.image("two:1")
    reach(stage, "Provisioning")
    stage.step()
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "two:1")
    new.strangers = ("pod-7",)
    written: list[RouteFleet] = []
    while not written or deployment(stage).stage != "Baking":
        stage.step()
        routes = [action.spec for action in stage.actions if isinstance(action, WriteRoute)]
        written += [entry for spec in routes for entry in spec.fleets if entry.name == new.name]
    assert any(entry.weight for entry in written)
    assert {entry.excluded_pods for entry in written} == {("pod-7",)}
