"""A way back in many batches of a rolling deployment: what each rounds does not add up to an instance."""

import math
from itertools import pairwise

import pytest
from tests.core.cluster_stage import ClusterStage, rolling
from tests.core.test_cluster_plans import COUNTS, back_sizes, way_back
from tests.core.watched import reach

from sluice.api.reasons import Outcome
from sluice.core.cluster import batches


@pytest.mark.parametrize("total", COUNTS)
def test_every_batch_back_is_of_the_size_that_is_asked_for(total: int) -> None:
    for size, batch in back_sizes(total):
        shares = [share / 100 for share in way_back(size, total)]
        old = [batches.remaining({"a": total}, share)["a"] for share in shares]
        new = [batches.remaining({"a": total}, 1 - share)["a"] for share in shares]
        where = f"{size} of {total}: {old} {new}"
        assert old == [min(total, batch * step) for step in range(math.ceil(total / batch) + 1)], where
        assert all(come + stay <= total + batch for come, stay in zip(old[1:], new, strict=False)), f"room: {where}"


@pytest.mark.parametrize("total", COUNTS)
def test_every_batch_back_that_replaces_first_is_of_the_size_that_is_asked_for(total: int) -> None:
    for size, batch in back_sizes(total):
        back = way_back(size, total, replace_first=True)
        new = [batches.parts({"a": total}, share / 100)["a"] for share in back]
        where = f"{size} of {total}: {new}"
        assert new[-1] == 0, where
        assert all(0 < before - after <= batch for before, after in pairwise(new)), where


@pytest.mark.parametrize(("total", "replace_first"), [(35, False), (42, True)])
def test_a_way_back_in_many_batches_of_one_ends_in_the_room_for_one(total: int, replace_first: bool) -> None:
    config = rolling(50, wait=5)
    config["rollingUpdatePolicy"]["rollbackMaximumBatchSize"] = {"type": "INSTANCE_COUNT", "value": 1}
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": total},
        deploymentConfig=config,
        kubernetes={"replaceFirst": replace_first},
    )
    stage.in_service()
    stage.image("new:1")
    reach(stage, "FinalBaking", 3 if total % 2 else 2)
    stage.room = total + (0 if replace_first else 1)
    stage.image("repo/churn:1")
    while stage.status.deployment is not None:
        stage.step(5)
        assert stage.status.endpoint_status != "UpdateRollbackFailed", stage.message("Stalled")
        assert sum(fleet.ready for fleet in stage.cluster.fleets.values()) >= total - 1
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUPERSEDED
