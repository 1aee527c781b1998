"""Deletion: the living endpoint first, then what it was made of, last the finalizer; never while SageMaker is busy."""

from tests.operator.harness.manifests import canary, config, endpoint, model, variant
from tests.operator.harness.world import LONG, World

NOTHING: dict[str, list[str]] = {"endpoints": [], "endpointConfigs": [], "models": []}


def test_an_endpoint_in_service_goes_with_all_it_was_made_of(world: World) -> None:
    world.apply(model(), config(), endpoint())
    world.ready()
    world.apply(model("registry.example/churn:2"))
    world.deployed("registry.example/churn:2")
    world.mark()

    world.delete()

    world.gone()
    assert world.standing() == NOTHING
    assert world.revisions() == []
    assert sorted(world.writes()) == ["DeleteEndpoint", *["DeleteEndpointConfig"] * 2, *["DeleteModel"] * 2]
    assert world.writes()[0] == "DeleteEndpoint"
    assert world.refused_writes() == []


def test_during_creation_it_waits_and_says_so(world: World) -> None:
    world.simulator.settings(create_seconds=LONG)
    world.apply(model(), config(), endpoint())
    world.expect(Reconciling="True Creating", status={"endpointStatus": "Creating"})

    world.delete()

    world.expect(Reconciling="True Deleting", message="Waiting for endpoint churn to leave Creating")
    world.hurry()
    world.gone()
    assert world.standing() == NOTHING
    assert world.refused_writes() == []


def test_during_an_update_it_waits_and_says_so(world: World) -> None:
    world.apply(model(), config(variant(count=4)), endpoint(canary(wait=LONG)))
    world.ready()
    world.apply(model("registry.example/churn:2"))
    world.expect(Reconciling="True Deploying", status={"endpointStatus": "Updating"})

    world.delete()

    world.expect(Reconciling="True Deleting", message="Waiting for endpoint churn to leave Updating")
    world.hurry()
    world.gone()
    assert world.standing() == NOTHING
    assert world.refused_writes() == []


def test_retain_leaves_everything_in_aws(world: World) -> None:
    world.apply(model(), config(), endpoint(deletionPolicy="Retain"))
    world.ready()
    before = world.standing()
    world.steady()
    world.mark()

    world.delete()

    world.gone()
    assert world.writes() == []
    assert world.standing() == before
    assert world.described()["EndpointStatus"] == "InService"


def test_a_failed_endpoint_is_deleted(world: World) -> None:
    world.simulator.fault("failed_creation")
    world.apply(model(), config(), endpoint())
    world.stalled("CreationFailed")

    world.delete()

    world.gone()
    assert world.standing() == NOTHING


def test_one_that_never_reached_aws_just_goes(world: World) -> None:
    world.apply(endpoint())
    world.stalled("MissingReference")

    world.delete()

    world.gone()
    assert world.writes() == []


def test_deleting_what_an_endpoint_uses_breaks_nothing(world: World) -> None:
    world.apply(model(), config(), endpoint())
    world.ready()
    world.mark()

    world.delete("Model")
    world.delete("EndpointConfig")

    world.stalled("MissingReference", message="found no EndpointConfig churn")
    world.expect(Serving="True InService")
    world.apply(model(), config())
    world.ready()
    assert world.writes() == []
