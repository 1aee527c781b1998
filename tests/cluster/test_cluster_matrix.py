"""Deployments under constant load on the real cluster while something is broken: each policy, stage, trigger, outcome
and disturbance at least once (SLUICE_MATRIX=full, as `make soak` sets it: each with each, the policies side by side).

Of every row: no request is lost (but what the bad model itself answered), the new revision never gets more than its
step's share, and after a rollback it gets nothing any more."""

import itertools
import json
from collections.abc import Iterator

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
    Round,
    Row,
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

PAIRS = (
    Row("ALL_AT_ONCE", "none", "FinalBaking", "operator killed"),
    Row("CANARY", "none", "Baking", "operator killed"),
    Row("LINEAR", "none", "Shifting", "agent frozen"),
    Row("ROLLING", "none", "CleaningUp", "router deleted"),
    Row("CANARY", "alarm", "RollingBack", "router deleted"),
    Row("ROLLING", "alarm", "RollingBack", "agent frozen"),
    Row("LINEAR", "person", "FinalBaking", "router deleted"),
    Row("CANARY", "model data", "Provisioning", "router deleted"),
    Row("ROLLING", "revert", "Baking", "operator killed"),
    Row("ALL_AT_ONCE", "alarm", "RollingBack", "operator killed"),
    Row("CANARY", "none", "Baking", "API server frozen"),
)
SIDE_BY_SIDE = tuple(
    rows
    for what in itertools.product(DISTURBANCES, STAGES, TRIGGERS)
    if (rows := tuple(row for one in POLICIES if (row := Row(one, what[2], what[1], what[0])).happens()))
)
"""Each with each; those that differ in their policy alone run at the same time."""
ROUNDS = SIDE_BY_SIDE if IS_FULL else tuple((row,) for row in PAIRS)


def test_everything_occurs() -> None:
    """The rows that always run hold each policy, trigger, stage and disturbance, and none that cannot be; the others
    are each with each."""
    for place, values in enumerate((POLICIES, TRIGGERS, STAGES, DISTURBANCES)):
        found = {(row.policy, row.trigger, row.stage, row.disturbance)[place] for row in PAIRS}
        assert found == set(values)
    assert all(row.happens() for row in PAIRS)
    whole = [row for rows in SIDE_BY_SIDE for row in rows]
    assert len(whole) == len(set(whole)) == 336
    assert set(PAIRS) <= set(whole)


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


@pytest.mark.timeout(1800 if IS_FULL else 600)
@pytest.mark.parametrize("rows", ROUNDS, ids=lambda rows: rows[0].name if len(rows) == 1 else rows[0].kind)
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
