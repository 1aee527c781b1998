"""Adoption: an endpoint that others made is compared by content, and taken over without a change or not at all."""

from typing import Any

import pytest
from tests.operator.harness.manifests import NAME, ROLE, config, endpoint, model, variant
from tests.operator.harness.world import World

IMAGE = "registry.example/churn:1"
ADOPT = {"sluice.dev/adopt": "true"}


def made_by_somebody_else(world: World, *, count: int = 1, tags: dict[str, str] | None = None) -> None:
    """An endpoint in service, with names that Sluice would not give."""
    client = world.boto()
    client.create_model(ModelName="theirs", PrimaryContainer={"Image": IMAGE}, ExecutionRoleArn=ROLE)
    one: Any = {"VariantName": "a", "ModelName": "theirs", "InstanceType": "ml.m5.large", "InitialVariantWeight": 1}
    client.create_endpoint_config(
        EndpointConfigName="theirs", ProductionVariants=[{**one, "InitialInstanceCount": count}]
    )
    shown = [{"Key": key, "Value": value} for key, value in (tags or {}).items()]
    client.create_endpoint(EndpointName=NAME, EndpointConfigName="theirs", Tags=shown)
    world.wait(lambda: world.described()["EndpointStatus"] == "InService", "the endpoint to adopt")


def test_an_equal_endpoint_is_adopted_with_no_call_but_the_owner_tag(world: World) -> None:
    made_by_somebody_else(world, tags={"team": "a"})

    world.apply(model(IMAGE), config(), endpoint(annotations=ADOPT))

    adopted = world.ready()["status"]
    assert world.writes() == ["AddTags"]
    assert adopted["revision"]["adopted"] is True
    assert adopted["revision"]["endpointConfigName"] == "theirs"
    [region] = world.simulator.state()["regions"]
    assert region["tags"][adopted["endpointArn"]] == {
        "team": "a",
        "sluice.dev/owner": f"test/{world.namespace}/churn",
        "sluice.dev/adopted": "true",
    }


def test_a_different_endpoint_is_left_alone_until_retry(world: World) -> None:
    made_by_somebody_else(world, count=2)

    world.apply(model(IMAGE), config(variant(count=3)), endpoint(annotations=ADOPT))

    world.stalled("AdoptionDiffers", message="ProductionVariants.a.InitialInstanceCount: found 2, the spec has 3")
    world.steady()
    assert world.writes() == []
    assert world.described()["EndpointConfigName"] == "theirs"

    world.annotate(retry="yes")

    world.wait(lambda: world.described()["EndpointConfigName"] != "theirs", "the spec is deployed")
    world.ready()
    assert world.writes().count("UpdateEndpoint") == 1
    assert "theirs" in world.standing()["endpointConfigs"], "what others made is never collected"


def test_without_the_annotation_it_is_never_touched(world: World) -> None:
    made_by_somebody_else(world)

    world.apply(model(IMAGE), config(), endpoint())

    world.stalled("NotOwned", message="annotate sluice.dev/adopt: 'true' to adopt it")
    world.steady()
    assert world.writes() == []
    assert "endpointArn" not in world.status()
    world.delete()
    world.gone()
    assert world.writes() == []
    assert world.standing()["endpoints"] == [NAME]


def test_an_endpoint_of_another_owner_is_never_touched(world: World) -> None:
    made_by_somebody_else(world, tags={"sluice.dev/owner": "other/team/churn"})

    world.apply(model(IMAGE), config(), endpoint(annotations=ADOPT))

    world.stalled("NameConflict", message="Endpoint churn belongs to other/team/churn")
    assert world.writes() == []


@pytest.mark.parametrize(("policy", "stays"), [(None, True), ("Retain", True), ("Delete", False)])
def test_adopted_endpoints_stay_by_default_when_the_object_goes(world: World, policy: str | None, stays: bool) -> None:
    made_by_somebody_else(world)
    fields: dict[str, Any] = {} if policy is None else {"deletionPolicy": policy}
    world.apply(model(IMAGE), config(), endpoint(annotations=ADOPT, **fields))
    world.ready()
    world.mark()

    world.delete()

    world.gone()
    assert world.writes() == ([] if stays else ["DeleteEndpoint"])
    assert world.standing()["endpoints"] == ([NAME] if stays else [])
    assert world.standing()["endpointConfigs"] == ["theirs"]


def test_an_adopted_endpoint_is_updated_like_any_other(world: World) -> None:
    made_by_somebody_else(world)
    world.apply(model(IMAGE), config(), endpoint(annotations=ADOPT))
    world.ready()
    world.mark()

    world.apply(model("registry.example/churn:2"))

    world.deployed("registry.example/churn:2")
    assert world.writes() == ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint"]
    world.steady()
    assert "theirs" in world.standing()["endpointConfigs"]


def test_an_adopted_endpoint_that_was_let_go_is_taken_up_again_unchanged(world: World) -> None:
    """With Retain the owner tag stays, and what serves has none of Sluice's names."""
    made_by_somebody_else(world)
    world.apply(model(IMAGE), config(), endpoint(annotations=ADOPT, deletionPolicy="Retain"))
    world.ready()
    world.delete()
    world.gone()
    world.mark()

    world.apply(endpoint())

    assert world.ready()["status"]["adopted"] is True
    world.steady()
    assert set(world.writes()) <= {"AddTags"}
    assert world.described()["EndpointConfigName"] == "theirs"
    world.delete()
    world.gone()
    assert world.standing()["endpoints"] == [NAME], "nobody said that it may go"
