"""Builds the operator from its rooms, starts it in order and stops it in order.

Start: health, installation id, then side by side the first listing and the Lease; when both are there, the workers and
the watches. Stop: no more passes, running ones end, events are flushed, the Lease is released.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import kopf
from botocore.session import get_session
from prometheus_client import CollectorRegistry

from sluice import __version__
from sluice.alarms.cloudwatch import CloudWatchReader, CloudWatchSettings
from sluice.api import names
from sluice.controller import policy
from sluice.controller.cache import Cache
from sluice.controller.configmap import ConfigMapReader
from sluice.controller.events import EventRecorder
from sluice.controller.feed import Feed
from sluice.controller.health import HealthServer, LoopLag
from sluice.controller.lease import LeaseHolder, LeaseLostError
from sluice.controller.metrics import Metrics
from sluice.controller.queue import WorkQueue
from sluice.controller.reconcile_declaration import DeclarationReconciler
from sluice.controller.reconcile_endpoint import EndpointReconciler, EndpointSettings
from sluice.controller.sites import SageMakerSite, Site
from sluice.controller.sweep import HistoryWentBackError, Sweep
from sluice.core.endpoint.draft import DecideSettings
from sluice.core.identity import Key
from sluice.core.permission import Policy
from sluice.core.resolve import ResolveSettings
from sluice.kube.client import KubeClient
from sluice.kube.configuration import load_configuration
from sluice.main import cluster, handlers, reach
from sluice.main.cluster import ClusterParts
from sluice.main.reach import Reach, ReachChangedError
from sluice.main.settings import Settings
from sluice.ports.clock import Clock, SystemClock
from sluice.ports.kube import Forbidden, Kube, KubeUnavailable, Rejected
from sluice.sagemaker.backend import SageMakerBackend
from sluice.sagemaker.clients import AwsCalls, AwsSettings
from sluice.sagemaker.sweep import SweepSettings

logger = logging.getLogger(__name__)

FIRST_ROUND_SECONDS = 5.0
FIRST_ROUND_LONGEST_SECONDS = 30.0
"""How long the watches wait for the passes after a start: 5 s without any progress, and never longer than this."""

EXIT_STOPPED = 0
EXIT_FAILED = 1
EXIT_LEASE_LOST = 3
EXIT_HISTORY_WENT_BACK = 4
EXIT_REACH_CHANGED = 5


class Operator:
    """One process of the operator."""

    def __init__(
        self, settings: Settings, kube: KubeClient, metrics: Metrics, installation_id: str, *, in_cluster: bool
    ) -> None:
        self._settings = settings
        self._kube = kube
        self._clock = SystemClock()
        self._cache = Cache()
        self._feed = Feed(self._cache, kube)
        self._events = EventRecorder(kube)
        self._lease = LeaseHolder(
            kube,
            self._clock,
            namespace=settings.operator_namespace,
            identity=settings.identity,
            duration_seconds=settings.lease_seconds,
        )
        kube.write_only_while(self._lease.held)
        self._sweep = Sweep(
            kube,
            self._cache,
            feed=self._feed,
            namespaces=settings.watch_namespaces,
            every_seconds=settings.sweep_seconds,
        )
        self._policy = ConfigMapReader(
            kube,
            settings.operator_namespace,
            policy.CONFIG_MAP,
            policy.read,
            empty=Policy(),
            every_seconds=settings.permissions_seconds,
            changed=self._wake_endpoints,
        )
        self._aws = _aws(settings, metrics, self._clock)
        self._alarms = CloudWatchReader(
            self._aws, self._clock, CloudWatchSettings(shortest_period_seconds=settings.cloudwatch_seconds)
        )
        self._backend = _sagemaker(settings, self._aws, self._alarms, self._clock)
        self._lag = LoopLag()
        self._queue: WorkQueue[Key] = WorkQueue(
            self._clock,
            self._pass,
            self._pass_failed,
            urgent=lambda key: key.kind == names.ENDPOINT,
            slow=self._waits_for_aws if in_cluster else lambda _key: False,
        )
        self._backend.on_moved(self._queue.add)
        self._cluster: ClusterParts | None = None
        sites: dict[str, Site] = {names.BACKEND_SAGEMAKER: SageMakerSite(self._backend, self._cache, self._clock)}
        if in_cluster:
            self._cluster = ClusterParts(
                settings,
                kube,
                self._clock,
                self._cache,
                self._queue,
                held=self._lease.held,
                installation_id=installation_id,
                region=default_region(),
                cloudwatch=self._alarms,
                aws=self._aws,
                metrics=metrics,
            )
            metrics.watch_alarms(periods=self._cluster.alarms.periods, watched=self._cluster.alarms.watched)
            sites[names.BACKEND_CLUSTER] = self._cluster.site
        endpoints = EndpointReconciler(
            kube,
            self._cache,
            self._feed,
            sites,
            self._lease,
            self._clock,
            self._events,
            metrics,
            lambda: self._policy.content,
            EndpointSettings(
                ResolveSettings(installation_id, default_region(), settings.model_cache_directories),
                DecideSettings(
                    settle_seconds=settings.settle_seconds,
                    look_seconds=settings.sagemaker_moving_seconds,
                    read_only=settings.read_only,
                    bounds=cluster.bounds(settings),
                    limits=cluster.limits(settings),
                ),
            ),
        )
        declarations = DeclarationReconciler(
            kube, self._cache, self._feed, self._clock, metrics, patience_seconds=settings.settle_seconds
        )
        self._reconcilers = {
            names.ENDPOINT: endpoints.reconcile,
            names.ENDPOINT_CONFIG: declarations.reconcile,
            names.MODEL: declarations.reconcile,
        }
        self._forget = endpoints.forget
        self._feed.connect(self._queue.add, self._gone)
        self._started = asyncio.Event()
        self._acquired = asyncio.Event()
        self._synced = asyncio.Event()
        metrics.watch(
            queue_depth=lambda: self._queue.depth,
            queue_oldest_age_seconds=self._queue.oldest_ready_age_seconds,
            lease_held=self._lease.held,
        )

    async def run(
        self, stop: asyncio.Event, catch_signals: Callable[[], None], *beside: Coroutine[Any, Any, None]
    ) -> int:
        """Run until `stop` is set or something ends that should not. Returns the exit code.

        catch_signals: makes signals set `stop`; called again when kopf has put its own handlers in their place. beside:
        what else runs as long, and ends the process when it ends."""
        holding = asyncio.create_task(self._hold(), name="lease")
        tasks = [
            holding,
            asyncio.create_task(self._events.run(), name="events"),
            asyncio.create_task(self._lag.run(), name="loop lag"),
            asyncio.create_task(self._observe(catch_signals), name="watches"),
            asyncio.create_task(self._work(), name="passes"),
            *(asyncio.create_task(other, name="beside") for other in beside),
        ]
        stopping = asyncio.create_task(stop.wait(), name="stop")
        done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        code = await self._stop(holding) if stopping in done else _exit_code(done)
        if stopping not in done:  # what passes go by is void, or the Lease is another's
            await self._queue.stop(0)
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.wait([*tasks, stopping], timeout=10)
        return code

    def unhealthy(self) -> Iterable[str]:
        """For /healthz: what a restart would mend."""
        bound = self._settings.stuck_seconds
        if self._queue.stands_seconds() > bound:
            yield f"stuck queue: keys wait, and none was taken for {self._queue.stands_seconds():.0f} s"
        if self._queue.longest_pass_seconds() > bound:
            yield f"stuck pass: one has been running for {self._queue.longest_pass_seconds():.0f} s"
        yield from self._queue.problems()
        dead = self._sweep.dead_watches | (self._cluster.dead_watches if self._cluster is not None else frozenset())
        yield from (f"dead watch: {kind}" for kind in sorted(dead))
        yield from self._lag.problems()

    def unready(self) -> Iterable[str]:
        """For /readyz."""
        if not self._sweep.synced:
            yield "the first listing is not complete"
        elif self._started.is_set() and not self._lease.held():
            yield "the lease is not held"

    async def _hold(self) -> None:
        """The Lease, for ever. Raises LeaseLostError."""
        await self._lease.acquire()
        self._acquired.set()
        await self._lease.keep()

    async def _observe(self, catch_signals: Callable[[], None]) -> None:
        """The cluster's state, for ever; also while another process holds the Lease."""
        await asyncio.gather(
            self._policy.sync(), self._sweep.sync(), *([self._cluster.sync()] if self._cluster is not None else [])
        )
        self._synced.set()
        await self._first_round()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._policy.run())
            group.create_task(self._sweep.run())
            group.create_task(self._watch(catch_signals))
            if self._cluster is not None:
                group.create_task(self._cluster.run())

    async def _first_round(self) -> None:
        """After a restart every object needs a pass, and kopf's own first listing would compete with them. What changes
        in these seconds is in that listing, and what goes is seen by the sweep after it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_ROUND_SECONDS):
                await self._started.wait()
        if self._started.is_set():
            await self._queue.until_idle(
                patience_seconds=FIRST_ROUND_SECONDS, longest_seconds=FIRST_ROUND_LONGEST_SECONDS
            )

    async def _work(self) -> None:
        """Passes, once everything was listed and the Lease is held."""
        await self._acquired.wait()
        await self._synced.wait()
        await self._backend.start()
        self._queue.start(self._settings.workers)
        self._started.set()
        logger.info("working: %d objects to look at", self._queue.depth)
        await asyncio.Event().wait()

    async def _watch(self, catch_signals: Callable[[], None]) -> None:
        """kopf, embedded. It ends only by failing."""
        existing = asyncio.all_tasks()
        spaces: dict[str, Any] = (
            {"namespaces": self._settings.watch_namespaces}
            if self._settings.watch_namespaces
            else {"clusterwide": True}
        )
        spaces["identity"] = self._settings.identity  # else kopf asks for the user's name, which a pod's has not
        tasks = await kopf.spawn_tasks(
            registry=handlers.registry(
                self._feed,
                self._sweep.soon,
                self._cluster.moved if self._cluster is not None else None,
                self._kube.login,
            ),
            settings=handlers.kopf_settings(),
            standalone=True,
            **spaces,
        )
        catch_signals()
        await kopf.run_tasks(tasks, ignored=existing)
        raise RuntimeError("the watches ended")

    async def _stop(self, holding: asyncio.Task[None]) -> int:
        """In order; bounded. The Lease is renewed until the last pass has ended."""
        logger.info("stopping: %d passes are running", self._queue.running)
        ended = await self._queue.stop(self._settings.stop_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self._events.flush()
        await self._backend.stop()
        await self._alarms.stop()
        self._aws.close()
        holding.cancel()
        await asyncio.wait({holding}, timeout=1)
        if ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await self._lease.release()
        else:
            # A call of a pass that was cut off may still be under way: the Lease must outlive it.
            logger.warning("passes were cut off; the lease is left to run out")
        logger.info("stopped")
        return EXIT_STOPPED

    async def _pass(self, key: Key) -> float | None:
        return await self._reconcilers[key.kind](key)

    def _waits_for_aws(self, key: Key) -> bool:
        """Whether a key's pass calls AWS. One region that does not answer must not hold up those in the cluster."""
        found = self._cache.get(key.kind, key.namespace, key.name) if key.kind == names.ENDPOINT else None
        return found is not None and found["spec"].get("backend") == names.BACKEND_SAGEMAKER

    def _pass_failed(self, key: Key, error: Exception, again_seconds: float) -> None:
        if isinstance(error, (KubeUnavailable, Forbidden, Rejected)):
            logger.warning("pass over %s failed, again in %.1f s: %s", key, again_seconds, error)
        else:
            logger.error("pass over %s failed, again in %.1f s", key, again_seconds, exc_info=error)

    def _gone(self, key: Key) -> None:
        self._queue.forget(key)
        self._forget(key)

    def _wake_endpoints(self) -> None:
        for key in self._cache.keys(names.ENDPOINT):
            self._queue.add(key)


