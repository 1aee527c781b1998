"""Creations that are edited under way, and statuses lost under way: what serves, gives way, or is done again."""

from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import images_of, name_of, reach, served

from sluice.api.status import EndpointStatus


def test_what_never_was_in_service_gives_its_room_to_what_follows_it() -> None:
    """Some of its pods are ready and the routes name it: nobody was promised that they answer."""
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4})
    stage.room = 4
    for _ in range(60):
        stage.step()
        for fleet in stage.cluster.fleets.values():
            stage.capped.setdefault(fleet.name, 3)
    assert [(fleet.ready, fleet.replicas) for fleet in stage.cluster.fleets.values()] == [(3, 4)]
    assert stage.status.revision is None
    stage.image("two:1")
    stage.in_service()
    stage.run(5)
    assert [(fleet.image, fleet.ready) for fleet in stage.cluster.fleets.values()] == [("two:1", 4)]


def test_a_status_lost_while_it_is_created_is_no_service() -> None:
    stage = ClusterStage()
    stage.cluster.start_seconds = 100
    stage.run(20)
    assert stage.cluster.route is not None
    stage.status = EndpointStatus()
    stage.step()
    assert (stage.status.endpoint_status, stage.status.revision) == ("Creating", None)
    stage.in_service()
    stage.run(3)
    assert [stored.outcome for stored in stage.stored()] == ["Succeeded"]


def test_a_rollback_of_long_ago_is_not_repeated_though_its_fleets_have_not_quite_gone() -> None:
    stage = served(blue_green(final=5))
    first = name_of(stage)
    stage.image("two:1")
    stage.in_service()
    stage.annotate(rollback=first)
    stage.until("HeldByRollback", type_="Stalled")
    stage.image("three:1")
    reach(stage, "CleaningUp")
    third = name_of(stage)
    while all(fleet.gone_at is None for fleet in stage.cluster.fleets.values()):
        stage.step()
    assert images_of(stage) == ["one:1", "three:1"]
    stage.status = EndpointStatus()
    for _ in range(60):
        stage.step()
        assert stage.status.deployment is None
    assert name_of(stage) == third
    assert images_of(stage) == ["three:1"]
