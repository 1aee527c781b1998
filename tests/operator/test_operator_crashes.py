"""Killed anywhere, the operator ends where it would have ended, and does nothing twice.

The points are the calls of a recorded run: before and after each call to the API server, to SageMaker and to
CloudWatch. Tried are those after each write and some of the others; with SLUICE_TEST_EVERY_CALL=1 (as `make soak` does
it) all. A recorded call without a point fails the test, and so does a point at which nobody was killed. Only one
kind of call may stay away: reading a single object of ours to be sure of it, which a run needs or not as the watch is
ahead or behind. A run without it must come to the same end; such points are named, and few.
"""

from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
from tests.operator.harness.crash import crash_everywhere, undisturbed
from tests.operator.harness.killing import EVERY_CALL, SECONDS, Scenario, Undisturbed, most_telling, recorded
from tests.operator.harness.manifests import NAME, ROLE, canary, config, endpoint, model, variant
from tests.operator.harness.proxy import Point, Side, kubernetes_call
from tests.operator.harness.world import Surroundings, World

OLD, NEW = "registry.example/churn:1", "registry.example/churn:2"


def in_service(world: World, *, bake: int = 20) -> None:
    alarm = world.alarm("5xx")
    world.apply(model(OLD), config(variant(count=4)), endpoint(canary(wait=bake, final_wait=20), alarms=(alarm,)))
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
    world.apply(model(OLD), config())
    for kind in ("Model", "EndpointConfig"):
        world.expect(kind=kind, RolledOut="False NotReferenced")


def adopt(world: World) -> None:
    world.apply(endpoint(annotations={"sluice.dev/adopt": "true"}))


def adopted(world: World) -> None:
    world.ready()
    world.expect(kind="Model", RolledOut="True RolledOut")


SCENARIOS = {
    "create": Scenario(None, create, created),
    "update": Scenario(in_service, update, updated),
    "rollback": Scenario(partial(in_service, bake=2000), roll_back, rolled_back),
    "delete": Scenario(in_service, delete, deleted),
    "adoption": Scenario(made_by_somebody_else, adopt, adopted),
}


@pytest.fixture(scope="module")
def records(surroundings: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Undisturbed]]:
    """The undisturbed runs."""
    return recorded(
        SCENARIOS, lambda name: undisturbed(surroundings, tmp_path_factory.mktemp(f"record-{name}"), SCENARIOS[name])
    )


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_any_call_it_ends_the_same(
    name: str,
    surroundings: Surroundings,
    records: dict[str, Future[Undisturbed]],
    tmp_path: Path,
    pytestconfig: pytest.Config,
    capfd: pytest.CaptureFixture[str],
) -> None:
    scenario = SCENARIOS[name]
    record = records[name].result()
    for call in record.calls:
        assert {(p.key, p.side) for p in record.points} >= {(call, "before"), (call, "after")}, f"no point at {call}"

    points = record.points if EVERY_CALL else most_telling(record.points, name)
    crashes = crash_everywhere(surroundings, tmp_path, scenario, record, points)

    crashes.judge(name, record, points, pytestconfig, capfd)


NEVER_MADE = {
    "a write": Point("sagemaker DeleteModel", 1, "before"),
    "a call to AWS": Point("sagemaker DescribeScalableTargets", 1, "after"),
    "a confirmation": Point("kubernetes GET models/churn", 1, "before", optional=True),
}


@pytest.mark.parametrize("what", NEVER_MADE)
def test_only_a_confirmation_may_be_left_out(
    what: str, surroundings: Surroundings, records: dict[str, Future[Undisturbed]], tmp_path: Path
) -> None:
    scenario, never = SCENARIOS["adoption"], NEVER_MADE[what]
    record = records["adoption"].result()

    seconds = SECONDS if never.optional else 5.0
    crashes = crash_everywhere(surroundings, tmp_path, scenario, record, [never], seconds=seconds)

    assert crashes.left_out == ([never] if never.optional else [])
    assert [str(never) in problem for problem in crashes.problems] == ([] if never.optional else [True])


@pytest.mark.parametrize(
    ("key", "side", "told"),
    [
        ("kubernetes PUT endpoints/churn/status CreateEndpoint", "after", True),
        ("kubernetes PATCH endpoints/churn finalizers+resourceVersion", "after", True),
        ("kubernetes DELETE controllerrevisions", "after", True),
        ("sagemaker CreateEndpoint", "after", True),
        ("sagemaker CreateEndpoint", "before", False),
        ("sagemaker DescribeEndpoint", "after", False),
        ("alarms DescribeAlarms", "after", False),
        ("kubernetes POST events Ready", "after", False),
        ("kubernetes WATCH endpoints", "after", False),
    ],
)
def test_every_write_is_among_the_points_that_are_tried(key: str, side: Side, told: bool) -> None:
    """Of two points one is no sixth, so only a write is chosen."""
    points = [Point("kubernetes GET models", 1, "before"), Point(key, 1, side)]
    assert (points[1] in most_telling(points, "a scenario")) is told


@pytest.mark.parametrize(
    ("method", "path", "optional"),
    [
        ("GET", "/apis/sluice.dev/v1alpha1/namespaces/team/endpoints/churn", True),
        ("GET", "/apis/sluice.dev/v1alpha1/namespaces/team/endpoints?limit=500", False),
        ("GET", "/apis/apps/v1/namespaces/team/controllerrevisions/churn-1", True),
        ("GET", "/apis/apps/v1/namespaces/team/controllerrevisions", False),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/team/leases/sluice-operator", False),
        ("DELETE", "/apis/apps/v1/namespaces/team/controllerrevisions/churn-1", False),
    ],
)
def test_only_reads_of_a_single_object_are_confirmations(method: str, path: str, optional: bool) -> None:
    assert kubernetes_call(method, path, {}, b"").optional is optional