def _exit_code(ended: Iterable[asyncio.Task[Any]]) -> int:
    """Says why the process ends."""
    code = EXIT_FAILED
    for task in ended:
        for error in _causes(None if task.cancelled() else task.exception()):
            if isinstance(error, LeaseLostError):
                code = EXIT_LEASE_LOST
                logger.error("stopping at once: %s", error)
            elif isinstance(error, HistoryWentBackError):
                code = EXIT_HISTORY_WENT_BACK
                logger.error("stopping at once: %s", error)
            elif isinstance(error, ReachChangedError):
                code = EXIT_REACH_CHANGED
                logger.warning("starting anew: %s", error)
            else:
                logger.error("stopping at once: %s failed", task.get_name(), exc_info=error)
    return code


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _causes(part)
    elif error is not None:
        yield error


LOOKS_PER_SECOND = 10.0
"""Close looks (DescribeEndpoint) at all that moves with the same credentials; a thousand at once are looked at less
often each, and the listing still tells within seconds which of them have arrived."""


def _aws(settings: Settings, metrics: Metrics, clock: Clock) -> AwsCalls:
    """The door to AWS. Nothing is asked of it before the first Endpoint needs it."""
    return AwsCalls(
        AwsSettings(calls_per_second=settings.aws_calls_per_second, threads=settings.aws_threads), metrics, clock
    )


