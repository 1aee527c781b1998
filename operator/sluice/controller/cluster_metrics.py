"""What Prometheus sees of Endpoints in the cluster: their fleets and pods, the routers that lag behind, how long routes
take to be in force, and the deployments that limits keep from starting. Described in docs/reference/metrics.md.

Series are made from what each Endpoint's last pass saw, so they go with it. A variant's series are bounded by the
variants that SageMaker allows; revisions, pods and routers are counted, never named."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sluice.api.reasons import ConditionType, Reason
from sluice.api.status import EndpointStatus
from sluice.core.cluster import routers
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.identity import Key
from sluice.ports.clock import Clock

CONFIRMATION_BUCKETS: Final = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60, 300)
_PLACE: Final = ["namespace", "name"]
_HELD: Final = (Reason.DEPLOYMENT_QUEUED, Reason.IMAGE_BRAKED)


@dataclass(frozen=True, slots=True)
class _Shown:
    """Of one Endpoint: by variant its fleets, and their pods as wanted and ready; and its lagging routers."""

    fleets: Counter[str]
    wanted: Counter[str]
    ready: Counter[str]
    behind: int
    router_held_by: str
    """The namespace for whose router the Endpoint's waits to be brought up to date; empty: it waits for none."""


class ClusterMetrics(Collector):
    """One for the process."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock = clock
        self._shown: dict[Key, _Shown] = {}
        self._written: dict[Key, float] = {}
        """Endpoints whose routes are written and not confirmed yet, and when the first of those was written."""
        self._held: dict[Key, str] = {}
        """Endpoints whose deployment waits for a limit, and which."""
        self._holders: Callable[[], Iterable[tuple[str, str]]] = tuple
        self._confirmation = Histogram(
            "sluice_route_confirmation_seconds",
            "From the writing of an Endpoint's routes until every Ready router has them in force",
            buckets=CONFIRMATION_BUCKETS,
            registry=registry,
        )
        registry.register(self)

    def watch_holds(self, holders: Callable[[], Iterable[tuple[str, str]]]) -> None:
        """Asked at each scrape: (namespace, Endpoint of it that keeps its router from being brought up to date)."""
        self._holders = holders

    def route_written(self, key: Key) -> None:
        """A pass has written routes."""
        self._written.setdefault(key, self._clock.monotonic())

    def saw(self, key: Key, seen: ClusterObservation) -> None:
        """A pass has looked."""
        shown = _Shown(Counter(), Counter(), Counter(), _behind(seen), seen.router.held_by)
        for fleet in seen.fleets:
            shown.fleets[fleet.variant] += 1
            shown.wanted[fleet.variant] += fleet.replicas
            shown.ready[fleet.variant] += fleet.ready
        self._shown[key] = shown
        if key in self._written and routers.advance(seen, require_ready=False).done:
            self._confirmation.observe(self._clock.monotonic() - self._written.pop(key))

    def decided(self, key: Key, status: EndpointStatus) -> None:
        """The Endpoint has this status now."""
        saying = (ConditionType.RECONCILING, ConditionType.STALLED)
        told = {one.reason for one in status.conditions if one.type in saying and one.status == "True"}
        held = next((str(reason) for reason in _HELD if reason in told), None)
        if held is not None:
            self._held[key] = held
        else:
            self._held.pop(key, None)

    def forget(self, key: Key) -> None:
        """The Endpoint is gone."""
        self._shown.pop(key, None)
        self._held.pop(key, None)
        self._written.pop(key, None)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The names, without any series."""
        yield from self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The state of every Endpoint's last pass."""
        fleets, wanted, ready, behind, held, routers_held, held_within = families = self._families()
        for (namespace, reason), number in sorted(
            Counter((key.namespace, reason) for key, reason in self._held.items()).items()
        ):
            held.add_metric([namespace, reason], number)
        waiting = {(key.namespace, one.router_held_by) for key, one in self._shown.items() if one.router_held_by}
        for by, number in sorted(Counter(by for _, by in waiting).items()):
            routers_held.add_metric([by], number)
        for holder in self._holders():
            held_within.add_metric(holder, 1)
        for key, shown in list(self._shown.items()):
            place = [key.namespace, key.name]
            behind.add_metric(place, shown.behind)
            for family, counted in ((fleets, shown.fleets), (wanted, shown.wanted), (ready, shown.ready)):
                for variant, number in counted.items():
                    family.add_metric([*place, variant], number)
        yield from families

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, ...]:
        variant = [*_PLACE, "variant"]
        return (
            GaugeMetricFamily("sluice_fleets", "Fleets of a variant: two while a revision takes over", labels=variant),
            GaugeMetricFamily("sluice_fleet_pods_wanted", "Pods that a variant's fleets ask for", labels=variant),
            GaugeMetricFamily("sluice_fleet_pods_ready", "Pods of a variant's fleets that are ready", labels=variant),
            GaugeMetricFamily(
                "sluice_routers_behind", "Routers that do not have an Endpoint's routes in force", labels=_PLACE
            ),
            GaugeMetricFamily(
                "sluice_deployments_held",
                "Deployments that do not start because of a limit",
                labels=["namespace", "reason"],
            ),
            GaugeMetricFamily(
                "sluice_routers_held",
                "Namespaces whose router waits to be brought up to date until another namespace's is",
                labels=["by"],
            ),
            GaugeMetricFamily(
                "sluice_routers_held_by_endpoint",
                "1 for each Endpoint whose traffic keeps its namespace's router from being brought up to date",
                labels=_PLACE,
            ),
        )


def _behind(seen: ClusterObservation) -> int:
    route = seen.route
    if route is None:
        return 0
    return sum(not router.terminating and not routers.confirms(router, route) for router in seen.routers)
