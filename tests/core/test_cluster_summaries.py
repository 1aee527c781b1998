"""The variants of a deployment as DescribeEndpoint shows them: weights that are in force, and those who go."""

from tests.core.cluster_stage import ClusterStage, blue_green, rolling
from tests.core.watched import deployment, reach, watched

from sluice.api.status import VariantSummary


def _weights(stage: ClusterStage) -> dict[str, float | None]:
    return {v.variant_name: v.current_weight for v in deployment(stage).pending_variants}


def _words(variants: tuple[VariantSummary, ...]) -> list[tuple[str, int | None, str, str | None]]:
    return [
        (v.variant_name, v.current_instance_count, status.status, status.status_message)
        for v in variants
        for status in v.variant_status
    ]


def test_a_pending_weight_is_the_part_that_routers_confirmed() -> None:
    stage = ClusterStage(
        {"variantName": "a", "initialVariantWeight": 3},
        {"variantName": "b", "initialVariantWeight": 1},
        deploymentConfig=blue_green("CANARY", wait=60, final=60, value=20),
    )
    stage.in_service()
    stage.image("new:1")
    reach(stage, "Provisioning")
    assert _weights(stage) == {"a": 0.0, "b": 0.0}
    reach(stage, "Shifting", 1)
    slow = stage.cluster.routers[0]
    slow.slow = True
    stage.run(5)
    assert _weights(stage) == {"a": 0.0, "b": 0.0}, "one router has not confirmed it"
    slow.slow = False
    reach(stage, "Baking", 1)
    assert _weights(stage) == {"a": 0.6, "b": 0.2}
    assert {v.variant_name: v.desired_weight for v in deployment(stage).pending_variants} == {"a": 3.0, "b": 1.0}
    served = {v.variant_name: (v.current_weight, v.desired_weight) for v in stage.status.production_variants}
    assert served == {"a": (3.0, 3.0), "b": (1.0, 1.0)}, "the weights within the revision in service stay as they are"
    reach(stage, "Shifting", 2)
    assert _weights(stage) == {"a": 0.6, "b": 0.2}
    reach(stage, "FinalBaking", 2)
    assert _weights(stage) == {"a": 3.0, "b": 1.0}


def test_a_rollback_takes_the_weight_away_when_routers_confirm_it() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "ALARM"
    for router in stage.cluster.routers:
        router.slow = True
    stage.step()
    assert deployment(stage).stage == "RollingBack"
    assert _weights(stage) == {"a": 0.25}
    for router in stage.cluster.routers:
        router.slow = False
    while deployment(stage).traffic_percent:
        assert _weights(stage) == {"a": 0.25}
        stage.step()
    assert _weights(stage) == {"a": 0.0}, "in the same status as the share"


def test_a_batch_that_goes_back_takes_its_part_of_the_weight() -> None:
    stage = watched(rolling(25, wait=30, back=25))
    stage.image("new:1")
    reach(stage, "Baking", 3)
    assert _weights(stage) == {"a": 0.75}
    stage.alarms["errors"].state = "ALARM"
    seen: list[float | None] = []
    for _ in range(200):
        stage.step()
        if stage.status.deployment is None:
            break
        weight = _weights(stage)["a"]
        assert weight == (deployment(stage).traffic_percent or 0.0) / 100, "the weight and the share are one"
        if not seen or seen[-1] != weight:
            seen.append(weight)
    assert seen == [0.75, 0.5, 0.25, 0.0]


def test_the_old_fleets_are_told_as_deleting_until_their_pods_are_gone() -> None:
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4},
        {"variantName": "b", "initialInstanceCount": 1},
        deploymentConfig=blue_green(final=30),
    )
    stage.in_service()
    stage.image("new:1")
    reach(stage, "FinalBaking", 1)
    assert deployment(stage).old_variants == ()
    reach(stage, "CleaningUp", 1)
    assert _words(deployment(stage).old_variants) == [
        ("a", 4, "Deleting", "Terminating 4 instance(s)."),
        ("b", 1, "Deleting", "Terminating 1 instance(s)."),
    ]
    old = deployment(stage).old_variants[0]
    assert (old.current_weight, old.desired_instance_count) == (0.0, 0)
    assert old.variant_status[0].start_time == deployment(stage).stage_since
    assert [v.variant_status for v in stage.status.production_variants] == [(), ()], "the new ones stay"
    stage.in_service()
    assert stage.status.deployment is None


def test_old_fleets_whose_pods_fail_are_told_as_deleting_all_the_same() -> None:
    stage = watched(blue_green(final=30))
    stage.image("new:1")
    reach(stage, "FinalBaking", 1)
    old = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image != "new:1")
    old.image = "bad:1"
    reach(stage, "CleaningUp", 1)
    assert old.ready == 0
    assert _words(deployment(stage).old_variants) == [("a", 4, "Deleting", "Terminating 4 instance(s).")]


def test_shadow_variants_are_no_part_of_what_is_pending() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=30))
    shadow = {"variantName": "s", "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 1}
    stage.edit("EndpointConfig", shadowProductionVariants=[shadow])
    stage.in_service()
    assert [v.variant_name for v in stage.status.shadow_production_variants] == ["s"]
    stage.image("new:1")
    for place in ("Provisioning", "FinalBaking", "CleaningUp"):
        reach(stage, place)
        stage.step()
        assert [v.variant_name for v in deployment(stage).pending_variants] == ["a"]
    stage.in_service()
    assert [v.variant_name for v in stage.status.production_variants] == ["a"]


def test_old_instances_of_a_batch_are_told_as_deleting_while_they_go() -> None:
    stage = watched(rolling(50, wait=30))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    assert _words(stage.status.production_variants) == []
    reach(stage, "Provisioning", 1)
    stage.step()
    assert _words(stage.status.production_variants) == [("a", 2, "Deleting", "Terminating 2 instance(s).")]
    reach(stage, "FinalBaking", 2)
    assert _words(stage.status.production_variants) == [], "they are gone"
