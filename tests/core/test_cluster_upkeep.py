"""What goes on beside what is asked for: the router, the stored revisions, the routes of who has no pod."""

from typing import Any

from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import images_of, name_of

from sluice.core.actions import StoreRevision
from sluice.core.cluster.actions import EnsureRouter


def _updates(stage: ClusterStage) -> list[EnsureRouter]:
    return [action for action in stage.actions if isinstance(action, EnsureRouter) and action.update]


def test_the_router_is_not_replaced_while_weights_or_counts_come_into_force() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    stage.edit_variant("a", initialInstanceCount=4)
    stage.router_outdated = ""
    stage.step()
    assert stage.status.intent is not None
    while stage.status.intent is not None:
        assert not _updates(stage)
        stage.step()
    stage.step()
    assert _updates(stage), "now nothing shifts"


def test_a_router_that_is_not_ready_and_does_not_follow_is_replaced_although_nobody_waits_for_it() -> None:
    """Without an agent that works it serves nobody, and never comes back by itself."""
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"})
    stage.in_service()
    stage.run(3)
    broken = stage.cluster.routers[0]
    broken.frozen = True
    stage.edit_variant("a", initialVariantWeight=3)
    stage.run(3)
    assert stage.condition("Ready")[0] == "True", "the other one has followed"
    assert broken.pod in [router.pod for router in stage.cluster.routers]
    stage.run(20)
    assert broken.pod not in [router.pod for router in stage.cluster.routers]


def test_where_nobody_answers_an_edit_of_weights_waits_for_no_pod() -> None:
    """Whose pods come first answers at once, by the weights that are asked for."""
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"})
    stage.in_service()
    stage.run(3)
    for fleet in stage.cluster.fleets.values():
        fleet.image = "bad:1"
    stage.run(2)
    stage.edit_variant("a", initialVariantWeight=3)
    stage.run(2)
    assert stage.cluster.route is not None
    assert sorted(fleet.weight for fleet in stage.cluster.route.spec.fleets) == [250_000, 750_000]


def test_stored_revisions_are_numbered_upwards_although_old_ones_are_dropped() -> None:
    """`kubectl rollout history` and whoever sorts by the number sees them in their order."""
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    numbers: list[int] = []
    for number in range(6):
        stage.image(f"new:{number}")
        stage.step()
        while True:
            numbers += [action.number for action in stage.actions if isinstance(action, StoreRevision)]
            if stage.condition("Ready") == ("True", "InService"):
                break
            stage.step()
        stage.run(5)
    assert len(numbers) == 6
    assert len(stage.revisions) < 6, "some were dropped"
    assert numbers == sorted(set(numbers))


def _sample(path: str) -> dict[str, Any]:
    return {"sampleInvocation": {"body": path}}


def test_a_sample_invocation_that_is_edited_with_something_wrong_waits_until_that_is_mended() -> None:
    """What is refused is stored nowhere, and does not serve."""
    stage = ClusterStage(model_spec={"kubernetes": _sample("1")})
    stage.in_service()
    stage.run(3)
    stage.edit("Model", kubernetes=_sample("2"))
    wrong = blue_green("CANARY")
    wrong["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = 600
    wrong["blueGreenUpdatePolicy"]["trafficRoutingConfiguration"]["waitIntervalInSeconds"] = 3600
    stage.edit("Endpoint", deploymentConfig=wrong)
    stage.run(5)
    assert stage.condition("Stalled")[0] == "True"
    assert _samples(stage) == ["1"]
    stage.edit("Endpoint", deploymentConfig=blue_green("CANARY"))
    stage.in_service()
    stage.run(5)
    assert _samples(stage) == ["2"]


def _samples(stage: ClusterStage) -> list[str]:
    assert stage.cluster.route is not None
    return [fleet.sample.body for fleet in stage.cluster.route.spec.fleets if fleet.sample is not None]


def test_a_stored_revision_of_the_same_fleet_says_what_serves_where_its_own_is_lost() -> None:
    stage = ClusterStage(model_spec={"kubernetes": _sample("1")}, deploymentConfig=blue_green(final=0))
    stage.in_service()
    stage.run(3)
    first = name_of(stage)
    stage.edit("Model", kubernetes=_sample("2"))
    stage.step()
    assert name_of(stage) == first
    assert len(stage.revisions) == 2, "the same fleet, stored with what was edited live"
    del stage.revisions[first]
    stage.image("new:1")
    stage.step()
    assert stage.condition("Stalled")[1] != "Drifted"
    stage.in_service()
    assert images_of(stage) == ["new:1"]
