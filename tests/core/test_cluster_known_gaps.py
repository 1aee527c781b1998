"""Gaps that docs/limits.md names, each shown: who mends one finds that its test passes, and takes the mark and the gap
away."""

import pytest
from tests.core.test_cluster_replacing import at_work

from sluice.api.status import EndpointStatus

known_gap = pytest.mark.xfail(strict=True, raises=AssertionError, reason="docs/limits.md, Known gaps")


@known_gap
def test_a_batch_that_had_gone_when_the_status_was_lost_comes_back() -> None:
    stage = at_work(4, 50, model_spec={"primaryContainer": {"image": "old:1"}})
    [old] = stage.cluster.fleets.values()
    stage.image("new:1")
    for _ in range(60):
        stage.step()
        if old.replicas == 2:
            break
    stage.status = EndpointStatus()
    stage.image("old:1")
    stage.run(120)
    assert (old.replicas, old.ready) == (4, 4)
