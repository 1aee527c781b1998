"""What was seen of one Cluster Endpoint: its fleets, its route, and the routers of its namespace. Frozen values, the
only input of decisions from the cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sluice.api.routes import EndpointRouteSpec, RouterReportSpec


@dataclass(frozen=True, slots=True)
class PodTrouble:
    """What blocks pods of a fleet, in words a person can act on."""

    reason: str
    """Unschedulable, ImagePull, CrashLoop, ModelDataFailed, PingFailing, Quota, Refused, ContainerConfig, Starting
    (nothing wrong yet), SampleInvocationFailed, SourceMoved, ImageDrift."""
    message: str
    pods: int = 1
    """How many pods are blocked like this (the message is one of theirs)."""
    since: datetime | None = None
    final: bool = False
    """Waiting will not mend it: the pod ended in a way that repeats (it is restarted all the same)."""


@dataclass(frozen=True, slots=True)
class ImageSeen:
    """A container's image as specified and as its first ready pod resolved it."""

    specified: str
    resolved: str
    """name@sha256:..."""


@dataclass(frozen=True, slots=True)
class FleetRecord:
    """What a fleet's first ready pod ran; every later pod must run the same."""

    images: tuple[ImageSeen, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    """Source name -> the JSON that the loader reported of the object (ETag, VersionId, size)."""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FleetSeen:
    """One fleet."""

    name: str
    variant: str
    fleet_hash: str
    uid: str
    """The Deployment's."""
    replicas: int
    """spec.replicas."""
    ready: int
    """Ready pods that run what the fleet's record says (all ready ones while there is no record)."""
    existing: int
    """Pods in any phase, terminating ones included (finished ones not)."""
    terminating: int = 0
    deleting: bool = False
    """The Deployment has a deletionTimestamp."""
    created: datetime | None = None
    template: str = ""
    """ANNOTATION_TEMPLATE."""
    record: FleetRecord | None = None
    """As stored."""
    candidate: FleetRecord | None = None
    """What the oldest ready pod runs, while nothing is stored."""
    strangers: tuple[str, ...] = ()
    """Ready pods that run something else than the record says: they get no requests."""
    troubles: tuple[PodTrouble, ...] = ()
    """The worst first."""
    zones: int = 0
    """Distinct zones of the ready pods' nodes; 0 where nodes carry no zone."""
    reachable: bool = True
    """Its Service stands: without it the routers find no pod."""


@dataclass(frozen=True, slots=True)
class RouterSeen:
    """One router pod that exists, in any phase. It belongs to the namespace's router Deployment by owner UID."""

    pod: str
    uid: str
    ready: bool
    terminating: bool
    since: datetime | None = None
    """When it was created."""
    stops_by: datetime | None = None
    """When kubelet kills it at the latest (metadata.deletionTimestamp, which has the grace period in it)."""
    report: RouterReportSpec | None = None
    """Its RouterReport, if there is one for this very pod (podUID equal)."""
    readiness_since: datetime | None = None
    """Since when it is Ready, or since when it is not, to the second."""
    never_ran: bool = False
    """None of its containers has run: it has no node, or its image cannot be pulled."""


@dataclass(frozen=True, slots=True)
class RouteSeen:
    """The Endpoint's EndpointRoute."""

    uid: str
    generation: int
    resource_version: str
    spec: EndpointRouteSpec
    retained: bool = False
    """It bears the mark that deletionPolicy Retain left (actions.RetainRoute)."""


@dataclass(frozen=True, slots=True)
class RouterDeployment:
    """The namespace's router."""

    exists: bool
    complete: bool = False
    """Every object of it exists."""
    current: bool = False
    """Its pod template, and every other object of it, is what this operator renders."""
    ready: int = 0
    replicas: int = 0
    held: str = ""
    """Why it may not be brought up to date now: another Endpoint of the namespace shifts, or another namespace's router
    is being replaced. Asked only where it is not current."""
    held_by: str = ""
    """That other namespace."""


@dataclass(frozen=True, slots=True)
class ClusterObservation:
    """All that one pass saw."""

    fleets: tuple[FleetSeen, ...] = ()
    route: RouteSeen | None = None
    routers: tuple[RouterSeen, ...] = ()
    router: RouterDeployment = RouterDeployment(exists=False)
    namespace_terminating: bool = False
    neighbours: int = 0
    """Other Cluster Endpoints of the namespace that need its router."""
    zones: int = 0
    """Distinct zones of the cluster's schedulable nodes."""
    unknown_instance_types: tuple[str, ...] = ()
    """Instance types of the revision asked for that ConfigMap sluice-instance-types does not have."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Fleet name -> ANNOTATION_TEMPLATE as it would be rendered now."""

    def fleet(self, name: str) -> FleetSeen | None:
        """The fleet of this name."""
        return next((fleet for fleet in self.fleets if fleet.name == name), None)
