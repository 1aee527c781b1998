"""The adapter against a real API server: plain JSON in and out, and every refusal by its name."""

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration
from tests.controller.conftest import Telemetry
from tests.controller.objects import model
from tests.controller.waiting import until

from localcluster.controlplane import ControlPlane
from sluice.kube.client import CHUNK_SIZE, KubeClient
from sluice.kube.configuration import NoKubernetesError, load_configuration
from sluice.ports.kube import Conflict, Gone, KubeUnavailable, NotHeld, Object, Rejected

pytestmark = pytest.mark.apiserver


def fresh(name: str, namespace: str, **labels: str) -> Object:
    item = model(name, namespace=namespace, labels=labels)
    for field in ("uid", "resourceVersion", "generation"):
        item["metadata"].pop(field)
    return item


async def test_create_read_replace_delete(kube: KubeClient, namespace: str, telemetry: Telemetry) -> None:
    created = await kube.create("Model", namespace, fresh("m", namespace))
    assert created["metadata"]["uid"]
    with pytest.raises(Conflict, match="already exists"):
        await kube.create("Model", namespace, fresh("m", namespace))
    read = await kube.get("Model", namespace, "m")
    assert read == created
    changed = await kube.replace("Model", namespace, {**created, "spec": {**created["spec"], "tags": []}})
    assert changed["metadata"]["generation"] == 2
    with pytest.raises(Conflict):
        await kube.replace("Model", namespace, created)
    await kube.delete("Model", namespace, "m")
    await kube.delete("Model", namespace, "m")
    assert await kube.get("Model", namespace, "m") is None
    with pytest.raises((Gone, Conflict)):
        await kube.replace("Model", namespace, changed)
    assert ("create", "Model", "409") in telemetry.kube
    assert ("get", "Model", "404") in telemetry.kube


