"""Envoy's resources as it reads them. What is compiled is JSON, which people and golden files read; from here on it is
protobuf, made once per resource that changed. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# Imported for their messages: each resource below holds some of these by name.
from envoy.config.cluster.v3 import cluster_pb2  # noqa: F401
from envoy.config.route.v3 import scoped_route_pb2  # noqa: F401
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2  # noqa: F401
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2  # noqa: F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: F401
from google.protobuf import any_pb2, json_format

from sluice.router.clusters import CLUSTER
from sluice.router.routes import SCOPE

Json = Mapping[str, Any]

KINDS: Final = (CLUSTER, SCOPE)
"""Their type URLs, in the order in which Envoy must have them."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One cluster or scope."""

    name: str
    version: str
    """Equal content is the same version, also to the next process."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All resources of one kind that Envoy is to have, by name."""

    version: str
    resources: Mapping[str, Resource]


def resource(compiled: Json) -> Resource:
    """One compiled cluster or scope. Raises json_format.ParseError: it is none, which is a bug."""
    text = json.dumps(compiled, separators=(",", ":"), sort_keys=True)
    packed = json_format.ParseDict(dict(compiled), any_pb2.Any())
    return Resource(compiled["name"], hashlib.sha256(text.encode()).hexdigest()[:16], packed.value)


def version_of(resources: Mapping[str, Resource]) -> str:
    """Of a snapshot."""
    found = hashlib.sha256()
    for name in sorted(resources):
        found.update(f"{name}\n{resources[name].version}\n".encode())
    return found.hexdigest()[:16]
