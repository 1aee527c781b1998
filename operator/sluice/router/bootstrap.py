"""Envoy's own configuration: what does not change while it runs. Everything that does (clusters and scopes) comes from
the agent, over a socket. Pure but for reading the Lua scripts of this package."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from sluice.core.cluster.names import ROUTER_METRICS_PORT, ROUTER_PORT
from sluice.router import headers
from sluice.router.clusters import UNLIMITED
from sluice.router.replies import local_replies
from sluice.router.routes import BUFFER_FILTER, RELAY_CLUSTER

Json = dict[str, Any]

_TYPE: Final = "type.googleapis.com/envoy."
STAT_PREFIX: Final = "data"
SCOPES: Final = "endpoints"
ANSWERS_FILTER: Final = "envoy.filters.http.lua"
ROUTE_ANEW_FILTER: Final = "sluice.route_anew"
AGENT_CLUSTER: Final = "agent"
DISCOVERY_SOCKET: Final = "xds.sock"
"""Where the agent tells Envoy its clusters and scopes (discovery.py)."""
RELAY_SOCKET: Final = "relay.sock"
"""Where the relay of streams listens; Envoy calls it."""
INNER_SOCKET: Final = "inner.sock"
"""Where Envoy listens for the relay alone."""
MAX_STREAMS: Final = 1024
"""Streams at once in one router: each costs the relay memory."""


@dataclass(frozen=True, slots=True)
class BootstrapSettings:
    """What an installation chooses."""

    directory: Path
    """Where the sockets are by which the agent and Envoy speak."""
    namespace: str = "default"
    port: int = ROUTER_PORT
    metrics_port: int = ROUTER_METRICS_PORT
    address: str = "0.0.0.0"  # noqa: S104 - the router's purpose
    admin_socket: Path | None = None
    """Default: `admin.sock` in `directory`."""
    access_log: bool = False
    max_connections: int = 20_000
    max_streams: int = MAX_STREAMS
    max_payload_bytes: int = 6_291_456
    """For routes that say nothing; an EndpointRoute always does."""
    heap_bytes: int | None = None
    """Memory at which Envoy refuses new requests. Absent: no limit but the container's."""

    @property
    def admin(self) -> Path:
        """The admin interface: a socket that only this pod's containers reach."""
        return self.admin_socket or self.directory / "admin.sock"


def bootstrap(settings: BootstrapSettings) -> Json:
    """The whole file."""
    body: Json = {
        "node": {"id": "sluice-router", "cluster": settings.namespace},
        "admin": {
            "address": {"pipe": {"path": str(settings.admin), "mode": 0o600}},
            "ignore_global_conn_limit": True,
        },
        "dynamic_resources": {"cds_config": _FROM_THE_AGENT},
        "static_resources": {
            "listeners": [_data_listener(settings), _inner_listener(settings), _metrics_listener(settings)],
            "clusters": [
                _socket_cluster("admin", settings.admin),
                _stats_cluster(settings),
                _relay_cluster(settings),
                _agent_cluster(settings),
            ],
        },
        "stats_config": _STATS,
        # Latencies show after this time: alarms on traffic look at windows of seconds.
        "stats_flush_interval": "1s",
        "overload_manager": _overload(settings),
        "layered_runtime": {"layers": [{"name": "static", "static_layer": _RUNTIME}]},
    }
    return body


def _data_listener(settings: BootstrapSettings) -> Json:
    """What callers reach."""
    manager = _manager(settings, STAT_PREFIX, headers.REQUEST_HEADERS_REMOVED)
    manager["http_filters"].insert(0, _HEALTH_CHECK)
    if settings.access_log:
        # Streams are logged where their fleet and pod are known; here only what never came to the relay.
        manager["access_log"] = [{**_ACCESS_LOG, "filter": _NOT_RELAYED}]
    return {
        "name": "data",
        "address": _address(settings.address, settings.port),
        "per_connection_buffer_limit_bytes": 32768,
        "enable_reuse_port": True,
        "filter_chains": [_chain(manager)],
    }


def _inner_listener(settings: BootstrapSettings) -> Json:
    """Streams, as the relay sends them back. Counts nothing of its own: callers are counted at the data listener,
    fleets by their clusters. Does not drain: what comes here belongs to a request that the data listener has taken."""
    manager = _manager(settings, "inner", headers.RELAYED_HEADERS_REMOVED)
    if settings.access_log:
        manager["access_log"] = [_ACCESS_LOG]
    return {
        "name": "inner",
        "address": {"pipe": {"path": str(settings.directory / INNER_SOCKET), "mode": 0o600}},
        "per_connection_buffer_limit_bytes": 32768,
        "drain_type": "MODIFY_ONLY",
        "ignore_global_conn_limit": True,
        "filter_chains": [_chain(manager)],
    }


def _chain(manager: Json) -> Json:
    return {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}


def _manager(settings: BootstrapSettings, stat_prefix: str, request_headers_removed: str) -> Json:
    """Routes by endpoint. Both listeners name the same scopes, so Envoy reads them once."""
    return {
        "@type": _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": stat_prefix,
        "codec_type": "AUTO",
        "scoped_routes": {
            "name": SCOPES,
            "scope_key_builder": {
                "fragments": [
                    {"header_value_extractor": {"name": ":path", "element_separator": "/", "index": 2}},
                ]
            },
            "rds_config_source": _FROM_THE_AGENT,
            "scoped_rds": {"scoped_rds_config_source": _FROM_THE_AGENT},
        },
        "http_filters": _filters(settings),
        "local_reply_config": local_replies(),
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": {
                    "@type": _TYPE + "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                    "mutations": [_remove(request_headers_removed)],
                },
            }
        ],
        "use_remote_address": True,
        "skip_xff_append": True,
        "generate_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "common_http_protocol_options": {
            "idle_timeout": "350s",
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": 64,
        },
        "max_request_headers_kb": 32,
        "request_headers_timeout": "10s",
        "request_timeout": "60s",
        "stream_idle_timeout": "3600s",
        "drain_timeout": "5s",
        "delayed_close_timeout": "1s",
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
        },
    }


_ROUTE_ANEW: Final[Json] = {
    "name": ROUTE_ANEW_FILTER,
    "typed_config": {"@type": _TYPE + "extensions.filters.http.set_filter_state.v3.Config", "clear_route_cache": True},
}
"""Envoy finds the route by the head and keeps it, and counts the request nowhere until the body is there: the fleet
that was chosen may be gone by then. So, behind the buffer, it looks again. The same draw chooses among the weights: it
is the request's own. (The filter that costs least of those that forget the route; it sets no state.)"""


def _filters(settings: BootstrapSettings) -> list[Json]:
    """Requests pass them downwards, answers upwards."""
    return [
        {
            "name": ANSWERS_FILTER,
            "typed_config": {
                "@type": _TYPE + "extensions.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": answers_script(settings.namespace)},
            },
        },
        {
            "name": BUFFER_FILTER,
            "typed_config": {
                "@type": _TYPE + "extensions.filters.http.buffer.v3.Buffer",
                "max_request_bytes": settings.max_payload_bytes,
            },
        },
        _ROUTE_ANEW,
        {
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": _TYPE + "extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": True,
                "upstream_http_filters": [
                    {
                        "name": "envoy.filters.http.header_mutation",
                        "typed_config": {
                            "@type": _TYPE + "extensions.filters.http.header_mutation.v3.HeaderMutation",
                            "mutations": {"response_mutations": [_remove(headers.RESPONSE_HEADERS_REMOVED)]},
                        },
                    },
                    _CODEC,
                ],
            },
        },
    ]


def answers_script(namespace: str) -> str:
    """The filter of every route."""
    group = f"arn:sluice:logs:cluster:{namespace}:log-group:/aws/sagemaker/Endpoints/"
    return f'local LOG_GROUP = "{group}"\n' + (resources.files("sluice.router") / "answers.lua").read_text()


