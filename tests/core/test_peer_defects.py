"""How other progressive-delivery controllers fail, as tests: one for each report that can happen here, named after
what failed there. AR is argoproj/argo-rollouts, FL fluxcd/flagger, GW
argoproj-labs/rollouts-plugin-trafficrouter-gatewayapi; the number is the issue's or pull request's. What needs an API
server is in tests/cluster_backend/test_peer_defects.py.

Not applicable, and why:
- AR 4834, AR 4297, AR 4433: a cloud load balancer's target groups, readiness gates and a Service whose selector moves.
  No Service is ever repointed here: each fleet has its own, and only weights move.
- AR 3854, AR 2463, GW 208, GW 203, FL 1504, AR 3565: what Git holds is also what the controller writes (weights,
  selectors, replicas). Here Git holds Model, EndpointConfig and Endpoint; what is written is generated and owned. What
  a person or a scaler does to generated replicas is in test_cluster_scaling.py.
- AR 2857, AR 3849, AR 685, AR 4607: one HorizontalPodAutoscaler over both fleets, whose average hides one of them. Each
  fleet is a Deployment of its own; there is no scale subresource over both. Autoscaling itself is not built yet.
- AR 4393, AR 3724: a verdict taken from a Job's end. There are no Jobs; verdicts are readings of alarms.
- AR 2578: back-off against a metrics provider's quota: the poller's, in tests/alarms.
- AR 2855, AR 3112, AR 3929, AR 1711, FL 638: memory, throttling and cardinality at thousands of objects: tests/bench
  and tests/controller.
- AR 2117, FL 1613: two controllers at once: tests/controller (Lease, fence) and the crash tests.
- AR 4597 asks for a hook before scale-down, AR 574 and AR 2866 ask for what other tests here show (a short way back, a
  hold instead of an abort): wishes, not failures."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green, rolling
from tests.core.test_cluster_alarms import watched

from sluice.api.reasons import Cause, Outcome
from sluice.api.status import EndpointStatus
from sluice.core.cluster.actions import DeleteFleet, ScaleFleet
from sluice.core.cluster.observation import PodTrouble

OLD, NEW = "repo/churn:1", "new:1"


def served(policy: dict[str, Any] | None = None, count: int = 4, **spec: Any) -> ClusterStage:
    """An Endpoint in service."""
    config = {"deploymentConfig": policy} if policy is not None else {}
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": count}, **config, **spec)
    stage.cluster.start_seconds = 3.0
    stage.in_service()
    return stage


def answered(stage: ClusterStage) -> None:
    """No request meets a fleet without a ready pod, by what every router that callers reach has in force."""
    for router in stage.cluster.routers:
        if router.ready and not router.terminating and router.applied is not None:
            for entry in router.applied[2].fleets:
                here = stage.cluster.fleets.get(entry.name)
                if entry.weight:
                    assert here is not None, f"{router.pod} sends to {entry.name}, which is gone"
                    assert here.ready, f"{router.pod} sends to {entry.name}, which has no ready pod"


def until(stage: ClusterStage, asked: Callable[[ClusterStage], bool], most: int = 400) -> ClusterStage:
    for _ in range(most):
        stage.step()
        answered(stage)
        if asked(stage):
            return stage
    raise AssertionError(f"{stage.stages} {stage.message()}")


def at(wanted: str, step: int | None = None) -> Callable[[ClusterStage], bool]:
    def asked(stage: ClusterStage) -> bool:
        running = stage.status.deployment
        return running is not None and running.stage == wanted and step in {None, running.step}

    return asked


def settled(stage: ClusterStage) -> bool:
    return stage.status.deployment is None and stage.condition("Reconciling")[0] != "True"


def images(stage: ClusterStage) -> list[tuple[str, int, int]]:
    return [(f.image, f.replicas, f.ready) for f in stage.cluster.fleets.values() if f.gone_at is None]


# Traffic lost at the switch -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy", [blue_green(final=0), blue_green("CANARY", wait=3, final=0), rolling(25, wait=3), rolling(50, wait=0)]
)
def test_ar_2235_traffic_went_to_the_old_set_minutes_after_it_had_reached_zero(policy: dict[str, Any]) -> None:
    stage = served(policy)
    slow = stage.cluster.routers[0]
    stage.image(NEW)
    for number in range(300):
        slow.slow = number % 9 != 0
        stage.step()
        answered(stage)
        if settled(stage):
            break
    assert images(stage) == [(NEW, 4, 4)]


def test_ar_2050_the_stable_set_was_scaled_down_while_the_canary_was_short_of_pods() -> None:
    stage = until(_edited(served(blue_green(final=20))), at("FinalBaking"))
    new = next(f for f in stage.cluster.fleets.values() if f.image == NEW)
    stage.capped[new.name] = new.ready = 2
    for _ in range(200):
        stage.step()
        assert (OLD, 4, 4) in images(stage), "whole, until the new one is"
    stage.capped.clear()
    until(stage, settled)
    assert images(stage) == [(NEW, 4, 4)]


def test_ar_1731_the_selector_was_set_before_the_first_pods_existed() -> None:
    stage = ClusterStage()
    stage.cluster.start_seconds = 60.0
    for _ in range(59):
        stage.step()
        assert stage.condition("Serving")[0] != "True"
        assert stage.condition("Ready")[0] != "True"
    stage.in_service()
    answered(stage)


def test_ar_4390_a_route_still_named_a_superseded_canary_while_it_drained() -> None:
    stage = until(_edited(served(blue_green("CANARY", wait=600))), at("Baking"))
    stage.image("new:2")
    until(stage, lambda s: NEW not in {f.image for f in s.cluster.fleets.values()})
    assert stage.cluster.route is not None
    assert {f.name for f in stage.cluster.route.spec.fleets} <= set(stage.cluster.fleets)


def test_fl_1202_the_primary_was_not_ready_when_the_canary_went_to_zero() -> None:
    """There a promotion copies the new version onto the old workload; here nothing is started twice."""
    stage = until(_edited(served(blue_green("CANARY", wait=5, final=5))), at("CleaningUp"))
    [green] = [fleet for fleet in stage.cluster.fleets.values() if fleet.image == NEW]
    born = green.born
    until(stage, settled)
    assert [(fleet.name, fleet.born) for fleet in stage.cluster.fleets.values()] == [(green.name, born)]


def test_fl_773_requests_failed_at_both_switches() -> None:
    stage = served(blue_green("LINEAR", wait=2, final=2, value=50))
    for image in (NEW, "new:2", NEW):
        until(_edited(stage, image), settled)
    assert images(stage) == [(NEW, 4, 4)]


# A Service without endpoints ------------------------------------------------------------------------------------


def test_ar_2641_the_preview_service_was_switched_before_its_pods_were_ready() -> None:
    stage = _edited(served(blue_green("CANARY", wait=5)))
    stage.cluster.start_seconds = 40.0
    for _ in range(39):
        stage.step()
        assert stage.percent_new() == 0
    until(stage, at("Baking"))


def test_ar_2118_the_canary_service_was_left_empty_after_an_abort() -> None:
    stage = until(_edited(served(blue_green("CANARY", wait=600))), at("Baking"))
    stage.image(OLD)
    until(stage, settled)
    assert stage.cluster.route is not None
    assert [(f.weight, stage.cluster.fleets[f.name].ready) for f in stage.cluster.route.spec.fleets] == [(1_000_000, 4)]


def test_ar_4750_the_active_selector_was_empty_after_several_bad_images() -> None:
    stage = served(blue_green(final=5))
    for number in range(4):
        image = f"broken:{number}"
        stage.cluster.troubles[image] = PodTrouble("ImagePull", "manifest unknown", 4, final=True)
        until(_edited(stage, image), lambda s: s.condition("Stalled") == ("True", "RolledBack"))
        assert images(stage) == [(OLD, 4, 4)]
    until(_edited(stage), settled)
    assert images(stage) == [(NEW, 4, 4)]


# Rollbacks that do not ------------------------------------------------------------------------------------------


def test_ar_4612_a_fast_rollback_sent_most_traffic_to_a_set_that_was_sized_for_a_few_percent() -> None:
    stage = until(_edited(served(rolling(25, wait=5))), at("Baking", 3))
    stage.image(OLD)
    until(stage, settled)  # the stage refuses weight that the ready pods are not for
    assert images(stage) == [(OLD, 4, 4)]


def test_ar_3020_the_stable_spec_was_applied_again_and_got_everything_while_undersized() -> None:
    stage = until(_edited(served(rolling(25, wait=5))), at("Provisioning", 3))
    [old] = [fleet for fleet in stage.cluster.fleets.values() if fleet.image == OLD]
    stage.image(OLD)
    for _ in range(200):
        stage.step()
        assert stage.cluster.route is not None
        share = sum(f.weight for f in stage.cluster.route.spec.fleets if f.name == old.name) / 1_000_000
        assert share * 4 <= old.ready + 1e-3
        if settled(stage):
            break
    assert images(stage) == [(OLD, 4, 4)]


@pytest.mark.parametrize("policy", [blue_green("CANARY", wait=600), rolling(25, wait=30)])
def test_ar_3372_a_third_version_during_the_second_moved_all_traffic_before_there_was_capacity(
    policy: dict[str, Any],
) -> None:
    stage = until(_edited(served(policy)), at("Baking"))
    stage.image("new:2")
    until(stage, lambda s: {f.image for f in s.cluster.fleets.values()} == {"new:2"}, most=2000)
    until(stage, settled)
    assert images(stage) == [("new:2", 4, 4)]


def test_ar_4461_an_abort_was_ignored_after_a_full_promotion() -> None:
    stage = served(blue_green("CANARY", wait=600, final=600))
    first = stage.status.revision
    assert first is not None
    until(_edited(stage), at("Baking"))
    assert stage.status.deployment is not None
    stage.annotate(promote=stage.status.deployment.revision)
    stage.run(4)
    stage.annotate(rollback=first.name)
    until(stage, lambda s: images(s) == [(OLD, 4, 4)] and settled(s))


def test_ar_2929_an_aborted_rollout_was_tried_again_by_itself() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    until(_edited(stage), at("Baking"))
    stage.alarms["errors"] = AlarmNow("ALARM")
    until(stage, settled)
    stage.alarms["errors"] = AlarmNow()
    for _ in range(50):
        stage.step(60.0)
        assert stage.status.deployment is None
    assert images(stage) == [(OLD, 4, 4)]
    assert stage.condition("Stalled") == ("True", "RolledBack")


def test_ar_1292_an_abort_with_nothing_in_flight_scaled_the_stable_set_to_zero() -> None:
    stage = served(blue_green())
    assert stage.status.revision is not None
    stage.annotate(rollback=stage.status.revision.name)
    for _ in range(60):
        stage.step()
        assert not [a for a in stage.actions if isinstance(a, ScaleFleet | DeleteFleet)]
    assert images(stage) == [(OLD, 4, 4)]
    assert stage.condition("Ready")[0] == "True"


def test_fl_1591_a_deadline_passed_in_the_promotion_and_it_looped_without_a_rollback() -> None:
    stage = until(_edited(served(blue_green(final=3600))), at("FinalBaking"))
    assert stage.status.deployment is not None
    assert stage.status.deployment.deadline is not None
    new = next(f for f in stage.cluster.fleets.values() if f.image == NEW)
    stage.capped[new.name] = new.ready = 1  # short of pods: the last step cannot end
    while stage.now < stage.status.deployment.deadline:
        stage.step(300.0)
        if stage.status.deployment is None:
            break
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.ROLLED_BACK


def test_fl_1801_a_failure_while_a_gate_was_closed_did_not_roll_back() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    until(_edited(stage), at("Baking"))
    stage.annotate(pause="true")
    stage.run(100)
    stage.alarms["errors"] = AlarmNow("ALARM")
    stage.step()
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "RollingBack"
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]


def test_fl_1898_a_rollback_deleted_the_only_pods_that_worked() -> None:
    """The old fleet has died while all traffic was on the new one; the way back goes where somebody answers."""
    stage = until(_edited(served(blue_green(final=600))), at("FinalBaking"))
    stage.cluster.troubles[OLD] = PodTrouble("CrashLoop", "exit code 1", 4)
    stage.run(5)
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == NEW)
    assert (new.ready, new.gone_at) == (4, None), "what fails at the old fleet takes nothing from the new one"
    until(stage, settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


# Stuck ----------------------------------------------------------------------------------------------------------


def test_ar_4128_a_bad_image_neither_met_its_deadline_nor_could_be_aborted() -> None:
    stage = _edited(served(blue_green("CANARY", wait=60)), "bad:1")
    stage.run(10)
    assert stage.status.deployment is not None
    stage.image(OLD)
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]
    stage.image("bad:1")
    stage.run(10)
    stage.step(10_000.0)
    until(stage, settled)
    assert stage.condition("Stalled") == ("True", "RolledBack")


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(PodTrouble("CrashLoop", "exit code 1", 4, final=True), id="ar_1774_a_broken_stable_set"),
        pytest.param(PodTrouble("Quota", "exceeded quota", 4), id="ar_3110_a_stable_set_in_replica_failure"),
        pytest.param(PodTrouble("PingFailing", "no answer", 4), id="fl_639_an_unhealthy_primary"),
    ],
)
@pytest.mark.parametrize("policy", [blue_green("CANARY", wait=5, final=5), rolling(25, wait=5)])
def test_the_fix_was_blocked_by(trouble: PodTrouble, policy: dict[str, Any]) -> None:
    stage = served(policy)
    stage.cluster.troubles[OLD] = trouble
    stage.run(5)
    stage.image("fix:1")
    for _ in range(600):
        stage.step()
        if settled(stage):
            break
    assert images(stage) == [("fix:1", 4, 4)]


def test_ar_4365_nodes_came_and_went_and_the_promotion_never_found_all_pods_available() -> None:
    stage = _edited(served(blue_green("LINEAR", wait=10, final=10, value=50)))
    stage.cluster.start_seconds = 2.0
    for number in range(200):
        new = next((f for f in stage.cluster.fleets.values() if f.image == NEW), None)
        if number % 4 == 0 and new is not None and new.ready:
            new.ready -= 1
            new.born = stage.now
        stage.step()
        if stage.status.deployment is None and number > 10:
            break
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUCCEEDED


def test_fl_1588_it_was_stuck_in_the_promotion_and_could_not_go_back() -> None:
    stage = until(_edited(served(blue_green(final=3600))), at("FinalBaking"))
    new = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == NEW)
    stage.capped[new.name] = new.ready = 1
    stage.run(30)
    stage.image(OLD)
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]


def test_fl_1450_a_gate_kept_it_waiting_for_hours_without_a_time_limit() -> None:
    stage = until(_edited(served(blue_green("CANARY", wait=60, final=60))), at("Baking"))
    stage.annotate(pause="true")
    stage.step()
    assert stage.status.deployment is not None
    deadline = stage.status.deployment.deadline
    assert deadline is not None
    stage.step((deadline - stage.now) / timedelta(seconds=1) + 1)
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.cause is Cause.DEADLINE


# The failed spec stays the one asked for ------------------------------------------------------------------------


def _rolled_back() -> ClusterStage:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    until(_edited(stage), at("Baking"))
    stage.alarms["errors"] = AlarmNow("ALARM")
    until(stage, settled)
    stage.alarms["errors"] = AlarmNow()
    assert stage.condition("Stalled") == ("True", "RolledBack")
    return stage


def test_fl_862_the_same_version_could_not_be_deployed_again_after_a_rollback() -> None:
    stage = _rolled_back()
    stage.annotate(retry="again")
    until(stage, settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


def test_fl_1152_an_annotation_outside_the_pod_template_did_not_make_it_try_again() -> None:
    stage = _rolled_back()
    stage.annotate(redeploy="2")
    until(stage, settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


def test_ar_3578_a_new_image_after_an_abort_was_not_taken() -> None:
    stage = _rolled_back()
    until(_edited(stage, "new:2"), settled, most=1000)
    assert images(stage) == [("new:2", 4, 4)]


# Scalers --------------------------------------------------------------------------------------------------------


def test_ar_4347_the_stable_set_shrank_before_the_proxies_had_moved() -> None:
    stage = _edited(served(rolling(25, wait=5)))
    slow = stage.cluster.routers[0]
    until(stage, at("Shifting"))
    slow.slow = True
    for _ in range(20):
        before = sum(f.replicas for f in stage.cluster.fleets.values() if f.image == OLD)
        stage.step()
        after = sum(f.replicas for f in stage.cluster.fleets.values() if f.image == OLD)
        assert before == after or slow not in stage.cluster.routers
        if slow not in stage.cluster.routers:
            break
    until(stage, settled)


def test_fl_1600_the_primary_was_back_at_its_least_size_and_got_all_load() -> None:
    """An autoscaler took the old fleet down to one while the new one had the traffic; then it went back."""
    stage = until(_edited(served(blue_green(final=600))), at("FinalBaking"))
    old = next(fleet for fleet in stage.cluster.fleets.values() if fleet.image == OLD)
    stage.scale(old, 1)
    stage.run(10)
    assert (old.replicas, old.ready) == (4, 4), "it stands at full size until clean-up"
    stage.image(OLD)
    until(stage, settled)
    assert images(stage) == [(OLD, 4, 4)]


# Surge and drain ------------------------------------------------------------------------------------------------


def test_ar_3284_a_weight_of_half_brought_half_of_the_pods_whatever_surge_was_allowed() -> None:
    stage = served(rolling(10, wait=2), count=10)
    stage.most_pods = 0
    until(_edited(stage), settled, most=1500)
    assert stage.most_pods == 11, "one batch more, never two"


def test_ar_2167_the_old_set_idled_at_full_size_while_it_waited_to_go() -> None:
    """A rolling deployment frees each old batch when its successor has baked, not at the end."""
    stage = _edited(served(rolling(25, wait=5)))
    sizes: list[int] = []
    for _ in range(300):
        stage.step()
        old = sum(f.replicas for f in stage.cluster.fleets.values() if f.image == OLD and f.gone_at is None)
        sizes += [old] if not sizes or sizes[-1] != old else []
        if settled(stage) and len(sizes) > 1:
            break
    assert sizes == [4, 3, 2, 1, 0]


def test_ar_4926_the_delay_before_scaling_down_was_not_kept() -> None:
    stage = _edited(served(blue_green(final=120)))
    until(stage, lambda s: s.percent_new() == 100)
    began = stage.now
    until(stage, at("CleaningUp"))
    assert stage.now - began >= timedelta(seconds=120)


# Slow rollbacks -------------------------------------------------------------------------------------------------


def test_ar_2168_undoing_a_success_ran_all_steps_again() -> None:
    stage = served(blue_green("LINEAR", wait=600, final=600, value=10), count=10)
    first = stage.status.revision
    assert first is not None
    stage.edit("Endpoint", deploymentConfig=blue_green(final=0))
    until(_edited(stage), settled)
    stage.edit("Endpoint", deploymentConfig=blue_green("LINEAR", wait=600, final=600, value=10))
    began = stage.now
    stage.annotate(rollback=first.name)
    until(stage, lambda s: {f.image for f in s.cluster.fleets.values()} == {OLD})
    assert stage.now - began < timedelta(seconds=30), "its pods' start, no bakes"


def test_fl_616_a_revert_went_through_the_whole_analysis() -> None:
    stage = until(_edited(served(blue_green("CANARY", wait=3600, final=3600))), at("Baking"))
    began = stage.now
    stage.image(OLD)
    until(stage, lambda s: s.status.deployment is None)
    assert stage.now - began < timedelta(seconds=15)


# Metrics that are away, or say nothing --------------------------------------------------------------------------


def test_ar_2771_errors_of_the_provider_aborted_a_good_rollout() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    until(_edited(stage), at("Baking"))
    stage.provider_is_away = True
    for _ in range(27):
        stage.step(100.0)  # 45 minutes
        assert stage.status.deployment is not None
        assert stage.status.deployment.stage == "Baking"
    stage.provider_is_away = False
    until(stage, settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


def test_ar_1905_an_empty_result_rolled_back_instead_of_waiting() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    until(_edited(stage), at("Baking"))
    stage.alarms["errors"] = AlarmNow("INSUFFICIENT_DATA")
    stage.run(200)
    assert stage.status.deployment is not None
    assert stage.status.deployment.stage == "Baking"
    stage.alarms["errors"] = AlarmNow()
    until(stage, settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


def test_fl_1035_an_idle_canary_was_rolled_back_for_lack_of_traffic() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    stage.alarms["errors"] = AlarmNow("INSUFFICIENT_DATA")  # nobody has called all night
    until(_edited(stage), settled, most=1000)
    assert images(stage) == [(NEW, 4, 4)]


# False success --------------------------------------------------------------------------------------------------


def test_fl_1581_a_metric_with_a_wrong_name_passed_in_silence() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=60))
    del stage.alarms["errors"]
    stage.image(NEW)
    stage.until("AlarmMissing", type_="Stalled")
    stage.run(100)
    assert images(stage) == [(OLD, 4, 4)]
    assert "errors" in stage.message("Stalled")


# Two of them on one route ---------------------------------------------------------------------------------------


def test_gw_164_two_rollouts_shared_a_route_and_the_first_to_finish_exposed_the_other() -> None:
    """All variants of an Endpoint are one deployment: one that is ready waits for the other."""
    stage = ClusterStage({"variantName": "a"}, {"variantName": "b"}, deploymentConfig=blue_green("CANARY", wait=5))
    stage.in_service()
    stage.image(NEW)
    until(stage, at("Provisioning"))
    late = next(f for f in stage.cluster.fleets.values() if f.image == NEW and f.variant == "b")
    stage.capped[late.name] = 0
    for _ in range(100):
        stage.step()
        assert stage.percent_new() == 0
    stage.capped.clear()
    until(stage, settled)
    assert {f.image for f in stage.cluster.fleets.values()} == {NEW}


# Stuck until the controller was restarted -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage_word", ["Provisioning", "Shifting", "Baking", "FinalBaking", "CleaningUp", "RollingBack"]
)
def test_ar_2522_only_a_restart_of_the_controller_got_it_going_again(stage_word: str) -> None:
    """Nothing of a deployment is remembered outside of its status: what a new process makes of it, the old one does.
    The status goes through JSON at every pass; here a field that only a newer operator knows is in it too."""
    stage = served(blue_green("CANARY", wait=5, final=5))
    stage.image("bad:1" if stage_word == "RollingBack" else NEW)
    if stage_word == "RollingBack":
        until(stage, at("Provisioning")).image(OLD)
    until(stage, at(stage_word))
    stage.status = EndpointStatus.from_manifest({**stage.status.to_manifest(), "whatIsNewer": {"a": 1}})
    until(stage, settled)
    assert stage.condition("Ready")[0] == "True"


def _edited(stage: ClusterStage, image: str = NEW) -> ClusterStage:
    """The stage with another image asked for, and the pass that sees it."""
    stage.image(image)
    stage.step()
    return stage
