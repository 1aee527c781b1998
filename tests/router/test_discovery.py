"""What Envoy is sent, seen by a client that takes its place."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from sluice.router.clusters import CLUSTER
from sluice.router.discovery import Discovery
from sluice.router.routes import SCOPE
from sluice.router.view import UNKNOWN
from sluice.router.wire import Resource, Snapshot

METHODS = {
    CLUSTER: "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
    SCOPE: "/envoy.service.route.v3.ScopedRoutesDiscoveryService/DeltaScopedRoutes",
}


def snapshot(version: str, **resources: str) -> Snapshot:
    """Names and versions."""
    return Snapshot(version, {name: Resource(name, made, made.encode()) for name, made in resources.items()})


class Client:
    """An Envoy that answers when the test says."""

    def __init__(self, socket: Path, kind: str) -> None:
        self._kind = kind
        self._channel = grpc.aio.insecure_channel(f"unix:{socket}")
        self._call: Any = self._channel.stream_stream(
            METHODS[kind],
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )()

    async def subscribe(self, **known: str) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=self._kind, initial_resource_versions=known)
        await self._call.write(request)

    async def sent(self) -> Any:
        return await asyncio.wait_for(self._call.read(), 60)

    async def accept(self, update: Any) -> None:
        await self._call.write(
            discovery_pb2.DeltaDiscoveryRequest(type_url=update.type_url, response_nonce=update.nonce)
        )

    async def refuse(self, update: Any, reason: str) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=update.type_url, response_nonce=update.nonce)
        request.error_detail.message = reason
        await self._call.write(request)

    async def close(self) -> None:
        await self._channel.close()


class Stage:
    """The agent's side."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._moved = asyncio.Event()
        self.discovery = Discovery(socket, self._moved.set)
        self.clients: list[Client] = []

    def client(self, kind: str = SCOPE) -> Client:
        self.clients.append(Client(self.socket, kind))
        return self.clients[-1]

    async def until(self, clusters: str, scopes: str) -> None:
        """Envoy has these versions in force."""
        async with asyncio.timeout(60):
            while ((view := self.discovery.view()).clusters, view.scopes) != (clusters, scopes):
                await self._moved.wait()
                self._moved.clear()

    async def until_refused(self) -> None:
        async with asyncio.timeout(60):
            while self.discovery.view().scopes_refused is None:
                await self._moved.wait()
                self._moved.clear()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path / "xds.sock")
    made.discovery.publish(CLUSTER, snapshot("c1", a="1"))
    made.discovery.publish(SCOPE, snapshot("s1", **{f"e{number}": "1" for number in range(200)}))
    await made.discovery.start()
    yield made
    for client in made.clients:
        await client.close()
    await made.discovery.close()


async def test_a_change_among_200_sends_one(stage: Stage) -> None:
    clusters = stage.client(CLUSTER)
    await clusters.subscribe()
    first = await clusters.sent()
    assert [(item.name, item.version, item.resource.type_url) for item in first.resources] == [("a", "1", CLUSTER)]
    await clusters.accept(first)
    await stage.until("c1", UNKNOWN.scopes)
    envoy = stage.client()
    await envoy.subscribe()
    all_of_them = await envoy.sent()
    assert len(all_of_them.resources) == 200
    await envoy.accept(all_of_them)
    await stage.until("c1", "s1")
    stage.discovery.publish(SCOPE, snapshot("s2", **{f"e{number}": "1" for number in range(199)} | {"e7": "2"}))
    update = await envoy.sent()
    assert [(item.name, item.version) for item in update.resources] == [("e7", "2")]
    assert [*update.removed_resources] == ["e199"]
    assert stage.discovery.view().scopes == "s1", "sent is not in force"
    await envoy.accept(update)
    await stage.until("c1", "s2")


async def test_an_envoy_that_connects_anew_is_sent_what_it_lacks(stage: Stage) -> None:
    envoy = stage.client()
    await envoy.subscribe(**{f"e{number}": "1" for number in range(199)}, gone="1")
    update = await envoy.sent()
    assert [item.name for item in update.resources] == ["e199"]
    assert [*update.removed_resources] == ["gone"]
    await envoy.accept(update)
    await stage.until(UNKNOWN.clusters, "s1")
    await envoy.close()
    await stage.until(UNKNOWN.clusters, UNKNOWN.scopes)
    again = stage.client()
    await again.subscribe(**{f"e{number}": "1" for number in range(200)})
    empty = await again.sent()
    assert not empty.resources, "Envoy waits for a first answer, if only an empty one"
    await again.accept(empty)
    await stage.until(UNKNOWN.clusters, "s1")