def _metrics_listener(settings: BootstrapSettings) -> Json:
    """Of the admin interface only the two paths that read; and whether the relay lives."""
    return {
        "name": "metrics",
        "address": _address(settings.address, settings.metrics_port),
        "ignore_global_conn_limit": True,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": _TYPE
                            + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                            "stat_prefix": "metrics",
                            "normalize_path": True,
                            "request_headers_timeout": "5s",
                            "request_timeout": "10s",
                            "route_config": {
                                "name": "metrics",
                                "virtual_hosts": [
                                    {
                                        "name": "admin",
                                        "domains": ["*"],
                                        "routes": [_METRICS_ROUTE, _READY_ROUTE, _RELAY_ROUTE],
                                    }
                                ],
                            },
                            "http_filters": [
                                {
                                    "name": "envoy.filters.http.router",
                                    "typed_config": {"@type": _TYPE + "extensions.filters.http.router.v3.Router"},
                                }
                            ],
                        },
                    }
                ]
            }
        ],
    }


def _get(path: str, rewrite: str, cluster: str = "admin") -> Json:
    return {
        "match": {"path": path, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
        "route": {"cluster": cluster, "regex_rewrite": {"pattern": {"regex": ".*"}, "substitution": rewrite}},
    }


_METRICS_ROUTE: Final = _get("/stats/prometheus", "/stats/prometheus?usedonly", "stats")
_READY_ROUTE: Final = _get("/ready", "/ready")
_RELAY_ROUTE: Final = _get("/relay", "/relay", RELAY_CLUSTER)


def _stats_cluster(settings: BootstrapSettings) -> Json:
    """Any pod may ask for metrics, and Envoy's main thread writes them. Apart from the liveness probe's cluster: that
    is not to be refused because many ask."""
    # Two at once are what the connections allow; a limit of requests would refuse those whose turn to wait it is.
    limits = {"max_connections": 2, "max_pending_requests": 8}
    return {**_socket_cluster("stats", settings.admin), "circuit_breakers": {"thresholds": [limits]}}


def _relay_cluster(settings: BootstrapSettings) -> Json:
    return {
        **_socket_cluster(RELAY_CLUSTER, settings.directory / RELAY_SOCKET),
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_requests": settings.max_streams,
                    "max_pending_requests": settings.max_streams,
                    # Else as many again would wait for a connection instead of being refused.
                    "max_connections": UNLIMITED,
                }
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": "30s"},  # the relay keeps them for longer
                # In place of the router's: the relay's headers are not a container's.
                "http_filters": [_CODEC],
            }
        },
    }


def _agent_cluster(settings: BootstrapSettings) -> Json:
    return {
        **_socket_cluster(AGENT_CLUSTER, settings.directory / DISCOVERY_SOCKET),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _socket_cluster(name: str, path: Path) -> Json:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(path)}}}}]}],
        },
    }


def _overload(settings: BootstrapSettings) -> Json:
    monitors: list[Json] = [
        {
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": _TYPE + "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": settings.max_connections,
            },
        }
    ]
    actions: list[Json] = []
    if settings.heap_bytes is not None:
        monitors.append(
            {
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": {
                    "@type": _TYPE + "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": settings.heap_bytes,
                },
            }
        )
        for action, at in (("shrink_heap", 0.85), ("stop_accepting_requests", 0.95)):
            actions.append(
                {
                    "name": f"envoy.overload_actions.{action}",
                    "triggers": [{"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": at}}],
                }
            )
    return {"refresh_interval": "0.25s", "resource_monitors": monitors, "actions": actions}


