"""How other progressive-delivery controllers fail, as tests: one for each report that can happen here, named after
what failed there. AR is argoproj/argo-rollouts, FL fluxcd/flagger, GW
argoproj-labs/rollouts-plugin-trafficrouter-gatewayapi; the number is the issue's or pull request's. Rollbacks are in
test_peer_rollbacks.py, what got stuck in test_peer_stuck.py, what needs an API server in
tests/cluster_backend/test_peer_defects.py, and what is no decision is in the rooms that it belongs to: ELSEWHERE.

Not applicable, and why:
- AR 4834, AR 4297, AR 4433: a cloud load balancer's target groups, readiness gates and a Service whose selector moves.
  No Service is ever repointed here: each fleet has its own, and only weights move.
- AR 3854, AR 2463, GW 208, GW 203, FL 1504, AR 3565: what Git holds is also what the controller writes (weights,
  selectors, replicas). Here Git holds Model, EndpointConfig and Endpoint; what is written is generated and owned. What
  a person or a scaler does to generated replicas is in test_cluster_scaling.py.
- AR 2857, AR 3849, AR 685, AR 4607: one HorizontalPodAutoscaler over both fleets, whose average hides one of them. Each
  fleet is a Deployment of its own; there is no scale subresource over both. Autoscaling itself is not built yet.
- AR 4393, AR 3724: a verdict taken from a Job's end. There are no Jobs; verdicts are readings of alarms.
- AR 4597 asks for a hook before scale-down, AR 574 and AR 2866 ask for what other tests here show (a short way back, a
  hold instead of an abort): wishes, not failures."""

import ast
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.core.cluster_stage import ClusterStage, blue_green, rolling
from tests.core.peers import NEW, OLD, answered, at, edited, images, served, settled, until

from sluice.core.cluster.observation import PodTrouble

TESTS = Path(__file__).parents[1]
ELSEWHERE = {
    "AR 2578: a metrics provider's 429 needs a back-off": (
        "alarms/test_peer_defects.py::"
        "test_ar_2578_a_provider_that_said_429_was_asked_by_each_and_again_until_their_canaries_failed",
        "alarms/test_cloudwatch_source.py::test_under_throttling_the_period_widens_states_stay_and_it_recovers",
    ),
    "AR 2855: 11 GB for 11,000 rollouts, slower each day, daily restarts": (
        "controller/test_peer_defects.py::"
        "test_ar_2855_memory_grew_with_what_had_changed_and_gone_until_the_daily_restart",
        "controller/test_work_queue.py::test_many_moved_deadlines_do_not_grow_the_heap",
    ),
    "AR 3112: with 10,000 rollouts the controller was restarted again and again": (
        "controller/test_work_queue.py::test_a_long_queue_does_not_stand_while_keys_are_taken_from_it",
        "controller/test_kube_client.py::test_listings_are_chunked_and_complete",
    ),
    "AR 3929: a metric for each object that was asked for": (
        "controller/test_peer_defects.py::test_ar_3929_each_object_that_was_asked_for_made_a_metric_of_its_own",
    ),
    "AR 1711: to show one rollout all are listed": (
        "controller/test_peer_defects.py::test_ar_1711_to_tell_of_one_object_all_were_listed",
    ),
    "AR 2117: an old leader went on beside the new one": (
        "controller/test_process.py::test_a_process_whose_lease_another_took_ends_at_once",
        "controller/test_kube_client.py::test_the_lease_is_asked_for_when_a_write_has_its_connection",
        "controller/test_endpoint_pass.py::test_the_lease_lost_in_the_middle_of_an_action_set_stops_it",
    ),
    "FL 638: the client's own throttle cost the lease": (
        "controller/test_peer_defects.py::"
        "test_fl_638_calls_waited_for_the_clients_own_throttle_until_the_lease_was_lost",
    ),
    "FL 1613: two replicas distort the steps' timing": (
        "controller/test_process.py::test_a_second_process_stands_by_and_takes_over_when_the_first_stops",
        "core/test_cluster_peer_defects.py::test_an_operator_that_was_away_neither_shortens_nor_lengthens_a_bake",
    ),
}
"""Reports that apply and whose tests are in other places: file and name."""


