"""A stage for decisions about Endpoints in the cluster: the fleets, the routes and the routers are values that follow
the decision's actions, a second at a time. What must never happen is checked at every pass."""

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.core.cluster_invariants import (
    Watcher,
    must_be_let_go,
    must_not_be_the_last,
    must_not_serve_less,
    must_stand,
    share_is_the_steps,
)
from tests.core.cluster_seen import fleet_seen, report_of, router_seen
from tests.core.cluster_state import STOP_SECONDS, AlarmNow, Cluster, Fleet, Router
from tests.core.stage import EPOCH, _object, model

from sluice.api import names
from sluice.api.routes import RouterReportSpec
from sluice.api.status import EndpointStatus
from sluice.core.actions import Action, DropRevision, MarkRevision, PatchEndpoint, StoreRevision
from sluice.core.cluster import alarms
from sluice.core.cluster.actions import (
    DeleteFleet,
    DeleteRoute,
    EnsureFleet,
    EnsureRouter,
    EvictRouter,
    RecordFleet,
    RemoveRouter,
    RetainRoute,
    ScaleFleet,
    WriteRoute,
)
from sluice.core.cluster.observation import ClusterObservation, RouterDeployment, RouteSeen
from sluice.core.cluster.peers import Peer
from sluice.core.decision import Decision
from sluice.core.endpoint.decide import decide
from sluice.core.endpoint.draft import DecideSettings, Pass
from sluice.core.observation import AlarmReading, AlarmWatch, CallProblem, Observation, Presence
from sluice.core.resolve import Resolution, ResolveSettings, resolve
from sluice.core.revision import StoredRevision, controller_revision, stored_revision