async def test_another_envoy_is_another_connection(stage: Stage) -> None:
    numbers = set()
    for _ in range(2):
        envoy = stage.client(CLUSTER)
        await envoy.subscribe()
        await envoy.accept(await envoy.sent())
        await stage.until("c1", UNKNOWN.scopes)
        numbers.add(stage.discovery.view().connection)
        await envoy.close()
        await stage.until(UNKNOWN.clusters, UNKNOWN.scopes)
    assert len(numbers) == 2


async def test_of_what_comes_while_envoy_is_busy_the_last_is_sent(stage: Stage) -> None:
    envoy = stage.client()
    await envoy.subscribe()
    first = await envoy.sent()
    for version in ("s2", "s3"):
        stage.discovery.publish(SCOPE, snapshot(version, e0=version))
    await envoy.accept(first)
    update = await envoy.sent()
    assert update.system_version_info == "s3"
    await envoy.accept(update)
    await stage.until(UNKNOWN.clusters, "s3")


async def test_what_was_refused_is_told_and_sent_again_when_it_is_wanted_otherwise(stage: Stage) -> None:
    envoy = stage.client()
    await envoy.subscribe()
    await envoy.accept(await envoy.sent())
    await stage.until(UNKNOWN.clusters, "s1")
    good = snapshot("s1", **{f"e{number}": "1" for number in range(200)})
    stage.discovery.publish(SCOPE, Snapshot("s2", {**good.resources, "e7": Resource("e7", "2", b"bad")}))
    await envoy.refuse(await envoy.sent(), "x" * 1000 + "no such thing")
    await stage.until_refused()
    view = stage.discovery.view()
    assert view.scopes == "s1"
    assert view.scopes_refused is not None
    assert (view.scopes_refused.version, view.scopes_refused.names) == ("s2", {"e7"})
    assert view.scopes_refused.reason.endswith("xno such thing")
    # Envoy may have taken a part of it, and does not say so.
    stage.discovery.publish(SCOPE, good)
    update = await envoy.sent()
    assert [(item.name, item.version) for item in update.resources] == [("e7", "1")]
    await envoy.close()
    again = stage.client()
    await again.subscribe(**{f"e{number}": "1" for number in range(200)})
    update = await again.sent()
    assert [item.name for item in update.resources] == ["e7"], "nor when it connects anew"
    await again.accept(update)
    await stage.until(UNKNOWN.clusters, "s1")
    assert stage.discovery.view().scopes_refused is None
    await again.close()
    third = stage.client()
    await third.subscribe(**{f"e{number}": "1" for number in range(200)})
    assert not (await third.sent()).resources, "what it took is in doubt no more"


async def test_a_refusal_is_over_when_what_came_after_it_was_accepted(stage: Stage) -> None:
    envoy = stage.client()
    await envoy.subscribe()
    await envoy.refuse(await envoy.sent(), "no such thing")
    await stage.until_refused()
    stage.discovery.publish(SCOPE, snapshot("s2", e0="2"))
    await envoy.accept(await envoy.sent())
    await stage.until(UNKNOWN.clusters, "s2")
    assert stage.discovery.view().scopes_refused is None


async def test_what_is_no_answer_to_the_last_update_accepts_nothing(stage: Stage) -> None:
    """Envoy also sends what it subscribes to, at any time."""
    envoy = stage.client()
    await envoy.subscribe()
    update = await envoy.sent()
    await envoy.subscribe()
    await envoy.refuse(update, "no such thing")
    await stage.until_refused()
    assert stage.discovery.view().scopes == UNKNOWN.scopes


async def test_of_two_connections_the_newer_one_is_the_envoy_that_runs(stage: Stage) -> None:
    """The connection of one that was killed may end after its successor's began."""
    before = stage.client()
    await before.subscribe()
    await before.accept(await before.sent())
    await stage.until(UNKNOWN.clusters, "s1")
    after = stage.client()
    await after.subscribe()
    update = await after.sent()
    assert stage.discovery.view().scopes == UNKNOWN.scopes, "it has nothing yet"
    await after.accept(update)
    await stage.until(UNKNOWN.clusters, "s1")


async def test_only_the_pod_may_connect(stage: Stage) -> None:
    assert stage.socket.stat().st_mode & 0o777 == 0o600
