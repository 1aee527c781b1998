"""Fleets that somebody deletes, that fail in several ways at once, or that are shadows: what a deployment does then."""

from fractions import Fraction

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.stage import model
from tests.core.watched import deployment, ended, images_of, reach, served

from sluice.api.reasons import Cause, Outcome
from sluice.api.routes import WEIGHT_TOTAL
from sluice.core.cluster import plans
from sluice.core.cluster.observation import PodTrouble
from sluice.core.cluster.routing import Limits, Side, Split, compile_route

VARIANT = {"modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 1}


def test_old_fleets_stand_while_somebody_deletes_the_new_one() -> None:
    """Its pods are still ready when the last bake ends; soon nobody would be."""
    stage = served(blue_green("CANARY", wait=10, final=30))
    stage.image("two:1")
    reach(stage, "FinalBaking")
    new = next(f for f in stage.cluster.fleets.values() if f.image == "two:1")
    new.gone_at = stage.now.replace(year=2100)
    stage.run(60)
    assert deployment(stage).stage == "FinalBaking"
    assert {f.image: f.gone_at is None for f in stage.cluster.fleets.values()} == {"one:1": True, "two:1": False}
    new.gone_at = stage.now
    stage.until("RolledBack", type_="Stalled")
    assert images_of(stage) == ["one:1"]


def test_what_cannot_mend_itself_goes_back_at_once_whatever_else_is_waited_for() -> None:
    """One variant waits for a node, another never starts."""
    stage = ClusterStage(
        {"variantName": "a"}, {"variantName": "b", "modelName": "other"}, deploymentConfig=blue_green()
    )
    stage.objects["Model", "other"] = model()
    stage.objects["Model", "other"]["metadata"]["name"] = "other"
    stage.in_service()
    stage.cluster.troubles = {
        "two:1": PodTrouble("Unschedulable", "no node has room", 2),
        "broken:1": PodTrouble("CrashLoop", "exit code 1", 2, final=True),
    }
    stage.image("two:1")
    other = stage.objects["Model", "other"]
    other["spec"]["primaryContainer"] = {"image": "broken:1"}
    other["metadata"]["generation"] += 1
    reach(stage, "Provisioning")
    stage.run(30)
    assert stage.status.deployment is None
    assert (ended(stage).outcome, ended(stage).cause) == (Outcome.ROLLED_BACK, Cause.HEALTH)
    assert "exit code 1" in ended(stage).message


def test_a_number_of_instances_a_step_is_counted_of_the_largest_variant() -> None:
    config = blue_green("LINEAR", type="INSTANCE_COUNT", value=2)
    counts = {"a": 4, "b": 10}
    assert [step.traffic_percent for step in plans.plan(config, counts, counts)] == [20, 40, 60, 80, 100]


def test_which_weight_a_deployment_retained_stays_told() -> None:
    stage = ClusterStage(
        {"variantName": "a"},
        {"variantName": "b"},
        deploymentConfig=blue_green(final=0),
        retainAllVariantProperties=True,
    )
    stage.in_service()
    stage.edit_variant("a", initialVariantWeight=3)
    stage.run(3)
    stage.in_service()
    stage.edit_variant("a", initialVariantWeight=1)
    stage.image("two:1")
    reach(stage, "CleaningUp")
    stage.in_service()
    stage.run(60)
    assert [v.retained_weight for v in stage.status.production_variants] == [3, 1]


# Shadows --------------------------------------------------------------------------------------------------------


def side(fleet_hash: str, shadow_weight: float = 1.0, weight: float = 1.0) -> Side:
    """A revision with variant a and its shadow s."""
    config = {
        "productionVariants": [{**VARIANT, "variantName": "a"}],
        "shadowProductionVariants": [{**VARIANT, "variantName": "s", "initialVariantWeight": shadow_weight}],
    }
    models = {"churn": {"primaryContainer": {"image": "i"}}}
    return Side(f"churn-{fleet_hash}-c", fleet_hash, config, models, {"a": weight})


@pytest.mark.parametrize(("percent", "mirrored"), [(25.0, "h1"), (49.0, "h1"), (50.0, "h2"), (75.0, "h2")])
def test_a_request_is_mirrored_to_the_shadow_of_one_revision_only(percent: float, mirrored: str) -> None:
    old, new = side("h1", 0.25), side("h2", 0.5)
    spec = compile_route("churn", "churn", Split(old, new, percent), Limits(), None)
    assert [shadow.sampling for shadow in spec.shadows] == ([250_000, 0] if mirrored == "h1" else [0, 500_000])


@pytest.mark.parametrize(("shadow", "weight"), [(1.0, 1.0), (3.0, 2.0), (1.0, 0.0)])
def test_a_shadow_sees_no_request_twice(shadow: float, weight: float) -> None:
    spec = compile_route("churn", "churn", Split(side("h", shadow, weight)), Limits(), None)
    assert [Fraction(found.sampling, WEIGHT_TOTAL) for found in spec.shadows] == [1]


def test_a_shadow_without_a_pod_does_not_keep_a_deployment_from_its_end() -> None:
    stage = served(blue_green(final=0))
    stage.edit("EndpointConfig", shadowProductionVariants=[{**VARIANT, "variantName": "s"}])
    reach(stage, "Provisioning")
    shadow = next(f for f in stage.cluster.fleets.values() if f.variant == "s")
    stage.capped[shadow.name] = shadow.ready = 0
    for _ in range(60):
        stage.step()
        if stage.status.deployment is None:
            break
    assert ended(stage).outcome is Outcome.SUCCEEDED
    assert stage.condition("Ready") == ("True", "InService"), stage.message()