def _address(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def _remove(pattern: str) -> Json:
    return {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": pattern}}}}


def _tag(name: str, regex: str) -> Json:
    return {"tag_name": name, "regex": regex}


_HEALTH_CHECK: Final[Json] = {
    "name": "envoy.filters.http.health_check",
    "typed_config": {
        "@type": _TYPE + "extensions.filters.http.health_check.v3.HealthCheck",
        "pass_through_mode": False,
        "headers": [
            {"name": ":path", "string_match": {"exact": "/ping"}},
            {"name": ":method", "string_match": {"exact": "GET"}},
        ],
    },
}

_FROM_THE_AGENT: Final[Json] = {
    "api_config_source": {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [
            {
                "envoy_grpc": {
                    "cluster_name": AGENT_CLUSTER,
                    # The agent is in this pod and back in seconds; Envoy's default waits for up to 30 of them.
                    "retry_policy": {"retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"}},
                }
            }
        ],
    },
    "resource_api_version": "V3",
    # Without an answer Envoy would begin to serve after 15 s, and deny every endpoint.
    "initial_fetch_timeout": "0s",
}

_CODEC: Final[Json] = {
    "name": "envoy.filters.http.upstream_codec",
    "typed_config": {"@type": _TYPE + "extensions.filters.http.upstream_codec.v3.UpstreamCodec"},
}

_RUNTIME: Final[Json] = {
    # headers.all_but is one automaton over whole names; Envoy's default refuses anything beyond a prefix or two.
    "re2.max_program_size.error_level": 4000,
    "re2.max_program_size.warn_level": 4000,
}

_FIELD = "[^;]*;"
_STATS: Final[Json] = {
    "use_all_default_tags": False,
    # clusters.stat_name puts fleet, endpoint, variant, revision and container into a cluster's name.
    "stats_tags": [
        _tag("sluice_fleet", r"^cluster\.(([^;.]*);)"),
        _tag("sluice_endpoint", rf"^cluster\.{_FIELD}(([^;]*);)"),
        _tag("sluice_variant", rf"^cluster\.{_FIELD}{_FIELD}(([^;]*);)"),
        _tag("sluice_revision", rf"^cluster\.{_FIELD}{_FIELD}{_FIELD}(([^;]*);)"),
        _tag("sluice_container", rf"^cluster\.{_FIELD}{_FIELD}{_FIELD}{_FIELD}(([^;]*);\.)"),
        _tag("envoy.response_code_class", r"_rq(_(\dxx))$"),
        _tag("envoy.http_conn_manager_prefix", r"^http\.((data|metrics)\.)"),
    ],
    "stats_matcher": {
        "inclusion_list": {
            "patterns": [
                {"safe_regex": {"regex": pattern}}
                for pattern in (
                    r"cluster\..*\.upstream_rq_(active|total|[1-5]xx|time|timeout|retry|pending_overflow|pending_active"
                    r"|cancelled|rx_reset|tx_reset)",
                    r"cluster\..*\.upstream_cx_(active|connect_fail|connect_timeout|destroy_remote_with_active_rq)",
                    r"cluster\..*\.membership_(healthy|total)",
                    r"cluster\..*\.outlier_detection\.ejections_(active|enforced_total)",
                    r"cluster\..*\.health_check\.(attempt|failure|success)",
                    r"cluster_manager\..*",
                    r"http\.data\..*",
                    r"listener\..*\.downstream_cx_(active|total|overflow|overload_reject)",
                    r"listener_manager\..*",
                    r"overload\..*",
                    r"server\..*",
                )
            ]
        }
    },
}

_ACCESS_LOG: Final[Json] = {
    "name": "envoy.access_loggers.stdout",
    "typed_config": {
        "@type": _TYPE + "extensions.access_loggers.stream.v3.StdoutAccessLog",
        "log_format": {
            "json_format": {
                "time": "%START_TIME%",
                "request_id": "%STREAM_ID%",
                "method": "%REQ(:METHOD)%",
                "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
                "endpoint": "%ROUTE_NAME%",
                "variant": f"%RESP({headers.INVOKED_VARIANT})%",
                "target_variant": f"%REQ({headers.TARGET_VARIANT})%",
                "inference_id": f"%REQ({headers.INFERENCE_ID})%",
                "fleet": "%UPSTREAM_CLUSTER_RAW%",
                "pod": "%UPSTREAM_HOST%",
                "status": "%RESPONSE_CODE%",
                "flags": "%RESPONSE_FLAGS%",
                "details": "%RESPONSE_CODE_DETAILS%",
                "duration_ms": "%DURATION%",
                "upstream_ms": "%RESPONSE_DURATION%",
                "bytes_received": "%BYTES_RECEIVED%",
                "bytes_sent": "%BYTES_SENT%",
            }
        },
    },
}

_NOT_RELAYED: Final[Json] = {
    "extension_filter": {
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": {
            "@type": _TYPE + "extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            "expression": f"xds.cluster_name != '{RELAY_CLUSTER}' || response.code_details != 'via_upstream'",
        },
    }
}
