"""Weights and counts while the revision asked for stays out: what is edited meanwhile is for the one that serves; what
came with the revision that failed went back with it."""

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.stage import Stage, canary, config

from sluice.api.reasons import Outcome, Reason

POLICY = blue_green("CANARY", final=0)
A, B = ({"variantName": name, "initialInstanceCount": 9, "initialVariantWeight": 1} for name in "ab")


def _commit(stage: ClusterStage, image: str, **changes: object) -> None:
    """The image and variant a change together."""
    stage.image(image)
    stage.edit_variant("a", **changes)


def _rolled_back(**changes: object) -> ClusterStage:
    """In service with 9 instances of each variant; a bad image that came with these changes of a was rolled back."""
    stage = ClusterStage(dict(A), dict(B), deploymentConfig=POLICY)
    stage.in_service()
    _commit(stage, "bad:1", **changes)
    stage.until("RolledBack", type_="Stalled")
    return stage


def _replicas(stage: ClusterStage) -> dict[str, int]:
    return {fleet.variant: fleet.replicas for fleet in stage.cluster.fleets.values()}


def _weights(stage: ClusterStage) -> dict[str, float | None]:
    return {v.variant_name: v.current_weight for v in stage.status.production_variants}


def test_counts_and_weights_that_came_with_what_failed_went_back_with_it() -> None:
    """Two large instances in place of nine small ones: nine small ones go on serving."""
    stage = _rolled_back(initialInstanceCount=2, initialVariantWeight=7)
    stage.run(120)
    assert _replicas(stage) == {"a": 9, "b": 9}
    assert _weights(stage) == {"a": 1.0, "b": 1.0}


def test_what_is_edited_while_it_stays_out_is_for_what_serves() -> None:
    stage = _rolled_back()
    stage.edit_variant("a", initialInstanceCount=11, initialVariantWeight=3)
    stage.run(60)
    assert _replicas(stage) == {"a": 11, "b": 9}
    assert _weights(stage) == {"a": 3.0, "b": 1.0}
    assert stage.condition("Stalled") == ("True", Reason.ROLLED_BACK)
    assert stage.condition("Ready")[0] == "False"
    assert stage.status.deployment is None


def test_it_is_not_written_over_what_a_scaler_makes_of_it() -> None:
    stage = _rolled_back()
    stage.edit_variant("b", initialInstanceCount=2)
    stage.image("bad:2")
    stage.until("RolledBack", type_="Stalled")
    stage.run(60)
    stage.edit_variant("a", initialInstanceCount=11)
    stage.run(60)
    assert _replicas(stage) == {"a": 11, "b": 9}
    for fleet in stage.cluster.fleets.values():
        fleet.replicas = 14
    stage.run(60)
    assert _replicas(stage) == {"a": 14, "b": 14}
    stage.image("repo/churn:1")
    stage.edit_variant("a", initialInstanceCount=9)
    stage.edit_variant("b", initialInstanceCount=9)
    stage.in_service()
    stage.run(60)
    assert _replicas(stage) == {"a": 9, "b": 14}, "only what was edited; b is a scaler's since it was written"


def test_weights_that_leave_nobody_to_ask_are_not_taken() -> None:
    stage = _rolled_back()
    stage.edit_variant("a", initialVariantWeight=0)
    stage.edit_variant("b", initialVariantWeight=0)
    third = {"variantName": "c", "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 1}
    kept = stage.objects["EndpointConfig", "churn"]["spec"]["productionVariants"]
    stage.edit("EndpointConfig", productionVariants=[*kept, third])
    stage.run(3)
    assert not any(_weights(stage)[name] == 0.0 for name in "ab")


def test_what_a_person_turned_away_lets_edits_through_too() -> None:
    stage = ClusterStage(dict(A), dict(B), deploymentConfig=POLICY)
    stage.in_service()
    first = stage.status.revision
    assert first is not None
    stage.image("new:1")
    stage.in_service()
    stage.annotate(rollback=first.name)
    stage.until("HeldByRollback", type_="Stalled")
    stage.edit_variant("a", initialInstanceCount=12, initialVariantWeight=2)
    stage.run(60)
    assert _replicas(stage) == {"a": 12, "b": 9}
    assert _weights(stage) == {"a": 2.0, "b": 1.0}
    assert stage.condition("Stalled") == ("True", Reason.HELD_BY_ROLLBACK)


@pytest.mark.parametrize("count", [2, 9])
def test_on_sagemaker_too_what_came_with_what_failed_went_back(count: int) -> None:
    stage = Stage(deploymentConfig=canary(()))
    stage.bring_into_service()
    old = stage.described().variants
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.objects["EndpointConfig", "churn"]["spec"]["productionVariants"][0] |= {
        "initialInstanceCount": count,
        "initialVariantWeight": 3,
    }
    stage.objects["EndpointConfig", "churn"]["metadata"]["generation"] += 1
    stage.step(stage.described(moved=2, variants=old))
    stage.step(stage.described(moved=2, variants=old), seconds=6)
    assert stage.called()[-1] == "UpdateEndpoint"
    assert stage.status.intent is not None
    wanted = str(stage.status.intent.endpoint_config_name)
    stage.step(stage.described("Updating", moved=3, pending=stage.pending(wanted), variants=old), seconds=1)
    seen = stage.described("InService", moved=9, failure_reason="alarm tripped", variants=old)
    stage.step(seen, seconds=60)
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.ROLLED_BACK
    for _ in range(4):
        stage.step(seen, seconds=6)
        assert "UpdateWeightsAndCapacities" not in stage.called(), "what serves keeps its counts and weights"
    stage.objects["EndpointConfig", "churn"] = config(count=5, weight=3)
    stage.objects["EndpointConfig", "churn"]["metadata"]["generation"] = 9
    stage.step(seen, seconds=6)
    assert stage.called()[-1] == "UpdateWeightsAndCapacities"


def test_what_is_edited_while_it_is_deployed_waits_for_its_end_also_where_that_is_a_rollback() -> None:
    stage = ClusterStage(dict(A), dict(B), deploymentConfig=POLICY)
    stage.in_service()
    _commit(stage, "bad:1", initialInstanceCount=2)
    while stage.status.deployment is None:
        stage.step()
    stage.edit_variant("b", initialInstanceCount=10)
    stage.step()
    assert _replicas(stage)["b"] == 9
    stage.until("RolledBack", type_="Stalled")
    stage.run(60)
    assert _replicas(stage) == {"a": 9, "b": 10}