def variants(*made: dict[str, Any]) -> dict[str, Any]:
    """An EndpointConfig with these variants."""
    defaults = {"modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 2}
    return _object("EndpointConfig", "churn", {"productionVariants": [{**defaults, **one} for one in made]})


def blue_green(type_: str = "ALL_AT_ONCE", *, wait: int = 60, final: int = 60, **size: Any) -> dict[str, Any]:
    """A DeploymentConfig."""
    routing: dict[str, Any] = {"type": type_, "waitIntervalInSeconds": wait}
    if type_ == "CANARY":
        routing["canarySize"] = {"type": "CAPACITY_PERCENT", "value": 25, **size}
    if type_ == "LINEAR":
        routing["linearStepSize"] = {"type": "CAPACITY_PERCENT", "value": 25, **size}
    return {"blueGreenUpdatePolicy": {"trafficRoutingConfiguration": routing, "terminationWaitInSeconds": final}}


def rolling(batch: int = 50, *, wait: int = 30, back: int | None = None, **size: Any) -> dict[str, Any]:
    """A DeploymentConfig with a rolling policy; sizes in percent."""
    policy: dict[str, Any] = {
        "maximumBatchSize": {"type": "CAPACITY_PERCENT", "value": batch, **size},
        "waitIntervalInSeconds": wait,
    }
    if back is not None:
        policy["rollbackMaximumBatchSize"] = {"type": "CAPACITY_PERCENT", "value": back}
    return {"rollingUpdatePolicy": policy}


class ClusterStage:
    """One Endpoint in the cluster, its referents, and the pass."""

    def __init__(self, *made: dict[str, Any], model_spec: dict[str, Any] | None = None, **spec: Any) -> None:
        self.now = EPOCH
        self.objects = {
            ("Model", "churn"): model(**(model_spec or {})),
            ("EndpointConfig", "churn"): variants(*(made or ({"variantName": "a"},))),
        }
        self.endpoint = _object("Endpoint", "churn", {"backend": "Cluster", "endpointConfigName": "churn", **spec})
        self.endpoint["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        self.status = EndpointStatus()
        self.revisions: dict[str, dict[str, Any]] = {}
        self.cluster = Cluster()
        self.actions: list[Action] = []
        self.decision: Decision | None = None
        self.settings = DecideSettings()
        self.peers: tuple[Peer, ...] = ()
        """What the other Endpoints are about."""
        self.gone = False
        self.namespace_terminating = False
        self.retained = False
        self.router_outdated: str | None = None
        """Not None: the router is not current; what holds its replacement up."""
        self.seen_percents: list[float] = []
        self.stages: list[str] = []
        self.peak: dict[str, int] = {}
        """The most replicas that a fleet had since it was made."""
        self.most_pods = 0
        self.capped: dict[str, int] = {}
        """Fleet -> the most pods that find room."""
        self.room: int | None = None
        """The most pods that find room in all."""
        self.alarms: dict[str, AlarmNow] = {}
        """What there is of alarms, by name; a name that is not here is Missing."""
        self.provider_is_away = False
        self.watched: AlarmWatch | None = None
        self.readings: dict[tuple[str, str], AlarmReading] = {}
        self.watcher = Watcher()
        self._resolved: tuple[str, Resolution] | None = None

    # The world -------------------------------------------------------------------------------------------------

    def edit(self, kind: str, **spec: Any) -> None:
        target = self.endpoint if kind == "Endpoint" else self.objects[kind, "churn"]
        target["spec"].update(spec)
        target["metadata"]["generation"] += 1

    def edit_variant(self, name: str, **changes: Any) -> None:
        config = self.objects["EndpointConfig", "churn"]
        for variant in config["spec"]["productionVariants"]:
            if variant["variantName"] == name:
                variant.update(changes)
        config["metadata"]["generation"] += 1

    def image(self, image: str) -> None:
        self.edit("Model", primaryContainer={"image": image})

    def annotate(self, **annotations: str) -> None:
        held = self.endpoint["metadata"].setdefault("annotations", {})
        held.update({f"{names.GROUP}/{key.replace('_', '-')}": value for key, value in annotations.items()})

    def delete(self) -> None:
        self.endpoint["metadata"]["deletionTimestamp"] = "2026-01-02T00:00:00Z"

    def make_again(self) -> None:
        """The Endpoint is gone; one of the same name is made."""
        metadata = self.endpoint["metadata"]
        for field_ in ("deletionTimestamp", "finalizers", "annotations"):
            metadata.pop(field_, None)
        self.gone, self.namespace_terminating, self.status = False, False, EndpointStatus()

    def resolution(self) -> Resolution:
        content = repr((self.endpoint, self.objects))
        if self._resolved is None or self._resolved[0] != content:  # most passes follow no edit
            found = resolve(
                self.endpoint, lambda kind, name: self.objects.get((kind, name)), ResolveSettings("test", None)
            )
            self._resolved = content, found
        return self._resolved[1]

    def stored(self) -> tuple[StoredRevision, ...]:
        return tuple(stored_revision(revision) for revision in self.revisions.values())

    def tick(self, seconds: float) -> None:
        """Time passes: pods start, stopped fleets go, routers apply the routes."""
        self.now += timedelta(seconds=seconds)
        if seconds < 0:
            self._clock_went_back(timedelta(seconds=seconds))
        for name, fleet in list(self.cluster.fleets.items()):
            if fleet.gone_at is not None:
                if self.now >= fleet.gone_at:
                    del self.cluster.fleets[name]
                    self.peak.pop(name, None)
                continue
            if fleet.stopped_at is not None and self.now >= fleet.stopped_at:
                fleet.stopping, fleet.stopped_at = 0, None
            broken = fleet.image.startswith("bad") or fleet.image in self.cluster.troubles
            if not broken and self.now >= fleet.born + timedelta(seconds=self.cluster.start_seconds):
                most = min(fleet.sound, self.capped.get(name, fleet.sound))
                fleet.ready = min(most, fleet.ready + self.free()) if most > fleet.ready else most
            elif broken:
                fleet.ready = 0
            fleet.ready = min(fleet.ready, fleet.sound)
        self.cluster.routers = [r for r in self.cluster.routers if not (r.terminating and not r.frozen)]
        for router in self.cluster.routers:
            if not router.frozen and not router.slow and self.cluster.route is not None:
                route = self.cluster.route
                router.applied = (route.uid, route.generation, route.spec)
        while self.cluster.router_exists and len([r for r in self.cluster.routers if not r.terminating]) < 2:
            self.cluster.version += 1
            self.cluster.routers.append(Router(f"router-{self.cluster.version}", f"u{self.cluster.version}", self.now))

    def _clock_went_back(self, by: timedelta) -> None:
        """The clock, not the world: what is under way takes no longer."""
        for fleet in self.cluster.fleets.values():
            fleet.born += by
            fleet.gone_at = fleet.gone_at + by if fleet.gone_at is not None else None
            fleet.stopped_at = fleet.stopped_at + by if fleet.stopped_at is not None else None
        for router in self.cluster.routers:
            router.born += by
            router.stops_by = router.stops_by + by if router.stops_by is not None else None

    def free(self) -> int:
        """So many pods more find room."""
        taken = sum(fleet.ready + fleet.crashing + fleet.stopping for fleet in self.cluster.fleets.values())
        return 1000 if self.room is None else max(0, self.room - taken)

    def observe(self) -> ClusterObservation:
        return ClusterObservation(
            fleets=tuple(fleet_seen(self.cluster, fleet, self.now) for fleet in self.cluster.fleets.values()),
            route=self.cluster.route,
            routers=tuple(router_seen(router, self._report(router)) for router in self.cluster.routers),
            router=RouterDeployment(
                self.cluster.router_exists,
                self.cluster.router_exists,
                self.router_outdated is None,
                2,
                2,
                self.router_outdated or "",
            ),
            neighbours=self.cluster.neighbours,
            namespace_terminating=self.namespace_terminating,
        )

    def _report(self, router: Router) -> RouterReportSpec | None:
        return report_of(self.cluster, router)

    # The pass --------------------------------------------------------------------------------------------------

    def step(
        self,
        seconds: float = 1.0,
        *,
        rivals: tuple[dict[str, Any], ...] = (),
        killed_after: int | None = None,
        problem: CallProblem | None = None,
        refusing: str = "",
    ) -> Decision:
        """Time passes, then one pass: decide, keep the status, carry out the actions (`killed_after`: so many).
        `problem`: what an action of the last pass failed with."""
        self.tick(seconds)
        self.watcher.before(self, seconds)
        given = Pass(
            endpoint=self.endpoint,
            status=self.status,
            resolution=self.resolution(),
            observation=Observation(
                presence=Presence.DESCRIBED, at=self.now, act_problem=problem, alarms=self._read_alarms()
            ),
            now=self.now,
            stored=self.stored(),
            rivals=rivals,
            settings=self.settings,
            cluster=self.observe(),
            peers=self.peers,
        )
        decision = decide(given)
        self.status = EndpointStatus.model_validate(decision.status.model_dump(mode="json", by_alias=True))
        assert self.status == decision.status
        self.actions, self.decision = list(decision.actions), decision
        self.watcher.after(self, given)
        self._note()
        for action in self.actions[:killed_after]:
            if isinstance(action, EnsureFleet) and action.name == refusing:
                break  # the first action that fails ends the pass
            self.do(action)
        for name, fleet in self.cluster.fleets.items():
            self.peak[name] = max(self.peak.get(name, 0), fleet.replicas)
        self.most_pods = max(self.most_pods, sum(f.replicas for f in self.cluster.fleets.values() if not f.gone_at))
        return decision

    def _read_alarms(self) -> tuple[AlarmReading, ...]:
        """The poller: what is watched is read in every pass, and forgotten when it is not watched any more."""
        resolution = self.resolution()
        self.watched = alarms.watch(self.endpoint, self.status, resolution)
        asked = {(q.source, q.name) for q in self.watched.alarms} if self.watched is not None else set()
        self.readings = {key: reading for key, reading in self.readings.items() if key in asked}
        for source, name in sorted(asked):
            there, before = self.alarms.get(name), self.readings.get((source, name))
            state = "Missing" if there is None else there.state
            state = "Unreadable" if self.provider_is_away else state
            if there is not None and there.stuck and before is not None:
                continue
            fired = self.now if state == "ALARM" or (there is not None and there.flapped) else None
            fired = fired or (before.alarmed_at if before is not None else None)
            if there is not None:
                there.flapped = False
            self.readings[source, name] = AlarmReading(
                name, state, self.now, there.message if there is not None else None, source, None, fired
            )
        return tuple(self.readings.values())

    def run(self, seconds: int) -> None:
        """Passes, a second apart."""
        for _ in range(seconds):
            if not self.gone:
                self.step()

    def until(self, reason: str, *, type_: str = "Ready", most: int = 2000) -> None:
        """Passes until a condition has this reason."""
        for _ in range(most):
            self.step()
            if self.condition(type_)[1] == reason:
                return
        raise AssertionError(f"{type_} is {self.condition(type_)}, never {reason}: {self.message()}")

    def in_service(self) -> None:
        self.until("InService")

    def condition(self, type_: str) -> tuple[str, str]:
        found = next((c for c in self.status.conditions if c.type == type_), None)
        return (found.status, found.reason) if found else ("", "")

    def message(self, type_: str = "Ready") -> str:
        return next((c.message for c in self.status.conditions if c.type == type_), "")

    def percent_new(self) -> float:
        """Percent of the requests that go to fleets of the revision asked for, by the routes as they stand; 0 where the
        spec names what is not there."""
        desired = self.resolution().revision
        if desired is None or self.cluster.route is None:
            return 0.0
        mine = {f.name for f in self.cluster.fleets.values() if f.fleet_hash == desired.fleet_hash}
        return sum(f.weight for f in self.cluster.route.spec.fleets if f.name in mine) / 10_000

    def _note(self) -> None:
        stage = self.status.deployment.stage if self.status.deployment else ""
        if stage and (not self.stages or self.stages[-1] != stage):
            self.stages.append(stage)

    def _evict(self, action: EvictRouter) -> None:
        cluster = self.cluster
        leaves = next((router for router in cluster.routers if router.uid == action.uid), None)
        if leaves is None or not cluster.stop_seconds:
            cluster.routers = [router for router in cluster.routers if router.uid != action.uid]
            return
        cluster.evicted[leaves.pod] = [router.pod for router in cluster.routers if router.terminating]
        leaves.terminating, leaves.stops_by = True, self.now + timedelta(seconds=cluster.stop_seconds)
        cluster.routers.append(Router(f"instead-of-{leaves.pod}", f"i-{leaves.uid}", self.now))

    def do(self, action: Action) -> None:
        """Carry an action out."""
        cluster = self.cluster
        match action:
            case EnsureFleet():
                if action.name not in cluster.fleets:
                    variant = next(v for v in action.endpoint_config["productionVariants"] + list(
                        action.endpoint_config.get("shadowProductionVariants") or ()
                    ) if v["variantName"] == action.variant)  # fmt: skip
                    image = action.models[variant["modelName"]]["primaryContainer"]["image"]
                    cluster.version += 1
                    cluster.fleets[action.name] = Fleet(
                        action.name, action.variant, action.fleet_hash, action.replicas, self.now, image,
                        f"uid-{cluster.version}",
                    )  # fmt: skip
                cluster.fleets[action.name].reachable = True
            case ScaleFleet():
                if action.name in cluster.fleets:
                    must_not_serve_less(self, action)
                    self.scale(cluster.fleets[action.name], action.replicas)
            case RecordFleet():
                cluster.fleets[action.name].record = cluster.fleets[action.name].record or action.record
            case DeleteFleet():
                must_be_let_go(self, action.name)
                if action.name in cluster.fleets:
                    cluster.fleets[action.name].gone_at = self.now + timedelta(seconds=3)
            case WriteRoute():
                must_stand(self, action.spec)
                share_is_the_steps(self, {fleet.name: fleet.weight for fleet in action.spec.fleets})
                version = cluster.route.resource_version if cluster.route else None
                assert action.resource_version == version, "a route is written over the one that was seen"
                cluster.version += 1
                # What changes in the metadata alone makes no generation.
                generation = cluster.route.generation + (cluster.route.spec != action.spec) if cluster.route else 1
                uid = cluster.route.uid if cluster.route else f"route-{cluster.version}"
                cluster.route = RouteSeen(uid, generation, str(cluster.version), action.spec)
                self.seen_percents.append(self.percent_new())
            case RetainRoute():
                self.retained = True
                cluster.route = replace(cluster.route, retained=True) if cluster.route else None
            case DeleteRoute():
                assert cluster.route is None or not cluster.route.spec.fleets or not cluster.fleets
                cluster.route = None
            case EnsureRouter():
                cluster.router_exists = True
            case RemoveRouter():
                assert cluster.neighbours == 0
                cluster.router_exists, cluster.routers = False, []
            case EvictRouter():
                must_not_be_the_last(self, action)
                self._evict(action)
            case PatchEndpoint():
                if action.add_finalizer:
                    self.endpoint["metadata"]["finalizers"] = [names.FINALIZER]
                if action.remove_finalizer:
                    self.gone = True
            case StoreRevision():
                # A copy, as an API server would keep it: edits of the objects do not reach what is stored.
                data = deepcopy(action.data)
                made = controller_revision(self.endpoint, action.name, data, action.number)
                self.revisions.setdefault(action.name, made)
            case MarkRevision():
                meta = self.revisions[action.name]["metadata"].setdefault("annotations", {})
                meta |= {"sluice.dev/outcome": action.outcome, "sluice.dev/outcome-message": action.message}
            case DropRevision():
                self.revisions.pop(action.name, None)
            case _:
                raise AssertionError(f"no AWS call belongs here: {action}")

    def scale(self, fleet: Fleet, replicas: int) -> None:
        """Whoever does it: new pods take their time to start, and those that go to stop; those that crash go first."""
        fleet.crashing = max(0, fleet.crashing - max(0, fleet.replicas - replicas))
        if replicas > fleet.replicas:
            fleet.born = self.now
        elif fleet.ready > replicas:
            fleet.stopping += fleet.ready - replicas
            fleet.stopped_at = self.now + timedelta(seconds=STOP_SECONDS)
            fleet.ready = replicas
        fleet.replicas = replicas


__all__ = ["AlarmNow", "ClusterStage", "Fleet", "Router", "blue_green", "replace", "rolling", "variants"]
