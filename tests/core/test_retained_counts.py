"""A deploymentConfig's sizes are held against the counts that a deployment starts with: the spec's, or the live ones
that it retains. Where those are not known yet nothing is refused."""

from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.stage import Stage, config
from tests.core.watched import reach

from sluice.api.reasons import Reason
from sluice.core.actions import UpdateEndpoint
from sluice.core.observation import Described

RETAINED = {"retainAllVariantProperties": True}
NOT_THE_COUNTS = {**RETAINED, "excludeRetainedVariantProperties": [{"variantPropertyType": "DesiredInstanceCount"}]}


def of_three() -> dict[str, Any]:
    """A canary of three instances: of six at least."""
    return blue_green("CANARY", final=0, type="INSTANCE_COUNT", value=3)


def scaled(stage: Stage, count: int) -> Described:
    """SageMaker's answer when a scaler has made so many instances of variant a."""
    variants = tuple(
        variant.model_copy(update={"desired_instance_count": count}) for variant in stage.status.production_variants
    )
    return stage.described(moved=5, variants=variants)


def asked(live: int, in_spec: int, scalers: frozenset[str], **spec: Any) -> Stage:
    """In service with so many live instances; then a canary of three, another image and this count in the spec."""
    stage = Stage(**spec)
    stage.bring_into_service()
    stage.objects["EndpointConfig", "churn"] = config(count=in_spec)
    stage.edit("Endpoint", deploymentConfig=of_three())
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    seen = scaled(stage, live)
    stage.step(seen, scalable=scalers)
    stage.step(seen, seconds=6, scalable=scalers)
    return stage


@pytest.mark.parametrize(
    ("spec", "live", "in_spec", "scalers"),
    [
        (RETAINED, 10, 2, frozenset()),
        (NOT_THE_COUNTS, 2, 10, frozenset()),
        ({"retainAllVariantProperties": False}, 2, 10, frozenset({"a"})),
        ({}, 2, 10, frozenset()),
    ],
    ids=["retained", "not the counts", "not retained", "no scaler"],
)
def test_on_sagemaker_a_size_that_fits_starts(
    spec: dict[str, Any], live: int, in_spec: int, scalers: frozenset[str]
) -> None:
    stage = asked(live, in_spec, scalers, **spec)
    assert stage.called()[-1] == "UpdateEndpoint", stage.condition("Stalled")


@pytest.mark.parametrize(
    ("spec", "live", "in_spec", "scalers"),
    [
        (RETAINED, 2, 10, frozenset()),
        (NOT_THE_COUNTS, 10, 2, frozenset()),
        ({"retainAllVariantProperties": False}, 10, 2, frozenset({"a"})),
        ({}, 2, 10, frozenset({"a"})),
    ],
    ids=["retained", "not the counts", "not retained", "a scaler's"],
)
def test_on_sagemaker_a_size_that_does_not_fit_is_refused_before_any_call(
    spec: dict[str, Any], live: int, in_spec: int, scalers: frozenset[str]
) -> None:
    stage = asked(live, in_spec, scalers, **spec)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.INVALID_DEPLOYMENT_CONFIG)


def test_on_sagemaker_steps_are_those_of_the_counts_that_it_starts_with() -> None:
    stage = Stage(**RETAINED)
    stage.bring_into_service()
    stage.edit("Endpoint", deploymentConfig=blue_green("LINEAR", type="INSTANCE_COUNT", value=3))
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(scaled(stage, 9))
    stage.step(scaled(stage, 9), seconds=6)
    assert any(isinstance(action, UpdateEndpoint) for action in stage.actions)
    assert stage.status.deployment is not None
    assert stage.status.deployment.step_text == "0/3"


def test_on_sagemaker_a_creation_has_the_specs_counts_whatever_is_retained_later() -> None:
    """CreateEndpoint takes the deploymentConfig along."""
    stage = Stage(deploymentConfig=of_three(), **RETAINED)
    for _ in range(3):
        stage.step()
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.INVALID_DEPLOYMENT_CONFIG)
    stage.objects["EndpointConfig", "churn"] = config(count=6)
    stage.step()
    assert stage.called()[-1] == "CreateEndpoint"


def test_in_the_cluster_a_size_is_held_against_the_live_counts_that_are_retained() -> None:
    stage = ClusterStage(deploymentConfig=of_three(), **RETAINED)
    stage.in_service()
    [fleet] = stage.cluster.fleets.values()
    assert fleet.replicas == 2
    stage.image("two:1")
    stage.until("InvalidDeploymentConfig", type_="Stalled", most=20)
    assert "found 3 instances for variant a of 2" in stage.message("Stalled")
    fleet.replicas = 10
    reach(stage, "Baking", 1)
    assert stage.percent_new() == 30


def test_in_the_cluster_a_size_that_does_not_fit_the_specs_counts_is_refused_at_once_where_they_count() -> None:
    stage = ClusterStage(deploymentConfig=of_three(), **NOT_THE_COUNTS)
    stage.step()
    assert stage.condition("Stalled") == ("True", Reason.INVALID_DEPLOYMENT_CONFIG)
