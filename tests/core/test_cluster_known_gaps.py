"""Gaps that docs/limits.md names, each shown: who mends one finds that its test passes, and takes the mark and the gap
away."""

import pytest
from tests.core.cluster_stage import rolling
from tests.core.test_cluster_replacing import at_work
from tests.core.watched import reach, served

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


@known_gap
def test_what_a_scaler_makes_of_the_new_fleet_in_the_second_of_turning_back_stays_while_it_has_traffic() -> None:
    stage = served(rolling(25, wait=30, back=25))
    stage.image("two:1")
    reach(stage, "Baking", 2)
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "two:1")
    stage.scale(new, 8)
    stage.image("one:1")
    for _ in range(4):
        stage.step()
        share = 1.0 - stage.percent_new() / 100.0  # the spec asks for the old one again
        assert new.replicas >= 8 * share, f"{new.replicas} of 8 for {share:.0%}"
