"""What a deployment in the cluster keeps of live counts and weights: UpdateEndpoint's RetainAllVariantProperties and
ExcludeRetainedVariantProperties. And what it asks for anew before it gives up what is under way."""

from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green, variants
from tests.core.watched import name_of, reach

COUNT = {"variantPropertyType": "DesiredInstanceCount"}
WEIGHT = {"variantPropertyType": "DesiredWeight"}
CAPTURE = {"variantPropertyType": "DataCaptureConfig"}


def served(**spec: Any) -> ClusterStage:
    """In service with variant a of 4 instances, scaled to 3, and b; their live weights are 3 and 1."""
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4, "initialVariantWeight": 1},
        {"variantName": "b", "initialInstanceCount": 2, "initialVariantWeight": 1},
        deploymentConfig=blue_green(final=0),
        **spec,
    )
    stage.in_service()
    stage.edit_variant("a", initialVariantWeight=3)
    stage.run(3)
    stage.in_service()
    fleet = next(fleet for fleet in stage.cluster.fleets.values() if fleet.variant == "a")
    fleet.replicas = fleet.ready = 3
    stage.run(3)
    return stage


def deployed(stage: ClusterStage, *made: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """Another image, and these variants. Returns instances and percent of the traffic, by variant."""
    stage.edit("EndpointConfig", productionVariants=variants(*made)["spec"]["productionVariants"])
    stage.image("two:1")
    reach(stage, "CleaningUp")
    stage.in_service()
    stage.run(3)
    fleets = {fleet.name: fleet.variant for fleet in stage.cluster.fleets.values()}
    assert stage.cluster.route is not None
    weights = {fleets[entry.name]: entry.weight // 10_000 for entry in stage.cluster.route.spec.fleets}
    return {fleet.variant: fleet.replicas for fleet in stage.cluster.fleets.values()}, weights


ASKED = (
    {"variantName": "a", "initialInstanceCount": 5, "initialVariantWeight": 1},
    {"variantName": "b", "initialInstanceCount": 1, "initialVariantWeight": 1},
)


@pytest.mark.parametrize(
    ("spec", "counts", "weights"),
    [
        ({}, {"a": 5, "b": 1}, {"a": 50, "b": 50}),
        ({"excludeRetainedVariantProperties": [COUNT]}, {"a": 5, "b": 1}, {"a": 50, "b": 50}),
        ({"retainAllVariantProperties": True}, {"a": 3, "b": 2}, {"a": 75, "b": 25}),
        (
            {"retainAllVariantProperties": True, "excludeRetainedVariantProperties": [COUNT]},
            {"a": 5, "b": 1},
            {"a": 75, "b": 25},
        ),
        (
            {"retainAllVariantProperties": True, "excludeRetainedVariantProperties": [WEIGHT, CAPTURE]},
            {"a": 3, "b": 2},
            {"a": 50, "b": 50},
        ),
    ],
    ids=["nothing", "nothing to exclude from", "all", "not the counts", "not the weights"],
)
def test_live_counts_and_weights_are_kept_as_asked(
    spec: dict[str, Any], counts: dict[str, int], weights: dict[str, int]
) -> None:
    assert deployed(served(**spec), *ASKED) == (counts, weights)


def test_a_variant_that_is_new_has_nothing_to_keep() -> None:
    stage = served(retainAllVariantProperties=True)
    found = deployed(stage, ASKED[0], {"variantName": "c", "initialInstanceCount": 2, "initialVariantWeight": 1})
    assert found == ({"a": 3, "c": 2}, {"a": 75, "c": 25})


@pytest.mark.parametrize("image", ["three:1", "repo/churn:1"], ids=["superseded", "reverted"])
def test_references_are_read_anew_before_something_is_begun_or_given_up(image: str) -> None:
    stage = served()
    assert stage.objects["Model", "churn"]["spec"]["primaryContainer"]["image"] == "repo/churn:1"
    stage.image("two:1")
    while stage.status.deployment is None:
        stage.step()
    assert stage.decision is not None
    assert stage.decision.confirm_references
    stage.step()
    assert not stage.decision.confirm_references
    stage.image(image)
    stage.step()
    assert stage.status.deployment.stage == "RollingBack"
    assert stage.decision.confirm_references


def test_an_edit_beside_retained_weights_never_leaves_nobody_to_ask() -> None:
    """Live are 0 and 1, retained; the spec says 1 and 1. Variant b is set to 0 there: only a's weight, which the spec
    had all the time, can be meant to answer."""
    stage = ClusterStage(
        {"variantName": "a", "initialVariantWeight": 0},
        {"variantName": "b", "initialVariantWeight": 1},
        retainAllVariantProperties=True,
    )
    stage.in_service()
    stage.edit_variant("a", initialVariantWeight=1)
    stage.image("two:1")
    stage.step()
    stage.in_service()
    stage.run(3)
    assert [v.desired_weight for v in stage.status.production_variants] == [0, 1]
    stage.edit_variant("b", initialVariantWeight=0)
    stage.step()
    stage.in_service()
    assert stage.cluster.route is not None
    assert [fleet.weight for fleet in stage.cluster.route.spec.fleets] == [1_000_000, 0]


def test_retained_weights_that_leave_nobody_to_ask_are_the_specs_instead() -> None:
    """The variant that had all requests is not of the new revision; the one that is left had none."""
    stage = ClusterStage(
        {"variantName": "a", "initialVariantWeight": 0},
        {"variantName": "b", "initialVariantWeight": 1},
        deploymentConfig=blue_green(final=0),
        retainAllVariantProperties=True,
    )
    stage.in_service()
    assert deployed(stage, {"variantName": "a", "initialVariantWeight": 1}) == ({"a": 2}, {"a": 100})


def test_a_policy_that_is_retained_outlives_a_persons_way_back() -> None:
    """Which has none of its own."""
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=60, final=0))
    stage.in_service()
    first = name_of(stage)
    stage.image("two:1")
    stage.step()
    stage.in_service()
    del stage.endpoint["spec"]["deploymentConfig"]
    stage.edit("Endpoint", retainDeploymentConfig=True)
    stage.annotate(rollback=first)
    stage.until("HeldByRollback", type_="Stalled")
    stage.endpoint["metadata"]["annotations"].clear()
    stage.image("three:1")
    reach(stage, "Baking", 1)
    assert stage.status.deployment is not None
    assert (stage.status.deployment.policy, stage.percent_new()) == ("CANARY", 50)
