"""Random lives of an Endpoint in the cluster: edits, broken images, pods and routers that come and go, lost status,
commands. What must never happen is checked by the stage at every action; at the end, once nothing disturbs it any more,
the Endpoint has come to rest where it belongs."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.core.cluster_stage import ClusterStage, blue_green, rolling

from sluice.api.reasons import Outcome
from sluice.api.status import EndpointStatus
from sluice.core.cluster.routing import fleets_of

POLICIES = [
    None,
    blue_green(final=0),
    blue_green(final=20),
    blue_green("CANARY", wait=20, final=10),
    blue_green("LINEAR", wait=10, final=0, value=50),
    rolling(50, wait=5),
    rolling(34, wait=5, back=34),
]
IMAGES = ("good:1", "good:2", "good:3", "bad:1")
VARIANTS = (("a",), ("a",), ("b",), ("a", "b"), ("b", "c"))
SHADOW = "s"
VARIANT = {"modelName": "churn", "instanceType": "ml.m5.large"}
SEEN: Counter[str] = Counter()


class Life(RuleBasedStateMachine):
    """One Endpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = ClusterStage()

    @initialize(
        policy=st.sampled_from(POLICIES),
        several=st.booleans(),
        retained=st.booleans(),
        was=st.sampled_from(("made", "served", "served", "failed")),
        first=st.booleans(),
    )
    def begin(self, policy: dict[str, Any] | None, several: bool, retained: bool, was: str, first: bool) -> None:
        made = [{"variantName": "a", "initialInstanceCount": 3}, {"variantName": "b", "initialInstanceCount": 1}]
        spec: dict[str, Any] = {"retainAllVariantProperties": True} if retained else {}
        if policy is not None:
            spec["deploymentConfig"] = policy
        if first and not several:
            spec["kubernetes"] = {"replaceFirst": True}
        self.stage = ClusterStage(*(made if several else made[:1]), **spec)
        self.stage.cluster.start_seconds = 4.0
        self.stage.image("bad:1" if was == "failed" else "good:1")
        if was == "served":
            self.stage.in_service()
        if was == "failed":
            for seconds in (1.0, 1.0, 2000.0):
                self.pass_(seconds)

    @rule(passes=st.integers(1, 8), seconds=st.sampled_from((1.0, 3.0, 8.0)))
    def time_goes_by(self, passes: int, seconds: float) -> None:
        self.time_passes(passes, seconds)

    def time_passes(self, passes: int, seconds: float) -> None:
        for _ in range(passes):
            self.pass_(seconds)

    def pass_(self, seconds: float) -> None:
        self.stage.step(seconds)
        deployment = self.stage.status.deployment
        if deployment is not None:
            SEEN[f"stage {deployment.stage}"] += 1
            if deployment.replace_first:
                SEEN[f"replaced first {deployment.stage}"] += 1
            for fleet in self.stage.cluster.fleets.values():
                if fleet.crashing and fleet.ready:
                    age = "new" if fleet.fleet_hash == deployment.fleet_hash else "old"
                    SEEN[f"{age} pod crashes {deployment.stage}"] += 1
        if self.stage.status.last_deployment is not None:
            SEEN[f"outcome {self.stage.status.last_deployment.outcome}"] += 1
        self._shadows_answer_nobody()
        SEEN[f"word {self.stage.status.endpoint_status}"] += 1

    def _shadows_answer_nobody(self) -> None:
        route, deployment = self.stage.cluster.route, self.stage.status.deployment
        if route is None or not route.spec.shadows:
            return
        SEEN[f"shadow {deployment.stage if deployment is not None else self.stage.status.endpoint_status}"] += 1
        assert all(fleet.variant_name != SHADOW for fleet in route.spec.fleets)
        assert sum(shadow.sampling > 0 for shadow in route.spec.shadows) <= 1, "no request is mirrored twice"

    @rule(done=st.integers(0, 4), times=st.integers(1, 3))
    def the_operator_is_killed(self, done: int, times: int) -> None:
        for _ in range(times):
            self.stage.step(killed_after=done)
            if done < len(self.stage.actions):
                SEEN["killed between actions"] += 1

    @rule(passes=st.integers(1, 12))
    def writing_is_off(self, passes: int) -> None:
        self.stage.annotate(reconcile="disabled")
        for _ in range(passes):
            self.pass_(2.0)
            assert not self.stage.actions
        self.stage.annotate(reconcile="")
        SEEN["writing off"] += 1

    @precondition(lambda self: self.stage.endpoint["metadata"].get("finalizers"))
    @rule(done=st.sampled_from((None, 0, 1, 2)), terminating=st.booleans())
    def it_is_deleted_and_made_again(self, done: int | None, terminating: bool) -> None:
        stage = self.stage
        self._let_routers_be()
        stage.delete()
        stage.namespace_terminating = terminating
        for _ in range(6):
            if not stage.gone:
                stage.step(1.0, killed_after=done)
        for _ in range(100):
            if not stage.gone:
                stage.step(2.0)
        assert stage.gone, "a deletion comes to its end"
        assert all(fleet.gone_at is not None for fleet in stage.cluster.fleets.values())
        assert (stage.cluster.route, stage.cluster.routers, stage.revisions) == (None, [], {})
        stage.make_again()
        SEEN["deleted"] += 1

    @rule()
    def the_route_is_deleted_by_hand(self) -> None:
        if self.stage.cluster.route is not None:
            self.stage.cluster.route = None
            SEEN["route deleted"] += 1

    @rule()
    def a_stored_revision_is_lost(self) -> None:
        """The one that the spec asks for; it can be told anew."""
        desired = self.stage.resolution().revision
        if desired is not None and self.stage.revisions.pop(desired.name, {}):
            SEEN["revision lost"] += 1
            self.pass_(1.0)

    @precondition(lambda self: len(self.stage.cluster.routers) == 2)
    @rule()
    def a_router_is_replaced(self) -> None:
        """By the Deployment: the old one stops for a while, and still sends what it was told last."""
        router = self.stage.cluster.routers[0]
        router.ready, router.terminating, router.frozen = False, True, True
        router.stops_by = self.stage.now + timedelta(seconds=30)
        SEEN["router replaced"] += 1

    @precondition(lambda self: bool(self.stage.cluster.routers))
    @rule(slow=st.booleans())
    def a_router_is_slow(self, slow: bool) -> None:
        self.stage.cluster.routers[-1].slow = slow

    @rule(image=st.sampled_from(IMAGES), passes=st.integers(0, 25))
    def image_is_edited(self, image: str, passes: int) -> None:
        self.stage.image(image)
        for _ in range(passes):
            self.pass_(1.0)

    @precondition(lambda self: self.stage.status.endpoint_status == "Creating" or self.stage.status.deployment)
    @rule()
    def much_time_passes(self) -> None:
        self.pass_(2000.0)
        self.pass_(1.0)

    @precondition(lambda self: self.stage.status.endpoint_status == "InService")
    @rule()
    def an_image_never_gets_ready(self) -> None:
        self.stage.image("bad:1")
        for seconds in (*[1.0] * 10, 2000.0, *[1.0] * 10):
            self.pass_(seconds)

    @property
    def endpoint_config(self) -> dict[str, Any]:
        """The EndpointConfig's spec."""
        spec: dict[str, Any] = self.stage.objects["EndpointConfig", "churn"]["spec"]
        return spec

    @property
    def names(self) -> set[str]:
        """The production variants' names."""
        return {variant["variantName"] for variant in self.endpoint_config["productionVariants"]}

    @property
    def least(self) -> int:
        """Instances: a single one cannot be replaced first."""
        return 2 if (self.stage.endpoint["spec"].get("kubernetes") or {}).get("replaceFirst") else 1

    @rule(weight=st.floats(0.1, 10), count=st.integers(1, 6))
    def variant_is_edited(self, weight: float, count: int) -> None:
        changes = {"initialVariantWeight": weight, "initialInstanceCount": max(self.least, count)}
        self.stage.edit_variant(min(self.names), **changes)

    @rule(names=st.sampled_from(VARIANTS), count=st.integers(1, 4), passes=st.integers(0, 12))
    def variants_change(self, names: tuple[str, ...], count: int, passes: int) -> None:
        """Others are made, go, or have other names."""
        before, after = self.names, set(names)
        if before != after:
            word = "added" if before < after else "removed" if before > after else "renamed"
            SEEN[f"variants {word}{' midway' if self.stage.status.deployment is not None else ''}"] += 1
        made = {**VARIANT, "initialInstanceCount": max(self.least, count)}
        if len(names) > 1:
            self.endpoint_config.pop("shadowProductionVariants", None)  # which is for a single one
        self.stage.edit("EndpointConfig", productionVariants=[{**made, "variantName": name} for name in names])
        self.time_passes(passes, 1.0)

    @precondition(lambda self: len(self.names) == 1)
    @rule(count=st.integers(1, 2), weight=st.floats(0.0, 2.0), goes=st.booleans(), passes=st.integers(0, 12))
    def a_shadow_comes(self, count: int, weight: float, goes: bool, passes: int) -> None:
        if goes:
            self.endpoint_config.pop("shadowProductionVariants", None)
            self.stage.edit("EndpointConfig")
        else:
            shadow = {**VARIANT, "variantName": SHADOW, "initialInstanceCount": count, "initialVariantWeight": weight}
            self.stage.edit("EndpointConfig", shadowProductionVariants=[shadow])
        self.time_passes(passes, 1.0)

    @rule(data=st.data())
    def pods_die(self, data: st.DataObject) -> None:
        if self.stage.cluster.fleets:
            fleet = data.draw(st.sampled_from(sorted(self.stage.cluster.fleets)))
            self.stage.cluster.fleets[fleet].ready = 0
            self.stage.cluster.fleets[fleet].born = self.stage.now
            SEEN["pods died"] += 1

    @rule(data=st.data(), pods=st.integers(0, 2), passes=st.integers(0, 3))
    def pods_crash(self, data: st.DataObject, pods: int, passes: int) -> None:
        """Again and again, beside others that are ready; none: they do no more."""
        if self.stage.cluster.fleets:
            fleet = self.stage.cluster.fleets[data.draw(st.sampled_from(sorted(self.stage.cluster.fleets)))]
            fleet.crashing = min(pods, fleet.replicas - 1)
            self.time_passes(passes, 1.0)

    @rule(data=st.data())
    def a_fleet_is_deleted_by_hand(self, data: st.DataObject) -> None:
        if self.stage.cluster.fleets:
            del self.stage.cluster.fleets[data.draw(st.sampled_from(sorted(self.stage.cluster.fleets)))]
            SEEN["fleet deleted"] += 1

    @rule(data=st.data(), replicas=st.integers(1, 9))
    def a_scaler_scales(self, data: st.DataObject, replicas: int) -> None:
        if self.stage.cluster.fleets:
            fleet = self.stage.cluster.fleets[data.draw(st.sampled_from(sorted(self.stage.cluster.fleets)))]
            fleet.replicas = max(self.least, replicas)
            fleet.ready = min(fleet.ready, fleet.replicas)
            self.stage.peak[fleet.name] = fleet.replicas  # with how many it is whole is the scaler's to say

    @precondition(lambda self: len(self.stage.cluster.routers) == 2)
    @rule(frozen=st.booleans())
    def a_router_freezes(self, frozen: bool) -> None:
        self.stage.cluster.routers[0].frozen = frozen
        SEEN["router froze"] += 1

    @precondition(lambda self: bool(self.stage.cluster.routers))
    @rule()
    def a_router_is_killed(self) -> None:
        self.stage.cluster.routers.pop()
        SEEN["router killed"] += 1

    @rule(data=st.data())
    def a_request_runs_long(self, data: st.DataObject) -> None:
        if self.stage.cluster.routers and self.stage.cluster.fleets:
            fleet = data.draw(st.sampled_from(sorted(self.stage.cluster.fleets)))
            self.stage.cluster.routers[-1].busy = frozenset({fleet})

    @rule()
    def requests_end(self) -> None:
        for router in self.stage.cluster.routers:
            router.busy = frozenset()

    @rule()
    def status_is_lost(self) -> None:
        self.stage.status = EndpointStatus()
        SEEN["status lost"] += 1

    @rule(value=st.integers(0, 99))
    def a_person_says_retry(self, value: int) -> None:
        self.stage.annotate(retry=str(value))

    @rule(data=st.data())
    def a_person_says_rollback(self, data: st.DataObject) -> None:
        if self.stage.revisions:
            self.stage.annotate(rollback=data.draw(st.sampled_from(sorted(self.stage.revisions))))
            SEEN["rollback said"] += 1

    @invariant()
    def ready_tells_the_truth(self) -> None:
        stage = self.stage
        if not stage.decision or stage.condition("Ready")[0] != "True" or stage.condition("Ready")[1] != "InService":
            return
        if stage.condition("Reconciling")[0] == "True":
            return  # Ready is kept as it was: throttled, or a router that has just come
        desired = stage.decision.status.desired_revision
        serving = stage.decision.status.revision
        assert desired is not None
        assert serving is not None
        assert desired.fleet_hash == serving.fleet_hash, "never Ready for a revision that is not in service"

    @invariant()
    def at_most_two_revisions_share_the_traffic(self) -> None:
        route = self.stage.cluster.route
        if route is not None:
            assert len({fleet.revision for fleet in route.spec.fleets if fleet.weight}) <= 2

    def _let_pods_be(self) -> None:
        for fleet in self.stage.cluster.fleets.values():
            fleet.crashing = 0

    def _let_routers_be(self) -> None:
        for router in self.stage.cluster.routers:
            router.frozen, router.slow, router.busy = False, False, frozenset()

    def teardown(self) -> None:
        stage = self.stage
        self._let_pods_be()
        self._let_routers_be()
        self.time_passes(5, 1.0)
        self._let_routers_be()
        for _ in range(40):
            self.pass_(6.0)
            self._let_routers_be()
        for _ in range(6):  # one deployment may follow another: a command was queued, or the spec changed meanwhile
            if stage.status.endpoint_status == "Creating":
                self.pass_(2000.0)
                self.time_passes(3, 1.0)
            if stage.status.deployment is not None:
                self.pass_(5000.0)
                self.time_passes(60, 1.0)
        before = stage.status
        for _ in range(5):
            stage.step(30.0)
            assert not stage.actions, f"steady once nothing disturbs it: {stage.actions}"
        assert stage.status == before
        self._belongs()

    def _belongs(self) -> None:
        """Good images serve, or are latched with a reason; nothing is left over."""
        stage = self.stage
        serving, desired = stage.status.revision, stage.resolution().revision
        assert desired is not None
        if serving is None:
            assert stage.status.endpoint_status == "Failed"
            return
        if stage.condition("Stalled") == ("True", "Drifted") and "stored nowhere" in stage.message("Stalled"):
            return  # somebody took the record of what serves away: a person decides, what stands is left alone
        standing = {fleet.fleet_hash for fleet in stage.cluster.fleets.values()}
        assert standing == {serving.fleet_hash}, "no fleet is left that nothing needs"
        assert stage.cluster.route is not None
        assert fleets_of(stage.cluster.route.spec) == set(stage.cluster.fleets)
        if serving.fleet_hash == desired.fleet_hash:
            shadows = {SHADOW} if "shadowProductionVariants" in self.endpoint_config else set()
            assert {fleet.variant for fleet in stage.cluster.fleets.values()} == self.names | shadows
            assert {variant.variant_name for variant in stage.status.production_variants} == self.names
            broken = any(fleet.ready == 0 for fleet in stage.cluster.fleets.values() if fleet.variant != SHADOW)
            assert stage.condition("Ready")[0] == ("False" if broken else "True"), stage.message()
        else:
            assert stage.status.latch is not None, stage.message()
            broken = any(fleet.ready == 0 for fleet in stage.cluster.fleets.values() if fleet.variant != SHADOW)
            assert stage.condition("Stalled")[0] == "True" or broken, stage.message()
            assert stage.condition("Ready")[0] == "False"


