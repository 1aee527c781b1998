"""Serves Envoy its clusters and scopes (delta xDS over a socket in the pod), and knows by its answers what it has.

Envoy is sent what differs from what it has, so that a change costs it the resources that changed, whatever the
number of others. It accepts or refuses each update as a whole. An Envoy that connects says what it has: after a restart
of the agent nothing is sent again.

Clusters and scopes have a stream each. On a common one (ADS) Envoy would accept clusters only when all of them are
warm, and one endpoint's pods would hold up every other endpoint.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from sluice.router.clusters import CLUSTER
from sluice.router.routes import SCOPE
from sluice.router.view import UNKNOWN, Refusal, View
from sluice.router.wire import KINDS, Snapshot

logger = logging.getLogger(__name__)

Message = Any
"""The messages' package has no types."""

_METHODS: Final = {
    CLUSTER: ("envoy.service.cluster.v3.ClusterDiscoveryService", "DeltaClusters"),
    SCOPE: ("envoy.service.route.v3.ScopedRoutesDiscoveryService", "DeltaScopedRoutes"),
}
_MOST: Final = 300
"""Characters of a reason."""
_UNSURE: Final = ""
"""The version of a resource of which nobody knows whether Envoy took it."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """An update that Envoy has not answered yet."""

    nonce: str
    version: str
    changed: Mapping[str, str]
    """Name -> version."""
    removed: tuple[str, ...]


@dataclass(slots=True)
class _Stream:
    """One kind of resource for one Envoy."""

    number: int
    known: dict[str, str] = field(default_factory=dict)
    """Name -> version, as Envoy has them."""
    subscribed: bool = False
    sent: _Sent | None = None
    version: str = UNKNOWN.scopes
    """Of the snapshot that it accepted last."""
    refused: Refusal | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    open: bool = True


class Discovery:
    """`publish` what Envoy is to have; `view` says what it has. `changed` is called whenever that moves."""

    def __init__(self, socket: Path, changed: Callable[[], None]) -> None:
        self._socket, self._changed = socket, changed
        self._server: grpc.aio.Server | None = None
        self._snapshots = {kind: Snapshot(UNKNOWN.scopes, {}) for kind in KINDS}
        self._streams: dict[str, list[_Stream]] = {kind: [] for kind in KINDS}
        self._numbers = itertools.count(1)
        # Of a refused update Envoy may have taken a part, and says nothing of it when it connects anew.
        self._doubtful: dict[str, set[str]] = {kind: set() for kind in KINDS}

    async def start(self) -> None:
        """Listen. Everything that Envoy is to have must have been published."""
        self._server = grpc.aio.server()
        for kind, (service, method) in _METHODS.items():
            handler = grpc.stream_stream_rpc_method_handler(
                partial(self._serve, kind),
                request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
                response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
            )
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self._server.add_insecure_port(f"unix:{self._socket}")
        await self._server.start()
        self._socket.chmod(0o600)

    async def close(self) -> None:
        """End every stream. Envoy serves on with what it has."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    def publish(self, kind: str, snapshot: Snapshot) -> None:
        """From now on Envoy is to have these resources of a kind (CLUSTER, SCOPE), and no others."""
        self._snapshots[kind] = snapshot
        for stream in self._streams[kind]:
            stream.wake.set()

    def view(self) -> View:
        """What the Envoy that connected last has in force; what is warming is not known here."""
        clusters, scopes = (streams[-1] if (streams := self._streams[kind]) else _Stream(0) for kind in KINDS)
        return View(
            clusters=clusters.version,
            scopes=scopes.version,
            clusters_refused=clusters.refused,
            scopes_refused=scopes.refused,
            connection=clusters.number,
        )

    async def _serve(self, kind: str, requests: AsyncIterator[Message], _: object) -> AsyncIterator[Message]:
        stream = _Stream(next(self._numbers))
        self._streams[kind].append(stream)
        reader = asyncio.create_task(self._read(kind, stream, requests))
        try:
            while stream.open:
                await stream.wake.wait()
                stream.wake.clear()
                if update := self._next(kind, stream):
                    yield update
        finally:
            self._streams[kind].remove(stream)
            reader.cancel()
            self._changed()

    async def _read(self, kind: str, stream: _Stream, requests: AsyncIterator[Message]) -> None:
        try:
            async for request in requests:
                if stream.subscribed:
                    self._take_answer(kind, stream, request)
                else:
                    doubtful, told = self._doubtful[kind], request.initial_resource_versions.items()
                    stream.known = {name: _UNSURE if name in doubtful else version for name, version in told}
                    stream.subscribed = True
                stream.wake.set()
        finally:
            stream.open = False
            stream.wake.set()

    def _take_answer(self, kind: str, stream: _Stream, request: Message) -> None:
        """Envoy has accepted or refused the last update."""
        sent = stream.sent
        if sent is None or request.response_nonce != sent.nonce:
            return
        stream.sent = None
        if request.HasField("error_detail"):
            # Envoy may print the whole resource in front of the reason.
            reason = request.error_detail.message.strip()[-_MOST:]
            logger.warning("Envoy refused %s: %s", ", ".join(sorted(sent.changed))[:_MOST], reason)
            stream.known |= dict.fromkeys((*sent.changed, *sent.removed), _UNSURE)
            self._doubtful[kind].update(sent.changed, sent.removed)
            stream.refused = Refusal(sent.version, frozenset(sent.changed), reason)
        else:
            stream.known |= sent.changed
            for name in sent.removed:
                del stream.known[name]
            self._doubtful[kind].difference_update(sent.changed, sent.removed)
            stream.version, stream.refused = sent.version, None
        self._changed()

    def _next(self, kind: str, stream: _Stream) -> Message | None:
        """The update that is due; one at a time. The first is sent though nothing differs: Envoy waits for it."""
        snapshot, last = self._snapshots[kind], stream.refused or stream
        if not stream.subscribed or stream.sent is not None or snapshot.version == last.version:
            return None
        changed = [one for name, one in snapshot.resources.items() if stream.known.get(name) != one.version]
        removed = tuple(name for name in stream.known if name not in snapshot.resources)
        nonce = str(next(self._numbers))
        stream.sent = _Sent(nonce, snapshot.version, {one.name: one.version for one in changed}, removed)
        logger.debug("%s: %d changed, %d removed", kind.rpartition(".")[2], len(changed), len(removed))
        return discovery_pb2.DeltaDiscoveryResponse(
            type_url=kind,
            system_version_info=snapshot.version,
            nonce=nonce,
            resources=[
                discovery_pb2.Resource(
                    name=one.name, version=one.version, resource=any_pb2.Any(type_url=kind, value=one.body)
                )
                for one in changed
            ],
            removed_resources=removed,
        )
