"""At which size a revision is brought back: it takes all requests at once, without a bake, so it is as large as what
bears them now. And the return to old fleets that still stand."""

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green

from sluice.api.reasons import Outcome
from sluice.core.cluster.actions import EnsureFleet, ScaleFleet

OLD, NEW = "repo/churn:1", "new:1"
A, B = ({"variantName": name, "initialInstanceCount": 4, "initialVariantWeight": 1} for name in "ab")


def _deployed(**changes: object) -> ClusterStage:
    """NEW is in service with these changes of variant a; OLD was with 4 instances of each."""
    stage = ClusterStage(dict(A), dict(B), deploymentConfig=blue_green(final=0))
    stage.in_service()
    if changes:
        stage.edit_variant("a", **changes)
        stage.in_service()
    stage.image(NEW)
    stage.in_service()
    return stage


def _counts(stage: ClusterStage, image: str) -> dict[str, int]:
    return {f.variant: f.replicas for f in stage.cluster.fleets.values() if f.image == image}


def _brought_back(stage: ClusterStage) -> dict[str, int]:
    """Say so; the sizes of the fleets when they get their first request."""
    before = stage.status.previous_revision
    assert before is not None
    stage.annotate(rollback=before.name)
    for _ in range(200):
        stage.step()
        if stage.status.deployment is not None and stage.status.deployment.stage != "Provisioning":
            return _counts(stage, OLD)
    raise AssertionError("it did not come back")


def test_it_is_as_large_as_what_serves_where_counts_were_edited() -> None:
    stage = _deployed(initialInstanceCount=9, initialVariantWeight=3)
    assert _brought_back(stage) == {"a": 9, "b": 4}
    stage.until("HeldByRollback", type_="Stalled")
    stage.run(60)
    assert _counts(stage, OLD) == {"a": 9, "b": 4}
    assert {v.variant_name: v.current_weight for v in stage.status.production_variants} == {"a": 3.0, "b": 1.0}


def test_it_is_as_large_as_a_scaler_made_what_serves() -> None:
    stage = _deployed()
    for fleet in stage.cluster.fleets.values():
        fleet.replicas = 7
    stage.run(30)
    assert _brought_back(stage) == {"a": 7, "b": 7}
    stage.until("HeldByRollback", type_="Stalled")
    stage.run(60)
    assert _counts(stage, OLD) == {"a": 7, "b": 7}, "nobody edited a count"


def test_it_is_not_smaller_than_it_was() -> None:
    stage = _deployed()
    stage.edit_variant("a", initialInstanceCount=1)
    stage.in_service()
    assert _brought_back(stage) == {"a": 4, "b": 4}


def _cleaning_up(**changes: object) -> ClusterStage:
    """NEW has all requests since a moment, the old fleets still have one under way."""
    stage = ClusterStage(dict(A), dict(B), deploymentConfig=blue_green(final=0))
    stage.in_service()
    stage.cluster.routers[0].busy = frozenset(stage.cluster.fleets)
    stage.image(NEW)
    if changes:
        stage.edit_variant("a", **changes)
    for _ in range(200):
        stage.step()
        if stage.status.deployment is not None and stage.status.deployment.stage == "CleaningUp":
            return stage
    raise AssertionError("it does not clean up")


def _revert(stage: ClusterStage, by: str, **changes: object) -> None:
    before = stage.status.previous_revision
    assert before is not None
    if by == "annotation":
        stage.annotate(rollback=before.name)
    else:
        stage.image(OLD)
        if changes:
            stage.edit_variant("a", **changes)


@pytest.mark.parametrize("by", ["annotation", "spec"])
def test_back_at_once_while_the_old_fleets_stand(by: str) -> None:
    stage = _cleaning_up()
    old = {name for name, fleet in stage.cluster.fleets.items() if fleet.image == OLD}
    _revert(stage, by)
    made: list[object] = []
    for _ in range(12):
        stage.step()
        made += [action for action in stage.actions if isinstance(action, EnsureFleet)]
    assert {f.image for f in stage.cluster.fleets.values() if f.name in old} == {OLD}
    stage.cluster.routers[0].busy = frozenset()
    stage.until(
        *(("HeldByRollback",) if by == "annotation" else ("InService",)),
        type_="Stalled" if by == "annotation" else "Ready",
    )
    assert made == [], "the fleets stood"
    assert set(stage.cluster.fleets) == old
    assert [entry.outcome for entry in stage.status.history][:2] == [Outcome.SUCCEEDED] * 2
    assert (stage.status.latch is not None) is (by == "annotation")


def test_the_return_is_to_the_size_that_bore_all_requests_and_edits_follow() -> None:
    stage = _cleaning_up(initialInstanceCount=9)
    _revert(stage, "spec")
    stage.step()
    stage.step()
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage != "Provisioning", "four bore all of them a moment ago"
    stage.cluster.routers[0].busy = frozenset()
    stage.in_service()
    stage.run(30)
    assert _counts(stage, OLD) == {"a": 9, "b": 4}


def test_what_was_turned_away_does_not_come_back_while_it_is_cleaned_up() -> None:
    """The spec still asks for it, and its fleets stand."""
    stage = _deployed()
    before = stage.status.previous_revision
    assert before is not None
    stage.cluster.routers[0].busy = frozenset(stage.cluster.fleets)
    stage.annotate(rollback=before.name)
    for _ in range(60):
        stage.step()
    assert stage.status.revision is not None
    assert stage.status.revision.fleet_hash == before.fleet_hash
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "CleaningUp"
    stage.cluster.routers[0].busy = frozenset()
    stage.until("HeldByRollback", type_="Stalled")
    assert not any(isinstance(action, ScaleFleet) for action in stage.actions)


def test_a_spec_that_is_wrong_brings_nothing_back() -> None:
    stage = _cleaning_up()
    stage.image(OLD)
    stage.edit("Endpoint", deploymentConfig=blue_green("CANARY", value=99))
    stage.run(5)
    assert stage.status.revision is not None
    assert _counts(stage, NEW)
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "CleaningUp"