def tell(policy: dict[str, Any] | None, *happens: Callable[[Life], None], first: bool = False) -> None:
    """A life in which this happens, and nothing else."""
    life = Life()
    life.begin(policy, several=False, retained=False, was="served", first=first)
    for happen in happens:
        happen(life)
    life.teardown()


OTHER_VARIANTS: tuple[Callable[[Life], None], ...] = (
    lambda life: life.variants_change(("a", "b"), 3, 50),
    lambda life: life.variants_change(("b", "c"), 3, 50),
    lambda life: life.variants_change(("b",), 3, 50),
    lambda life: life.variants_change(("a",), 3, 8),
    lambda life: life.variants_change(("a", "b"), 3, 50),
    lambda life: life.variants_change(("b", "c"), 3, 8),
    lambda life: life.variants_change(("a",), 3, 40),
    lambda life: life.variants_change(("a", "b"), 3, 8),
    lambda life: life.variants_change(("a",), 3, 50),
)
SHADOWS: tuple[Callable[[Life], None], ...] = (
    lambda life: life.a_shadow_comes(1, 0.5, goes=False, passes=75),
    lambda life: life.image_is_edited(IMAGES[1], 75),
    lambda life: life.image_is_edited(IMAGES[2], 14),
    lambda life: life.image_is_edited(IMAGES[1], 30),
    lambda life: life.a_shadow_comes(1, 0.5, goes=True, passes=75),
    lambda life: life.a_shadow_comes(1, 0.5, goes=False, passes=8),
)


