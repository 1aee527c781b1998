"""A status that is lost: commands that were acted on are not repeated, holds stay, and a rolling deployment that was
under way goes back with its capacity before its traffic."""

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green, rolling
from tests.core.test_cluster_replacing import at_work, check
from tests.core.watched import deployment, ended, name_of, reach, served

from sluice.api.reasons import Cause, CommandResult
from sluice.api.status import EndpointStatus


def lose(stage: ClusterStage) -> None:
    stage.status = EndpointStatus()


def test_a_retry_of_long_ago_does_not_open_the_latch_that_is_recovered() -> None:
    stage = served(blue_green(final=5))
    stage.annotate(retry="1")
    stage.run(3)
    stage.image("bad:1")
    reach(stage, "Provisioning")
    stage.step(2000)
    stage.until("RolledBack", type_="Stalled")
    stage.run(3)
    first = name_of(stage)
    lose(stage)
    for _ in range(30):
        stage.step()
        assert stage.status.deployment is None, "what was rolled back is not tried again by itself"
    assert name_of(stage) == first
    assert stage.condition("Stalled") == ("True", "RolledBack")
    assert [(ack.command, ack.result) for ack in stage.status.commands] == [("retry", CommandResult.DONE)]
    stage.annotate(retry="2")
    reach(stage, "Provisioning")


def test_a_rollback_of_long_ago_is_not_repeated() -> None:
    stage = served(blue_green(final=5))
    first = name_of(stage)
    stage.image("two:1")
    stage.in_service()
    stage.annotate(rollback=first)
    stage.until("HeldByRollback", type_="Stalled")
    stage.image("three:1")
    stage.in_service()
    stage.run(3)
    third = name_of(stage)
    assert any(stored.name == first for stored in stage.stored())
    lose(stage)
    for _ in range(30):
        stage.step()
        assert stage.status.deployment is None
    assert name_of(stage) == third
    assert stage.condition("Ready")[0] == "True"
    assert "not repeated" in (stage.status.commands[0].message or "")


def test_what_a_rollback_turned_away_stays_out() -> None:
    stage = served(blue_green(final=5))
    first = name_of(stage)
    stage.image("two:1")
    stage.in_service()
    stage.annotate(rollback=first)
    stage.until("HeldByRollback", type_="Stalled")
    stage.run(3)
    lose(stage)
    for _ in range(30):
        stage.step()
        assert stage.status.deployment is None
    assert name_of(stage) == first
    assert stage.condition("Stalled") == ("True", "HeldByRollback")


def test_a_rollback_that_was_under_way_goes_on() -> None:
    stage = served(blue_green(final=5))
    first = name_of(stage)
    stage.image("two:1")
    stage.in_service()
    stage.annotate(rollback=first)
    reach(stage, "Provisioning")
    stage.run(2)
    lose(stage)
    stage.until("HeldByRollback", type_="Stalled")
    assert name_of(stage) == first


def test_a_revision_that_is_deployed_for_the_first_time_is_not_held_by_an_older_rollback() -> None:
    stage = served(blue_green("CANARY", wait=60, final=5))
    first = name_of(stage)
    stage.image("two:1")
    stage.in_service()
    stage.annotate(rollback=first)
    stage.until("HeldByRollback", type_="Stalled")
    stage.image("three:1")
    reach(stage, "Baking", 1)
    lose(stage)
    reach(stage, "Provisioning")
    stage.in_service()
    assert name_of(stage) != first


def test_a_rolling_deployment_goes_back_with_its_capacity_before_its_traffic() -> None:
    stage = served(rolling(25, wait=30))
    old = next(iter(stage.cluster.fleets.values()))
    stage.image("two:1")
    reach(stage, "Baking", 3)
    assert (old.replicas, stage.percent_new()) == (2, 75)
    lose(stage)
    seen = set()
    for _ in range(100):
        stage.step()
        running = stage.status.deployment
        if running is None or running.stage != "RollingBack":
            break
        seen.add((stage.percent_new(), old.ready))
        assert 100 - stage.percent_new() <= 25 * old.ready, "capacity before traffic"
    assert (75.0, 2) in seen
    assert old.replicas == old.ready == 4
    assert ended(stage).cause is Cause.UNKNOWN
    assert "its status was lost" in (ended(stage).message or "")
    reach(stage, "Provisioning")  # nothing was said against it: it starts anew by itself
    assert deployment(stage).step == 0
    stage.in_service()


