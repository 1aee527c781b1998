"""Killed anywhere, the operator ends in the cluster where it would have ended: the same fleets, routes, statuses and
revisions, nothing left without an owner, and never a request for a fleet without a ready pod.

The points here are after each kind of write in each stage; with SLUICE_TEST_EVERY_CALL=1 (as `make soak` does it) they
are before and after each call."""

from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
from tests.operator.harness.cluster_crash import crash_everywhere, of_each_kind, undisturbed
from tests.operator.harness.cluster_stage import CRASHING, Crowd, Stage
from tests.operator.harness.killing import EVERY_CALL, Scenario, Undisturbed, recorded
from tests.operator.harness.manifests import Manifest, canary, config, endpoint, model, rolling, variant
from tests.operator.harness.proxy import Point
from tests.operator.harness.world import Surroundings

OLD, NEW = "registry.example/churn:1", "registry.example/churn:2"


def variants(*, count: int = 2, weight: float = 1) -> Manifest:
    return config(variant("a", count=count, weight=weight), variant("b", count=1))


def in_service(stage: Stage, policy: Manifest | None = None, **spec: str) -> None:
    stage.apply(model(OLD), variants(), endpoint(policy, backend="Cluster", **spec))
    created(stage)


def create(stage: Stage) -> None:
    stage.apply(model(OLD), variants(), endpoint(backend="Cluster"))


def created(stage: Stage) -> None:
    stage.settled("Succeeded")


def edit_weight(stage: Stage) -> None:
    stage.apply(variants(weight=3))


def weight_edited(stage: Stage) -> None:
    stage.wait(lambda: stage.route() == {"a": 750_000, "b": 250_000}, "the weights are in the routes")
    stage.settled("Succeeded")


def edit_count(stage: Stage) -> None:
    stage.apply(variants(count=4))


def count_edited(stage: Stage) -> None:
    stage.wait(lambda: 4 in stage.replicas(), "the fleet of four pods")
    stage.settled("Succeeded")


def update(stage: Stage) -> None:
    stage.apply(model(NEW))


def updated(stage: Stage) -> None:
    stage.settled("Succeeded", "Succeeded")


def break_it(stage: Stage) -> None:
    stage.apply(model(CRASHING))


def rolled_back(stage: Stage) -> None:
    stage.settled("Succeeded", "RolledBack", ready="False RolledBack")


def watched_canary(stage: Stage) -> None:
    """It bakes for longer than the scenario takes, and everybody is at rest."""
    alarm = stage.alarm("errors", metrics="Churn")
    stage.apply(model(OLD), variants(), endpoint(canary(percent=50, wait=1800), alarms=(alarm,), backend="Cluster"))
    created(stage)
    update(stage)
    stage.wait(lambda: stage.deployment_stage() == "Baking", "the canary bakes")
    stage.quiet()


def fire(stage: Stage) -> None:
    stage.set_alarm(f"{stage.namespace}-errors", "ALARM")


def calm(stage: Stage) -> None:
    stage.set_alarm(f"{stage.namespace}-errors", "OK")


def delete(stage: Stage) -> None:
    stage.delete()


SCENARIOS = {
    "create": Scenario(None, create, created),
    "weights": Scenario(in_service, edit_weight, weight_edited),
    "counts": Scenario(in_service, edit_count, count_edited),
    "canary": Scenario(partial(in_service, policy=canary(percent=50, wait=1, final_wait=1)), update, updated),
    "rollback": Scenario(partial(in_service, policy=canary(percent=50, wait=1, final_wait=1)), break_it, rolled_back),
    "alarm": Scenario(watched_canary, fire, rolled_back),
    "rolling": Scenario(partial(in_service, policy=rolling(percent=50, wait=1)), update, updated),
    "delete": Scenario(in_service, delete, Stage.gone),
    "retain": Scenario(partial(in_service, deletionPolicy="Retain"), delete, Stage.gone),
}


TRIED = [name for name in SCENARIOS if EVERY_CALL or name != "alarm"]
"""By kinds of writes `alarm` has none that others have not; the two that matter are tried by a test of their own."""


@pytest.fixture(scope="module")
def crowd(surroundings: Surroundings) -> Iterator[Crowd]:
    """The hands of all stages; they look at everything ten times a second, so they rest when the stages are over."""
    made = Crowd(surroundings)
    yield made
    made.close()


@pytest.fixture(scope="module")
def records(
    surroundings: Surroundings, crowd: Crowd, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Future[Undisturbed]]:
    """The undisturbed runs."""
    return recorded(
        SCENARIOS,
        lambda name: undisturbed(surroundings, crowd, tmp_path_factory.mktemp(f"record-{name}"), SCENARIOS[name]),
    )


@pytest.fixture(scope="module")
def tried() -> set[tuple[str, str, str]]:
    """Kinds of calls that were points of an earlier scenario."""
    return set()


@pytest.mark.timeout(14_400 if EVERY_CALL else 1200)
@pytest.mark.parametrize("name", TRIED)
def test_killed_at_any_call_it_ends_the_same_in_the_cluster(
    name: str,
    surroundings: Surroundings,
    crowd: Crowd,
    records: dict[str, Future[Undisturbed]],
    tried: set[tuple[str, str, str]],
    tmp_path: Path,
    pytestconfig: pytest.Config,
    capfd: pytest.CaptureFixture[str],
) -> None:
    scenario = SCENARIOS[name]
    record = records[name].result()
    points = record.points if EVERY_CALL else of_each_kind(record.points, tried)

    crashes = crash_everywhere(surroundings, crowd, tmp_path, scenario, record, points)

    crashes.judge(name, record, points, pytestconfig, capfd)


_ROUTES = ": PUT endpointroutes"


def _turns_back(call: str) -> bool:
    """Whether it writes the status that says so."""
    return "RollingBack" in call.partition(" -> ")[2]


def writes_that_turn_back(points: tuple[Point, ...]) -> list[Point]:
    """After the status says that the deployment turns back, and after its routes do."""
    after = [point for point in points if point.side == "after"]
    return [
        next(point for point in after if _turns_back(point.key)),
        next(point for point in after if _ROUTES in point.key),
    ]


@pytest.mark.timeout(1200)
def test_what_an_alarm_has_turned_back_stays_so_though_the_alarm_is_over_when_the_operator_is_back(
    surroundings: Surroundings,
    crowd: Crowd,
    records: dict[str, Future[Undisturbed]],
    tmp_path: Path,
    pytestconfig: pytest.Config,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Only the status can tell of it then, so it is written first."""
    record = records["alarm"].result()
    points = writes_that_turn_back(record.points)

    crashes = crash_everywhere(surroundings, crowd, tmp_path, SCENARIOS["alarm"], record, points, calm)

    crashes.judge("alarm that is over", record, points, pytestconfig, capfd)
    assert crashes.left_out == []


@pytest.mark.timeout(1200)
def test_from_an_alarm_to_the_routes_nothing_is_looked_at(records: dict[str, Future[Undisturbed]]) -> None:
    """Of all that was asked of the API server, what came after the alarm's reading and before the routes' write."""
    calls = [*records["alarm"].result().calls]
    turned = next(place for place, call in enumerate(calls) if _turns_back(call))
    routed = next(place for place, call in enumerate(calls) if _ROUTES in call)
    read = max(place for place, call in enumerate(calls[:turned]) if call == "alarms DescribeAlarms")
    assert [call for call in calls[read:routed] if ": GET " in call] == []
    assert [call for call in calls[routed:] if ": GET pods" in call], "the passes after it look"
