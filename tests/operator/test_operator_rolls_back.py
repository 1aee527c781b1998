"""Rollbacks: triggered by alarms, health or SageMaker's own silence; what is latched, and the ways out."""

import pytest
from tests.operator.harness.manifests import Manifest, canary, config, endpoint, model, rolling, variant
from tests.operator.harness.world import World

OLD, BAD, GOOD = (f"registry.example/churn:{tag}" for tag in (1, 2, 3))
DEPLOYMENT = ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint"]


def rolled_back(world: World, cause: str) -> Manifest:
    """The bad revision was asked for and is out again; the old one serves."""
    found = world.stalled("RolledBack")
    status: Manifest = found["status"]
    assert status["endpointStatus"] == "InService"
    last = status["lastDeployment"]
    assert (last["outcome"], last["cause"]) == ("RolledBack", cause)
    assert status["latch"]["fleetHash"] == last["fleetHash"] == status["desiredRevision"]["fleetHash"]
    assert status["revision"]["fleetHash"] != last["fleetHash"]
    world.expect(Serving="True InService")
    assert world.images() == {OLD}
    return status


def test_an_alarm_during_the_canary_rolls_back_and_latches(world: World) -> None:
    alarm = world.alarm("5xx")
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary(wait=2000), alarms=(alarm,)))

    world.apply(model(BAD))
    world.wait(lambda: (world.status().get("deployment") or {}).get("stage") == "Baking", "the canary bakes")
    world.set_alarm(alarm, "ALARM")

    status = rolled_back(world, "Alarm")
    assert world.writes() == DEPLOYMENT
    assert status["latch"]["reason"] == "RolledBack"
    world.set_alarm(alarm, "OK")
    world.steady(3)
    assert world.writes() == DEPLOYMENT, "a latched revision is not deployed again"
    world.outcomes("Succeeded", "RolledBack")
    assert ("churn", "DeploymentRolledBack") in world.events()


def test_a_spec_of_another_revision_goes_on(world: World) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary()))
    world.simulator.fault("health_failure", count=1)
    world.apply(model(BAD))
    rolled_back(world, "Health")

    world.apply(model(GOOD))

    world.deployed(GOOD)
    assert world.status().get("latch") is None


def test_back_to_what_serves_is_ready_without_a_call(world: World) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary()))
    world.simulator.fault("health_failure", count=1)
    world.apply(model(BAD))
    rolled_back(world, "Health")
    world.mark()

    world.apply(model(OLD))

    world.ready()
    assert world.writes() == []


def test_retry_deploys_the_latched_revision_once_more(world: World) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary()))
    world.simulator.fault("capacity_failure", count=1)
    world.apply(model(BAD))
    rolled_back(world, "Capacity")
    world.mark()

    world.annotate(retry="1")

    world.deployed(BAD)
    assert world.writes() == ["UpdateEndpoint"]
    [ack] = world.status()["commands"]
    assert (ack["command"], ack["value"], ack["result"]) == ("retry", "1", "Done")


def test_weights_and_policy_apply_to_the_serving_revision_while_latched(world: World) -> None:
    variants = (variant("a", count=4), variant("b", count=4))
    world.serving(model(OLD), config(*variants), endpoint(canary()))
    world.simulator.fault("health_failure", count=1)
    world.apply(model(BAD))
    rolled_back(world, "Health")
    world.mark()

    world.apply(config(variant("a", count=4, weight=9), variant("b", count=4)))

    world.wait(lambda: world.status()["productionVariants"][0]["currentWeight"] == 9, "the weight in force")
    world.stalled("RolledBack")
    assert world.writes() == ["UpdateEndpointWeightsAndCapacities"]


def test_a_silent_rollback_is_recognised(world: World) -> None:
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary()))
    world.simulator.fault("silent_rollback", count=1)

    world.apply(model(BAD))

    rolled_back(world, "Silent")
    assert "failureReason" not in world.status()
    assert world.writes() == DEPLOYMENT


def broken(world: World) -> None:
    """An update failed, and its rollback too."""
    world.serving(model(OLD), config(variant(count=4)), endpoint(rolling()))
    world.simulator.fault("update_rollback_failed", count=1)
    world.apply(model(BAD))
    world.stalled("UpdateRollbackFailed", message="sluice.dev/retry")
    status = world.status()
    assert status["endpointStatus"] == "UpdateRollbackFailed"
    assert status["lastDeployment"]["outcome"] == "UpdateRollbackFailed"
    world.expect(Serving="True UpdateRollbackFailed")
    world.steady()
    world.mark()


@pytest.mark.parametrize("remedy", ["retry", "edit", "rollback"])
def test_update_rollback_failed_has_a_way_out(world: World, remedy: str) -> None:
    broken(world)
    first = world.revisions()[0]["metadata"]["name"]

    match remedy:
        case "retry":
            world.annotate(retry="now")
            world.deployed(BAD)
        case "edit":
            world.apply(model(GOOD))
            world.deployed(GOOD)
        case _:
            world.annotate(rollback=first)
            world.stalled("HeldByRollback", message=f"rolled back to {first}")
            assert world.images() == {OLD}
    assert world.status()["endpointStatus"] == "InService"
    assert world.writes().count("UpdateEndpoint") == 1


def test_an_alarm_that_fires_before_the_start_holds_until_it_is_ok(world: World) -> None:
    alarm = world.alarm("5xx", "ALARM")
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary(), alarms=(alarm,)))

    world.apply(model(GOOD))
    world.expect(Ready="False AlarmFiring", Reconciling="True AlarmFiring", message=alarm)
    assert world.writes() == []
    world.set_alarm(alarm, "OK")

    world.deployed(GOOD)
    assert world.writes() == DEPLOYMENT


def test_ignore_firing_starts_the_revision_that_it_names_and_no_other(world: World) -> None:
    world.simulator.settings(ignore_alarms_firing_at_start=True)
    alarm = world.alarm("5xx", "ALARM")
    world.simulator.set_alarm(alarm, "ALARM")
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary(), alarms=(alarm,)))
    world.apply(model(GOOD))
    held = world.expect(Reconciling="True AlarmFiring")

    world.annotate(ignore_firing="another-revision")
    world.wait(
        lambda: (
            [(c["value"], c["result"]) for c in world.status().get("commands", ())] == [("another-revision", "Refused")]
        ),
        "the wrong name refused",
    )
    assert world.writes() == []
    world.annotate(ignore_firing=held["status"]["desiredRevision"]["name"])

    world.deployed(GOOD)
    assert world.writes() == DEPLOYMENT


def test_a_missing_alarm_is_refused_until_it_exists(world: World) -> None:
    absent = f"{world.namespace}-latency"
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary(), alarms=(absent,)))

    world.apply(model(GOOD))
    world.stalled("AlarmMissing", message=f"CloudWatch knows no {absent}")
    assert world.writes() == []
    world.alarm("latency")

    world.deployed(GOOD)


def test_alarms_that_cannot_be_read_hold_the_start(world: World) -> None:
    alarm = world.alarm("5xx")
    world.serving(model(OLD), config(variant(count=4)), endpoint(canary(), alarms=(alarm,)))
    world.operator.restart(AWS_ENDPOINT_URL_CLOUDWATCH="http://127.0.0.1:9")

    world.apply(model(GOOD))
    world.expect(Ready="False AlarmsUnreadable", Reconciling="True AlarmsUnreadable")
    assert world.writes() == []
    world.operator.restart(AWS_ENDPOINT_URL_CLOUDWATCH=world.surroundings.cloudwatch_url)

    world.deployed(GOOD)
