"""One pass over an Endpoint: resolve, observe, decide, persist, act. What to do is decided in core; here it is only
done, in this order, so that a pass that is killed anywhere can be repeated:

The status is written before the action that it announces, under the resourceVersion it was decided from. An action
starts only under a held Lease and at most five seconds after the status was persisted (or after the action before it
was answered): a process that was paused in between finds the pass void."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pydantic import ValidationError

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.api.status import FORMAT_VERSION, EndpointStatus
from sluice.controller.books import Books, Entry
from sluice.controller.cache import CONTROLLER_REVISION, Cache, Source
from sluice.controller.context import about
from sluice.controller.events import EventRecorder
from sluice.controller.feed import Feed
from sluice.controller.metrics import Metrics
from sluice.controller.queue import Unfinished
from sluice.controller.sites import Site
from sluice.core.actions import (
    Action,
    DeleteEndpointConfig,
    DeleteModel,
    DropRevision,
    MarkRevision,
    PatchEndpoint,
    StoreRevision,
    acted_name,
)
from sluice.core.decision import Decision
from sluice.core.endpoint.decide import decide
from sluice.core.endpoint.draft import DecideSettings, Pass
from sluice.core.identity import Key
from sluice.core.observation import CallProblem, Observation, Presence
from sluice.core.permission import Policy
from sluice.core.resolve import Resolution, ResolveSettings, resolve
from sluice.core.revision import controller_revision
from sluice.ports.backend import ActFailed
from sluice.ports.clock import Clock
from sluice.ports.kube import Conflict, Gone, Kube, NotHeld, Object
from sluice.ports.refusals import REFUSALS, refused

logger = logging.getLogger(__name__)

ACT_WITHIN_SECONDS = 5.0
AFTER_CONFLICT_SECONDS = 0.2
AFTER_FAILURE_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
"""Between passes whose actions succeed and change nothing that is seen, doubled from the first to the longest."""


TIDYING = DeleteEndpointConfig | DeleteModel | DropRevision | MarkRevision


class Fence(Protocol):
    """Whether this process may act now."""

    def held(self) -> bool:
        """The Lease is held."""
        ...


class _DroppedError(Exception):
    """The pass is void; it is repeated after so many seconds."""

    def __init__(self, why: str, again_seconds: float) -> None:
        super().__init__(why)
        self.again_seconds = again_seconds


class _NotAsObservedError(_DroppedError):
    """A site refused an action because something is not as it was observed. It may be so for long."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """What the pass before did: kept in memory only, because a lost one shows itself again."""

    problem: CallProblem | None = None
    acted: tuple[str, ...] = ()
    basis: tuple[object, ...] = ()
    """What was acted, and from what: the status that stood already, and what was seen."""
    repeated: int = 0
    """How many passes before did the same from the same."""

    @property
    def pause_seconds(self) -> float:
        """Until it is done once more: at once the first time."""
        if not self.repeated:
            return 0.0
        return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self.repeated - 1, 20))


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """What the installation says about every pass."""

    resolve: ResolveSettings
    decide: DecideSettings


class EndpointReconciler:
    """Runs passes; the queue sees to it that there is one at a time for each key."""

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        feed: Feed,
        sites: Mapping[str, Site],
        fence: Fence,
        clock: Clock,
        events: EventRecorder,
        metrics: Metrics,
        policy: Callable[[], Policy],
        settings: EndpointSettings,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._feed = feed
        self._sites = sites
        self._fence = fence
        self._clock = clock
        self._events = events
        self._books = Books(kube, cache, feed, clock, events)
        self._metrics = metrics
        self._policy = policy
        self._settings = settings
        self._memories: dict[Key, _Memory] = {}
        self._doubtful: set[Key] = set()
        """Endpoints whose last status may have been written or not: read anew before anything is decided."""
        self._unsaid: dict[Key, tuple[Pass, Decision]] = {}
        """What was decided and may have been written all the same, though no answer says so: told once it is seen to
        stand. The pass that sees it has nothing left to say."""

    async def reconcile(self, key: Key) -> float | None:
        """One pass. Returns the seconds until the next is due; raises what the queue backs off for."""
        started, outcome = self._clock.monotonic(), "failed"
        with about(object=str(key)):
            try:
                outcome, again = await self._pass(key)
            except _DroppedError as dropped:
                logger.info("pass dropped: %s", dropped)
                outcome, again = "dropped", Unfinished(dropped.again_seconds)
            finally:
                self._metrics.pass_ended(key.kind, outcome, self._clock.monotonic() - started)
        if self._cache.get(key.kind, key.namespace, key.name) is None:
            self.forget(key)  # again: it went while its pass ran, which took up what was forgotten then
        return again

    def forget(self, key: Key) -> None:
        """The Endpoint is gone."""
        self._memories.pop(key, None)
        self._doubtful.discard(key)
        self._unsaid.pop(key, None)
        self._books.forget(key)
        self._metrics.hide_endpoint(key)
        for site in self._sites.values():
            site.forget(key)

    async def _pass(self, key: Key) -> tuple[str, float | None]:
        if key in self._doubtful:
            await self._feed.read(key)
            self._doubtful.discard(key)
            for site in self._sites.values():
                site.settled(key, written=False)
        endpoint = self._cache.get(key.kind, key.namespace, key.name)
        if endpoint is None:
            self.forget(key)
            return "gone", None
        status = self._status(key)
        if status.format_version > FORMAT_VERSION:
            logger.error("left alone: its status has format %d, newer than this operator's", status.format_version)
            return "refused", None
        unsaid = self._unsaid.pop(key, None)
        if unsaid is not None and unsaid[0].status != unsaid[1].status == status:
            self._announce(key, *unsaid, endpoint)
        resolution = await self._resolve(key, endpoint, status)
        name = resolution.revision.name if resolution.revision else ""
        with about(revision=name):
            given = await self._observe(key, endpoint, status, resolution)
            decision = decide(given)
            persisted = await self._write(key, given, decision)
            before = self._memories.pop(key, _Memory())
            self._announce(key, given, decision, persisted)
            if not decision.actions:
                changed = "persisted" if decision.status != status else "unchanged"
                again = self._seconds_until(decision)
                if again is not None and decision.status.problem is not None:
                    again = Unfinished(again)
                return changed, again
            if decision.status == status:
                await self._still_the_same(key, persisted)
            return "acted", await self._act(key, given, decision, persisted, before)

    # Resolve and observe --------------------------------------------------------------------------------------------

    def _status(self, key: Key) -> EndpointStatus:
        try:
            return self._cache.status(key)
        except ValidationError as error:
            # Somebody wrote a status by hand that is none. It is treated as lost: recovered from what is observed.
            logger.warning("its status cannot be read and counts as lost: %s", error)
            return EndpointStatus()

    async def _resolve(self, key: Key, endpoint: Object, status: EndpointStatus) -> Resolution:
        """The resolution; references that are older than the status has seen are read anew first."""
        resolution = resolve(endpoint, self._cache.finder(key.namespace), self._settings.resolve)
        seen = {(ref.kind, ref.name, ref.uid): ref.generation for ref in status.observed_references}
        stale = [ref for ref in resolution.references if ref.generation < seen.get((ref.kind, ref.name, ref.uid), 0)]
        if not stale:
            return resolution
        for ref in stale:
            await self._feed.read(Key(ref.kind, key.namespace, ref.name))
        return resolve(endpoint, self._cache.finder(key.namespace), self._settings.resolve)

    async def _observe(self, key: Key, endpoint: Object, status: EndpointStatus, resolution: Resolution) -> Pass:
        """Everything the decision is made from."""
        memory = self._memories.get(key, _Memory())
        given = Pass(
            endpoint=endpoint,
            status=status,
            resolution=resolution,
            observation=Observation(Presence.UNKNOWN, self._clock.now()),
            now=self._clock.now(),
            stored=self._cache.stored(key.namespace, key.name),
            policy=self._policy(),
            settings=self._settings.decide,
        )
        site = self._sites.get(endpoint["spec"]["backend"])
        if site is not None:
            given = await site.look(key, given, memory.problem)
        else:
            given = replace(given, observation=replace(given.observation, problem=_no_site(endpoint)))
        observation = replace(given.observation, act_problem=memory.problem, acted=memory.acted)
        return replace(given, observation=observation, now=self._clock.now())

    async def _confirm(self, key: Key, given: Pass) -> None:
        """The decision supersedes or reverts something: ask the API server itself whether the references say so."""
        await asyncio.gather(
            *(self._feed.read(Key(kind, key.namespace, name)) for kind, name in given.resolution.referenced)
        )
        live = resolve(given.endpoint, self._cache.finder(key.namespace), self._settings.resolve)
        if _meaning(live) != _meaning(given.resolution):
            raise _DroppedError("its references changed meanwhile", 0.0)

    # Persist --------------------------------------------------------------------------------------------------------

    async def _write(self, key: Key, given: Pass, decision: Decision) -> Object:
        """Persist the decided status. Until it is known to stand or not to stand, others count with it."""
        site = self._sites.get(given.endpoint["spec"]["backend"])
        if site is not None:
            site.claim(key, decision.status)
        written = False
        try:
            if decision.confirm_references:
                await self._confirm(key, given)
            persisted = await self._persist(key, given, decision)
            written = True
        except _DroppedError:
            self._unsaid[key] = (given, decision)  # a request that was sent once more conflicts with itself
            raise
        except Exception:
            self._unsaid[key] = (given, decision)
            self._doubtful.add(key)  # the API server may have written it all the same
            raise
        finally:
            if site is not None and key not in self._doubtful:
                site.settled(key, written=written)
        return persisted

    async def _persist(self, key: Key, given: Pass, decision: Decision) -> Object:
        """The Endpoint with the decided status in it, as the API server has it."""
        if decision.status == given.status:
            return dict(given.endpoint)
        status = decision.status.to_manifest()
        self._cache.writing(key, status)
        try:
            persisted = await self._kube.replace_status(key.kind, key.namespace, {**given.endpoint, "status": status})
        except Conflict:
            await self._feed.read(key)
            raise _DroppedError("it changed meanwhile", AFTER_CONFLICT_SECONDS) from None
        except Gone:
            self._feed.gone(dict(given.endpoint), Source.LIST)
            raise _DroppedError("it is gone", 0.0) from None
        except NotHeld as fenced:
            raise _DroppedError(str(fenced), AFTER_FAILURE_SECONDS) from None
        finally:
            self._cache.written(key)
        self._feed.seen(persisted, Source.OWN)
        return persisted

    def _announce(self, key: Key, given: Pass, decision: Decision, persisted: Object) -> None:
        """Events and metrics, after the fact."""
        if decision.status != given.status:
            self._metrics.status_persisted(given.status, decision.status, self._clock.now())
            self._events.note(persisted, decision.events)
            for note in decision.events:
                logger.info("%s: %s", note.reason, note.message)
        self._metrics.show_endpoint(key, given.endpoint["spec"]["backend"], decision.status)
        site = self._sites.get(given.endpoint["spec"]["backend"])
        if site is not None:
            site.decided(key, given, decision.status)

    async def _still_the_same(self, key: Key, endpoint: Object) -> None:
        """Nothing was written before this action: make sure that it is decided from the newest state."""
        live = await self._kube.get(key.kind, key.namespace, key.name)
        if live is None:
            self._feed.gone(endpoint, Source.LIST)
            raise _DroppedError("it is gone", 0.0)
        if live["metadata"]["resourceVersion"] != endpoint["metadata"]["resourceVersion"]:
            self._feed.seen(live, Source.LIST)
            raise _DroppedError("it changed meanwhile", 0.0)

    # Act ------------------------------------------------------------------------------------------------------------

    async def _act(self, key: Key, given: Pass, decision: Decision, endpoint: Object, before: _Memory) -> float | None:
        """Run the actions in order, up to the first failure. Returns the seconds until the next pass. `before`: what
        the pass before did. What is done again although nothing has come of it is done ever more seldom."""
        basis = _basis(given, decision)
        memory = _Memory(basis=basis, repeated=before.repeated + 1 if before.basis == basis else 0)
        acted: list[str] = []
        done: list[str] = []
        waits: list[float] = []
        current = endpoint
        last = self._clock.monotonic()
        try:
            for action in decision.actions:
                if not self._fence.held():
                    raise _DroppedError(f"the lease is not held; {_words(action)} was not done", AFTER_FAILURE_SECONDS)
                if self._clock.monotonic() - last > ACT_WITHIN_SECONDS:
                    raise _DroppedError(f"this process was held up; {_words(action)} was not done", 0.0)
                try:
                    if isinstance(action, Entry) and not current["metadata"].get("deletionTimestamp"):
                        refused_for = await self._books.try_to(action, current)
                    else:
                        refused_for, current = None, await self._do(given, action, current)
                except NotHeld as fenced:
                    raise _DroppedError(str(fenced), AFTER_FAILURE_SECONDS) from None
                last = self._clock.monotonic()
                if refused_for is not None:
                    waits.append(refused_for)
                    continue
                acted.append(acted_name(action))
                done.append(_words(action))
        except ActFailed as failure:
            logger.warning("failed: %s", failure)
            self._memories[key] = _Memory(failure.problem, tuple(acted))
            return Unfinished(AFTER_FAILURE_SECONDS)
        except _NotAsObservedError as dropped:
            self._memories[key] = replace(memory, acted=tuple(acted))
            dropped.again_seconds = max(dropped.again_seconds, memory.pause_seconds)
            raise
        except _DroppedError:
            self._memories[key] = _Memory(acted=tuple(acted))
            raise
        finally:
            if done:
                logger.info("done: %s", ", ".join(done))
        memory = self._memories[key] = replace(memory, acted=tuple(acted))
        site = self._sites.get(endpoint["spec"]["backend"])
        told = site is not None and site.will_tell(decision.actions)
        again = self._seconds_until(decision) if told else self._pause(memory, decision, min(waits, default=0.0))
        return min((again, *waits) if again is not None else waits, default=None)

    def _pause(self, memory: _Memory, decision: Decision, refused_seconds: float) -> float:
        """Until the pass after actions of which nobody tells what became; a bake that ends meanwhile is not put off.
        refused_seconds: until an entry in the books that is refused is tried again. What is deleted before a revision
        may be dropped need not be deleted once more until then."""
        pause = memory.pause_seconds
        if memory.repeated and all(isinstance(action, TIDYING) for action in decision.actions):
            due = self._seconds_until(decision)
            pause = max(pause, refused_seconds if due is None else min(refused_seconds, due))
        deployment = decision.status.deployment
        bakes_until = deployment.bake_until if deployment is not None else None
        left = (bakes_until - self._clock.now()).total_seconds() if bakes_until is not None else 0.0
        return min(pause, left) if left > 0 else pause

    async def _do(self, given: Pass, action: Action, endpoint: Object) -> Object:
        """One action. Returns the Endpoint as it is after it."""
        match action:
            case PatchEndpoint():
                return await self._patch_endpoint(action, endpoint)
            case StoreRevision():
                try:
                    await self._store_revision(action, endpoint)
                except REFUSALS as refusal:  # told, and no attempt at the call that was to follow
                    raise ActFailed(refused("StoreRevision", refusal)) from refusal
            case MarkRevision() | DropRevision():
                try:
                    await self._books.enter(action, endpoint)
                except REFUSALS as refusal:  # told, and the finalizer stays until it is done
                    raise ActFailed(refused(type(action).__name__, refusal)) from refusal
            case _:
                try:
                    await self._sites[endpoint["spec"]["backend"]].act(given, action)
                except Conflict as conflict:
                    raise _NotAsObservedError(f"not as it was observed: {conflict}", AFTER_CONFLICT_SECONDS) from None
        return endpoint

    async def _patch_endpoint(self, action: PatchEndpoint, endpoint: Object) -> Object:
        metadata = endpoint["metadata"]
        finalizers: list[str] | None = list(metadata.get("finalizers") or ())
        if action.add_finalizer and names.FINALIZER not in (finalizers or ()):
            finalizers = [*(finalizers or ()), names.FINALIZER]
        elif action.remove_finalizer:
            finalizers = [finalizer for finalizer in finalizers or () if finalizer != names.FINALIZER]
        else:
            finalizers = None
        try:
            patched = await self._kube.patch_metadata(
                endpoint["kind"],
                metadata["namespace"],
                metadata["name"],
                resource_version=metadata["resourceVersion"],
                finalizers=finalizers,
                annotations=action.annotations,
            )
        except Conflict:
            await self._feed.read(Key(endpoint["kind"], metadata["namespace"], metadata["name"]))
            raise _DroppedError("it changed meanwhile", AFTER_CONFLICT_SECONDS) from None
        except Gone:
            self._feed.gone(endpoint, Source.OWN)
            raise _DroppedError("it is gone", 0.0) from None
        self._feed.seen(patched, Source.OWN)
        return patched

    async def _store_revision(self, action: StoreRevision, endpoint: Object) -> None:
        namespace = endpoint["metadata"]["namespace"]
        body = controller_revision(endpoint, action.name, action.data, action.number)
        try:
            stored = await self._kube.create(CONTROLLER_REVISION, namespace, body)
        except Conflict:
            # There already: the same content, because the name holds its hash.
            await self._feed.read(Key(CONTROLLER_REVISION, namespace, action.name))
            name = endpoint["metadata"]["name"]
            if not any(stored.name == action.name for stored in self._cache.stored(namespace, name)):
                text = (
                    f"ControllerRevision {action.name} exists and is no kept revision of this Endpoint (somebody "
                    "changed its labels, annotations or data): delete it, and it is made anew"
                )
                problem = CallProblem(
                    "StoreRevision", Reason.REJECTED_BY_KUBERNETES, text, transient=False, retry_after_seconds=30.0
                )
                raise ActFailed(problem) from None
            return
        self._feed.seen(stored, Source.OWN)

    def _seconds_until(self, decision: Decision) -> float | None:
        if decision.look_again is None:
            return None
        return max(0.0, (decision.look_again - self._clock.now()).total_seconds())


def _meaning(resolution: Resolution) -> tuple[str | None, object]:
    """What a resolution says: the revision, or what is wrong."""
    return resolution.revision.name if resolution.revision else None, resolution.finding


def _basis(given: Pass, decision: Decision) -> tuple[object, ...]:
    """What a pass acts and what it was decided from, without what every look brings anew. A pass that has something new
    to say repeats none."""
    seen = given.observation
    said = decision.status if decision.status != given.status else None
    looked = (given.cluster, seen.presence, seen.endpoint, seen.tags, seen.content, seen.scalable_variants)
    return decision.actions, said, given.endpoint["spec"], *looked


def _no_site(endpoint: Object) -> CallProblem:
    """This process was started without the Endpoint's backend."""
    return CallProblem(
        "Start",
        Reason.BACKEND_NOT_AVAILABLE,
        f"spec.backend: found {endpoint['spec']['backend']}, which this operator was started without; its log says why "
        "(setting SLUICE_CLUSTER_BACKEND, the CRDs, or its permissions)",
        transient=False,
    )


def _words(action: Action) -> str:
    """An action in a log line: its kind and its name, never its content (environment may hold secrets)."""
    request = getattr(action, "request", None) or {}
    named = [str(value) for key, value in request.items() if key in {"ModelName", "EndpointConfigName", "EndpointName"}]
    fields = ("name", "endpoint_name", "resource", "pod")
    named += [str(getattr(action, field)) for field in fields if hasattr(action, field)]
    return " ".join((type(action).__name__, *named))