async def test_the_status_is_written_under_its_resource_version_alone(kube: KubeClient, namespace: str) -> None:
    created = await kube.create("Model", namespace, fresh("m", namespace))
    status = {"observedGeneration": 1, "usedBy": ["churn"]}
    created = await kube.patch_metadata(
        "Model", namespace, "m", resource_version=None, annotations={"kept": "yes"}, finalizers=["sluice.dev/x"]
    )
    bare = {key: created["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
    written = await kube.replace_status("Model", namespace, {**created, "metadata": bare, "spec": {}, "status": status})
    assert written["status"] == status
    assert written["metadata"]["annotations"] == {"kept": "yes"}, "a status write changes no metadata"
    assert written["metadata"]["finalizers"] == ["sluice.dev/x"]
    assert written["metadata"]["managedFields"]
    assert written["spec"] == created["spec"], "a status write changes no spec"
    with pytest.raises(Conflict):
        await kube.replace_status("Model", namespace, {**created, "status": {}})
    await kube.patch_metadata("Model", namespace, "m", resource_version=None, finalizers=[])
    await kube.delete("Model", namespace, "m")
    with pytest.raises((Gone, Conflict)):
        await kube.replace_status("Model", namespace, written)


async def test_metadata_is_patched_with_and_without_precondition(kube: KubeClient, namespace: str) -> None:
    created = await kube.create("Model", namespace, fresh("m", namespace))
    version = created["metadata"]["resourceVersion"]
    patched = await kube.patch_metadata(
        "Model", namespace, "m", resource_version=version, finalizers=["sluice.dev/x"], annotations={"a": "1", "b": "2"}
    )
    assert patched["metadata"]["finalizers"] == ["sluice.dev/x"]
    with pytest.raises(Conflict):
        await kube.patch_metadata("Model", namespace, "m", resource_version=version, annotations={"a": "3"})
    again = await kube.patch_metadata(
        "Model", namespace, "m", resource_version=None, finalizers=[], annotations={"a": None}
    )
    assert "finalizers" not in again["metadata"]
    assert again["metadata"]["annotations"] == {"b": "2"}
    with pytest.raises(Gone):
        await kube.patch_metadata("Model", namespace, "none", resource_version=None, annotations={"a": "1"})


async def test_listings_are_chunked_and_complete(kube: KubeClient, namespace: str, telemetry: Telemetry) -> None:
    total = CHUNK_SIZE + 3
    await asyncio.gather(*(kube.create("Model", namespace, fresh(f"m{n}", namespace)) for n in range(total)))
    await kube.create("Model", namespace, fresh("labelled", namespace, team="a"))
    before = len(telemetry.kube)
    listed = [item async for item in kube.list("Model", namespace)]
    assert len({item["metadata"]["name"] for item in listed}) == total + 1
    assert telemetry.kube[before:] == [("list", "Model", "200")] * 2
    assert all(item["kind"] == "Model" and item["spec"] for item in listed)
    chosen = [item async for item in kube.list("Model", None, "team=a")]
    assert [item["metadata"]["name"] for item in chosen if item["metadata"]["namespace"] == namespace] == ["labelled"]
    bare = [item async for item in kube.list_metadata("Model", namespace)]
    assert len(bare) == total + 1
    assert all("spec" not in item and item["metadata"]["resourceVersion"] for item in bare)


async def test_what_the_schema_refuses_is_rejected_with_the_servers_words(kube: KubeClient, namespace: str) -> None:
    body = fresh("m", namespace)
    body["spec"]["containers"] = "none"
    with pytest.raises(Rejected, match=r"spec\.containers"):
        await kube.create("Model", namespace, body)


async def test_a_kind_that_is_not_served_is_gone(kube: KubeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from sluice.kube import resources

    monkeypatch.setitem(
        resources.RESOURCES, "Nothing", resources.Resource("sluice.dev/v1alpha1", "Nothing", "nothings")
    )
    with pytest.raises(Gone):
        [item async for item in kube.list("Nothing")]


async def test_events_are_said_once_for_one_state(kube: KubeClient, namespace: str) -> None:
    created = await kube.create("Model", namespace, fresh("m", namespace))
    for _ in range(2):
        await kube.event(created, type_="Normal", reason="Tried", message="twice")
    events = [item async for item in kube.list("Event", namespace)]
    assert [(e["reason"], e["note"], e["regarding"]["name"]) for e in events] == [("Tried", "twice", "m")]
    assert events[0]["reportingController"] == "sluice"


@pytest.mark.parametrize("name", ["n" * 253, "n" * 229 + "-" + "n" * 20, "n" * 228 + ".-" + "n" * 20])
async def test_an_event_of_a_very_long_name_is_recorded(kube: KubeClient, namespace: str, name: str) -> None:
    regarding: Object = {
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {"name": name, "namespace": namespace, "uid": "1", "resourceVersion": "1"},
    }  # fmt: skip
    await kube.event(regarding, type_="Normal", reason="Tried", message="x")
    assert [e["regarding"]["name"] async for e in kube.list("Event", namespace)] == [name]


async def test_an_event_that_cannot_be_recorded_is_no_failure(kube: KubeClient, namespace: str) -> None:
    created = await kube.create("Model", namespace, fresh("m", namespace))
    await kube.event(created, type_="Strange", reason="Tried", message="x")
    assert [item async for item in kube.list("Event", namespace)] == []


async def test_a_server_that_is_away_is_unavailable(control_plane: ControlPlane) -> None:
    configuration = await load_configuration({**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        configuration.host = f"https://127.0.0.1:{taken.getsockname()[1]}"
        client = KubeClient(configuration, identity="test")
        with pytest.raises(KubeUnavailable, match="get /api/v1/namespaces/x"):
            await client.get("Namespace", "", "x")
        await client.close()


async def test_a_server_that_does_not_answer_is_unavailable_in_time(control_plane: ControlPlane) -> None:
    configuration = await load_configuration({**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        configuration.host = f"https://127.0.0.1:{silent.getsockname()[1]}"
        client = KubeClient(configuration, identity="test", call_timeout_seconds=0.3)
        with pytest.raises(KubeUnavailable, match="Timeout"):
            await client.get("Namespace", "", "x")
        await client.close()


@pytest.mark.parametrize("status", [200, 404, 429, 502])
async def test_what_a_proxy_says_in_between_is_an_outage(status: int) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text="<html>one moment, please</html>", content_type="text/html")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = KubeClient(Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"), identity="test")
    with pytest.raises(KubeUnavailable, match=str(status)):
        await client.get("Namespace", "", "x")
    await client.close()
    await runner.cleanup()


async def test_the_lease_is_asked_for_when_a_write_has_its_connection() -> None:
    """A process that was cut off finds writes that wait for a connection: whoever took over has gone on since."""
    held, answered, asked = True, asyncio.Event(), []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.path.rpartition('/')[2]}")
        await answered.wait()
        return web.json_response({"kind": "Any", "metadata": {"name": "x"}})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = KubeClient(Configuration(host=address), identity="test", concurrency=1)
    client.write_only_while(lambda: held)
    body = {"metadata": {"name": "x", "resourceVersion": "1"}}
    calls = [
        client.get("Endpoint", "a", "before"),
        client.create("Service", "a", body),
        client.replace("EndpointRoute", "a", body),
        client.replace_status("Endpoint", "a", body),
        client.patch_metadata("Endpoint", "a", "x", resource_version=None, annotations={"a": "b"}),
        client.delete("Deployment", "a", "x"),
        client.scale("Deployment", "a", "x", 3, uid="u"),
        client.evict("a", "x", uid="u", grace_seconds=1),
        client.get("Endpoint", "a", "after"),
        client.replace("Lease", "a", body),
        client.create("Event", "a", body),
    ]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await until(lambda: len(asked) == 2, 10)
    held = False
    answered.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in done] == [dict, *[NotHeld] * 7, dict, dict, dict]
    assert sorted(asked) == ["GET after", "GET before", "POST events", "PUT x"]
    held = True
    await client.delete("Deployment", "a", "x")
    assert asked[-1] == "DELETE x"
    await client.close()
    await runner.cleanup()


async def test_a_lease_that_runs_out_while_a_write_connects_keeps_it_from_going_out() -> None:
    """A node that was cut off: the connection comes to stand when another process has long gone on."""
    held, asked = True, list[str]()

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.json_response({"kind": "Any", "metadata": {"name": "x"}})

    async def run_out(*_: object) -> None:
        nonlocal held
        held = False

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connecting = aiohttp.TraceConfig()
    connecting.on_connection_create_start.append(run_out)
    configuration = Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    configuration.trace_configs = [connecting]
    client = KubeClient(configuration, identity="test")
    client.write_only_while(lambda: held)
    with pytest.raises(NotHeld, match=r"POST .*services was not sent"):
        await client.create("Service", "a", {"metadata": {"name": "x"}})
    assert asked == []
    held = True
    await client.create("Service", "a", {"metadata": {"name": "x"}})
    assert (asked, held) == (["POST"], True), "over the connection that was made"
    await client.close()
    await runner.cleanup()


class CountedThreads(ThreadPoolExecutor):
    """What a loop has threads do."""

    asked = 0

    def submit(self, *arguments: Any, **named: Any) -> Any:
        self.asked += 1
        return super().submit(*arguments, **named)


async def test_a_call_waits_for_no_thread(kube: KubeClient, namespace: str) -> None:
    """A loop that has much to do lets a thread wait for its turn, and the call with it."""
    threads = CountedThreads()
    asyncio.get_running_loop().set_default_executor(threads)
    assert await kube.get("Namespace", "", namespace) is not None
    assert threads.asked == 0


async def test_a_proxy_of_the_environment_is_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode().strip())
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    for bypassed in ("", "kubernetes.invalid"):
        monkeypatch.setenv("NO_PROXY", bypassed)
        client = KubeClient(Configuration(host="https://kubernetes.invalid"), identity="test")
        with pytest.raises(KubeUnavailable):
            await client.get("Namespace", "", "x")
        await client.close()
    server.close()
    assert asked == ["CONNECT kubernetes.invalid:443 HTTP/1.1"]


async def test_wrong_credentials_are_an_outage_and_missing_rights_are_named(control_plane: ControlPlane) -> None:
    from sluice.ports.kube import Forbidden

    configuration = await load_configuration({**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)})
    configuration.api_key = {"BearerToken": "Bearer nonsense"}
    configuration.refresh_api_key_hook = None
    stranger = KubeClient(configuration, identity="test")
    with pytest.raises(KubeUnavailable, match="401"):
        await stranger.get("Namespace", "", "default")
    await stranger.close()
    configuration.api_key = {}
    anonymous = KubeClient(configuration, identity="test")
    with pytest.raises(Forbidden, match='cannot get resource "namespaces"'):
        await anonymous.get("Namespace", "", "default")
    await anonymous.close()


async def test_no_kubeconfig_and_no_pod_is_said_so() -> None:
    with pytest.raises(NoKubernetesError, match="KUBECONFIG"):
        await load_configuration({"KUBECONFIG": "/nonexistent/kubeconfig"})


async def test_the_login_for_the_watches_is_the_same(kube: KubeClient, control_plane: ControlPlane) -> None:
    found = await kube.login()
    assert found.server == control_plane.url
    assert found.scheme == "Bearer"
    assert found.token
