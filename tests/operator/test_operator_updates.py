"""Updates: what deploys a new fleet under which policy, and what is changed in place instead."""

from typing import Any

import pytest
from tests.operator.harness.manifests import (
    Manifest,
    all_at_once,
    canary,
    config,
    endpoint,
    linear,
    model,
    rolling,
    variant,
)
from tests.operator.harness.world import LONG, MakeWorld, World

OLD, NEW, NEWER = (f"registry.example/churn:{tag}" for tag in (1, 2, 3))
DEPLOYMENT = ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint"]
IN_PLACE = "UpdateEndpointWeightsAndCapacities"


@pytest.mark.parametrize(
    ("policy", "name", "steps", "first_share"),
    [
        pytest.param(all_at_once(LONG), "ALL_AT_ONCE", 1, 100.0, id="all at once"),
        pytest.param(canary(25, wait=LONG), "CANARY", 2, 25.0, id="canary"),
        pytest.param(linear(50, wait=LONG), "LINEAR", 2, 50.0, id="linear"),
        pytest.param(rolling(50, wait=LONG), "ROLLING", 2, 50.0, id="rolling"),
    ],
)
def test_a_new_image_is_deployed_under_the_policy(
    world: World, policy: Manifest, name: str, steps: int, first_share: float
) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(policy))
    before = world.status()["revision"]

    world.apply(model(NEW))

    baking = "FinalBaking" if name == "ALL_AT_ONCE" else "Baking"
    running = world.wait(
        lambda: (d := world.status().get("deployment") or {}).get("stage") == baking and d,
        f"{baking} with {first_share:g} % of the traffic on the new revision",
    )
    assert (running["policy"], running["steps"]) == (name, steps)
    assert (running["trafficPercent"], running["trafficText"]) == (first_share, f"{first_share:g}%")
    assert running["bakeUntil"]
    world.expect(Ready="False Deploying", Reconciling="True Deploying", Stalled="False NothingStalled")

    world.hurry()
    done = world.deployed(NEW)["status"]
    assert world.writes() == DEPLOYMENT
    assert "deployment" not in done
    assert done["previousRevision"]["name"] == before["name"]
    assert (done["lastDeployment"]["outcome"], done["lastDeployment"]["cause"]) == ("Succeeded", "None")
    world.outcomes("Succeeded", "Succeeded")


def test_without_a_policy_a_deployment_is_all_at_once(world: World) -> None:
    world.serving(model(OLD), config(), endpoint())

    world.apply(model(NEW))

    world.deployed(NEW)
    assert world.writes() == DEPLOYMENT


def test_weights_and_counts_change_in_place_one_capacity_a_call(world: World) -> None:
    world.serving(model(), config(variant("a", count=1), variant("b", count=1)), endpoint())
    before = world.described()["EndpointConfigName"]

    world.apply(config(variant("a", count=2, weight=3), variant("b", count=3, weight=7)))

    def shown() -> Any:
        return [
            (v["currentWeight"], v["desiredInstanceCount"], v["currentInstanceCount"])
            for v in world.status()["productionVariants"]
        ]

    world.wait(lambda: shown() == [(3, 2, 2), (7, 3, 3)], "the new weights and counts")
    world.ready()
    assert world.writes() == [IN_PLACE, IN_PLACE]
    assert world.refused_writes() == []
    assert world.described()["EndpointConfigName"] == before


def test_weights_alone_are_one_call(world: World) -> None:
    world.serving(model(), config(variant("a"), variant("b")), endpoint())

    world.apply(config(variant("a", weight=9), variant("b", weight=1)))

    world.wait(lambda: world.status()["productionVariants"][0]["currentWeight"] == 9, "the new weights")
    world.ready()
    assert world.writes() == [IN_PLACE]


def test_a_policy_or_an_alarm_deploys_nothing(world: World) -> None:
    world.serving(model(), config(variant(count=4)), endpoint(canary()))

    world.apply(endpoint(linear(), alarms=(world.alarm("5xx"),)))

    world.ready()
    world.steady()
    assert world.writes() == []


