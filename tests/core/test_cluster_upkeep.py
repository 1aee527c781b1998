"""What goes on beside what is asked for: the router, the stored revisions, the routes of who has no pod."""

from dataclasses import replace
from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, Router, blue_green
from tests.core.watched import deployment, ended, images_of, name_of, reach

from sluice.api.reasons import Outcome
from sluice.api.routes import RouterReportSpec
from sluice.api.status import EndpointStatus
from sluice.core.actions import StoreRevision
from sluice.core.cluster.actions import EnsureRouter
from sluice.core.cluster.observation import ClusterObservation, PodTrouble


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
    assert len(stage.status.history) == 5, "more would be refused by the API server"


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


# Revisions that are kept ------------------------------------------------------------------------------------------


def test_what_failed_last_is_kept_so_that_it_can_be_looked_at_and_brought_back() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.in_service()
    known = set(stage.revisions)
    stage.image("bad:1")
    stage.cluster.troubles["bad:1"] = PodTrouble("CrashLoop", "exit code 1", final=True)
    stage.until("RolledBack", type_="Stalled")
    [failed] = set(stage.revisions) - known
    for number in range(3):
        stage.image(f"new:{number}")
        stage.step()
        stage.in_service()
        stage.run(3)
    assert failed in stage.revisions
    assert not known & set(stage.revisions), "older ones go"


def test_a_revision_whose_fleet_still_stands_is_not_dropped() -> None:
    """A status that is lost is recovered from what stands, and what stands from its revision."""
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=600))
    stage.in_service()
    known = set(stage.revisions)
    stage.image("two:1")
    reach(stage, "Baking", 1)
    [second] = set(stage.revisions) - known
    for router in stage.cluster.routers:
        router.slow = True
    stage.status = EndpointStatus()
    stage.image("three:1")
    stage.run(5)
    assert "two:1" in images_of(stage)
    assert second in stage.revisions
    for router in stage.cluster.routers:
        router.slow = False
    stage.in_service()
    stage.run(5)
    assert second not in stage.revisions


# Edits in place ---------------------------------------------------------------------------------------------------


def test_a_count_whose_write_was_lost_comes_into_force_although_a_weight_is_edited_next() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    stage.edit_variant("a", initialInstanceCount=5)
    stage.step(killed_after=0)
    stage.edit_variant("a", initialVariantWeight=2)
    stage.in_service()
    assert [fleet.replicas for fleet in stage.cluster.fleets.values()] == [5]


def test_weights_and_counts_make_no_other_revision() -> None:
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"})
    stage.in_service()
    stage.run(3)
    before = name_of(stage), set(stage.revisions)
    stage.edit_variant("a", initialVariantWeight=3, initialInstanceCount=4)
    stage.run(3)
    stage.in_service()
    assert (name_of(stage), set(stage.revisions)) == before


def test_weights_that_are_edited_with_an_image_come_with_it() -> None:
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"}, deploymentConfig=blue_green(final=0))
    stage.in_service()
    stage.run(3)
    stage.edit_variant("a", initialVariantWeight=3)
    stage.image("two:1")
    shares = set()
    for _ in range(60):
        stage.step()
        assert stage.cluster.route is not None
        shares.add(tuple(sorted(fleet.weight for fleet in stage.cluster.route.spec.fleets if fleet.weight)))
        if images_of(stage) == ["two:1"] * 2:
            break
    assert shares == {(500_000, 500_000), (250_000, 750_000)}
    assert _weights(stage) == {"a": 3.0, "b": 1.0}


def test_a_weight_is_told_when_routers_see_a_pod_that_answers_for_it() -> None:
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b", "initialVariantWeight": 0})
    stage.in_service()
    stage.run(3)
    fleet = next(fleet for fleet in stage.cluster.fleets.values() if fleet.variant == "b")
    fleet.unseen = True
    stage.edit_variant("b", initialVariantWeight=1)
    stage.run(5)
    assert _weights(stage) == {"a": 1.0, "b": 0.0}
    fleet.unseen = False
    stage.in_service()
    assert _weights(stage) == {"a": 1.0, "b": 1.0}


def _weights(stage: ClusterStage) -> dict[str, float | None]:
    return {variant.variant_name: variant.current_weight for variant in stage.status.production_variants}


class Blind(ClusterStage):
    """Its first router sees no pod while `blind`."""

    blind = False

    def _report(self, router: Router) -> RouterReportSpec | None:
        found = super()._report(router)
        if not self.blind or found is None or router is not self.cluster.routers[0]:
            return found
        routes = [
            route.model_copy(
                update={"fleets": tuple(f.model_copy(update={"hosts": 0, "healthy": 0}) for f in route.fleets)}
            )
            for route in found.routes
        ]
        return found.model_copy(update={"routes": tuple(routes)})


def test_one_router_that_loses_sight_of_the_pods_is_no_edit_that_comes_into_force() -> None:
    stage = Blind()
    stage.in_service()
    stage.run(3)
    stage.blind = True
    stage.run(3)
    assert stage.condition("Ready")[0] == "True"
    assert stage.condition("Reconciling")[0] == "False", "the routes are in force"


# Deployments ------------------------------------------------------------------------------------------------------


def test_the_router_is_not_replaced_in_the_pass_that_starts_a_deployment() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY"))
    stage.in_service()
    stage.run(3)
    stage.router_outdated = ""
    stage.image("two:1")
    while stage.status.deployment is None:
        stage.step()
    assert not _updates(stage)


