"""Every one of SageMaker's nine statuses by name: what it means for Ready, Reconciling, Stalled and Serving."""

import pytest
from tests.operator.harness.manifests import config, endpoint, model, variant
from tests.operator.harness.world import LONG, World

NEW = "registry.example/churn:2"


@pytest.mark.parametrize(
    ("word", "conditions"),
    [
        ("OutOfService", {"Ready": "False OutOfService", "Stalled": "True OutOfService"}),
        ("Creating", {"Ready": "False Creating", "Reconciling": "True Creating"}),
        # By all that is seen a scaler's: no other configuration is pending.
        ("Updating", {"Ready": "True InService", "Reconciling": "True ForeignUpdate"}),
        ("SystemUpdating", {"Ready": "True InService", "Reconciling": "True SystemUpdating"}),
        ("RollingBack", {"Ready": "True InService", "Reconciling": "True RollingBack"}),
        ("InService", {"Ready": "True InService", "Reconciling": "False Settled"}),
        ("Deleting", {"Ready": "False Deleting", "Reconciling": "True Deleting"}),
        ("Failed", {"Ready": "False EndpointFailed", "Stalled": "True EndpointFailed"}),
    ],
)
def test_a_status_that_comes_over_an_endpoint_in_service(world: World, word: str, conditions: dict[str, str]) -> None:
    """UpdateRollbackFailed comes of an update only: see test_update_rollback_failed_has_a_way_out."""
    world.serving(model(), config(), endpoint())
    serves = word in {"Updating", "SystemUpdating", "RollingBack", "InService"}

    world.simulator.change_endpoint("churn", status=word, failureReason="scenario", immediate=True)

    world.expect(status={"endpointStatus": word}, Serving=f"{serves} {word}", conditions=conditions)
    world.steady()
    assert world.writes() == []


def test_maintenance_leaves_ready_as_it_was_and_edits_wait(world: World) -> None:
    world.serving(model(), config(), endpoint())

    world.simulator.fault("maintenance", target="churn", seconds=LONG)
    world.expect(Ready="True InService", Reconciling="True SystemUpdating", status={"endpointStatus": "SystemUpdating"})
    world.apply(model(NEW))
    world.hurry()

    world.deployed(NEW)
    assert world.refused_writes() == []


def test_a_creation_that_fails_waits_for_a_change_of_the_spec(world: World) -> None:
    world.simulator.fault("failed_creation", count=1, reason="no such image")
    world.apply(model(), config(), endpoint())

    world.stalled("CreationFailed", message="no such image")
    world.expect(Serving="False Failed", status={"endpointStatus": "Failed"})
    world.steady()
    assert world.writes() == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
    world.mark()

    world.apply(model(NEW))

    world.deployed(NEW)
    assert world.writes()[0] == "DeleteEndpoint"
    assert world.writes().count("CreateEndpoint") == 1


def test_a_count_alone_recreates_what_never_served(world: World) -> None:
    world.simulator.fault("failed_creation", count=1)
    world.apply(model(), config(), endpoint())
    world.stalled("CreationFailed")

    world.apply(config(variant(count=2)))

    world.ready()
    assert world.described()["ProductionVariants"][0]["CurrentInstanceCount"] == 2


def test_retry_recreates_what_never_served(world: World) -> None:
    world.simulator.fault("failed_creation", count=1)
    world.apply(model(), config(), endpoint())
    world.stalled("CreationFailed")

    world.annotate(retry="1")

    world.ready()


def test_an_endpoint_that_served_and_failed_is_recreated_only_by_retry(world: World) -> None:
    world.serving(model(), config(), endpoint())
    world.simulator.change_endpoint("churn", status="Failed", failureReason="gone bad", immediate=True)
    world.stalled("EndpointFailed", message="gone bad")
    world.apply(model(NEW))
    world.steady()
    assert world.writes() == []

    world.annotate(retry="1")

    world.deployed(NEW)
    assert world.writes()[0] == "DeleteEndpoint"


def test_a_weight_change_that_fails_rolls_back_and_is_not_repeated(world: World) -> None:
    world.serving(model(), config(variant("a"), variant("b")), endpoint())
    world.simulator.fault("weight_update_failure", count=1)

    world.apply(config(variant("a", weight=9), variant("b")))

    world.stalled("VariantUpdateFailed", message="weight 9 of variant a")
    world.steady()
    assert world.writes() == ["UpdateEndpointWeightsAndCapacities"]
    world.annotate(retry="1")
    world.ready()
    assert world.writes() == ["UpdateEndpointWeightsAndCapacities"] * 2


def test_stuck_in_creating_is_said_and_outlived(world: World) -> None:
    world.simulator.fault("stuck_creating", target="churn")
    world.apply(model(), config(), endpoint())

    world.expect(Ready="False Creating", Reconciling="True Creating", Stalled="False NothingStalled")
    world.steady(3)
    assert world.writes() == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
