"""One EndpointRoute as Envoy's routes: a scope of its own. Pure.

Envoy finds the scope by the second segment of the path in a hash table, so the number of endpoints costs a request
nothing; and each is a resource of its own, so that a change costs Envoy nothing of the others.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final

from sluice.api.routes import LONGEST_STREAM_SECONDS, EndpointRouteSpec, RouteFleet
from sluice.router import headers
from sluice.router.clusters import Json, cluster_name

SCOPE: Final = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration"
_BUFFER: Final = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute"

BUFFER_FILTER: Final = "envoy.filters.http.buffer"
RELAY_CLUSTER: Final = "relay"

INVOCATIONS: Final = "invocations"
STREAM: Final = "invocations-response-stream"
_AFTER_THE_RELAY_SECONDS: Final = 5
"""The relay keeps a stream's limits, because it can still say so in the stream; Envoy's own only end what hangs."""


class RouteProblem(Exception):
    """This EndpointRoute cannot become routes; the message says why."""


def compile_scope(spec: EndpointRouteSpec, version: str) -> Json:
    """The endpoint's scope; `version` (whose route, which generation) is the name of its configuration in Envoy, for
    people who look at it. Raises RouteProblem."""
    check(spec)
    routes = [route for operation in (INVOCATIONS, STREAM) for route in _operation(spec, operation)]
    return {
        "@type": SCOPE,
        "name": spec.endpoint_name,
        "key": {"fragments": [{"string_key": spec.endpoint_name}]},
        "route_configuration": {
            "name": version,
            "virtual_hosts": [
                {
                    "name": "endpoint",
                    "domains": ["*"],
                    "routes": routes,
                    "retry_policy": _RETRY,
                    "request_body_buffer_limit": spec.max_payload_bytes + 1,
                    "typed_per_filter_config": {
                        BUFFER_FILTER: {"@type": _BUFFER, "buffer": {"max_request_bytes": spec.max_payload_bytes}}
                    },
                }
            ],
            "request_headers_to_remove": _ENVOYS_OWN,
            "response_headers_to_add": [_set(headers.REQUEST_ID, "%UNIQUE_ID%")],
        },
    }


def check(spec: EndpointRouteSpec) -> None:
    """Refuse what Envoy would refuse, with a better message. Raises RouteProblem."""
    if not any(fleet.weight for fleet in spec.fleets):
        raise RouteProblem(f"endpoint {spec.endpoint_name}: the weights of its {len(spec.fleets)} fleets are all 0")
    names = [fleet.name for fleet in fleets_of(spec)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RouteProblem(f"endpoint {spec.endpoint_name}: fleet {twice[0]} is listed twice")


def fleets_of(spec: EndpointRouteSpec) -> tuple[RouteFleet, ...]:
    """All that a route names."""
    return spec.fleets + tuple(shadow.fleet for shadow in spec.shadows)


def _operation(spec: EndpointRouteSpec, operation: str) -> Iterable[Json]:
    """The routes of one operation; the first that matches wins. What names a variant or a container that there is not
    falls through to the refusal."""
    variants: dict[str, list[RouteFleet]] = {}
    for fleet in spec.fleets:
        if fleet.target_weight:
            variants.setdefault(fleet.variant_name, []).append(fleet)
    hostnames = sorted({container.hostname for fleet in spec.fleets for container in fleet.containers})
    path = f"/endpoints/{spec.endpoint_name}/{operation}"
    if operation == STREAM:
        yield _to_the_relay(spec, path)
    for hostname in hostnames or (None,):
        for variant, fleets in variants.items():
            having = [fleet for fleet in fleets if _has(fleet, hostname)]
            if having:
                weights = [fleet.target_weight for fleet in having]
                yield _forward(spec, operation, _match(path, variant, hostname), having, weights, hostname)
        having = [fleet for fleet in spec.fleets if fleet.weight and _has(fleet, hostname)]
        if having:
            weights = [fleet.weight for fleet in having]
            yield _forward(spec, operation, _match(path, None, hostname), having, weights, hostname)
    known = f"its production variants are {', '.join(sorted(variants))}"
    if hostnames:
        known += f"; TargetContainerHostname must be one of {', '.join(hostnames)}"
    else:
        known += "; its containers cannot be named, because its inference execution mode is not Direct"
    yield {
        "match": {"path": path, "headers": [_equals(":method", "POST")]},
        "direct_response": {
            "status": 400,
            "body": {
                "inline_string": json.dumps(
                    {"Message": f"Endpoint {spec.endpoint_name} has no such variant or container: {known}"}
                )
            },
        },
        "response_headers_to_add": [
            _set(headers.ERROR_TYPE, "ValidationError"),
            _set("content-type", "application/json"),
        ],
    }


def _match(path: str, variant: str | None, hostname: str | None) -> Json:
    """Requests that name this variant and this container, or none where it is None."""
    return {
        "path": path,
        "headers": [
            _equals(":method", "POST"),
            _absent(headers.TARGET_VARIANT) if variant is None else _equals(headers.TARGET_VARIANT, variant),
            _absent(headers.TARGET_CONTAINER) if hostname is None else _equals(headers.TARGET_CONTAINER, hostname),
        ],
    }


def _to_the_relay(spec: EndpointRouteSpec, path: str) -> Json:
    """Whatever did not come from it; callers cannot set the header. What it sends back takes the other routes."""
    return {
        "name": spec.endpoint_name,
        "match": {"path": path, "headers": [_equals(":method", "POST"), _absent(headers.RELAY)]},
        "route": {"cluster": RELAY_CLUSTER, **_stream_limits(spec)},
        "request_headers_to_add": [_set(headers.RELAY, f"{spec.timeout_seconds}/{_longest_stream(spec)}")],
    }


def _stream_limits(spec: EndpointRouteSpec) -> Json:
    return {
        "timeout": f"{_longest_stream(spec) + _AFTER_THE_RELAY_SECONDS}s",
        "idle_timeout": f"{spec.timeout_seconds + _AFTER_THE_RELAY_SECONDS}s",
    }


def _longest_stream(spec: EndpointRouteSpec) -> int:
    return max(LONGEST_STREAM_SECONDS, spec.timeout_seconds)


def _has(fleet: RouteFleet, hostname: str | None) -> bool:
    return hostname is None or any(container.hostname == hostname for container in fleet.containers)


def _forward(
    spec: EndpointRouteSpec,
    operation: str,
    match: Json,
    fleets: Sequence[RouteFleet],
    weights: Sequence[int],
    hostname: str | None,
) -> Json:
    clusters = [
        {
            "name": cluster_name(fleet, hostname),
            "weight": weight,
            "response_headers_to_add": [_set(headers.INVOKED_VARIANT, fleet.variant_name.replace("%", "%%"))],
        }
        for fleet, weight in zip(fleets, weights, strict=True)
    ]
    action: Json = {
        "weighted_clusters": {"clusters": clusters},
        "prefix_rewrite": "/invocations",  # on an exact path it replaces the whole path
        **(
            _stream_limits(spec)
            if operation == STREAM
            else {"timeout": f"{spec.timeout_seconds}s", "idle_timeout": "0s"}
        ),
    }
    mirrors = [
        {
            "cluster": cluster_name(shadow.fleet, hostname),
            "runtime_fraction": {"default_value": {"numerator": shadow.sampling, "denominator": "MILLION"}},
            "disable_shadow_host_suffix_append": True,
        }
        for shadow in spec.shadows
        if shadow.sampling and _has(shadow.fleet, hostname)
    ]
    if mirrors:
        action["request_mirror_policies"] = mirrors
    route: Json = {"name": spec.endpoint_name, "match": match, "route": action}
    if operation == STREAM:
        route["request_headers_to_remove"] = [headers.RELAY]
        route["request_headers_to_add"] = [_set("accept", f"%REQ({headers.STREAM_ACCEPT})%")]
    return route


def _equals(name: str, value: str) -> Json:
    return {"name": name, "string_match": {"exact": value}}


def _absent(name: str) -> Json:
    return {"name": name, "present_match": True, "invert_match": True}


def _set(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


_ENVOYS_OWN: Final = [
    "x-forwarded-proto",
    "x-forwarded-for",
    "x-request-id",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-envoy-attempt-count",
]
"""What Envoy adds after the client's headers were filtered."""

_RETRY: Final[Json] = {
    # Only where the request cannot have run (connection refused, stream refused, reset before it was sent).
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 3,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    # A draw that hits a pod tried before is repeated. A dead pod has no request, so of two pods it is the least busy in
    # 15 of 16 draws (clusters.py: the best of four): few draws would nearly always end at the dead one again.
    "host_selection_retry_max_attempts": 256,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
}
