"""What was seen of one Endpoint outside Kubernetes, as frozen values: the only input of decisions from the world."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from sluice.api.reasons import Reason
from sluice.api.status import EndpointStatusWord, VariantSummary

AlarmSource = Literal["CloudWatch", "PrometheusAlert", "PromQL", "Traffic"]


@dataclass(frozen=True, slots=True)
class Listed:
    """An endpoint in a listing (ListEndpoints): exact name, status, LastModifiedTime."""

    name: str
    status: EndpointStatusWord
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class PendingDeployment:
    """PendingDeploymentSummary."""

    endpoint_config_name: str
    start_time: datetime | None
    variants: tuple[VariantSummary, ...]


@dataclass(frozen=True, slots=True)
class Described:
    """DescribeEndpoint, in Sluice's shapes (variants without last_applied_*)."""

    name: str
    arn: str
    status: EndpointStatusWord
    endpoint_config_name: str | None
    failure_reason: str | None
    creation: datetime
    last_modified: datetime
    variants: tuple[VariantSummary, ...] = ()
    shadow_variants: tuple[VariantSummary, ...] = ()
    pending: PendingDeployment | None = None


class Presence(StrEnum):
    """What is known of the endpoint in SageMaker."""

    UNKNOWN = "Unknown"
    """Could not be looked up (see Observation.problem)."""
    MISSING = "Missing"
    """No endpoint of this name."""
    UNCHANGED = "Unchanged"
    """Listed with the status and LastModifiedTime that the Endpoint's status already tells; not described again."""
    DESCRIBED = "Described"
    OTHER_CASE = "OtherCase"
    """An endpoint whose name differs in case only: the name is taken."""


@dataclass(frozen=True, slots=True)
class HostingContent:
    """An AWS EndpointConfig and its Models as described, without names, ARNs, times (for adoption by content).

    endpoint_config: DescribeEndpointConfig's members; models: by AWS model name, DescribeModel's members."""

    endpoint_config: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class AlarmReading:
    """One alarm, read at a moment. state: OK, ALARM, INSUFFICIENT_DATA, Missing, Unreadable; or, only in the
    cluster, Unfit (it can never tell anything as it is written, and the message says what to change) or Refused (the
    policy does not let it be read)."""

    name: str
    state: str
    read_at: datetime
    message: str | None = None
    source: AlarmSource = "CloudWatch"
    since: datetime | None = None
    """When it was first read in this state without a break, as far as this process knows."""
    alarmed_at: datetime | None = None
    """When it was last read in state ALARM, as far as this process knows: one that flaps between two passes counts."""


@dataclass(frozen=True, slots=True)
class WatchedFleet:
    """A fleet whose requests an alarm is about."""

    name: str
    """The fleet's, which is also the name that its requests are counted under in the routers."""
    variant: str
    revision: str
    """The stored revision's name."""


@dataclass(frozen=True, slots=True)
class AlarmQuestion:
    """One alarm to be read again and again while a deployment waits for it. Names are unique per source."""

    source: AlarmSource
    name: str
    condition: Mapping[str, Any] = field(default_factory=dict)
    """The entry of spec.kubernetes.alarms; empty for CloudWatch."""


@dataclass(frozen=True, slots=True)
class AlarmWatch:
    """The alarms of one Endpoint that are to be read now, and what they are about."""

    alarms: tuple[AlarmQuestion, ...]
    namespace: str
    endpoint: str
    """metadata.name."""
    new: tuple[WatchedFleet, ...] = ()
    """The fleets of the revision that is being deployed; empty before the start."""
    serving: tuple[WatchedFleet, ...] = ()
    """The fleets of the revision in service."""
    endpoint_name: str = ""
    """What callers call it, which is how the routers' metrics name it. Empty: as the object."""
    read_after: datetime | None = None
    """A reading taken at or after this moment is waited for: the end of a bake."""
    traffic_since: datetime | None = None
    """When the new revision got its first requests, if it has any."""


@dataclass(frozen=True, slots=True)
class CallProblem:
    """A call that failed, classified. `transient`: the operator outlives it by trying again by itself."""

    operation: str
    reason: Reason
    message: str
    code: str | None = None
    transient: bool = True
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Questions:
    """What a pass needs to know beyond the listing. Each costs AWS calls, so each is asked only when it matters."""

    describe: bool = False
    owner: bool = False
    """The tags of the endpoint: 1 ListTags."""
    content: bool = False
    """DescribeEndpointConfig + DescribeModel of each of its models."""
    scalable: bool = False
    """Variants with a registered scalable target: 1 DescribeScalableTargets."""
    alarms: tuple[str, ...] = ()
    """CloudWatch alarms to read."""


@dataclass(frozen=True, slots=True)
class Observation:
    """All that one pass saw."""

    presence: Presence
    at: datetime
    account_id: str | None = None
    endpoint: Described | None = None
    tags: Mapping[str, str] | None = None
    """The endpoint's tags when asked for; the owner is under OWNER_TAG."""
    content: HostingContent | None = None
    scalable_variants: frozenset[str] | None = None
    alarms: tuple[AlarmReading, ...] = ()
    problem: CallProblem | None = None
    """What went wrong while looking."""
    act_problem: CallProblem | None = None
    """What went wrong in the action set of the pass before (kept in memory only: a lost one shows again)."""
    acted: tuple[str, ...] = field(default=())
    """Operations of the action set of the pass before that the service answered with success."""
