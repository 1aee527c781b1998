"""One pass: status before action, one action set under the Lease, nothing twice, nothing without permission."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube
from tests.controller.objects import endpoint, endpoint_config, model

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.api.status import EndpointStatus
from sluice.controller.cache import Cache, Source
from sluice.controller.events import EventRecorder
from sluice.controller.feed import Feed
from sluice.controller.metrics import Metrics
from sluice.controller.reconcile_declaration import DeclarationReconciler
from sluice.controller.reconcile_endpoint import ACT_WITHIN_SECONDS, EndpointReconciler, EndpointSettings
from sluice.controller.sites import SageMakerSite
from sluice.core.actions import AwsAction, CreateEndpoint
from sluice.core.endpoint.draft import DecideSettings
from sluice.core.identity import Key, Target
from sluice.core.observation import CallProblem, Described, Listed, Observation, Presence, Questions
from sluice.core.permission import Policy
from sluice.core.resolve import ResolveSettings
from sluice.ports.backend import ActFailed
from sluice.ports.kube import Conflict, KubeUnavailable, Object

KEY = Key("Endpoint", "team", "churn")
ALLOWED = {"rules": [{"namespaces": ["team"], "executionRoles": ["*"], "accounts": ["111122223333"]}]}


class TinySageMaker:
    """ports.backend.Backend over one endpoint: what is created is InService at once."""

    def __init__(self, clock: SteppedClock) -> None:
        self.clock = clock
        self.calls: list[str] = []
        self.endpoint: Described | None = None
        self.account = "111122223333"
        self.fail: dict[str, CallProblem] = {}
        self.before_act: Callable[[], None] = lambda: None
        self.during_observe: Callable[[], None] = lambda: None
        self.forgotten: list[Key] = []

    async def account_id(self, target: Target) -> str:
        self.calls.append("account")
        return self.account

    def listed(self, target: Target) -> Listed | None:
        found = self.endpoint
        return None if found is None else Listed(found.name, found.status, found.last_modified)

    async def observe(self, target: Target, status: EndpointStatus, questions: Questions) -> Observation:
        self.calls.append("observe")
        self.during_observe()
        tags = {names.OWNER_TAG: str(target.owner)} if questions.owner else None
        presence = Presence.MISSING
        if self.endpoint is not None:
            presence = Presence.DESCRIBED if questions.describe else Presence.UNCHANGED
        return Observation(
            presence,
            self.clock.now(),
            account_id=self.account,
            endpoint=self.endpoint if presence is Presence.DESCRIBED else None,
            tags=tags,
            scalable_variants=frozenset() if questions.scalable else None,
        )

    async def act(self, target: Target, action: AwsAction) -> None:
        name = type(action).__name__
        self.before_act()
        if name in self.fail:
            raise ActFailed(self.fail[name])
        self.calls.append(name)
        if isinstance(action, CreateEndpoint):
            now = self.clock.now()
            self.endpoint = Described(
                name=target.endpoint_name,
                arn=f"arn:aws:sagemaker:eu-west-1:{self.account}:endpoint/{target.endpoint_name}",
                status="InService",
                endpoint_config_name=action.request["EndpointConfigName"],
                failure_reason=None,
                creation=now,
                last_modified=now,
            )

    def watch(self, key: Key, target: Target, *, moving: bool) -> None:
        pass

    def forget(self, key: Key) -> None:
        self.forgotten.append(key)

    def on_moved(self, wake: Callable[[Key], None]) -> None:
        pass

    @property
    def acts(self) -> list[str]:
        return [call for call in self.calls if call not in {"account", "observe"}]


class Lease:
    """A Fence that a test opens and closes."""

    def __init__(self) -> None:
        self.is_held = True
        self.when_asked: Callable[[], None] = lambda: None

    def held(self) -> bool:
        self.when_asked()
        return self.is_held


class World:
    """An Endpoint, all it needs, and the reconciler."""

    def __init__(self, policy: dict[str, Any]) -> None:
        self.clock = SteppedClock(datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
        self.kube = MemoryKube()
        self.aws = TinySageMaker(self.clock)
        self.lease = Lease()
        self.cache = Cache()
        self.feed = Feed(self.cache, self.kube)
        self.woken: list[Key] = []
        self.events = EventRecorder(self.kube)
        self.metrics = Metrics(CollectorRegistry(), "test")
        self.policy = Policy.parse(policy)
        self.reconciler = EndpointReconciler(
            self.kube,
            self.cache,
            self.feed,
            {"SageMaker": SageMakerSite(self.aws, self.cache, self.clock)},
            self.lease,
            self.clock,
            self.events,
            self.metrics,
            lambda: self.policy,
            EndpointSettings(ResolveSettings("prod", "eu-west-1"), DecideSettings()),
        )
        self.feed.connect(self.woken.append, self.reconciler.forget)
        for item in (model(), endpoint_config(), endpoint(creationTimestamp="2026-01-01T00:00:00Z")):
            self.feed.seen(self.kube.put(item), Source.WATCH)
        self.woken.clear()

    @property
    def object(self) -> Object:
        """The Endpoint as stored."""
        return self.kube.objects["Endpoint", "team", "churn"]

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.object.get("status") or {}
        return status

    def condition(self, type_: str) -> tuple[str, str]:
        found = next(c for c in self.status["conditions"] if c["type"] == type_)
        return found["status"], found["reason"]

    async def run(self, passes: int = 1) -> float | None:
        """So many passes; returns when the last wants the next."""
        again = None
        for _ in range(passes):
            again = await self.reconciler.reconcile(KEY)
        return again

    async def run_until_ready(self) -> None:
        for _ in range(12):
            again = await self.run()
            if self.status.get("conditions") and self.condition("Ready")[0] == "True" and again != 0:
                return
            await self.clock.step(again or 0)
        raise AssertionError(f"not Ready: {self.status} after {self.aws.calls}")

    def outcomes(self) -> dict[str, float]:
        return {
            sample.labels["outcome"]: sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "sluice_passes_total"
        }


@pytest.fixture
def world() -> World:
    return World(ALLOWED)


async def test_an_endpoint_is_created_once_and_is_then_left_alone(world: World) -> None:
    await world.run_until_ready()
    assert world.aws.acts == ["EnsureModel", "EnsureEndpointConfig", "CreateEndpoint"]
    assert names.FINALIZER in world.object["metadata"]["finalizers"]
    assert names.EXTERNAL in world.object["metadata"]["annotations"]
    await world.run(4)
    before = world.kube.writes(), world.aws.acts
    await world.run(5)
    assert (world.kube.writes(), world.aws.acts) == before, "steady: no writes"
    assert world.outcomes()["unchanged"] >= 5


async def test_the_pin_and_the_status_are_written_before_the_first_call(world: World) -> None:
    seen: list[tuple[str, bool]] = []

    def look() -> None:
        annotations = world.object["metadata"].get("annotations") or {}
        intent = (world.status.get("intent") or {}).get("operation", "")
        seen.append((intent, names.EXTERNAL in annotations))

    world.aws.before_act = look
    await world.run_until_ready()
    assert seen
    assert set(seen) == {("CreateEndpoint", True)}


async def test_events_come_after_the_status_and_once(world: World) -> None:
    await world.run_until_ready()
    await world.run(3)
    await world.events.flush()
    reasons = [reason for _, reason, _ in world.kube.events]
    assert reasons.count("Ready") == 1


@pytest.mark.parametrize(
    "rules",
    [[], [{"namespaces": ["other"]}], [{"namespaces": ["team"], "regions": ["us-*"]}]],
)
async def test_what_the_policy_does_not_permit_makes_no_call_at_all(rules: list[dict[str, Any]]) -> None:
    world = World({"rules": rules})
    await world.run(3)
    assert world.aws.calls == []
    assert world.condition("Stalled") == ("True", "NotPermitted")


async def test_an_account_that_is_not_permitted_is_asked_for_its_number_only() -> None:
    world = World({"rules": [{"namespaces": ["team"], "accounts": ["999999999999"]}]})
    await world.run(2)
    assert set(world.aws.calls) == {"account"}


async def test_without_the_lease_nothing_is_done(world: World) -> None:
    world.lease.is_held = False
    again = await world.run(5)
    assert again
    assert world.aws.acts == []
    assert names.FINALIZER not in world.object["metadata"].get("finalizers", [])
    world.lease.is_held = True
    await world.run_until_ready()
    assert world.aws.acts == ["EnsureModel", "EnsureEndpointConfig", "CreateEndpoint"]


async def test_the_lease_lost_in_the_middle_of_an_action_set_stops_it(world: World) -> None:
    def lose() -> None:
        world.lease.is_held = False

    world.aws.before_act = lose
    await world.run(6)
    assert world.aws.acts == ["EnsureModel"]


async def test_a_process_that_was_paused_after_the_persist_does_not_act(world: World) -> None:
    await world.run(1)  # the pin

    def pause() -> None:
        world.lease.when_asked = lambda: None
        world.clock.skip(ACT_WITHIN_SECONDS + 0.1)

    world.lease.when_asked = pause
    assert await world.run(1) == 0
    assert world.aws.acts == []
    await world.run_until_ready()
    assert world.aws.acts.count("CreateEndpoint") == 1


async def test_calls_that_take_long_do_not_void_the_ones_after_them(world: World) -> None:
    await world.run(1)
    world.aws.before_act = lambda: world.clock.skip(ACT_WITHIN_SECONDS + 0.1)
    await world.run(1)
    assert world.aws.acts == ["EnsureModel", "EnsureEndpointConfig", "CreateEndpoint"]


async def test_a_status_that_somebody_changed_meanwhile_voids_the_pass(world: World) -> None:
    def edit() -> None:
        item = world.kube.objects["Endpoint", "team", "churn"]
        item["metadata"]["annotations"] = {**(item["metadata"].get("annotations") or {}), "x": "y"}
        world.kube.put(item)

    await world.run(1)
    world.kube.before["replace_status"] = [edit]
    again = await world.run(1)
    assert again == 0.2
    assert world.aws.acts == []
    await world.run_until_ready()
    assert world.aws.acts.count("CreateEndpoint") == 1


async def test_a_failed_action_stops_the_set_and_is_told_to_the_next_pass(world: World) -> None:
    quota = CallProblem("CreateEndpoint", Reason.QUOTA_EXCEEDED, "no more instances", transient=True)
    world.aws.fail["CreateEndpoint"] = quota
    for _ in range(4):
        await world.run()
    assert world.status["problem"]["reason"] == "QuotaExceeded"
    assert "CreateEndpoint" not in world.aws.acts
    world.aws.fail.clear()
    for _ in range(30):
        if world.aws.endpoint is not None:
            break
        await world.clock.step(await world.run() or 60)
    await world.run_until_ready()
    assert world.aws.acts.count("CreateEndpoint") == 1


async def test_an_unreachable_api_server_ends_the_pass_with_an_error_for_the_queue(world: World) -> None:
    world.kube.away = True
    with pytest.raises(KubeUnavailable):
        await world.run(1)
    assert world.outcomes()["failed"] == 1
    assert world.aws.acts == []


async def test_a_lost_status_is_recovered_without_any_write_to_aws(world: World) -> None:
    await world.run_until_ready()
    acts = list(world.aws.acts)
    item = world.object
    item.pop("status")
    world.feed.seen(world.kube.put(item), Source.WATCH)
    assert KEY in world.woken
    for _ in range(6):
        await world.clock.step(await world.run() or 0)
    assert world.condition("Ready")[0] == "True"
    assert [act for act in world.aws.acts[len(acts) :] if not act.startswith("SyncTags")] == []


async def test_a_status_that_is_none_counts_as_lost(world: World) -> None:
    item = world.object
    item["status"] = {"conditions": "broken"}
    world.feed.seen(world.kube.put(item), Source.WATCH)
    await world.run_until_ready()


async def test_a_status_of_a_newer_operator_is_left_alone(world: World) -> None:
    item = world.object
    item["status"] = {"formatVersion": 99}
    world.feed.seen(world.kube.put(item), Source.WATCH)
    assert await world.run(3) is None
    assert world.kube.writes() == []
    assert world.aws.calls == []


async def test_a_backend_that_is_not_there_calls_nothing(world: World) -> None:
    item = world.object
    item["spec"]["backend"] = "Cluster"
    item["metadata"]["generation"] = 2
    world.feed.seen(world.kube.put(item), Source.WATCH)
    await world.run(2)
    assert world.aws.calls == []
    assert world.condition("Stalled") == ("True", "BackendNotAvailable")


async def test_references_older_than_the_status_has_seen_are_read_anew(world: World) -> None:
    await world.run_until_ready()
    newer = {**model(), "metadata": {**model()["metadata"], "generation": 3}}
    newer["spec"] = {"primaryContainer": {"image": "registry.example/churn:3"}}
    world.feed.seen(world.kube.put(newer), Source.WATCH)
    await world.run(1)
    assert {ref["generation"] for ref in world.status["observedReferences"] if ref["kind"] == "Model"} == {3}
    old = {**model(), "metadata": {**model()["metadata"], "resourceVersion": "1"}}
    world.cache._entries["Model"]["team", "model"].object = old
    world.cache._entries["Model"]["team", "model"].version = 1
    before = len(world.kube.calls)
    await world.run(1)
    assert ("get", "Model", "model") in world.kube.calls[before:]
    assert {ref["generation"] for ref in world.status["observedReferences"] if ref["kind"] == "Model"} == {3}


async def test_deleting_an_endpoint_takes_the_finalizer_away_last_and_forgets_it(world: World) -> None:
    await world.run_until_ready()
    item = world.object
    item["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z"
    world.feed.seen(world.kube.put(item), Source.WATCH)
    for _ in range(12):
        if ("Endpoint", "team", "churn") not in world.kube.objects:
            break
        if "DeleteEndpoint" in world.aws.acts:
            world.aws.endpoint = None
        await world.clock.step(await world.run() or 0)
    assert ("Endpoint", "team", "churn") not in world.kube.objects
    assert world.cache.get("Endpoint", "team", "churn") is None
    assert world.aws.forgotten
    assert [kind for kind, _, _ in world.kube.objects if kind == "ControllerRevision"] == []
    assert await world.run(1) is None
    assert world.outcomes()["gone"] == 1


def _declarations(world: World) -> DeclarationReconciler:
    return DeclarationReconciler(world.kube, world.cache, world.feed, world.clock, world.metrics, patience_seconds=5.0)


async def test_declarations_say_where_they_are_in_service_and_are_written_once(world: World) -> None:
    declarations = _declarations(world)
    key = Key("Model", "team", "model")

    async def rolled_out() -> str:
        await declarations.reconcile(key)
        status = world.kube.objects["Model", "team", "model"]["status"]
        return next(c["reason"] for c in status["conditions"] if c["type"] == "RolledOut")

    assert await rolled_out() == "WaitingForEndpoints"
    await world.run_until_ready()
    assert key in world.woken, "the Endpoint's status concerns its declarations"
    assert await rolled_out() == "RolledOut"
    before = len(world.kube.writes())
    await rolled_out()
    assert len(world.kube.writes()) == before


async def test_a_declaration_says_that_it_waits_when_it_has_waited_for_a_while(world: World) -> None:
    """An edit that is in force within seconds takes one write of each status, not two."""
    declarations, key = _declarations(world), Key("Model", "team", "model")

    def rolled_out() -> str:
        status = world.kube.objects["Model", "team", "model"]["status"]
        return next(c["status"] for c in status["conditions"] if c["type"] == "RolledOut")

    async def edited(generation: int, image: str) -> None:
        item = {**model(), "metadata": {**model()["metadata"], "generation": generation}}
        item["spec"] = {"primaryContainer": {"image": image}}
        item["status"] = world.kube.objects["Model", "team", "model"].get("status")
        world.feed.seen(world.kube.put(item), Source.WATCH)

    await world.run_until_ready()
    await declarations.reconcile(key)
    before = len(world.kube.writes())
    await edited(2, "registry.example/churn:2")
    assert await declarations.reconcile(key) == 5.0
    await world.clock.step(3)
    assert await declarations.reconcile(key) == 2.0
    assert (len(world.kube.writes()), rolled_out()) == (before, "True"), "its observedGeneration is still the old one"
    await world.clock.step(2)
    assert await declarations.reconcile(key) is None
    assert (len(world.kube.writes()), rolled_out()) == (before + 1, "False")
    assert await declarations.reconcile(key) is None
    assert len(world.kube.writes()) == before + 1


async def test_a_declaration_that_changed_meanwhile_is_looked_at_again(world: World) -> None:
    declarations = _declarations(world)
    world.kube.before["replace_status"] = [lambda: world.kube.put(world.kube.objects["Model", "team", "model"])]
    key = Key("Model", "team", "model")
    assert await declarations.reconcile(key) == 0.2
    assert await declarations.reconcile(key) is None
    assert world.kube.objects["Model", "team", "model"]["status"]


async def test_a_deployment_is_not_started_from_references_that_changed_meanwhile(world: World) -> None:
    """The Model is reverted while the pass looks at SageMaker, and the watch is late."""
    await world.run_until_ready()
    await world.run(2)

    def edit(image: str, generation: int) -> Object:
        item = {**model(), "metadata": {**model()["metadata"], "generation": generation}}
        item["spec"] = {"primaryContainer": {"image": image}}
        return world.kube.put(item)

    world.feed.seen(edit("registry.example/churn:2", 2), Source.WATCH)
    again = await world.run()
    await world.clock.step(again or 0)
    world.aws.during_observe = lambda: None if world.status["settle"] is None else _once(world, edit)
    for _ in range(4):
        await world.clock.step(await world.run() or 0)
    assert "UpdateEndpoint" not in world.aws.acts
    assert world.condition("Ready")[0] == "True"
    assert world.outcomes()["dropped"] >= 1


def _once(world: World, edit: Callable[[str, int], Object]) -> None:
    world.aws.during_observe = lambda: None
    edit("registry.example/churn:1", 3)


async def test_without_such_a_change_the_deployment_starts(world: World) -> None:
    await world.run_until_ready()
    await world.run(2)
    item = {**model(), "metadata": {**model()["metadata"], "generation": 2}}
    item["spec"] = {"primaryContainer": {"image": "registry.example/churn:2"}}
    world.feed.seen(world.kube.put(item), Source.WATCH)
    for _ in range(6):
        await world.clock.step(await world.run() or 0)
    assert world.aws.acts.count("UpdateEndpoint") == 1


async def test_an_action_that_no_status_write_precedes_is_decided_from_the_newest_state(world: World) -> None:
    """A person stops the operator (break-glass) and the watch is late."""
    world.lease.is_held = False
    await world.run(2)
    item = world.object
    item["metadata"]["annotations"] = {names.RECONCILE: names.RECONCILE_DISABLED}
    world.kube.put(item)
    world.lease.is_held = True
    before = len(world.kube.writes())
    assert await world.run(1) == 0
    assert [verb for verb, _, _ in world.kube.writes()[before:]] == []
    await world.run(3)
    assert world.condition("Stalled") == ("True", "ReconcileDisabled")
    assert names.FINALIZER not in world.object["metadata"].get("finalizers", [])


async def test_what_is_not_as_it_was_observed_voids_the_pass(world: World) -> None:
    """A site that finds something else than what the decision was made from: no problem of anybody's, look again."""

    def moved() -> None:
        world.aws.before_act = lambda: None
        raise Conflict("it changed")

    world.aws.before_act = moved
    for _ in range(12):
        again = await world.run()
        if world.outcomes().get("dropped"):
            break
        await world.clock.step(again or 0)
    assert world.outcomes()["dropped"] == 1
    assert again is not None
    assert again < 1
    assert "problem" not in world.status
    await world.run_until_ready()
