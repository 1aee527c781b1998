"""Commands are annotations: done, queued or refused, and acknowledged once."""

import pytest
from tests.operator.harness.manifests import canary, config, endpoint, model, variant
from tests.operator.harness.world import LONG, World

OLD, NEW = "registry.example/churn:1", "registry.example/churn:2"


def acknowledged(world: World, command: str) -> tuple[str, str] | None:
    """(value, result) of a command's acknowledgement."""
    found = [(c["value"], c["result"]) for c in world.status().get("commands", ()) if c["command"] == command]
    return found[0] if found else None


@pytest.mark.parametrize("command", ["promote", "pause"])
def test_what_sagemaker_cannot_do_is_refused_by_name(world: World, command: str) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary(wait=LONG)))
    world.apply(model(NEW))
    world.expect(Reconciling="True Deploying", status={"endpointStatus": "Updating"})

    world.annotate(**{command: "now"})

    world.wait(lambda: acknowledged(world, command) == ("now", "Refused"), f"{command} refused")
    [ack] = world.status()["commands"]
    assert ack["reason"] == "NotSupportedByBackend"
    world.hurry()
    world.deployed(NEW)
    assert world.events().count(("churn", "CommandRefused")) == 1


def test_rollback_brings_a_kept_revision_back_and_holds_the_spec(world: World) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary()))
    first = world.status()["revision"]["name"]
    world.apply(model(NEW))
    world.deployed(NEW)
    world.mark()

    world.annotate(rollback=first)

    world.stalled("HeldByRollback", message=f"rolled back to {first}")
    assert acknowledged(world, "rollback") == (first, "Done")
    assert world.status()["revision"]["name"] == first
    world.steady()
    assert world.writes() == ["UpdateEndpoint"]
    world.annotate(retry="go on")
    world.deployed(NEW)
    assert world.writes() == ["UpdateEndpoint", "UpdateEndpoint"]


def test_rollback_during_an_update_is_queued_until_it_can_be_done(world: World) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary(wait=LONG)))
    first = world.status()["revision"]["name"]
    world.apply(model(NEW))
    world.expect(Reconciling="True Deploying", status={"endpointStatus": "Updating"})

    world.annotate(rollback=first)

    world.wait(lambda: acknowledged(world, "rollback") == (first, "Queued"), "queued")
    world.hurry()
    world.stalled("HeldByRollback")
    assert acknowledged(world, "rollback") == (first, "Done")
    assert world.status()["revision"]["name"] == first
    assert world.refused_writes() == []


def test_rollback_to_an_unknown_revision_is_refused_with_the_kept_ones(world: World) -> None:
    world.serving(model(OLD), config(), endpoint())

    world.annotate(rollback="churn-0-0")

    world.wait(lambda: acknowledged(world, "rollback") == ("churn-0-0", "Refused"), "refused")
    [ack] = world.status()["commands"]
    assert world.revisions()[0]["metadata"]["name"] in ack["message"]
    assert world.writes() == []


def test_redeploy_ships_the_same_content_again_under_the_policy(world: World) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary()))
    before = world.described()["EndpointConfigName"]

    world.annotate(redeploy="2026-11-21")

    world.wait(lambda: world.described()["EndpointConfigName"] != before, "another EndpointConfig")
    world.ready()
    assert world.writes() == ["CreateEndpointConfig", "UpdateEndpoint"]
    assert world.described()["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]


def test_a_command_is_acknowledged_once_over_a_restart(world: World) -> None:
    world.serving(model(OLD), config(), endpoint())
    world.annotate(retry="1")
    world.wait(lambda: acknowledged(world, "retry") == ("1", "Done"), "done")
    world.steady()
    version = world.ready()["metadata"]["resourceVersion"]

    world.operator.restart()

    world.steady(3)
    assert world.endpoint()["metadata"]["resourceVersion"] == version
    assert world.events().count(("churn", "CommandDone")) == 1


def test_reconcile_disabled_writes_nothing_and_says_what_it_would(world: World) -> None:
    world.serving(model(OLD), config(), endpoint(driftPolicy="Correct"))
    world.annotate(reconcile="disabled")
    world.apply(model(NEW))

    world.stalled("ReconcileDisabled", message="otherwise Sluice would: StoreRevision, EnsureModel")
    world.simulator.change_endpoint("churn", counts={"a": 3}, immediate=True)
    world.wait(lambda: world.status()["productionVariants"][0]["currentInstanceCount"] == 3, "still observed")
    assert world.writes() == []
    world.annotate(reconcile=None)
    world.deployed(NEW)


def test_read_only_mode_writes_nothing_for_anybody(world: World) -> None:
    world.serving(model(OLD), config(), endpoint())
    world.operator.restart(SLUICE_READ_ONLY="true")

    world.apply(model(NEW), endpoint(name="another"))
    world.stalled("ReadOnly")
    world.stalled("ReadOnly", "another")
    world.delete()
    world.expect(Stalled="True ReadOnly", message="otherwise Sluice would: DeleteEndpoint")

    assert world.writes() == []
    world.operator.restart(SLUICE_READ_ONLY="false")
    world.gone()
    world.ready("another")
