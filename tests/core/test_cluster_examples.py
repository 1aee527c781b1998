"""The examples of policies in the cluster, each run to its end and each turned back, with the room that it promises."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.core.cluster_stage import AlarmNow, ClusterStage
from tests.core.watched import ended, reach

from sluice.api.reasons import Cause, Outcome

EXAMPLES = Path(__file__).parents[2] / "examples"
POLICIES = sorted((EXAMPLES / "cluster-policies").glob("*.yaml"), key=lambda file: file.stem)
MOST_PODS = {"rolling": 6, "replace-first": 4}
"""Of four instances; the other policies need a second fleet."""


def _served(file: Path) -> ClusterStage:
    spec: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]
    [config] = [
        one["spec"]
        for one in yaml.safe_load_all((EXAMPLES / "cluster" / "cluster.yaml").read_text(encoding="utf-8"))
        if (one["kind"], one["metadata"]["name"]) == ("EndpointConfig", spec["endpointConfigName"])
    ]
    variants = [{**variant, "modelName": "churn"} for variant in config["productionVariants"]]
    rest = {key: value for key, value in spec.items() if key not in {"backend", "endpointConfigName"}}
    stage = ClusterStage(*variants, **rest)
    own = (spec.get("kubernetes") or {}).get("alarms") or ()
    rollback = (spec.get("deploymentConfig") or {}).get("autoRollbackConfiguration") or {}
    names = [*(one["name"] for one in own), *(one["alarmName"] for one in rollback.get("alarms") or ())]
    stage.alarms = {name: AlarmNow() for name in names}
    stage.in_service()
    stage.most_pods = 0
    return stage


def _ends(stage: ClusterStage) -> None:
    for _ in range(3000):
        stage.step()
        if stage.status.deployment is None:
            return
    raise AssertionError(stage.message())


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.stem)
def test_it_ends_and_needs_no_more_room_than_it_says(file: Path) -> None:
    stage = _served(file)
    stage.image("new:1")
    reach(stage, "Provisioning")
    _ends(stage)
    assert ended(stage).outcome is Outcome.SUCCEEDED
    assert stage.most_pods == MOST_PODS.get(file.stem, 8)


@pytest.mark.parametrize("file", POLICIES, ids=lambda file: file.stem)
def test_its_alarm_turns_it_back(file: Path) -> None:
    stage = _served(file)
    assert stage.alarms, "each example is guarded"
    stage.image("new:1")
    reach(stage, "Shifting", 1)
    next(iter(stage.alarms.values())).state = "ALARM"
    _ends(stage)
    assert (ended(stage).outcome, ended(stage).cause) == (Outcome.ROLLED_BACK, Cause.ALARM)
    assert stage.most_pods <= MOST_PODS.get(file.stem, 8)