def test_tags_are_kept_in_step_without_a_deployment(world: World) -> None:
    owned = {"sluice.dev/owner": f"test/{world.namespace}/churn"}
    world.serving(model(), config(), endpoint(tags=[{"key": "team", "value": "a"}, {"key": "old", "value": ""}]))

    world.apply(
        endpoint(tags=[{"key": "team", "value": "b"}]),
        model(tags=[{"key": "of", "value": "model"}]),
        config(tags=[{"key": "of", "value": "config"}]),
    )

    def tags() -> dict[str, Any]:
        [region] = world.simulator.state()["regions"]
        return {arn.split(":")[-1].split("/")[0]: found for arn, found in region["tags"].items()}

    wanted = {
        "endpoint": {"team": "b", **owned},
        "model": {"of": "model", **owned},
        "endpoint-config": {"of": "config", **owned},
    }
    world.wait(lambda: tags() == wanted, f"tags {wanted}")
    world.ready()
    assert sorted(world.writes()) == ["AddTags", "AddTags", "AddTags", "DeleteTags"]


def test_tags_of_others_stay(world: World) -> None:
    world.serving(model(), config(), endpoint(tags=[{"key": "team", "value": "a"}]))
    arn = world.described()["EndpointArn"]
    world.boto().add_tags(ResourceArn=arn, Tags=[{"Key": "cost-center", "Value": "7"}])

    world.apply(endpoint())

    def keys() -> set[str]:
        return {tag["Key"] for tag in world.boto().list_tags(ResourceArn=arn)["Tags"]}

    world.wait(lambda: keys() == {"cost-center", "sluice.dev/owner"}, "our tag gone, the other there")
    assert world.writes() == ["DeleteTags"]


@pytest.mark.parametrize(
    ("fields", "count", "weight"),
    [
        pytest.param({}, 1, 1, id="absent: the spec's"),
        pytest.param({"retainAllVariantProperties": True}, 3, 5, id="retained"),
        pytest.param(
            {
                "retainAllVariantProperties": True,
                "excludeRetainedVariantProperties": [{"variantPropertyType": "DesiredWeight"}],
            },
            3,
            1,
            id="but the weight",
        ),
    ],
)
def test_retained_variant_properties(world: World, fields: Manifest, count: int, weight: float) -> None:
    world.serving(model(OLD), config(), endpoint(**fields))
    world.simulator.change_endpoint("churn", counts={"a": 3}, weights={"a": 5}, immediate=True)

    world.apply(model(NEW))

    world.wait(lambda: world.status()["lastDeployment"]["revision"] != world.revisions()[0]["metadata"]["name"], "end")
    [variant_now] = world.described()["ProductionVariants"]
    assert (variant_now["DesiredInstanceCount"], variant_now["DesiredWeight"]) == (count, weight)
    world.ready()
    assert world.writes() == DEPLOYMENT


def test_a_registered_scaler_makes_retain_the_default(world: World) -> None:
    world.serving(model(OLD), config(), endpoint())
    world.boto("application-autoscaling").register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/churn/variant/a",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=1,
        MaxCapacity=5,
    )
    world.simulator.change_endpoint("churn", counts={"a": 4}, immediate=True)

    world.apply(model(NEW))

    world.deployed(NEW)
    assert world.described()["ProductionVariants"][0]["DesiredInstanceCount"] == 4
    assert world.writes() == DEPLOYMENT


def test_a_scalers_count_is_shown_and_never_corrected(world: World) -> None:
    world.serving(model(), config(), endpoint())

    world.simulator.change_endpoint("churn", counts={"a": 4}, immediate=True)

    world.wait(lambda: world.status()["productionVariants"][0]["currentInstanceCount"] == 4, "the live count")
    world.ready()
    world.steady()
    assert world.writes() == []


def test_quick_edits_settle_into_one_deployment(make_world: MakeWorld) -> None:
    world = make_world(environment={"SLUICE_SETTLE_SECONDS": "10"})
    world.operator.start()
    world.serving(model(OLD), config(), endpoint())

    world.apply(model(NEW))
    world.expect(Ready="False Settling", Reconciling="True Settling")
    world.apply(model(NEWER))

    world.deployed(NEWER)
    assert world.writes() == DEPLOYMENT


