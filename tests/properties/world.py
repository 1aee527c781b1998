"""The operator's own passes over a real API server and the SageMaker simulator, on one stepped clock.

Nothing of the operator is replaced: its cache, reconciler, adapters and boto3 run in this process, one pass at a time,
so that between any two passes a test can look, edit, break, kill or step time."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry
from tests.operator.harness.kube import Kube

from sagemaker_simulator.testing import Simulator
from sluice.api import names
from sluice.api.status import EndpointStatus
from sluice.controller.cache import Cache, Source
from sluice.controller.events import EventRecorder
from sluice.controller.feed import Feed
from sluice.controller.metrics import Metrics
from sluice.controller.reconcile_endpoint import EndpointReconciler, EndpointSettings
from sluice.controller.sites import SageMakerSite
from sluice.core.endpoint.draft import DecideSettings
from sluice.core.identity import Key, Target
from sluice.core.observation import AlarmReading
from sluice.core.permission import Policy, Rule
from sluice.core.resolve import ResolveSettings
from sluice.kube.client import KubeClient
from sluice.kube.configuration import load_configuration
from sluice.ports.clock import SystemClock
from sluice.ports.kube import KubeUnavailable, Object
from sluice.ports.telemetry import NoTelemetry
from sluice.sagemaker.backend import SageMakerBackend
from sluice.sagemaker.clients import AwsCalls, AwsSettings

REGION = "us-east-1"
INSTALLATION = "property"
MUTATING = ("Create", "Update", "Delete")
_namespaces = itertools.count(1)


class SimulatedClock:
    """The simulator's time as the operator's."""

    def __init__(self, simulator: Simulator) -> None:
        self._clock = simulator.core.clock

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now(), UTC)

    def monotonic(self) -> float:
        return float(self._clock.now())


class Alarms:
    """CloudWatch's alarms as the test sets them; the simulator is told the same."""

    def __init__(self, simulator: Simulator, clock: SimulatedClock) -> None:
        self._simulator = simulator
        self._clock = clock
        self.states: dict[str, str] = {}

    def set(self, name: str, state: str) -> None:
        self.states[name] = state
        self._simulator.set_alarm(name, state)

    async def read(self, target: Target, wanted: tuple[str, ...], not_before: datetime) -> tuple[AlarmReading, ...]:
        now = self._clock.now()
        return tuple(AlarmReading(name, self.states.get(name, "Missing"), now) for name in wanted)


@dataclass
class Fuse:
    """The Lease that a pass holds, and the kill that takes it away after so many actions."""

    left: int | None = None

    def held(self) -> bool:
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


