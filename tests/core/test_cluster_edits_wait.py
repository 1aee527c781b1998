"""Weights and counts that are edited while a deployment runs: they wait for its end, and that is told."""

from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green, rolling

NEW = "new:1"
POLICIES = {"CANARY": blue_green("CANARY", wait=40, final=40, value=50), "ROLLING": rolling(50, wait=40)}


def _split(stage: ClusterStage) -> dict[tuple[str, bool], float]:
    """What each variant has of the requests of its revision."""
    assert stage.cluster.route is not None
    new = {fleet.name for fleet in stage.cluster.fleets.values() if fleet.image == NEW}
    total: dict[bool, int] = {True: 0, False: 0}
    for fleet in stage.cluster.route.spec.fleets:
        total[fleet.name in new] += fleet.weight
    return {
        (fleet.variant_name, fleet.name in new): round(fleet.weight / total[fleet.name in new], 3)
        for fleet in stage.cluster.route.spec.fleets
        if total[fleet.name in new]
    }


def _replicas(stage: ClusterStage) -> dict[str, int]:
    return {fleet.name: fleet.replicas for fleet in stage.cluster.fleets.values()}


@pytest.mark.parametrize("until", ["Provisioning", "Baking"])
@pytest.mark.parametrize("policy", POLICIES)
def test_they_wait_for_its_end_and_are_told(policy: str, until: str) -> None:
    made: list[dict[str, Any]] = [
        {"variantName": name, "initialInstanceCount": 4, "initialVariantWeight": 1} for name in "ab"
    ]
    stage = ClusterStage(*made, deploymentConfig=POLICIES[policy])
    stage.in_service()
    stage.cluster.start_seconds = 20
    stage.image(NEW)
    while stage.status.deployment is None or stage.status.deployment.stage != until:
        stage.step()
    stage.step()
    assert "when it has ended" not in stage.message(), "nothing was edited"
    before = _split(stage), _replicas(stage)
    stage.edit_variant("a", initialVariantWeight=9)
    stage.edit_variant("b", initialInstanceCount=6)
    for _ in range(10):
        stage.step()
        assert (_split(stage), _replicas(stage)) == before
    assert stage.message().endswith("; weight 9 of variant a, 6 instances of variant b when it has ended.")
    assert stage.condition("Reconciling")[0] == "True"
    stage.in_service()
    stage.run(60)
    assert _split(stage) == {("a", True): 0.9, ("b", True): 0.1}
    assert {f.variant: f.replicas for f in stage.cluster.fleets.values()} == {"a": 4, "b": 6}
