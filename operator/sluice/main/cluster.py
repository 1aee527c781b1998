"""Builds the Cluster backend from its rooms, where the CRDs and the permissions for it are there."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from sluice.alarms.cloudwatch import CloudWatchReader, CloudWatchSource, OwnPlace
from sluice.alarms.poller import AlarmPoller
from sluice.alarms.prometheus import PrometheusSettings, PrometheusSource
from sluice.alarms.traffic import TrafficSource
from sluice.api import names
from sluice.cluster.addresses import Addresses
from sluice.cluster.backend import KubernetesBackend
from sluice.cluster.labels import MANAGED
from sluice.cluster.orphans import OrphanSweep
from sluice.cluster.rendering import Installation, Rendering
from sluice.cluster.router import RouterSettings
from sluice.cluster.template import FleetDefaults
from sluice.controller.cache import Cache
from sluice.controller.cluster_metrics import ClusterMetrics
from sluice.controller.configmap import ConfigMapReader
from sluice.controller.hearing import Hearing
from sluice.controller.instance_types import InstanceTypesFile
from sluice.controller.metrics import Metrics
from sluice.controller.sites import ClusterSite, longest_invocation_seconds, neighbours, shifting
from sluice.controller.slots import Slots
from sluice.controller.wakes import Wakes
from sluice.core.cluster.peers import Bounds
from sluice.core.cluster.routing import Limits
from sluice.core.identity import Key
from sluice.core.instance_types import CONFIG_MAP, InstanceTypes
from sluice.main.handlers import WAKING
from sluice.main.settings import Settings
from sluice.ports.aws import Aws
from sluice.ports.clock import Clock
from sluice.ports.kube import Forbidden, Gone, Kube, KubeUnavailable, Object, Rejected

logger = logging.getLogger(__name__)

NEEDED = (names.ENDPOINT_ROUTE, names.ROUTER_REPORT, "Deployment", "ReplicaSet", "Pod", "Service", "ConfigMap")
"""What must be served and readable."""


Resources = Mapping[str, Mapping[str, str]]
"""A container's requests and limits."""


class Queue(Protocol):
    """Where wakes go."""

    def add(self, key: Key) -> None:
        """Now."""
        ...

    def add_first(self, key: Key) -> None:
        """Now, and before all others."""
        ...

    def add_after(self, key: Key, seconds: float) -> None:
        """In so many seconds."""
        ...