def _sagemaker(settings: Settings, aws: AwsCalls, alarms: CloudWatchReader, clock: Clock) -> SageMakerBackend:
    """The SageMaker backend."""
    return SageMakerBackend(
        aws,
        alarms,
        clock,
        SweepSettings(
            steady_seconds=settings.sagemaker_sweep_seconds,
            moving_seconds=settings.sagemaker_moving_seconds / 2,
            full_seconds=settings.sagemaker_full_list_seconds,
            look_seconds=settings.sagemaker_moving_seconds,
            looks_per_second=min(LOOKS_PER_SECOND, settings.aws_calls_per_second),
            stale_seconds=1.5 * settings.sagemaker_sweep_seconds,
        ),
    )


def default_region(environ: Mapping[str, str] = os.environ) -> str | None:
    """The region of Endpoints that name none: boto3's own (AWS_REGION, AWS_DEFAULT_REGION, a profile)."""
    found = environ.get("AWS_REGION") or get_session().get_config_variable("region")
    return str(found) if found else None


async def installation_id(kube: Kube, settings: Settings) -> str:
    """The setting, or the UID of the kube-system namespace; an API server that is away is waited for."""
    if settings.installation_id:
        return settings.installation_id
    told = ""
    while True:
        try:
            namespace = await kube.get("Namespace", "", "kube-system")
            if namespace is not None:
                return str(namespace["metadata"]["uid"])
            problem = "there is no namespace kube-system; set SLUICE_INSTALLATION_ID"
        except (KubeUnavailable, Forbidden, Rejected) as error:
            problem = f"cannot read namespace kube-system for the installation id: {error}"
        if problem != told:
            told = problem
            logger.warning("waiting: %s", problem)
        await asyncio.sleep(1)


