"""One fleet as an upstream cluster of Envoy. Pure.

The pods stand in the cluster itself (type STATIC). A change of pods replaces the cluster; requests under way finish on
the old one, and pods that have already passed the sample invocation are not asked again (`Host.passed`).
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sluice.api.routes import RouteFleet, RouteSample

Json = dict[str, Any]

CONNECT_TIMEOUT: Final = "1s"
UPSTREAM_IDLE_TIMEOUT: Final = "1s"
"""Below the keep-alive of the usual model servers (gunicorn 2 s, uvicorn and Node 5 s), so that no request is sent on a
connection that the container is just closing."""
UNLIMITED: Final = 1_000_000
PANIC_PERCENT: Final = 50
"""Failing the sample invocation takes out at most this share of a fleet; beyond it all pods get requests again."""
NEW_HOST_CHECK_SECONDS: Final = 1
NEVER_AGAIN_SECONDS: Final = 10 * 365 * 24 * 3600

CLUSTER: Final = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
_HTTP: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True)
class Host:
    """A pod that is to get requests."""

    address: str
    passed: bool = False
    """It has passed the sample invocation, and this fleet asks only once."""


def cluster_names(fleet: RouteFleet) -> tuple[str, ...]:
    """The clusters of a fleet: one, or in mode Direct one per container."""
    if not fleet.containers:
        return (fleet.name,)
    return tuple(cluster_name(fleet, container.hostname) for container in fleet.containers)


def cluster_name(fleet: RouteFleet, hostname: str | None = None) -> str:
    """The cluster of a fleet, or of one of its containers. A fleet's name holds no `/`."""
    return fleet.name if hostname is None else f"{fleet.name}/{hostname}"


def compile_fleet(endpoint_name: str, fleet: RouteFleet, hosts: Sequence[Host]) -> tuple[Json, ...]:
    """The fleet's clusters, in the order of `cluster_names`."""
    if not fleet.containers:
        return (_cluster(endpoint_name, fleet, None, fleet.port, hosts, fleet.sample),)
    # A sample invocation names no container: it goes to the first.
    samples = (fleet.sample, *(None,) * len(fleet.containers))
    return tuple(
        _cluster(endpoint_name, fleet, container.hostname, container.port, hosts, sample)
        for container, sample in zip(fleet.containers, samples, strict=False)
    )


def stat_name(endpoint_name: str, fleet: RouteFleet, hostname: str | None) -> str:
    """What the cluster is called in metrics; the bootstrap's stats_tags take it apart into labels."""
    parts = (fleet.name, endpoint_name, fleet.variant_name, fleet.revision, hostname or "")
    return ";".join(part.replace(";", "_").replace(".", "_") for part in parts) + ";"


def _cluster(
    endpoint_name: str,
    fleet: RouteFleet,
    hostname: str | None,
    port: int,
    hosts: Sequence[Host],
    sample: RouteSample | None,
) -> Json:
    name = cluster_name(fleet, hostname)
    limit = UNLIMITED
    if fleet.max_requests_per_instance is not None:
        limit = fleet.max_requests_per_instance * max(1, len(hosts))
    body: Json = {
        "@type": CLUSTER,
        "name": name,
        "alt_stat_name": stat_name(endpoint_name, fleet, hostname),
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "lb_policy": fleet.balancing,
        # The least busy of four, not of Envoy's two (drawn with replacement): fleets are small, requests expensive.
        **({"least_request_lb_config": {"choice_count": 4}} if fleet.balancing == "LEAST_REQUEST" else {}),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_host(host, port, sample) for host in hosts]}] if hosts else [],
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_requests": limit,
                    "max_pending_requests": limit,
                    "max_connections": UNLIMITED,
                    "max_retries": UNLIMITED,
                }
            ]
        },
        "outlier_detection": _OUTLIERS,
        "typed_extension_protocol_options": {_HTTP: _PROTOCOL},
    }
    if sample is not None:
        body["common_lb_config"] = {"healthy_panic_threshold": {"value": PANIC_PERCENT}}
        body["health_checks"] = [_health_check(sample)]
        body["typed_extension_protocol_options"] = {_HTTP: _sampled_protocol(sample)}
    return body


def _host(host: Host, port: int, sample: RouteSample | None) -> Json:
    address = str(ipaddress.ip_address(host.address))
    endpoint: Json = {"address": {"socket_address": {"address": address, "port_value": port}}}
    if sample is not None and host.passed and sample.period_seconds is None:
        endpoint["health_check_config"] = {"disable_active_health_check": True}
    return {"endpoint": endpoint}


def _health_check(sample: RouteSample) -> Json:
    """Quick while a pod is new or failing, then at the period asked for."""
    period = f"{sample.period_seconds or NEVER_AGAIN_SECONDS}s"
    return {
        "timeout": f"{sample.timeout_seconds}s",
        "interval": period,
        "no_traffic_interval": f"{NEW_HOST_CHECK_SECONDS}s",  # counts for failing pods too, while no request has come
        "no_traffic_healthy_interval": period,
        "unhealthy_interval": f"{NEW_HOST_CHECK_SECONDS}s",
        "unhealthy_edge_interval": f"{NEW_HOST_CHECK_SECONDS}s",
        "healthy_edge_interval": period,
        "unhealthy_threshold": 1 if sample.period_seconds is None else 2,
        "healthy_threshold": 1,
        "reuse_connection": False,
        "http_health_check": {
            "path": "/invocations",
            "method": "POST",
            "send": {"text": sample.body.encode().hex()} if sample.body else None,
            "request_headers_to_add": [
                {
                    "header": {"key": "content-type", "value": sample.content_type.replace("%", "%%")},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
            "expected_statuses": [{"start": sample.expected_status, "end": sample.expected_status + 1}],
        },
    }


_OUTLIERS: Final[Json] = {
    # What the network did (refused, reset, timed out) ejects quickly; what a container answered ejects only as 502, 503
    # or 504: a 500 is as often the caller's bad input, and one caller must not eject a fleet.
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 3,
    "enforcing_consecutive_local_origin_failure": 100,
    "consecutive_gateway_failure": 5,
    "enforcing_consecutive_gateway_failure": 100,
    "enforcing_consecutive_5xx": 0,
    "enforcing_success_rate": 0,
    "enforcing_local_origin_success_rate": 0,
    "interval": "1s",
    "base_ejection_time": "5s",
    "max_ejection_time": "60s",
    "max_ejection_percent": 50,
}

_PROTOCOL: Final[Json] = {
    "@type": f"type.googleapis.com/{_HTTP}",
    "explicit_http_config": {"http_protocol_options": {}},
    "common_http_protocol_options": {"idle_timeout": UPSTREAM_IDLE_TIMEOUT},
}


def _sampled_protocol(sample: RouteSample) -> Json:
    """The connection of a sample invocation counts as idle from when it is made: the idle timeout would end every
    sample that takes longer. Here the age of connections bounds how long one idles; a request on it ends first."""
    options = {"idle_timeout": f"{sample.timeout_seconds + 1}s", "max_connection_duration": UPSTREAM_IDLE_TIMEOUT}
    return {**_PROTOCOL, "common_http_protocol_options": options}