def test_a_revert_before_it_started_deploys_nothing(make_world: MakeWorld) -> None:
    world = make_world(environment={"SLUICE_SETTLE_SECONDS": "10"})
    world.operator.start()
    world.serving(model(OLD), config(), endpoint())

    world.apply(model(NEW))
    world.expect(Ready="False Settling", Reconciling="True Settling")
    world.apply(model(OLD))

    world.ready()
    world.steady(24)  # one in half a second: longer than it would have settled
    assert world.writes() == []


def test_an_edit_during_an_update_waits_for_sagemaker(world: World) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary(wait=LONG)))

    world.apply(model(NEW))
    world.expect(Reconciling="True Deploying", status={"endpointStatus": "Updating"})
    world.apply(model(NEWER))

    world.expect(Ready="False WaitingForSageMaker", Reconciling="True WaitingForSageMaker")
    world.hurry()
    world.deployed(NEWER)
    assert world.writes()[:3] == DEPLOYMENT
    assert [w for w in world.writes() if w.startswith(("Create", "Update"))] == DEPLOYMENT * 2
    assert world.refused_writes() == []


def test_a_revert_during_an_update_goes_back_when_it_has_settled(world: World) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary(wait=LONG)))

    world.apply(model(NEW))
    world.expect(Reconciling="True Deploying", status={"endpointStatus": "Updating"})
    world.apply(model(OLD))

    world.expect(Reconciling="True WaitingForSageMaker")
    world.hurry()
    world.wait(lambda: world.writes().count("UpdateEndpoint") == 2, "the way back")
    world.deployed(OLD)
    assert world.writes() == [*DEPLOYMENT, "UpdateEndpoint"]


def test_old_aws_objects_are_collected_but_serving_previous_and_last_failed(world: World) -> None:
    world.serving(model(OLD), config(), endpoint())
    for tag in (2, 3, 4):
        world.apply(model(f"registry.example/churn:{tag}"))
        world.deployed(f"registry.example/churn:{tag}")
    world.simulator.fault("health_failure", count=1)
    world.apply(model("registry.example/churn:5"))
    world.stalled("RolledBack")

    def kept() -> list[str]:
        return [r["data"]["models"]["churn"]["primaryContainer"]["image"][-1] for r in world.revisions()]

    world.wait(lambda: kept() == ["3", "4", "5"], "serving, previous and last failed revision kept, no other")
    standing = world.standing()
    assert (len(standing["endpointConfigs"]), len(standing["models"])) == (3, 3)
    assert set(standing["endpointConfigs"]) == {r["data"]["sagemaker"]["endpointConfigName"] for r in world.revisions()}
    assert world.described()["EndpointConfigName"] in standing["endpointConfigs"]
    assert world.refused_writes() == []


def test_a_variant_of_another_name_under_a_policy_is_refused_before_any_call(world: World) -> None:
    world.serving(model(), config(variant("a", count=4)), endpoint(canary()))

    world.apply(config(variant("b", count=4)))

    world.stalled("InvalidDeploymentConfig", message="spec.deploymentConfig: found variants ['b'] while ['a'] are in")
    assert world.writes() == []


def test_a_canary_that_needs_more_than_the_counts_allow_is_refused_before_any_call(world: World) -> None:
    policy = canary()
    policy["blueGreenUpdatePolicy"]["trafficRoutingConfiguration"]["canarySize"] = {
        "type": "INSTANCE_COUNT",
        "value": 3,
    }

    world.apply(model(), config(variant(count=4)), endpoint(policy))

    path = "spec.deploymentConfig.blueGreenUpdatePolicy.trafficRoutingConfiguration.canarySize.value"
    world.stalled(
        "InvalidDeploymentConfig", message=f"{path}: found 3 instances for variant a of 4; allowed is at most"
    )
    assert world.writes() == []