async def _find_out(kube: Kube, settings: Settings) -> tuple[str, Reach]:
    """(installation id, what can be handled here)."""
    return await installation_id(kube, settings), await reach.find(kube, settings)


async def serve(settings: Settings, stop: asyncio.Event, catch_signals: Callable[[], None]) -> int:
    """The whole life of the process. Returns its exit code."""
    metrics = Metrics(CollectorRegistry(), __version__)
    kube = KubeClient(
        await load_configuration(),
        identity=settings.identity,
        telemetry=metrics,
        concurrency=settings.kube_concurrency,
    )
    operator: Operator | None = None
    health = HealthServer(
        lambda: operator.unhealthy() if operator else (),
        lambda: operator.unready() if operator else ("starting",),
        metrics.registry,
    )
    try:
        port = await health.start(settings.health_port)
        logger.info("sluice %s: health and metrics on port %d", __version__, port)
        catch_signals()
        finding = asyncio.create_task(_find_out(kube, settings))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([finding, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not finding.done():
            finding.cancel()
            return EXIT_STOPPED
        found, reached = finding.result()
        operator = Operator(reached.settings, kube, metrics, found, in_cluster=reached.missing is None)
        growing = [reach.until_it_changes(kube, reached)] if reached.may_change else []
        return await operator.run(stop, catch_signals, *growing)
    finally:
        await health.stop()
        await kube.close()
