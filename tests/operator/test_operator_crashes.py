"""Killed anywhere, the operator ends where it would have ended, and does nothing twice.

The points are the calls of a recorded run: before and after each call to the API server, to SageMaker and to
CloudWatch. A recorded call without a point would fail `test_every_recorded_call_has_a_point`.
"""

from functools import partial
from pathlib import Path

import pytest
from tests.operator.harness.crash import Scenario, crash_everywhere, undisturbed
from tests.operator.harness.manifests import NAME, ROLE, canary, config, endpoint, model, variant
from tests.operator.harness.world import Surroundings, World

OLD, NEW = "registry.example/churn:1", "registry.example/churn:2"


def quick(world: World) -> None:
    """Stages as short as the operator can still see."""
    world.simulator.settings(create_seconds=4.0, provision_seconds=4.0, flip_seconds=1.0, cleanup_seconds=2.0)


def in_service(world: World, *, wait: int = 6) -> None:
    quick(world)
    alarm = world.alarm("5xx")
    world.apply(model(OLD), config(variant(count=4)), endpoint(canary(wait=wait, final_wait=4), alarms=(alarm,)))
    created(world)
    world.wait(lambda: ("churn", "Ready") in world.events(), "all is said and done")


def create(world: World) -> None:
    world.apply(model(OLD), config(variant(count=4)), endpoint())


def created(world: World) -> None:
    world.ready()
    world.outcomes("Succeeded")
    world.expect(kind="Model", RolledOut="True RolledOut")
    world.expect(kind="EndpointConfig", RolledOut="True RolledOut")


def update(world: World) -> None:
    world.apply(model(NEW))


def updated(world: World) -> None:
    world.deployed(NEW)
    world.outcomes("Succeeded", "Succeeded")
    world.expect(kind="Model", RolledOut="True RolledOut")


def roll_back(world: World) -> None:
    world.apply(model(NEW))

    def baking() -> bool:
        [region] = world.simulator.state()["regions"]
        activity = region["endpoints"][NAME]["activity"] or {}
        return "Baking" in str(activity)

    world.wait(baking, "the canary bakes")
    world.set_alarm(f"{world.namespace}-5xx", "ALARM")


def rolled_back(world: World) -> None:
    world.stalled("RolledBack")
    world.outcomes("Succeeded", "RolledBack")


def delete(world: World) -> None:
    world.delete()


def deleted(world: World) -> None:
    world.gone()
    world.expect(kind="Model", RolledOut="False NotReferenced")


def made_by_somebody_else(world: World) -> None:
    quick(world)
    client = world.boto()
    client.create_model(ModelName="theirs", PrimaryContainer={"Image": OLD}, ExecutionRoleArn=ROLE)
    client.create_endpoint_config(
        EndpointConfigName="theirs",
        ProductionVariants=[
            {
                "VariantName": "a",
                "ModelName": "theirs",
                "InstanceType": "ml.m5.large",
                "InitialInstanceCount": 1,
                "InitialVariantWeight": 1,
            }
        ],
    )
    client.create_endpoint(EndpointName=NAME, EndpointConfigName="theirs")
    world.wait(lambda: world.described()["EndpointStatus"] == "InService", "the endpoint to adopt")


def adopt(world: World) -> None:
    world.apply(model(OLD), config(), endpoint(annotations={"sluice.dev/adopt": "true"}))


def adopted(world: World) -> None:
    world.ready()
    world.expect(kind="Model", RolledOut="True RolledOut")


SCENARIOS = {
    "create": Scenario(None, create, created),
    "update": Scenario(in_service, update, updated),
    "rollback": Scenario(partial(in_service, wait=60), roll_back, rolled_back),
    "delete": Scenario(in_service, delete, deleted),
    "adoption": Scenario(made_by_somebody_else, adopt, adopted),
}


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_any_call_it_ends_the_same(name: str, surroundings: Surroundings, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    record = undisturbed(surroundings, tmp_path, scenario)
    for call in record.calls:
        assert {(p.key, p.side) for p in record.points} >= {(call, "before"), (call, "after")}, f"no point at {call}"

    problems = crash_everywhere(surroundings, tmp_path, scenario, record, record.points)

    assert not problems, f"{len(problems)} of {len(record.points)} points:\n" + "\n\n".join(problems)
