"""The vocabulary of side effects. A decision names at most one ordered set of them; each is idempotent and has a
deterministic name, so that a pass that was killed anywhere can be repeated."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sluice.core.cluster.actions import ClusterAction
from sluice.core.hashing import digest

Request = Mapping[str, Any]
"""Keyword arguments of a boto3 call, as they are sent."""


@dataclass(frozen=True, slots=True)
class PatchEndpoint:
    """Write the Endpoint's metadata: the finalizer and the placement pin. Carries the observed resourceVersion."""

    add_finalizer: bool = False
    remove_finalizer: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreRevision:
    """Create the ControllerRevision (existing: fine, its content is the same by name)."""

    name: str
    data: Mapping[str, Any]
    number: int


@dataclass(frozen=True, slots=True)
class MarkRevision:
    """Note a revision's outcome (annotation)."""

    name: str
    outcome: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class DropRevision:
    """Delete the ControllerRevision (missing: fine)."""

    name: str


@dataclass(frozen=True, slots=True)
class EnsureModel:
    """CreateModel; "already existing" is success (the name holds a hash of owner and content)."""

    request: Request


@dataclass(frozen=True, slots=True)
class EnsureEndpointConfig:
    """CreateEndpointConfig; "already existing" is success."""

    request: Request


@dataclass(frozen=True, slots=True)
class CreateEndpoint:
    """CreateEndpoint; "already existing" is a NameConflict problem, resolved by the next pass from the owner tag."""

    request: Request


@dataclass(frozen=True, slots=True)
class UpdateEndpoint:
    """UpdateEndpoint."""

    request: Request


@dataclass(frozen=True, slots=True)
class UpdateWeightsAndCapacities:
    """UpdateEndpointWeightsAndCapacities."""

    request: Request


@dataclass(frozen=True, slots=True)
class DeleteEndpoint:
    """DeleteEndpoint; missing is success."""

    endpoint_name: str


@dataclass(frozen=True, slots=True)
class DeleteEndpointConfig:
    """DeleteEndpointConfig; missing is success."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteModel:
    """DeleteModel; missing is success."""

    name: str


@dataclass(frozen=True, slots=True)
class SyncTags:
    """Bring the tags of one AWS resource in step.

    resource: endpoint/<name>, endpoint-config/<name> or model/<name>. `wanted` is upserted where it differs from
    what ListTags shows, `remove` names keys that Sluice wrote before and that are wanted no more."""

    resource: str
    wanted: Mapping[str, str]
    remove: tuple[str, ...] = ()


KubeAction = PatchEndpoint | StoreRevision | MarkRevision | DropRevision
AwsAction = (
    EnsureModel
    | EnsureEndpointConfig
    | CreateEndpoint
    | UpdateEndpoint
    | UpdateWeightsAndCapacities
    | DeleteEndpoint
    | DeleteEndpointConfig
    | DeleteModel
    | SyncTags
)
Action = KubeAction | AwsAction | ClusterAction


def acted_name(action: Action) -> str:
    """What Observation.acted calls an action that the service answered with success."""
    if isinstance(action, SyncTags):
        return f"SyncTags:{action.resource}:{digest(action.wanted)}"
    return type(action).__name__
