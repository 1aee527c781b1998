"""Deployments under constant load on the real cluster while something is broken, side by side: each pair of policy,
trigger and stage, and each disturbance (SLUICE_MATRIX=full, as `make soak` sets it: each with each).

Of every row: no request is lost (but what the bad model itself answered), the new revision never gets more than its
step's share, and after a rollback it gets nothing any more."""

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence

import pytest
from tests.cluster.hosting import Hosting
from tests.cluster.matrix import (
    DISTURBANCES,
    ENDS_SECONDS,
    INSTANCES,
    IS_FULL,
    POLICIES,
    STAGES,
    TRIGGERS,
    Disturbance,
    Policy,
    Round,
    Row,
    Stage,
    Trigger,
    endpoint_of,
    model_of,
    new_model,
    policy,
    put,
    variants,
)
from tests.operator.harness.kube import Object

from localcluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SHORT: dict[str, Policy] = {"at_once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR", "rolling": "ROLLING"}


def together(stage: Stage, disturbance: Disturbance, **triggers: Trigger) -> tuple[Row, ...]:
    """Deployments under some policies, struck by the same thing at the same time."""
    return tuple(Row(SHORT[name], trigger, stage, disturbance) for name, trigger in triggers.items())


PAIRS = (
    together(
        "Provisioning", "operator killed", at_once="alarm", canary="person", linear="revert", rolling="model data"
    ),
    together("Provisioning", "router deleted", at_once="none", canary="model data", linear="alarm", rolling="person"),
    together("Provisioning", "API server frozen", at_once="model data", canary="none", linear="model data"),
    together("Shifting", "agent frozen", linear="none"),
    together("Shifting", "operator killed", rolling="revert"),
    together("Shifting", "router deleted", at_once="person", canary="alarm"),
    together("Baking", "router deleted", canary="none", linear="revert", rolling="person"),
    together("Baking", "API server frozen", canary="revert", linear="alarm", rolling="none"),
    together("FinalBaking", "operator killed", at_once="none", canary="revert", linear="person", rolling="alarm"),
    together("CleaningUp", "router deleted", at_once="none", canary="none", linear="none", rolling="none"),
    together(
        "RollingBack",
        "router deleted",
        at_once="third revision",
        canary="alarm",
        linear="third revision",
        rolling="person",
    ),
    together("RollingBack", "operator killed", at_once="revert", canary="third revision", rolling="third revision"),
    together("RollingBack", "operator killed", linear="model data"),
)
"""On every run."""
STRUCK = {
    ("Shifting", "operator killed"),
    ("Shifting", "router deleted"),
    ("Shifting", "agent frozen"),
    ("Baking", "API server frozen"),
}
"""Where these have to strike at least. Prometheus stops in mid-bake in test_cluster_alarms.py."""
SIDE_BY_SIDE = tuple(
    rows
    for what in itertools.product(DISTURBANCES, STAGES, TRIGGERS)
    if (rows := tuple(row for one in POLICIES if (row := Row(one, what[2], what[1], what[0])).happens()))
)
"""Each with each; those that differ in their policy alone run at the same time."""
ROUNDS = SIDE_BY_SIDE if IS_FULL else PAIRS


def pairs(rows: Iterable[Row]) -> set[tuple[str, str]]:
    """Which policy, trigger and stage occur together."""
    values = ((row.policy, row.trigger, row.stage) for row in rows)
    return {pair for three in values for pair in itertools.combinations(three, 2)}


def test_everything_occurs() -> None:
    """The rows that always run hold each pair of policy, trigger and stage that can be, and each disturbance, in some
    stages by name; the others are each with each."""
    some, whole = [row for rows in PAIRS for row in rows], [row for rows in SIDE_BY_SIDE for row in rows]
    assert len(whole) == len(set(whole)) == 352
    assert set(some) <= set(whole)
    assert pairs(some) == pairs(whole)
    assert {row.disturbance for row in some} == set(DISTURBANCES)
    assert {(row.stage, row.disturbance) for row in some} >= STRUCK


@pytest.fixture(scope="module")
def hosting(hosting: Hosting, cluster: Cluster, contrary_image: str) -> Hosting:
    """The same namespace, with models that start at once: rows are many, and what they wait for is not the models."""
    return Hosting(hosting.stage, cluster, hosting.kube, contrary_image, hosting.namespace)


@pytest.fixture(scope="module", autouse=True)
def matrix(hosting: Hosting) -> Iterator[None]:
    """Endpoints of one variant with two instances in service, which every row deploys anew."""
    names = {endpoint_of(row) for rows in ROUNDS for row in rows}
    for name in names:
        hosting.model(name, f"s3://hosted/{new_model(hosting)}/model.tar.gz")
        hosting.endpoint(name, variants(name))
    for name in names:
        hosting.ready(name)
    yield
    hosting.delete(*names)
    hosting.gone(*names)


def named(rows: Sequence[Row]) -> str:
    """For pytest."""
    triggers = "+".join(dict.fromkeys(row.trigger for row in rows))
    return f"{rows[0].stage}-{rows[0].disturbance}-{triggers}".replace(" ", "-").lower()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rows", ROUNDS, ids=named)
def test_a_deployment(rows: tuple[Row, ...], hosting: Hosting, cluster: Cluster) -> None:
    missed = Round(rows, hosting, cluster).run()
    while missed:  # those that were elsewhere when it struck
        one_or_all = missed if len(missed) < len(rows) else missed[:1]
        again = Round(one_or_all, hosting, cluster).run()
        missed = [row for row in missed if row in again or row not in one_or_all]


def test_a_batch_goes_before_its_successors_come(hosting: Hosting) -> None:
    """replaceFirst: at no time are there more pods than the pool holds, those on their way out included until their
    containers have ended, which gives their room back."""
    rolling = Row("ROLLING", "none", "Baking", "router deleted")
    endpoint = endpoint_of(rolling)
    old, new, most = model_of(hosting, endpoint), new_model(hosting), 0

    def there() -> int:
        every = hosting.every_pod(f"sluice.dev/endpoint={endpoint}")
        return sum(pod["status"]["phase"] not in ("Succeeded", "Failed") for pod in every)

    hosting.endpoint(endpoint, variants(endpoint), deploymentConfig=policy(rolling), kubernetes={"replaceFirst": True})
    hosting.ready(endpoint)
    hosting.until(endpoint, lambda: there() == INSTANCES or None)
    with hosting.load(endpoint) as loads:
        put(hosting, endpoint, new)

        def ended() -> Object | None:
            nonlocal most
            most = max(most, there())
            status = hosting.status(endpoint)
            served = loads.answers().get(json.dumps({"predictions": [new]}), 0)
            return status if served and "deployment" not in status else None

        status = hosting.until(endpoint, ended, ENDS_SECONDS)
        last = loads.answers()[json.dumps({"predictions": [old]})]
        loads.more(150)

    loads.assert_none_lost()
    assert loads.answers()[json.dumps({"predictions": [old]})] == last
    assert status["lastDeployment"]["outcome"] == "Succeeded"
    assert most == INSTANCES
