"""The gates before a deployment in the cluster starts, one behind the other: which one speaks, and what each asks."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.core.cluster_stage import AlarmNow, ClusterStage, rolling
from tests.core.watched import ended, images_of, watched

from sluice.api.reasons import Outcome
from sluice.core.cluster.peers import Bounds, ImageRollback, Peer, image_key, peer_of

ERRORS: dict[str, Any] = {
    "name": "errors",
    "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.05, "variantName": "a"},
}


def braked(stage: ClusterStage, *others: Peer) -> None:
    """Image new:1 was rolled back elsewhere of late."""
    at = stage.now - timedelta(seconds=60)
    rolled_back = Peer("b", "other", rollbacks=(ImageRollback(frozenset({image_key("new:1")}), at),))
    stage.peers = (rolled_back, *others)


def place(stage: ClusterStage) -> Peer | None:
    """What the other Endpoints' passes see of this one."""
    return peer_of({**stage.endpoint, "status": stage.status.to_manifest()})


@pytest.mark.parametrize("what", ["braked", "firing"])
def test_what_cannot_start_takes_no_place_from_those_that_could(what: str) -> None:
    stage = watched()
    stage.settings = replace(stage.settings, bounds=Bounds(1, 0, 1, 3600))
    runs = Peer("b", "runs", deploying=True)
    stage.peers = (runs,)
    if what == "braked":
        braked(stage, runs)
    else:
        stage.alarms["errors"] = AlarmNow("ALARM")
    stage.image("new:1")
    for _ in range(60):
        stage.step()
        found = place(stage)
        assert found is None or found.waiting_since is None, stage.message()
    assert stage.condition("Ready")[1] == ("AlarmFiring" if what == "firing" else "ImageBraked")


def test_what_a_person_must_mend_is_said_before_an_alarm_that_is_waited_for() -> None:
    stage = watched()
    stage.settings = replace(stage.settings, bounds=Bounds(0, 0, 1, 3600))
    braked(stage)
    stage.alarms["errors"] = AlarmNow("ALARM")
    stage.image("new:1")
    stage.until("ImageBraked", type_="Stalled", most=60)


def test_an_alarm_on_a_variant_that_the_new_revision_has_no_more_holds_the_start() -> None:
    """It would never fire, whatever the new revision does."""
    stage = watched(own=(ERRORS,))
    variant = stage.objects["EndpointConfig", "churn"]["spec"]["productionVariants"][0]
    stage.edit("EndpointConfig", productionVariants=[{**variant, "variantName": "c"}])
    stage.until("AlarmUnfit", type_="Stalled", most=60)
    assert "found a, allowed are c" in stage.message("Stalled")
    stage.run(60)
    assert images_of(stage) == ["repo/churn:1"]
    own = {**ERRORS, "traffic": {**ERRORS["traffic"], "variantName": "c"}}
    stage.edit("Endpoint", kubernetes={"alarms": [own]})
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_what_retains_its_live_counts_is_judged_by_them() -> None:
    """The spec's one instance could not be replaced first; the four that live, and that it starts with, can."""
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 1},
        deploymentConfig=rolling(50, wait=5),
        kubernetes={"replaceFirst": True},
        retainAllVariantProperties=True,
    )
    stage.in_service()
    [fleet] = stage.cluster.fleets.values()
    stage.scale(fleet, 4)
    stage.run(15)
    stage.image("new:1")
    stage.step()
    stage.in_service()
    assert [(f.image, f.ready) for f in stage.cluster.fleets.values()] == [("new:1", 4)]
