"""The world of one Endpoint's passes: an API server in memory, a tiny SageMaker, a Lease, and the reconciler."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry
from tests.controller.clock import SteppedClock
from tests.controller.memory_kube import MemoryKube
from tests.controller.objects import endpoint, endpoint_config, model

from sluice.api import names
from sluice.api.status import EndpointStatus
from sluice.controller.cache import Cache, Source
from sluice.controller.events import EventRecorder
from sluice.controller.feed import Feed
from sluice.controller.metrics import Metrics
from sluice.controller.reconcile_endpoint import EndpointReconciler, EndpointSettings
from sluice.controller.sites import SageMakerSite
from sluice.core.actions import AwsAction, CreateEndpoint
from sluice.core.endpoint.draft import DecideSettings
from sluice.core.identity import Key, Target
from sluice.core.observation import CallProblem, Described, Listed, Observation, Presence, Questions
from sluice.core.permission import Policy
from sluice.core.resolve import ResolveSettings
from sluice.ports.backend import ActFailed
from sluice.ports.kube import Object

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