def test_a_shadow_that_loses_its_pods_under_traffic_turns_nothing_back() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=60, final=60))
    shadow = {"variantName": "s", "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 1}
    stage.edit("EndpointConfig", shadowProductionVariants=[shadow])
    stage.in_service()
    stage.image("two:1")
    reach(stage, "Baking", 1)
    [lost] = [fleet for fleet in stage.cluster.fleets.values() if (fleet.image, fleet.variant) == ("two:1", "s")]
    stage.capped[lost.name] = 0
    stage.run(30)
    assert lost.ready == 0
    assert deployment(stage).stage == "Baking"
    del stage.capped[lost.name]
    stage.in_service()
    assert ended(stage).outcome is Outcome.SUCCEEDED


def test_of_a_spec_that_is_wrong_neither_counts_nor_weights_come_into_force() -> None:
    """As on SageMaker: what is refused is not done by half. What is mended afterwards comes as a whole."""
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 2}, {"variantName": "b"})
    stage.in_service()
    stage.run(3)
    config = stage.endpoint["spec"].get("deploymentConfig")
    stage.edit("Endpoint", deploymentConfig=blue_green("CANARY", type="INSTANCE_COUNT", value=9))
    stage.edit_variant("a", initialInstanceCount=4, initialVariantWeight=3.0)
    stage.run(60)
    assert stage.condition("Ready") == ("False", "InvalidDeploymentConfig")
    assert [v.desired_weight for v in stage.status.production_variants] == [1.0, 1.0]
    assert sorted(fleet.replicas for fleet in stage.cluster.fleets.values()) == [2, 2]
    stage.edit("Endpoint", deploymentConfig=config)
    stage.run(60)
    assert [v.desired_weight for v in stage.status.production_variants] == [3.0, 1.0]
    assert sorted(fleet.replicas for fleet in stage.cluster.fleets.values()) == [2, 4]


# Routers that do not come up --------------------------------------------------------------------------------------


def _without_routers(stage: ClusterStage, *, held: str = "") -> None:
    """All routers of the namespace are away, and what mends them waits to be rendered."""
    for router in stage.cluster.routers:
        router.ready = False
    stage.router_outdated = held


def test_a_namespaces_first_router_that_does_not_start_gets_the_setting_that_mends_it() -> None:
    """Its image cannot be pulled; the creation that waits for it held what mends it up, for ever."""
    stage = ClusterStage()
    for _ in range(30):
        stage.step()
        for router in stage.cluster.routers:
            router.starts, router.never_ran = True, True
    assert (stage.status.endpoint_status, stage.status.intent is not None) == ("Creating", True)
    assert not _updates(stage), "it is as rendered"
    stage.router_outdated = ""
    stage.step()
    assert _updates(stage)


def test_a_creation_moves_nobodys_traffic() -> None:
    """The namespace's other Endpoints serve, and one that was left Failed keeps the router on its version no longer."""
    stage = ClusterStage()
    stage.cluster.troubles["image:1"] = PodTrouble("CrashLoop", "exit code 1", final=True)
    stage.image("image:1")
    stage.until("CreationFailed", type_="Stalled")
    assert stage.status.intent is not None
    assert stage.cluster.routers
    assert stage.cluster.routers[0].ready
    stage.router_outdated = ""
    stage.step()
    assert _updates(stage)


@pytest.mark.parametrize("held", ["", "Endpoint fraud shifts traffic"])
@pytest.mark.parametrize("stage_of", ["Provisioning", "Baking", "RollingBack"])
def test_where_no_router_is_ready_no_traffic_keeps_it_from_being_mended(stage_of: str, held: str) -> None:
    """The deployment waits for routers, and they for what mends them."""
    stage = ClusterStage(deploymentConfig=blue_green("CANARY"))
    stage.in_service()
    stage.run(3)
    stage.image("two:1")
    reach(stage, "Baking" if stage_of == "RollingBack" else stage_of)
    if stage_of == "RollingBack":
        for router in stage.cluster.routers:
            router.slow = True
        stage.image("three:1")
        reach(stage, stage_of)
    stage.router_outdated = held
    stage.step()
    assert not _updates(stage), "routers carry the traffic that is moved"
    _without_routers(stage, held=held)
    stage.step()
    assert deployment(stage).stage == stage_of
    assert _updates(stage)


def test_weights_that_no_router_has_in_force_keep_none_from_being_mended() -> None:
    stage = ClusterStage()
    stage.in_service()
    stage.run(3)
    _without_routers(stage)
    stage.edit_variant("a", initialInstanceCount=4)
    stage.step()
    assert stage.status.intent is not None
    assert _updates(stage)


class BehindAnother(ClusterStage):
    """Another namespace's router is being replaced."""

    def observe(self) -> ClusterObservation:
        seen = super().observe()
        return replace(seen, router=replace(seen.router, held_by="team-z"))


def test_another_namespaces_turn_is_waited_for_also_without_a_router() -> None:
    """What goes wrong in one namespace goes no further."""
    stage = BehindAnother()
    stage.in_service()
    stage.run(3)
    _without_routers(stage, held="the router of namespace team-z is being replaced")
    stage.run(10)
    assert not _updates(stage)


@pytest.mark.parametrize("ready", [True, False])
def test_the_update_without_which_no_router_comes_up_is_the_first_action(ready: bool) -> None:
    """The first action that fails ends a pass: a fleet that cannot be made would hold up what mends the routers."""
    stage = ClusterStage()
    stage.in_service()
    for router in stage.cluster.routers:
        router.ready = ready
    stage.router_outdated = ""
    [name] = stage.cluster.fleets
    del stage.cluster.fleets[name]
    stage.step()
    kinds = [type(action).__name__ for action in stage.actions]
    assert {"EnsureFleet", "EnsureRouter"} <= set(kinds)
    assert (kinds.index("EnsureRouter") < kinds.index("EnsureFleet")) is not ready
