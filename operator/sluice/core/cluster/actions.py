"""Side effects in the cluster. Each is idempotent and has a deterministic name, so that a pass that was killed anywhere
can be repeated. None of them writes the pod template of an existing Deployment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sluice.api.routes import EndpointRouteSpec
from sluice.core.cluster.observation import FleetRecord


@dataclass(frozen=True, slots=True)
class EnsureFleet:
    """Create what of the fleet does not exist: Service, NetworkPolicy, PodDisruptionBudget, Deployment with so many
    replicas. Existing objects are left as they are."""

    name: str
    variant: str
    revision: str
    """The stored revision's name."""
    fleet_hash: str
    endpoint_config: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]
    replicas: int
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class ScaleFleet:
    """Write replicas through the Deployment's scale subresource (missing: fine)."""

    name: str
    replicas: int


@dataclass(frozen=True, slots=True)
class RecordFleet:
    """Store what the fleet's first ready pod ran (existing: kept as it is)."""

    name: str
    record: FleetRecord


@dataclass(frozen=True, slots=True)
class DeleteFleet:
    """Delete a fleet's objects, the Deployment in the background with its pods (missing: fine). Preconditioned by the
    Deployment's UID."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class WriteRoute:
    """Create (resource_version None) or replace the Endpoint's EndpointRoute. Carries the observed resourceVersion."""

    spec: EndpointRouteSpec
    resource_version: str | None


@dataclass(frozen=True, slots=True)
class RetainRoute:
    """Mark the Endpoint's EndpointRoute: it and the fleets that it names serve on without the Endpoint, and the orphan
    sweep leaves them alone (missing: fine). The next WriteRoute takes the mark away."""


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """Delete the Endpoint's EndpointRoute (missing: fine)."""

    uid: str


@dataclass(frozen=True, slots=True)
class EnsureRouter:
    """Create what of the namespace's router does not exist; with `update`, bring its objects to what this operator
    renders, the Deployment last."""

    update: bool = False


@dataclass(frozen=True, slots=True)
class RemoveRouter:
    """Delete the namespace's router (missing: fine)."""


@dataclass(frozen=True, slots=True)
class EvictRouter:
    """Evict a router pod that does not confirm (missing: fine). Preconditioned by its UID."""

    pod: str
    uid: str


ClusterAction = (
    EnsureFleet | ScaleFleet | RecordFleet | DeleteFleet | WriteRoute | RetainRoute | DeleteRoute | EnsureRouter
    | RemoveRouter | EvictRouter
)  # fmt: skip
