"""What is said of pods that are ready and fail the sample invocation of a new revision."""

from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import ended, reach

from sluice.api.reasons import Cause, Outcome


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ({"body": "1"}, "with status 200 within 5 s"),
        ({"body": "1", "expectedStatus": 404, "timeoutSeconds": 2}, "with status 404 within 2 s"),
    ],
)
def test_it_says_which_answer_was_expected(sample: dict[str, Any], expected: str) -> None:
    stage = ClusterStage(deploymentConfig=blue_green())
    stage.in_service()
    stage.edit("Model", kubernetes={"sampleInvocation": sample})
    stage.image("new:1")
    reach(stage, "Provisioning")
    for fleet in stage.cluster.fleets.values():
        if fleet.image == "new:1":
            fleet.failing = fleet.replicas
    for _ in range(2000):
        stage.step()
        if stage.status.deployment is None:
            break
    assert (ended(stage).outcome, ended(stage).cause) == (Outcome.ROLLED_BACK, Cause.HEALTH)
    assert f"ready pods do not answer the sample invocation {expected}" in (ended(stage).message or "")