class ClusterParts:
    """The backend's site for passes, its wakes, and what runs beside the passes."""

    def __init__(
        self,
        settings: Settings,
        kube: Kube,
        clock: Clock,
        cache: Cache,
        queue: Queue,
        *,
        held: Callable[[], bool],
        installation_id: str,
        region: str | None,
        cloudwatch: CloudWatchReader,
        aws: Aws,
        metrics: Metrics,
    ) -> None:
        self.wakes = Wakes(cache, queue.add, queue.add_after)
        self._hearing = Hearing(kube, WAKING, settings.watch_namespaces, lost=self.wakes.lost)
        file = InstanceTypesFile()
        self._types: ConfigMapReader[InstanceTypes] = ConfigMapReader(
            kube,
            settings.operator_namespace,
            CONFIG_MAP,
            file.read,
            empty=file.last,
            every_seconds=settings.permissions_seconds,
            changed=self.wakes.everybody,
        )
        rendering = Rendering(
            installation(settings, installation_id, region),
            lambda: self._types.content,
            longest_invocation_seconds(cache, limits(settings)),
        )
        backend = KubernetesBackend(
            kube, clock, rendering, neighbours(cache), shifting(cache), settings.watch_namespaces
        )
        self.alarms = AlarmPoller(
            clock,
            (
                CloudWatchSource(cloudwatch, clock, region),
                PrometheusSource(clock, _prometheus(settings)),
                TrafficSource(clock, Addresses(kube)),
            ),
        )
        self.alarms.on_moved(queue.add, queue.add_first)
        slots = Slots(cache, bounds(settings), queue.add)
        shown = ClusterMetrics(metrics.registry, clock)
        places = OwnPlace(aws, region, self.wakes.everybody)
        self.site = ClusterSite(backend, cache, clock, self.wakes, slots, shown, self.alarms, places)
        self._orphans = OrphanSweep(
            kube,
            clock,
            installation_id=installation_id,
            namespaces=settings.watch_namespaces,
            exists=lambda namespace, name: cache.get(names.ENDPOINT, namespace, name) is not None,
            neighbours=neighbours(cache),
            held=lambda: held() and not settings.read_only,
        )

    @property
    def dead_watches(self) -> frozenset[str]:
        """Kinds whose watch does not tell what happens."""
        return self._hearing.dead_watches

    def moved(self, item: Object, *, gone: bool) -> None:
        """A watch told of an object that came, changed or went."""
        self._hearing.heard(item)
        self.wakes.moved(item, gone=gone)

    async def sync(self) -> None:
        """What must be known before the first pass."""
        await self._types.sync()

    async def run(self) -> None:
        """For ever, beside the passes."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._types.run())
            group.create_task(self._orphans.run())
            group.create_task(self._hearing.run())
            group.create_task(self.alarms.run())


def bounds(settings: Settings) -> Bounds:
    """How many deployments may run at once, and when an image is stopped."""
    return Bounds(
        deployments=settings.max_concurrent_deployments,
        deployments_per_namespace=settings.max_concurrent_deployments_per_namespace,
        rollbacks_of_one_image=settings.max_rollbacks_of_one_image,
        rollback_window_seconds=settings.rollback_window_seconds,
    )


def _prometheus(settings: Settings) -> PrometheusSettings:
    token, trusted = settings.prometheus_token_file, settings.prometheus_ca_file
    return PrometheusSettings(
        settings.prometheus_url, token_file=Path(token) if token else None, ca_file=Path(trusted) if trusted else None
    )


def limits(settings: Settings) -> Limits:
    """What holds of the requests to Endpoints that say nothing of their own."""
    return Limits(timeout_seconds=settings.invocation_timeout_seconds, max_payload_bytes=settings.max_payload_bytes)


def installation(settings: Settings, installation_id: str, region: str | None) -> Installation:
    routers = RouterSettings(
        image=settings.router_image,
        cluster_role=settings.router_cluster_role,
        operator_namespace=settings.operator_namespace,
        replicas=settings.router_replicas,
        image_pull_policy=settings.image_pull_policy,
        image_pull_secrets=settings.image_pull_secrets,
        priority_class_name=settings.router_priority_class,
        envoy_threads=settings.router_threads,
        environment={"SLUICE_ROUTER_ACCESS_LOG": "true"} if settings.router_access_log else {},
        stream_drain_seconds=settings.router_stream_drain_seconds,
        **_chosen(
            envoy_resources=settings.router_resources,
            agent_resources=settings.router_agent_resources,
            relay_resources=settings.router_relay_resources,
        ),
    )
    return Installation(
        installation_id=installation_id,
        fleets=FleetDefaults(
            image=settings.image,
            image_pull_policy=settings.image_pull_policy,
            image_pull_secrets=settings.image_pull_secrets,
            region=region,
            pre_stop_seconds=settings.pod_pre_stop_seconds,
            isolated_egress_cidrs=settings.isolated_egress_networks,
            **_chosen(loader_resources=settings.loader_resources),
        ),
        routers=routers,
    )


def _chosen(**resources: Resources | None) -> dict[str, Any]:
    """Those that are set; the others are the builders' own."""
    return {name: amounts for name, amounts in resources.items() if amounts}


async def missing(kube: Kube, settings: Settings) -> str | None:
    """What keeps the backend from working here; None: nothing. An API server that is away is waited for."""
    if not settings.cluster_backend:
        return "setting SLUICE_CLUSTER_BACKEND is false"
    told = ""
    while True:
        try:
            for kind in NEEDED:
                for namespace in settings.watch_namespaces or (None,):
                    async for _ in kube.list_metadata(kind, namespace, MANAGED):
                        break
            return None
        except Gone:
            return f"{kind} is not served; install the CRDs (crds/) of this version"
        except (Forbidden, Rejected) as error:
            return str(error)
        except KubeUnavailable as error:
            if str(error) != told:
                told = str(error)
                logger.warning("waiting: %s", told)
        await asyncio.sleep(1)