@dataclass
class World:
    """One Endpoint `churn` in a namespace of its own, its referents, and the operator."""

    simulator: Simulator
    kube: KubeClient
    clock: SimulatedClock
    alarms: Alarms
    namespace: str
    key: Key
    seen: Counter[str] = field(default_factory=Counter)
    fuse: Fuse = field(default_factory=Fuse)

    @classmethod
    async def make(cls, simulator: Simulator, people: Kube, kubeconfig: str) -> "World":
        """An empty world; its simulator is reset."""
        await asyncio.to_thread(simulator.reset)
        simulator.settings(weight_seconds=8.0)  # long enough for a look every five seconds to meet RollingBack
        configuration = await load_configuration({"KUBECONFIG": str(kubeconfig)})
        kube = KubeClient(configuration, identity="test")
        clock = SimulatedClock(simulator)
        namespace = f"property-{next(_namespaces)}"
        people.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        world = cls(simulator, kube, clock, Alarms(simulator, clock), namespace, Key("Endpoint", namespace, "churn"))
        world.restart()
        return world

    def restart(self) -> None:
        """A new process: nothing of the old one's memory is left."""
        self._edited = True
        self.fuse = Fuse()
        self._cache = Cache()
        self._feed = Feed(self._cache, self.kube)
        settings = AwsSettings(calls_per_second=10_000.0, read_attempts=1, credentials_retry_seconds=0.0)
        self._aws = AwsCalls(settings, NoTelemetry(), SystemClock())
        backend = SageMakerBackend(self._aws, self.alarms, self.clock)
        policy = Policy((Rule(namespaces=("*",), execution_roles=("*",), adopt=True),))
        self._reconciler = EndpointReconciler(
            self.kube,
            self._cache,
            self._feed,
            {names.BACKEND_SAGEMAKER: SageMakerSite(backend, self._cache, self.clock)},
            self.fuse,
            self.clock,
            EventRecorder(self.kube),
            Metrics(CollectorRegistry(), "test"),
            lambda: policy,
            EndpointSettings(ResolveSettings(INSTALLATION, REGION), DecideSettings(fallback_seconds=5.0)),
        )

    async def close(self) -> None:
        await self.kube.close()
        self._aws.close()

    # People -------------------------------------------------------------------------------------------------------

    _edited = True

    async def apply(self, kind: str, name: str, spec: Mapping[str, Any], annotations: Mapping[str, str] = {}) -> None:
        """Create or replace an object's spec and add annotations."""
        self._edited = True
        live = await self.kube.get(kind, self.namespace, name)
        if live is None:
            body: Object = {
                "apiVersion": names.API_VERSION,
                "kind": kind,
                "metadata": {"name": name, "namespace": self.namespace, "annotations": dict(annotations)},
                "spec": dict(spec),
            }
            await self.kube.create(kind, self.namespace, body)
            return
        live["spec"] = dict(spec)
        live["metadata"].setdefault("annotations", {}).update(annotations)
        await self.kube.replace(kind, self.namespace, live)

    async def annotate(self, **annotations: str) -> None:
        """Set sluice.dev/... annotations on the Endpoint (`_` is `-`)."""
        self._edited = True
        live = await self.endpoint()
        if live is None:
            return
        made = {f"{names.GROUP}/{key.replace('_', '-')}": value for key, value in annotations.items()}
        await self.kube.patch_metadata("Endpoint", self.namespace, "churn", resource_version=None, annotations=made)

    async def lose_status(self) -> None:
        """The status is gone, as after a restore from Git; the operator starts anew."""
        live = await self.endpoint()
        if live is not None:
            await self.kube.replace_status("Endpoint", self.namespace, {**live, "status": {}})
        self.restart()

    async def delete(self) -> None:
        """kubectl delete."""
        self._edited = True
        if await self.endpoint() is not None:
            await self.kube.delete("Endpoint", self.namespace, "churn")

    async def endpoint(self) -> Object | None:
        return await self.kube.get("Endpoint", self.namespace, "churn")

    def known(self) -> Object:
        """The Endpoint as the operator knows it; empty if there is none."""
        return self._cache.get("Endpoint", self.namespace, "churn") or {}

    def status(self) -> EndpointStatus:
        """Its status."""
        return EndpointStatus.from_manifest(self.known().get("status") or {})

    # The operator -------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """What the watch would have delivered by now."""
        for kind, name in (("Model", "churn"), ("EndpointConfig", "churn"), ("Endpoint", "churn")):
            await self._feed.read(Key(kind, self.namespace, name))
        async for stored in self.kube.list("ControllerRevision", self.namespace):
            self._feed.seen({**stored, "kind": "ControllerRevision"}, Source.LIST)

    async def one_pass(self) -> float:
        """One pass; seconds until the next (60 where only an event would wake it)."""
        if self._edited:
            self._edited = False
            await self.watch()
        try:
            again = await self._reconciler.reconcile(self.key)
        except KubeUnavailable:
            again = 1.0
        return 60.0 if again is None else again

    async def advance(self, seconds: float) -> None:
        await asyncio.to_thread(self.simulator.advance, seconds)

    def living(self) -> dict[str, Any] | None:
        """The simulator's endpoint as it is, whoever asks (read in this process: it is asked after every pass)."""
        for region in self.simulator.core.world.regions.values():
            for found in region.endpoints.values():
                if found.name == "churn":
                    weights = {name: variant.desired_weight for name, variant in found.variants.items()}
                    used = [found.config, *([found.leftover_config] if found.leftover_config else [])]
                    models = {one["ModelName"] for config in used for one in config.fields["ProductionVariants"]}
                    return {
                        "status": found.status,
                        "endpointConfigName": found.config.name,
                        "weights": weights,
                        "serving": {config.name for config in used} | models,
                    }
        return None

    def mutations(self) -> list[dict[str, Any]]:
        """Calls that changed something, oldest first; an answer that was lost changed it all the same."""
        log = self.simulator.core.requests.as_dict()["requests"]
        return [entry for entry in log if entry["operation"].startswith(MUTATING) and entry["code"] in {"OK", "Lost"}]
