"""What stands in the cluster of a stage: fleets, routers, alarms, as plain values."""

from dataclasses import dataclass, field
from datetime import datetime

from sluice.api.routes import EndpointRouteSpec
from sluice.core.cluster.observation import FleetRecord, PodTrouble, RouteSeen

STOP_SECONDS = 3
"""From a pod's end of service to its end."""


@dataclass
class Fleet:
    name: str
    variant: str
    fleet_hash: str
    replicas: int
    born: datetime
    image: str
    uid: str
    ready: int = 0
    record: FleetRecord | None = None
    strangers: tuple[str, ...] = ()
    gone_at: datetime | None = None
    reachable: bool = True
    unseen: bool = False
    """No router sees a pod of it that answers."""
    stopping: int = 0
    """Pods beyond its replicas that have not ended yet."""
    stopped_at: datetime | None = None
    failing: int = 0
    """Ready pods that fail the sample invocation."""
    crashing: int = 0
    """Pods that end again and again, whatever becomes of the others."""

    @property
    def sound(self) -> int:
        """So many pods can get ready."""
        return max(0, self.replicas - self.crashing)


@dataclass
class Router:
    pod: str
    uid: str
    born: datetime
    ready: bool = True
    terminating: bool = False
    frozen: bool = False
    slow: bool = False
    starts: bool = False
    """Its image is not there: it has never said anything, nor will it."""
    never_ran: bool = False
    """No node has room for it."""
    applied: tuple[str, int, EndpointRouteSpec] | None = None
    busy: frozenset[str] = frozenset()
    stops_by: datetime | None = None
    readiness_since: datetime | None = None


@dataclass
class AlarmNow:
    """An alarm at its source."""

    state: str = "OK"
    message: str = ""
    stuck: bool = False
    """It is not read any more: the reading grows old."""
    flapped: bool = False
    """It fires and is OK again before the next pass."""


@dataclass
class Cluster:
    """What stands. `start_seconds`: from birth to ready; images that begin with `bad` never get ready."""

    fleets: dict[str, Fleet] = field(default_factory=dict)
    route: RouteSeen | None = None
    routers: list[Router] = field(default_factory=list)
    start_seconds: float = 10.0
    rejected: str = ""
    """What every router says against the routes."""
    stop_seconds: float = 0.0
    """Until an evicted router is gone; its successor is there at once where that takes time."""
    evicted: dict[str, list[str]] = field(default_factory=dict)
    """Router pod -> those that still stopped when it was evicted."""
    sample_answer: str | None = None
    """What routers were told by pods that fail the sample invocation."""
    troubles: dict[str, PodTrouble] = field(default_factory=dict)
    """Image -> what its pods suffer from."""
    neighbours: int = 0
    router_exists: bool = False
    version: int = 0
