"""What is told of fleets beside the status: only what is so, and only where it means something."""

from dataclasses import replace
from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import deployment, reach, served

from sluice.core.cluster.observation import ClusterObservation


class Seen(ClusterStage):
    """A stage whose observation has more in it: `more` of the whole, `of_fleets` of every fleet."""

    def __init__(self, *made: dict[str, Any], **spec: Any) -> None:
        super().__init__(*made, **spec)
        self.more: dict[str, Any] = {}
        self.of_fleets: dict[str, Any] = {}

    def observe(self) -> ClusterObservation:
        found = super().observe()
        return replace(found, fleets=tuple(replace(f, **self.of_fleets) for f in found.fleets), **self.more)


@pytest.mark.parametrize(("count", "told"), [(1, ""), (2, "True")])
def test_one_instance_is_not_said_to_be_in_one_zone_only(count: int, told: str) -> None:
    stage = Seen({"variantName": "a", "initialInstanceCount": count})
    stage.more, stage.of_fleets = {"zones": 3}, {"zones": 1}
    stage.in_service()
    stage.run(2)
    assert stage.condition("ZoneSpreadUnmet")[0] == told


def test_a_fleet_of_which_nobody_knows_how_it_would_be_made_now_is_not_outdated() -> None:
    """Where an instance type was taken out of the ConfigMap, nothing can be rendered."""
    stage = Seen()
    stage.of_fleets = {"template": "v1:1"}
    stage.in_service()
    [fleet] = stage.cluster.fleets
    stage.step()
    assert stage.condition("TemplateOutdated")[0] == ""
    stage.more = {"templates": {fleet: "v1:2"}}
    stage.step()
    assert stage.condition("TemplateOutdated")[0] == "True"


@pytest.mark.parametrize(
    ("strangers", "told"),
    [(100, "they get no requests"), (130, "30 of them get requests, as a route leaves out at most 100")],
)
def test_pods_of_another_image_that_a_route_has_no_room_for_are_not_said_to_get_no_requests(
    strangers: int, told: str
) -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    [fleet] = stage.cluster.fleets.values()
    fleet.strangers = tuple(f"churn-a-{number:03}" for number in range(strangers))
    stage.step()
    assert len(stage.cluster.route.spec.fleets[0].excluded_pods) == 100  # type: ignore[union-attr]
    assert told in stage.message("ImageDrift")
    assert ("get no requests" in stage.message("ImageDrift")) == (strangers == 100)


def test_instances_that_a_scaler_takes_away_during_a_canary_are_not_told_as_the_variants_deletion() -> None:
    stage = served(blue_green("CANARY", wait=600))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    old = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == "one:1")
    stage.scale(old, 6)
    stage.run(15)
    stage.scale(old, 5)
    stage.step()
    assert old.stopping == 1
    [variant] = stage.status.production_variants
    assert "Deleting" not in [status.status for status in variant.variant_status]
    assert deployment(stage).stage == "Baking"
