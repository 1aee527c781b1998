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


def test_while_a_person_pauses_no_reading_is_asked_for_at_the_end_of_the_bake() -> None:
    stage = watched(own=(TRAFFIC,))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.step()
    assert stage.watched is not None
    assert stage.watched.read_after == deployment(stage).bake_until
    stage.annotate(pause="true")
    stage.run(2)
    assert stage.watched.read_after is None, "nothing ends then: the sources are read as often as ever"
    stage.endpoint["metadata"]["annotations"].clear()
    stage.run(2)
    assert stage.watched.read_after == deployment(stage).bake_until


def test_an_alarm_on_a_variant_that_does_not_exist_keeps_the_deployment_from_starting() -> None:
    stage = watched(own=(TRAFFIC,))
    traffic = {"metric": "Invocation5XXErrors", "threshold": 0.05}
    stage.edit("Endpoint", kubernetes={"alarms": [{"name": "errors", "traffic": {**traffic, "variantName": "b"}}]})
    stage.image("new:1")
    stage.until("AlarmUnfit", type_="Stalled")
    assert stage.message("Stalled") == (
        "kubernetes.alarms[errors].traffic.variantName: found b, allowed are a; name a production variant of the new "
        "revision, or none for each of them."
    )
    assert stage.status.deployment is None
    stage.edit("Endpoint", kubernetes={"alarms": [{"name": "errors", "traffic": {**traffic, "variantName": "a"}}]})
    reach(stage, "Provisioning")
