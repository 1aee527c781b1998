"""The two kinds between the operator and the routers. People do not write them.

EndpointRoute: one per Cluster Endpoint, of the same name, written only by that Endpoint's pass: what every router of
the namespace is to apply. Its `metadata.generation` is the generation that routers report. RouterReport: written only
by the agent of a router pod, what its Envoy has applied; of the pod's name, and with many Endpoints in several parts.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from sluice.api.base import ApiModel

SCHEMA_VERSION = 1
"""The newest shape of EndpointRoute that this code writes and reads. A router reports the highest that it understands;
the operator writes the lowest that its live routers understand."""

WEIGHT_TOTAL = 1_000_000
"""The weights of an EndpointRoute's fleets sum to this (retired routes: to nothing)."""

DEFAULT_TIMEOUT_SECONDS = 60
DEFAULT_MAX_PAYLOAD_BYTES = 6_291_456
"""SageMaker's limits of InvokeEndpoint."""
MAX_EXCLUDED = 100
LONGEST_STREAM_SECONDS = 480
"""SageMaker's limit of a whole stream. An Endpoint whose invocations may take longer has that limit for its streams."""


class RouteModel(ApiModel):
    """Base of the internal shapes: unknown fields are dropped, because a newer operator may have written more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class RouteContainer(RouteModel):
    """A container that a request can name (inferenceExecutionConfig.mode Direct)."""

    hostname: Annotated[str, Field(max_length=63)]
    port: Annotated[int, Field(ge=1, le=65535)]


class RouteSample(RouteModel):
    """The sample invocation, sent by the routers' active health checks to every pod of the fleet."""

    body: Annotated[str, Field(max_length=16384)]
    content_type: Annotated[str, Field(max_length=256)] = "application/json"
    expected_status: Annotated[int, Field(ge=100, le=599)] = 200
    timeout_seconds: Annotated[int, Field(ge=1, le=60)] = 5
    period_seconds: Annotated[int, Field(ge=1, le=3600)] | None = None
    """How often a serving pod is asked again. Absent: only until it has succeeded once."""


class RouteFleet(RouteModel):
    """One fleet as the routers see it: an upstream cluster."""

    name: Annotated[str, Field(max_length=63)]
    """The fleet's Service; its EndpointSlices tell the pods."""
    variant_name: Annotated[str, Field(max_length=63)]
    revision: Annotated[str, Field(max_length=253)]
    """For metrics and access logs."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    weight: Annotated[int, Field(ge=0, le=WEIGHT_TOTAL)] = 0
    """Its share of the requests that name no variant."""
    target_weight: Annotated[int, Field(ge=0, le=WEIGHT_TOTAL)] = 0
    """Its share, among fleets of the same variant, of the requests that name this variant (TargetVariant)."""
    require_ready: bool = False
    """Its weight rises: a router may count as having advanced only while it sees ready hosts of this fleet."""
    balancing: Literal["LEAST_REQUEST", "RANDOM"] = "LEAST_REQUEST"
    max_requests_per_instance: Annotated[int, Field(ge=1, le=100000)] | None = None
    """Circuit breaking: more requests at once than this times the pods are answered 503. Absent: not limited."""
    containers: Annotated[tuple[RouteContainer, ...], Field(max_length=15)] = ()
    """Containers that Target-Container-Hostname may name; empty unless mode is Direct."""
    sample: RouteSample | None = None
    excluded_pods: Annotated[tuple[Annotated[str, Field(max_length=253)], ...], Field(max_length=MAX_EXCLUDED)] = ()
    """Pods that get no requests although they are ready (another image digest or model data than the fleet's)."""


class RouteShadow(RouteModel):
    """A shadow variant: a share of the production requests is mirrored to it, its answers are discarded."""

    fleet: RouteFleet
    sampling: Annotated[int, Field(ge=0, le=WEIGHT_TOTAL)]
    """Requests of a million that are mirrored."""


class EndpointRouteSpec(RouteModel):
    """Everything a router needs to know of one Endpoint."""

    schema_version: int = SCHEMA_VERSION
    endpoint_name: Annotated[str, Field(max_length=63)]
    """The name in the path of requests, case and all."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = DEFAULT_TIMEOUT_SECONDS
    max_payload_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = DEFAULT_MAX_PAYLOAD_BYTES
    fleets: Annotated[tuple[RouteFleet, ...], Field(max_length=40)] = ()
    """Empty: the route is retired; requests for the endpoint are answered as for one that does not exist."""
    shadows: Annotated[tuple[RouteShadow, ...], Field(max_length=2)] = ()


class FleetReport(RouteModel):
    """What one router sees of one fleet."""

    name: Annotated[str, Field(max_length=63)]
    hosts: int
    """Pods that its Envoy has in this cluster."""
    healthy: int
    """Of those, the ones that are not failing the sample invocation (without one: all)."""
    sample_answer: Annotated[str, Field(max_length=600)] | None = None
    """What one of the others answered to this agent, with the pod's name: the status and the first 200 bytes, on one
    line; or why there was no answer. For people only."""


class RouteReport(RouteModel):
    """One EndpointRoute as Envoy has it in force."""

    name: Annotated[str, Field(max_length=253)]
    uid: Annotated[str, Field(max_length=64)]
    generation: int
    fleets: Annotated[tuple[FleetReport, ...], Field(max_length=42)] = ()
    # Not bounded: of as many deployments as there were while the longest of these requests ran.
    draining: tuple[Annotated[str, Field(max_length=63)], ...] = ()
    """Fleets that the route has let go of while requests to them are still running in this router."""


class RejectedRoute(RouteModel):
    """A generation that this router could not apply; the last good one stays in force."""

    name: Annotated[str, Field(max_length=253)]
    uid: Annotated[str, Field(max_length=64)]
    generation: int
    message: Annotated[str, Field(max_length=1024)]


class RouterReportSpec(RouteModel):
    """What one router pod reports, or a part of it: each Endpoint is in one part, all parts have the same podUID."""

    pod_uid: Annotated[str, Field(max_length=64, alias="podUID")]
    schema_version: int = SCHEMA_VERSION
    """The highest EndpointRoute schemaVersion it understands."""
    routes: Annotated[tuple[RouteReport, ...], Field(max_length=2000)] = ()
    rejected: Annotated[tuple[RejectedRoute, ...], Field(max_length=2000)] = ()
