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


def delete(stage: Stage) -> None:
    stage.delete()


SCENARIOS = {
    "create": Scenario(None, create, created),
    "weights": Scenario(in_service, edit_weight, weight_edited),
    "counts": Scenario(in_service, edit_count, count_edited),
    "canary": Scenario(partial(in_service, policy=canary(percent=50, wait=1, final_wait=1)), update, updated),
    "rollback": Scenario(partial(in_service, policy=canary(percent=50, wait=1, final_wait=1)), break_it, rolled_back),
    "rolling": Scenario(partial(in_service, policy=rolling(percent=50, wait=1)), update, updated),
    "delete": Scenario(in_service, delete, Stage.gone),
    "retain": Scenario(partial(in_service, deletionPolicy="Retain"), delete, Stage.gone),
}


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
@pytest.mark.parametrize("name", SCENARIOS)
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
