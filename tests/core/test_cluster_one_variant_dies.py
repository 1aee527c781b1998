"""One variant of several that answers nothing any more under traffic: the others do not outweigh it, all go back."""

from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, Fleet, blue_green, rolling
from tests.core.watched import deployment, ended, reach

from sluice.api.reasons import Cause, Outcome

OLD, NEW = "repo/churn:1", "new:1"
SAMPLE = {"kubernetes": {"sampleInvocation": {"body": "{}"}}}


def loses_its_pods(stage: ClusterStage, fleet: Fleet) -> str:
    stage.capped[fleet.name] = fleet.ready = 0
    return f"variant {fleet.variant}: no ready pod"


def fails_the_sample_invocation(stage: ClusterStage, fleet: Fleet) -> str:
    """All its pods do; they stay ready."""
    fleet.failing = fleet.ready
    pods = f"{fleet.ready} pod" + ("" if fleet.ready == 1 else "s")
    return f"variant {fleet.variant}: {pods}: ready pods do not answer the sample invocation with status 200 within 5 s"


@pytest.mark.parametrize("how", [loses_its_pods, fails_the_sample_invocation])
@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize(
    ("policy", "bake"),
    [
        (blue_green("CANARY"), "Baking"),
        (blue_green("LINEAR"), "Baking"),
        (blue_green("ALL_AT_ONCE"), "FinalBaking"),
        (rolling(50), "Baking"),
    ],
    ids=["canary", "linear", "all at once", "rolling"],
)
def test_one_variant_of_several_that_dies_under_traffic_turns_all_back(
    policy: dict[str, Any], bake: str, variant: str, how: Any
) -> None:
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"}, model_spec=SAMPLE, deploymentConfig=policy)
    stage.in_service()
    stage.image(NEW)
    reach(stage, bake, 1)
    said = how(stage, next(f for f in stage.cluster.fleets.values() if (f.image, f.variant) == (NEW, variant)))
    stage.step()
    assert deployment(stage).stage == "RollingBack"
    assert (deployment(stage).cause, deployment(stage).message) == (Cause.HEALTH, said)
    stage.until("RolledBack", type_="Stalled")
    assert (ended(stage).outcome, ended(stage).cause) == (Outcome.ROLLED_BACK, Cause.HEALTH)
    standing = [(fleet.variant, fleet.image, fleet.ready) for fleet in stage.cluster.fleets.values()]
    assert sorted(standing) == [("a", OLD, 2), ("b", OLD, 2)]
