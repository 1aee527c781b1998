"""What the readers of alarms are told of a deployment."""

from tests.core.watched import TRAFFIC, deployment, reach, watched

from sluice.core.cluster import alarms


def test_readers_know_since_when_there_is_traffic() -> None:
    stage = watched(own=(TRAFFIC,))
    stage.image("new:1")
    reach(stage, "Provisioning")
    now = alarms.watch(stage.endpoint, stage.status, stage.resolution())
    assert now is not None
    assert now.traffic_since is None
    reach(stage, "Shifting", 1)
    began = deployment(stage).traffic_since
    assert began is not None
    for place, step in (("Baking", 1), ("FinalBaking", 2)):
        reach(stage, place, step)
        now = alarms.watch(stage.endpoint, stage.status, stage.resolution())
        assert now is not None
        assert now.traffic_since == began, "it is in the status, so a restart does not lose it"
