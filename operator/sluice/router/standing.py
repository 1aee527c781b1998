"""A fleet among Envoy's clusters: with which pods it was compiled, and since when no route names it. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sluice.api.routes import RouteFleet
from sluice.router.clusters import Host, compile_fleet
from sluice.router.objects import Pod, serving_pods
from sluice.router.wire import Resource, resource

PodsOf = Callable[[str], tuple[Pod, ...]]
"""All pods of a Service: the same tuple while nothing changed."""

_NOT_IN_CLUSTERS: Final = ("weight", "target_weight", "require_ready", "excluded_pods")
"""What of a fleet stands in routes alone, or only says which pods are its hosts."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A fleet with its pods, as its clusters were compiled."""

    endpoint_name: str
    fleet: RouteFleet
    timeout_seconds: int
    hosts: tuple[Host, ...]


@dataclass(slots=True)
class Standing:
    """A fleet that Envoy is to have."""

    endpoint_name: str
    fleet: RouteFleet
    timeout_seconds: int
    placed: Placed | None = None
    """None: not compiled yet."""
    resources: tuple[Resource, ...] = ()
    hosts: int = 0
    """Pods in Envoy, as it has the clusters in use."""
    healthy: int = 0
    """Of these, those that pass the sample invocation."""
    used: bool = False
    """Envoy has had it in use, so requests may have come to it."""
    leaving_since: float | None = None
    """No route in force names it since then."""
    _pods: tuple[Pod, ...] | None = None

    @classmethod
    def restored(cls, placed: Placed) -> "Standing":
        """As an earlier process had it, and with its pods as they serve in Envoy: else what is reported before Envoy
        has said anything new would look as if the fleet were gone. Whether it is leaving is found out anew: the clock
        of that process means nothing here."""
        pods = len(placed.hosts)
        made = cls(placed.endpoint_name, placed.fleet, placed.timeout_seconds, hosts=pods, healthy=pods, used=True)
        made._place(placed)
        return made

    def stay(self, endpoint_name: str, fleet: RouteFleet, timeout_seconds: int) -> None:
        """A route names it, in this definition."""
        self.leaving_since = None
        if fleet is self.fleet and timeout_seconds == self.timeout_seconds:
            return
        if endpoint_name != self.endpoint_name or not _same_clusters(fleet, self.fleet):
            self.placed = None
        self._pods = None
        self.endpoint_name, self.fleet, self.timeout_seconds = endpoint_name, fleet, timeout_seconds

    def follow(self, pods: tuple[Pod, ...], passed: frozenset[str]) -> bool:
        """Compile it, if it or its pods changed; `passed` are the addresses that have passed the sample invocation.
        Whether anything did."""
        if self.placed is not None and pods is self._pods:
            return False
        self._pods = pods
        addresses = tuple(pod.address for pod in serving_pods(pods, self.fleet.excluded_pods))
        before = self.placed
        if before is not None and tuple(host.address for host in before.hosts) == addresses:
            # Compiled anew it would only tell otherwise who has passed, which replaces the cluster for nothing.
            if before.timeout_seconds == self.timeout_seconds:
                return False
            self.placed = Placed(self.endpoint_name, self.fleet, self.timeout_seconds, before.hosts)
            return True
        hosts = tuple(Host(address, address in passed) for address in addresses)
        self._place(Placed(self.endpoint_name, self.fleet, self.timeout_seconds, hosts))
        return True

    def _place(self, placed: Placed) -> None:
        self.placed = placed
        self.resources = tuple(map(resource, compile_fleet(placed.endpoint_name, placed.fleet, placed.hosts)))


def _same_clusters(one: RouteFleet, other: RouteFleet) -> bool:
    return one is other or one == other.model_copy(update={name: getattr(one, name) for name in _NOT_IN_CLUSTERS})