def _requests_run(life: Life) -> None:
    """On the fleet that was made last."""
    life.stage.cluster.routers[-1].busy = frozenset([*life.stage.cluster.fleets][-1:])


def _one_crashes(new: bool) -> Callable[[Life], None]:
    """One pod of the fleet that was made last, or first, for some time; then all is well for some time."""

    def happens(life: Life) -> None:
        [*life.stage.cluster.fleets.values()][-1 if new else 0].crashing = 1
        life.time_passes(9, 1.0)
        life._let_pods_be()
        life.time_passes(4, 1.0)

    return happens


PODS_CRASH: tuple[Callable[[Life], None], ...] = (
    lambda life: life.image_is_edited(IMAGES[1], 12),
    *(_one_crashes(new=True),) * 3,
    lambda life: life.image_is_edited(IMAGES[2], 2),
    *(_one_crashes(new=False),) * 3,
)
REQUESTS_RUN: tuple[Callable[[Life], None], ...] = (
    lambda life: life.image_is_edited(IMAGES[1], 15),
    _requests_run,
    lambda life: life.image_is_edited(IMAGES[0], 20),
)


def test_random_lives_keep_the_invariants_and_come_to_rest() -> None:
    # What random lives meet changes with any constant in the code, so what is rare is told first.
    for policy in POLICIES:
        for image, first in ((IMAGES[1], False), (IMAGES[1], True), (IMAGES[-1], True)):
            tell(policy, lambda life, image=image: life.image_is_edited(image, 40), first=first)
    for happens in (OTHER_VARIANTS, SHADOWS, REQUESTS_RUN, PODS_CRASH):
        tell(blue_green("CANARY", wait=10, final=10), *happens)
        for first in (False, True):
            tell(rolling(50, wait=5, back=50), *happens, first=first)
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=250,
            derandomize=True,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    stages = {"Provisioning", "Shifting", "Baking", "FinalBaking", "CleaningUp", "RollingBack"}
    outcomes = {Outcome.SUCCEEDED, Outcome.ROLLED_BACK, Outcome.SUPERSEDED, Outcome.FAILED}
    words = {"Creating", "InService", "Updating", "OutOfService", "Failed"}
    happened = {"pods died", "fleet deleted", "router froze", "router killed", "status lost", "rollback said"}
    happened |= {"killed between actions", "writing off", "route deleted", "revision lost", "router replaced"}
    happened |= {"deleted", *(f"new pod crashes {stage}" for stage in ("Baking", "FinalBaking"))}
    happened |= {f"old pod crashes {stage}" for stage in ("Provisioning", "Baking", "FinalBaking")}
    happened |= {f"variants {word}{when}" for word in ("added", "removed", "renamed") for when in ("", " midway")}
    happened |= {f"shadow {stage}" for stage in (*stages, "InService")}
    happened |= {f"replaced first {stage}" for stage in ("Provisioning", "Baking")}
    wanted = {f"stage {s}" for s in stages} | {f"outcome {o}" for o in outcomes} | {f"word {w}" for w in words}
    missing = sorted((wanted | happened) - set(SEEN))
    assert not missing, f"each stage, outcome and word occurs, not so {missing}"
