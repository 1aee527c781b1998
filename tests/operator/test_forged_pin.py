"""A forged placement pin (annotation sluice.dev/external) must never give one Endpoint another's AWS endpoint."""

import json

from tests.operator.harness.manifests import config, endpoint, model
from tests.operator.harness.world import World


def test_a_forged_pin_does_not_reach_another_endpoint(world: World) -> None:
    world.apply(model(), config(), endpoint(name="victim"), endpoint(name="thief"))
    world.ready("victim")
    world.ready("thief")
    pin = json.loads(world.endpoint("thief")["metadata"]["annotations"]["sluice.dev/external"])
    world.annotate("thief", external=json.dumps({**pin, "endpointName": "victim"}, sort_keys=True))
    world.stalled("PlacementChanged", "thief")
    world.delete(name="thief")
    world.steady(4)
    assert "victim" in world.standing()["endpoints"]
    world.ready("victim")
