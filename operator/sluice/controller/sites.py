"""The two sites where Endpoints become real, as a pass needs them: look, act, and keep or forget what is watched there.

What a site is asked, and what may not be asked of it without permission, is known here; what follows from the answers
is decided in core."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Protocol

from sluice.api import names
from sluice.api.reasons import ConditionType
from sluice.api.status import EndpointStatus
from sluice.controller.cache import Cache
from sluice.controller.cluster_metrics import ClusterMetrics
from sluice.controller.router_holds import RouterHolds
from sluice.controller.slots import Slots
from sluice.controller.wakes import Wakes
from sluice.core.actions import Action, AwsAction, DropRevision, MarkRevision
from sluice.core.cluster import alarms, haste, rights, routers
from sluice.core.cluster.actions import ClusterAction, ScaleFleet, WriteRoute
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.cluster.rights import AlarmPlace, Permitted
from sluice.core.cluster.routing import Limits
from sluice.core.endpoint.decide import ask
from sluice.core.endpoint.draft import MOVING, Pass
from sluice.core.endpoint.questions import questions
from sluice.core.identity import Key, Place, Target
from sluice.core.observation import AlarmReading, CallProblem, Observation, Presence
from sluice.ports.backend import ActFailed, AlarmPlaces, Backend, ClusterAlarms, ClusterBackend
from sluice.ports.clock import Clock
from sluice.ports.kube import Conflict, Object

TOLD: Final = (WriteRoute, ScaleFleet, MarkRevision, DropRevision)
"""Routers report what they apply, Deployments and pods are watched, and of the books nothing more is to come."""


class Site(Protocol):
    """Where Endpoints of one backend become real."""

    async def look(self, key: Key, given: Pass, problem: CallProblem | None) -> Pass:
        """The pass with what was seen. `problem`: what the last action failed with."""
        ...

    async def act(self, given: Pass, action: Action) -> None:
        """Make one change. Raises ActFailed, NotHeld, and Conflict where something is not as it was observed."""
        ...

    def claim(self, key: Key, status: EndpointStatus) -> None:
        """The pass has decided this status; nothing was awaited since `look`. Others that decide before it is written
        must know."""
        ...

    def settled(self, key: Key, *, written: bool) -> None:
        """The cache has what became of the claim: the status was written, or was not."""
        ...

    def will_tell(self, actions: Iterable[Action]) -> bool:
        """Whether what becomes of these actions is told by a watch, or is known: nobody needs to look at once."""
        ...

    def decided(self, key: Key, given: Pass, status: EndpointStatus) -> None:
        """The Endpoint has this status now."""
        ...

    def forget(self, key: Key) -> None:
        """The Endpoint is gone."""
        ...


class SageMakerSite:
    """SageMaker. No call to AWS is made for what the policy does not permit."""

    def __init__(self, backend: Backend, cache: Cache, clock: Clock) -> None:
        self._backend = backend
        self._cache = cache
        self._clock = clock

    async def look(self, key: Key, given: Pass, problem: CallProblem | None) -> Pass:
        """See Site."""
        target = given.resolution.target
        if target is None:
            return given
        permitted, account_id = await self._is_permitted(given, target)
        given = replace(given, observation=replace(given.observation, account_id=account_id))
        if not permitted:
            self._backend.forget(key)  # it may have been before, and is listed as long as it is watched
            return given
        status = given.status
        self._backend.watch(key, target, moving=status.endpoint_status in MOVING)
        asked = questions(
            given.endpoint, status, given.resolution, self._backend.listed(target), problem, self._clock.now()
        )
        observation = await self._backend.observe(target, status, asked)
        return replace(given, observation=observation, rivals=self._rivals(key, target, observation.account_id))

    async def act(self, given: Pass, action: Action) -> None:
        """See Site."""
        target = given.resolution.target
        assert target is not None, "core decided a call without a place to make it in"  # noqa: S101
        assert isinstance(action, AwsAction), f"{action} is none of SageMaker's"  # noqa: S101
        account_id, observed = await self._backend.account_id(target), given.observation.account_id
        if account_id != observed:
            raise Conflict(f"the credentials are of account {account_id}, and were of {observed} when this was decided")
        await self._backend.act(target, action)

    def claim(self, key: Key, status: EndpointStatus) -> None:
        """See Site: nothing to do."""

    def settled(self, key: Key, *, written: bool) -> None:
        """See Site: nothing to do."""

    def will_tell(self, actions: Iterable[Action]) -> bool:
        """See Site."""
        return False

    def decided(self, key: Key, given: Pass, status: EndpointStatus) -> None:
        """See Site. A watch lists endpoints: only where it may."""
        account_id, target = given.observation.account_id, given.resolution.target
        if target is None or account_id is None:
            return
        if given.policy.judge(ask(given, account_id=account_id)) is None:
            self._backend.watch(key, target, moving=status.endpoint_status in MOVING)

    def forget(self, key: Key) -> None:
        """See Site."""
        self._backend.forget(key)

    async def _is_permitted(self, given: Pass, target: Target) -> tuple[bool, str | None]:
        """Judged by what the spec says, then again with the account that its credentials belong to: with that account,
        because the decision must name it where it is what is refused."""
        if given.policy.judge(ask(given, account_id=None)) is not None:
            return False, None
        try:
            account_id = await self._backend.account_id(target)
        except ActFailed:
            return True, None  # The account cannot be asked for; observing tells why.
        return given.policy.judge(ask(given, account_id=account_id)) is None, account_id

    def _rivals(self, key: Key, target: Target, account_id: str | None) -> tuple[Object, ...]:
        if account_id is None:
            return ()
        return self._cache.claimants(Place(account_id, target.credentials.region, target.endpoint_name), key)


class ClusterSite:
    """The cluster's own nodes. There is no account and nothing to sweep: the watches wake the Endpoint, and the poller
    of its alarms does. Without `readers` none can be read, and deployments that name some are refused."""

    def __init__(
        self,
        backend: ClusterBackend,
        cache: Cache,
        clock: Clock,
        wakes: Wakes,
        slots: Slots,
        metrics: ClusterMetrics,
        readers: ClusterAlarms | None = None,
        places: AlarmPlaces | None = None,
    ) -> None:
        self._backend = backend
        self._cache = cache
        self._clock = clock
        self._wakes = wakes
        self._alarms = readers
        self._places = places
        self._slots = slots
        self._metrics = metrics
        self._holds = RouterHolds(clock)
        self._shifting = shifting(cache)
        metrics.watch_holds(self._holds.holders)
        self._sights: dict[Key, tuple[datetime, ClusterObservation]] = {}
        """What the last pass saw, where that may be needed and nothing was done since; it serves once."""

    async def look(self, key: Key, given: Pass, problem: CallProblem | None) -> Pass:
        """See Site."""
        permitted = self._watch(key, given, given.status)
        known = self._sights.pop(key, None)
        if known is not None and problem is None:
            at, seen = known
            observation = Observation(Presence.DESCRIBED, at, alarms=self._readings(key, permitted))
            hasty = replace(given, cluster=seen, observation=observation, now=self._clock.now(), remembered=True)
            if haste.is_due(hasty):
                return hasty
        sight = await self._backend.observe(given.endpoint, given.resolution, given.stored)
        if sight.seen is not None:
            self._metrics.saw(key, sight.seen)
            if haste.is_worth_remembering(given.status):
                self._sights[key] = (self._clock.now(), sight.seen)
        presence = Presence.UNKNOWN if sight.seen is None else Presence.DESCRIBED
        return replace(
            given,
            cluster=sight.seen,
            observation=Observation(
                presence, self._clock.now(), problem=sight.problem, alarms=self._readings(key, permitted)
            ),
            rivals=self._rivals(key, given),
            peers=self._slots.peers(key),  # last: nothing is awaited from here to the decision
        )

    async def act(self, given: Pass, action: Action) -> None:
        """See Site."""
        assert isinstance(action, ClusterAction), f"{type(action).__name__} is none of the cluster's"  # noqa: S101
        assert given.cluster is not None, "core decided a change in a cluster that was not seen"  # noqa: S101
        owner = given.resolution.owner
        key = Key(names.ENDPOINT, owner.namespace, owner.name)
        self._sights.pop(key, None)
        if isinstance(action, WriteRoute):
            self._wakes.writes_route(key, action.spec.to_manifest())
        await self._backend.act(owner, action, given.cluster)
        if isinstance(action, WriteRoute):
            self._metrics.route_written(key)

    def claim(self, key: Key, status: EndpointStatus) -> None:
        """See Site."""
        self._slots.claim(key, status)

    def settled(self, key: Key, *, written: bool) -> None:
        """See Site."""
        self._slots.settled(key, written=written)

    def will_tell(self, actions: Iterable[Action]) -> bool:
        """See Site."""
        return all(isinstance(action, TOLD) for action in actions)

    def decided(self, key: Key, given: Pass, status: EndpointStatus) -> None:
        """See Site. A deployment that has just begun is watched with its new fleets."""
        self._watch(key, given, status)
        self._slots.moved(given.status, status)
        self._metrics.decided(key, status)
        if given.cluster is not None:
            self._holds.saw(key, self._holder(key, given.cluster, status))

    def forget(self, key: Key) -> None:
        """See Site."""
        self._wakes.forget(key)
        self._sights.pop(key, None)
        self._slots.forget(key)
        self._metrics.forget(key)
        self._holds.forget(key)
        if self._alarms is not None:
            self._alarms.watch(key, None)

    def _holder(self, key: Key, seen: ClusterObservation, status: EndpointStatus) -> str:
        """The Endpoint of the namespace whose traffic keeps its router from being brought up to date; "": none."""
        if not seen.router.exists or seen.router.current or not routers.ready(seen):
            return ""
        if routers.held_by_traffic(seen, status):
            return key.name
        held = seen.router.held and not seen.router.held_by
        return self._shifting(key.namespace, key.name) if held else ""

    def _watch(self, key: Key, given: Pass, status: EndpointStatus) -> Permitted:
        """Have the alarms read that this status asks for, as far as the policy permits it."""
        watch = alarms.watch(given.endpoint, status, given.resolution)
        place = self._places.now() if self._places is not None else AlarmPlace()
        permitted = rights.permitted(watch, given.policy, place, self._clock.now())
        if permitted.needs_account and self._places is not None:
            self._places.ask()
        if self._alarms is not None:
            self._alarms.watch(key, permitted.watch)
        return permitted

    def _readings(self, key: Key, permitted: Permitted) -> tuple[AlarmReading, ...]:
        """The newest reading of each alarm that is watched, and the refusal of each that may not be."""
        watch, refused = permitted.watch, permitted.refused
        if watch is None:
            return refused
        if self._alarms is not None:
            return (*self._alarms.readings(key), *refused)
        now = self._clock.now()
        unread = (
            AlarmReading(
                alarm.name, "Unfit", now, "this operator runs without anything that reads alarms", alarm.source
            )
            for alarm in watch.alarms
        )
        return (*unread, *refused)

    def _rivals(self, key: Key, given: Pass) -> tuple[Object, ...]:
        """Other Endpoints of the namespace that ask for the same name, in whatever case."""
        mine = _invoked_as(given.endpoint)
        return tuple(
            other
            for other in self._cache.in_cluster(key.namespace)
            if other["metadata"]["name"] != key.name and _invoked_as(other) == mine
        )


def neighbours(cache: Cache) -> Callable[[str, str], int]:
    """(namespace, Endpoint) -> how many other Cluster Endpoints the namespace has, those being deleted among them."""
    return lambda namespace, name: sum(other["metadata"]["name"] != name for other in cache.in_cluster(namespace))


def shifting(cache: Cache) -> Callable[[str, str], str]:
    """(namespace, Endpoint) -> another Cluster Endpoint of the namespace whose traffic is being moved, or "". One that
    answers nobody moves none: where no router is ready, it may be waiting for what brings the routers up to date."""

    def moves(status: Mapping[str, Any]) -> bool:
        said = {one.get("type"): one.get("status") for one in status.get("conditions") or ()}
        operation = (status.get("intent") or {}).get("operation")
        return said.get(ConditionType.SERVING) != "False" and routers.moves_traffic(status.get("deployment"), operation)

    return lambda namespace, name: next(
        (
            str(other["metadata"]["name"])
            for other in cache.in_cluster(namespace)
            if other["metadata"]["name"] != name and moves(other.get("status") or {})
        ),
        "",
    )


def longest_invocation_seconds(cache: Cache, limits: Limits) -> Callable[[str], int]:
    """Namespace -> the longest that an invocation of one of its Cluster Endpoints may take. `limits`: of those that say
    nothing of their own."""
    return lambda namespace: max(
        (limits.of(endpoint["spec"]).timeout_seconds for endpoint in cache.in_cluster(namespace)),
        default=limits.timeout_seconds,
    )


def _invoked_as(endpoint: Mapping[str, Any]) -> str:
    return str(endpoint["spec"].get("endpointName") or endpoint["metadata"]["name"]).lower()