def test_lost_while_old_instances_start_again_they_are_waited_for_all_the_same() -> None:
    """In mid-rollback the old fleet is told its full size, and has half of it."""
    stage = served(rolling(25, wait=30))
    old = next(iter(stage.cluster.fleets.values()))
    stage.image("two:1")
    reach(stage, "Baking", 3)
    stage.capped[old.name] = 2  # no room for the others yet
    stage.image("one:1")
    reach(stage, "RollingBack")
    stage.run(5)
    stage.image("two:1")
    assert (old.replicas, old.ready) == (4, 2)
    lose(stage)
    stage.run(20)
    assert 100 - stage.percent_new() <= 25 * old.ready, "capacity before traffic"
    assert deployment(stage).stage == "RollingBack"
    stage.capped.clear()
    reach(stage, "Provisioning")
    stage.in_service()


def test_retry_of_a_recovered_rollback_does_not_let_all_old_instances_go_at_once() -> None:
    """Of batches that go before their successors come: the plan was lost with the status."""
    stage = served(rolling(25, wait=30), kubernetes={"replaceFirst": True})
    stage.room = 4
    stage.image("two:1")
    reach(stage, "Baking", 2)
    lose(stage)
    stage.room = 2
    while stage.status.endpoint_status != "UpdateRollbackFailed":
        stage.step(5)
    stage.room = 4
    stage.annotate(retry="1")
    for _ in range(400):
        stage.step()
        if stage.status.last_deployment and stage.status.deployment is None and stage.condition("Ready")[0] == "True":
            break
        assert sum(fleet.ready for fleet in stage.cluster.fleets.values()) >= 3, "all but a batch serve"
    assert [(fleet.image, fleet.ready) for fleet in stage.cluster.fleets.values()] == [("two:1", 4)]


def test_in_a_blue_green_deployment_the_old_fleet_is_whole_and_takes_all_at_once() -> None:
    stage = served(blue_green("CANARY", wait=60, final=5))
    stage.image("two:1")
    reach(stage, "Baking", 1)
    lose(stage)
    stage.step()
    assert stage.status.deployment is None
    assert stage.percent_new() == 0


@pytest.mark.parametrize("image", ["old:1", "new:1", "third:1"])
@pytest.mark.parametrize("standing", [0, 2])
def test_a_batch_that_had_gone_for_new_instances_without_traffic_comes_back(image: str, standing: int) -> None:
    """Whatever the spec asks for by then; in its place stands nothing yet, or instances that start."""
    stage = at_work(4, 50, model_spec={"primaryContainer": {"image": "old:1"}})
    [old] = stage.cluster.fleets.values()
    stage.image("new:1")
    for _ in range(60):
        stage.step()
        new = sum(fleet.replicas for fleet in stage.cluster.fleets.values() if fleet is not old)
        if (old.replicas, new) == (2, standing):
            break
    assert (old.replicas, stage.percent_new()) == (2, 0)
    lose(stage)
    stage.image(image)
    most = 0
    for _ in range(120):
        stage.step()
        check(stage, 4, 2)
        most = max(most, old.ready)
    assert most == 4
    assert [(fleet.image, fleet.replicas, fleet.ready) for fleet in stage.cluster.fleets.values()] == [(image, 4, 4)]
    assert stage.condition("Ready") == ("True", "InService")


def test_what_a_scaler_left_of_the_fleets_in_service_is_no_deployment() -> None:
    """Nothing stands beside them."""
    stage = at_work(4, 50)
    [fleet] = stage.cluster.fleets.values()
    stage.scale(fleet, 2)
    stage.run(5)
    lose(stage)
    stage.run(60)
    assert (stage.status.deployment, fleet.replicas) == (None, 2)
