"""Drift: what others change in SageMaker is shown, or mended once, never fought over."""

from tests.operator.harness.manifests import config, endpoint, model, variant
from tests.operator.harness.world import LONG, World

IN_PLACE = "UpdateEndpointWeightsAndCapacities"


def other_config(world: World, name: str = "foreign") -> None:
    """An EndpointConfig that somebody else made over the same Model."""
    wanted = world.described()["EndpointConfigName"]
    shown = world.boto().describe_endpoint_config(EndpointConfigName=wanted)["ProductionVariants"]
    world.boto().create_endpoint_config(EndpointConfigName=name, ProductionVariants=shown)


def test_weights_are_reported(world: World) -> None:
    world.serving(model(), config(variant("a"), variant("b")), endpoint())

    world.simulator.change_endpoint("churn", weights={"a": 5}, immediate=True)

    world.stalled("Drifted", message="weight of variant a: found 5, Sluice wrote 1")
    world.expect(Serving="True InService")
    world.steady()
    assert world.writes() == []
    world.simulator.change_endpoint("churn", weights={"a": 1}, immediate=True)
    world.ready()
    assert world.writes() == []


def test_another_config_is_reported(world: World) -> None:
    world.serving(model(), config(), endpoint())
    other_config(world)

    world.simulator.change_endpoint("churn", endpointConfigName="foreign")

    world.stalled("Drifted", message="endpointConfigName: found foreign, Sluice deployed")
    world.steady()
    assert world.writes() == []


def test_a_deletion_is_reported_and_retry_creates_it_again(world: World) -> None:
    world.serving(model(), config(), endpoint())

    world.simulator.delete_endpoint("churn", now=True)

    world.stalled("Drifted", message="Somebody else deleted endpoint churn")
    world.expect(Serving="False Pending")
    assert world.writes() == []
    world.annotate(retry="1")
    world.ready()
    assert world.writes() == ["CreateEndpoint"]


def test_correct_mends_weights_once_and_stops_at_the_second_foreign_change(world: World) -> None:
    world.serving(model(), config(variant("a"), variant("b")), endpoint(driftPolicy="Correct"))

    world.simulator.change_endpoint("churn", weights={"a": 5}, immediate=True)
    world.wait(lambda: world.writes() == [IN_PLACE], "the correction")
    world.ready()
    assert world.described()["ProductionVariants"][0]["DesiredWeight"] == 1
    world.simulator.change_endpoint("churn", weights={"a": 6}, immediate=True)

    world.stalled("ForeignOwner", message="weight of variant a: found 6")
    world.steady()
    assert world.writes() == [IN_PLACE]
    world.annotate(retry="1")
    world.ready()
    assert world.writes() == [IN_PLACE, IN_PLACE]


def test_correct_brings_the_config_back(world: World) -> None:
    world.serving(model(), config(), endpoint(driftPolicy="Correct"))
    ours = world.described()["EndpointConfigName"]
    other_config(world)

    world.simulator.change_endpoint("churn", endpointConfigName="foreign", immediate=True)

    world.wait(lambda: "UpdateEndpoint" in world.writes(), "the correction")
    world.wait(lambda: world.described()["EndpointConfigName"] == ours, "our config is back")
    world.ready()
    assert world.writes() == ["UpdateEndpoint"]


def test_correct_creates_a_deleted_endpoint_again_but_once(world: World) -> None:
    world.serving(model(), config(), endpoint(driftPolicy="Correct"))

    world.simulator.delete_endpoint("churn", now=True)
    world.wait(lambda: world.writes() == ["CreateEndpoint"], "it is created again")
    world.ready()
    world.steady()
    world.simulator.delete_endpoint("churn", now=True)

    world.stalled("ForeignOwner", message="deleted outside again within an hour")
    world.steady()
    assert world.writes() == ["CreateEndpoint"]


def test_somebody_elses_update_is_waited_for(world: World) -> None:
    world.serving(model(), config(), endpoint())
    other_config(world)
    world.simulator.settings(provision_seconds=LONG)

    world.simulator.change_endpoint("churn", endpointConfigName="foreign")

    world.expect(Ready="False ForeignUpdate", Reconciling="True ForeignUpdate", status={"endpointStatus": "Updating"})
    world.hurry()
    world.stalled("Drifted")
    assert world.writes() == []