@pytest.mark.parametrize("report", ELSEWHERE)
def test_what_is_tested_elsewhere_is(report: str) -> None:
    for place in ELSEWHERE[report]:
        file, _, name = place.partition("::")
        defined = ast.parse((TESTS / file).read_text(encoding="utf-8")).body
        functions = {one.name for one in defined if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, f"{place}, which is to show that {report} does not happen here, is not there"


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
    stage = until(edited(served(blue_green(final=20))), at("FinalBaking"))
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
    stage = until(edited(served(blue_green("CANARY", wait=600))), at("Baking"))
    stage.image("new:2")
    until(stage, lambda s: NEW not in {f.image for f in s.cluster.fleets.values()})
    assert stage.cluster.route is not None
    assert {f.name for f in stage.cluster.route.spec.fleets} <= set(stage.cluster.fleets)


def test_fl_1202_the_primary_was_not_ready_when_the_canary_went_to_zero() -> None:
    """There a promotion copies the new version onto the old workload; here nothing is started twice."""
    stage = until(edited(served(blue_green("CANARY", wait=5, final=5))), at("CleaningUp"))
    [green] = [fleet for fleet in stage.cluster.fleets.values() if fleet.image == NEW]
    born = green.born
    until(stage, settled)
    assert [(fleet.name, fleet.born) for fleet in stage.cluster.fleets.values()] == [(green.name, born)]


def test_fl_773_requests_failed_at_both_switches() -> None:
    stage = served(blue_green("LINEAR", wait=2, final=2, value=50))
    for image in (NEW, "new:2", NEW):
        until(edited(stage, image), settled)
    assert images(stage) == [(NEW, 4, 4)]


# A Service without endpoints ------------------------------------------------------------------------------------


def test_ar_2641_the_preview_service_was_switched_before_its_pods_were_ready() -> None:
    stage = edited(served(blue_green("CANARY", wait=5)))
    stage.cluster.start_seconds = 40.0
    for _ in range(39):
        stage.step()
        assert stage.percent_new() == 0
    until(stage, at("Baking"))


def test_ar_2118_the_canary_service_was_left_empty_after_an_abort() -> None:
    stage = until(edited(served(blue_green("CANARY", wait=600))), at("Baking"))
    stage.image(OLD)
    until(stage, settled)
    assert stage.cluster.route is not None
    assert [(f.weight, stage.cluster.fleets[f.name].ready) for f in stage.cluster.route.spec.fleets] == [(1_000_000, 4)]


def test_ar_4750_the_active_selector_was_empty_after_several_bad_images() -> None:
    stage = served(blue_green(final=5))
    for number in range(4):
        image = f"broken:{number}"
        stage.cluster.troubles[image] = PodTrouble("ImagePull", "manifest unknown", 4, final=True)
        until(edited(stage, image), lambda s: s.condition("Stalled") == ("True", "RolledBack"))
        assert images(stage) == [(OLD, 4, 4)]
    until(edited(stage), settled)
    assert images(stage) == [(NEW, 4, 4)]


# Scalers --------------------------------------------------------------------------------------------------------


def test_ar_4347_the_stable_set_shrank_before_the_proxies_had_moved() -> None:
    stage = edited(served(rolling(25, wait=5)))
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
    stage = until(edited(served(blue_green(final=600))), at("FinalBaking"))
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
    until(edited(stage), settled, most=1500)
    assert stage.most_pods == 11, "one batch more, never two"


def test_ar_2167_the_old_set_idled_at_full_size_while_it_waited_to_go() -> None:
    """A rolling deployment frees each old batch when its successor has baked, not at the end."""
    stage = edited(served(rolling(25, wait=5)))
    sizes: list[int] = []
    for _ in range(300):
        stage.step()
        old = sum(f.replicas for f in stage.cluster.fleets.values() if f.image == OLD and f.gone_at is None)
        sizes += [old] if not sizes or sizes[-1] != old else []
        if settled(stage) and len(sizes) > 1:
            break
    assert sizes == [4, 3, 2, 1, 0]


def test_ar_4926_the_delay_before_scaling_down_was_not_kept() -> None:
    stage = edited(served(blue_green(final=120)))
    until(stage, lambda s: s.percent_new() == 100)
    began = stage.now
    until(stage, at("CleaningUp"))
    assert stage.now - began >= timedelta(seconds=120)


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
