"""Loopback proxies before the API server, SageMaker and CloudWatch: they name every call and can stop the world at one.

The operator talks to them as to the real ones and knows nothing of it. Each call gets a key that is the same in every
run of a scenario: port, verb, and what it is about, without generated names. At an armed key the operator's process is
killed, either before the call is forwarded or after it was answered upstream and before the answer is handed on.
"""

import asyncio
import contextlib
import json
import re
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import yaml
from aiohttp import web
from tests.operator.harness.kube import Kube

Side = Literal["before", "after"]
START_SECONDS = 120.0
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te", "upgrade"}
_READS = ("Describe", "List", "Get")
_WRITES = ("POST", "PUT", "PATCH", "DELETE")
_LOOK, _SWEEP = "sagemaker DescribeEndpoint", "sagemaker ListEndpoints"
_CONFIRMED = ("endpoints", "endpointconfigs", "models", "controllerrevisions")
"""A single one of them is read to be sure of it, where the watch may be behind: not in every run."""
_BY_THE_CLOCK = ("kubernetes WATCH", "kubernetes SWEEP", "alarms ")
"""Besides looks and sweeps: calls that an operator at rest makes too, whatever happens."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it is recorded. `repeats`: polling; its repetitions are one point. `optional`: a confirmation, which
    one way to the same end needs and another does not."""

    key: str
    repeats: bool
    optional: bool = False

    @property
    def by_the_clock(self) -> bool:
        """Whether it says nothing about what the operator is at."""
        return self.key.startswith(_BY_THE_CLOCK) or "/sluice-" in self.key


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a scenario: before or after the n-th call (from 1) of a key."""

    key: str
    number: int
    side: Side
    optional: bool = field(default=False, compare=False)

    @property
    def writes(self) -> bool:
        """Whether the call changes something that the operator goes by."""
        port, verb, *what = self.key.split()
        if port == "kubernetes":
            return verb in _WRITES and what[:1] != ["events"]
        return port == "sagemaker" and not verb.startswith(_READS)

    def __str__(self) -> str:
        return f"{self.side} {self.key}" + (f" #{self.number}" if self.number > 1 else "")


class Proxies:
    """One listener for each of the three; `kubernetes`, `sagemaker` and `cloudwatch` are their addresses."""

    def __init__(
        self,
        kube: Kube,
        sagemaker_url: str,
        cloudwatch_url: str,
        directory: Path,
        *,
        kubernetes: "Callable[[str, str, Any, bytes], Call] | None" = None,
    ) -> None:
        """kubernetes: names the calls to the API server, where `kubernetes_call` says too little."""
        self.calls: list[Call] = []
        self.passed = 0
        """Calls that something made necessary, recorded or not."""
        self._name_kubernetes = kubernetes or kubernetes_call
        self.fired = threading.Event()
        self.sagemaker = self.cloudwatch = ""
        self.kubeconfig = directory / "proxied.kubeconfig"
        self._kube = kube
        self._upstreams = (sagemaker_url, cloudwatch_url)
        self._recording = False
        self._watched: set[str] = set()
        self._armed: Point | None = None
        self._kill: Callable[[], None] = lambda: None
        self._seen: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._looks: Counter[str] = Counter()
        self._working = 0
        self._swept = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxies", daemon=True)

    def start(self) -> "Proxies":
        """Listen."""
        self._thread.start()
        assert self._started.wait(START_SECONDS), "the proxies did not start"
        return self

    def stop(self) -> None:
        """End; open watches are cut."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(START_SECONDS)

    def up(self, kinds: frozenset[str]) -> bool:
        """Whether the operator has come up: it watches these kinds, and has swept once after that."""
        return self._watched >= kinds and self._swept

    def looked(self, seconds: float) -> bool:
        """Wait until the operator, since `look_anew`, has looked at its endpoint twice and listed all of them, and had
        nothing else to do after the first look: what it saw there was no news. False after so many seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._working and self._looks[_LOOK] >= 2 and self._looks[_SWEEP] >= 1, seconds
            )

    def look_anew(self) -> None:
        """What was looked at until now does not count: the world has changed."""
        with self._changed:
            self._looks.clear()

    def record(self) -> None:
        """Count and record calls from now on."""
        self._recording = True

    def arm(self, point: Point, kill: Callable[[], None]) -> None:
        """At this point, counted from now on, call `kill` and do not answer."""
        self._armed, self._kill = point, kill
        self._recording = True

    def points(self) -> list[Point]:
        """Two for every recorded call, polling taken once."""
        numbers: Counter[str] = Counter()
        made: list[Point] = []
        for call in self.calls:
            numbers[call.key] += 1
            if call.repeats and numbers[call.key] > 1:
                continue
            made += [Point(call.key, numbers[call.key], side, call.optional) for side in ("before", "after")]
        return made

    # Serving ------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        trust = ssl.create_default_context(cafile=str(self._kube.authority))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=60)
        async with contextlib.AsyncExitStack() as stack:
            session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    timeout=timeout,
                    auto_decompress=False,
                    trust_env=False,
                    connector=aiohttp.TCPConnector(ssl=trust, limit=0),
                )
            )
            addresses = []
            for upstream, name in (
                (self._kube.server, self._name_kubernetes),
                (self._upstreams[0], aws_call("sagemaker")),
                (self._upstreams[1], aws_call("alarms")),
            ):
                addresses.append(await self._listen(stack, session, upstream, name))
            kubernetes, self.sagemaker, self.cloudwatch = addresses
            self.kubeconfig.write_text(_kubeconfig(kubernetes, self._kube.token))
            self._started.set()
            await self._stopping.wait()

    async def _listen(
        self,
        stack: contextlib.AsyncExitStack,
        session: aiohttp.ClientSession,
        upstream: str,
        name: Callable[[str, str, Any, bytes], Call],
    ) -> str:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._forward(session, upstream, name, request)

        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _forward(
        self,
        session: aiohttp.ClientSession,
        upstream: str,
        name: Callable[[str, str, Any, bytes], Call],
        request: web.Request,
    ) -> web.StreamResponse:
        body = await request.read()
        call = name(request.method, request.raw_path, request.headers, body)
        number = self._note(call)
        with self._under_way(call):
            return await self._answer(session, upstream, request, body, call, number)

    async def _answer(
        self,
        session: aiohttp.ClientSession,
        upstream: str,
        request: web.Request,
        body: bytes,
        call: Call,
        number: int,
    ) -> web.StreamResponse:
        if self._strikes(call, number, "before"):
            return self._strike(request)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP_BY_HOP}
        try:
            async with session.request(
                request.method, upstream + request.raw_path, headers=headers, data=body or None, allow_redirects=False
            ) as answer:
                if self._strikes(call, number, "after"):
                    if "watch=" not in request.raw_path:
                        await answer.read()
                    return self._strike(request)
                passed = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP_BY_HOP}
                response = web.StreamResponse(status=answer.status, headers=passed)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, ConnectionResetError) as error:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=502, text=repr(error))

    @contextlib.contextmanager
    def _under_way(self, call: Call) -> Iterator[None]:
        """Keeps the books of `up` and `looked`."""
        works = not call.by_the_clock and call.key not in (_LOOK, _SWEEP)
        with self._changed:
            if call.key.startswith("kubernetes WATCH"):
                self._watched.add(call.key.rpartition(" ")[2])
                self._swept = False
            if works:
                self._working += 1
                self.passed += 1
                self._looks.clear()
            else:
                self._looks[call.key] += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= works
                self._swept |= call.key == "kubernetes SWEEP controllerrevisions"
                self._changed.notify_all()

    def _note(self, call: Call) -> int:
        if not self._recording:
            return 0
        self.calls.append(call)
        self._seen[call.key] += 1
        return self._seen[call.key]

    def _strikes(self, call: Call, number: int, side: Side) -> bool:
        return self._armed == Point(call.key, number, side) and not self.fired.is_set()

    def _strike(self, request: web.Request) -> web.StreamResponse:
        self._kill()
        self.fired.set()
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)


def kubernetes_call(method: str, raw_path: str, headers: Any, body: bytes) -> Call:
    """Names a call to the API server: `kubernetes PUT endpoints/churn/status Creating+CreateEndpoint`.

    Generated names fall away; a status is named by what it says of the endpoint and of the call under way, an event
    by its reason, a patch by what it writes."""
    path, _, query = raw_path.partition("?")
    parts = re.sub(r"^/(api/v1|apis/[^/]+/[^/]+)(/|$)", "", re.sub(r"/namespaces/[^/]+/", "/", path))
    resource, *rest = parts.strip("/").split("/") if parts.strip("/") else [path]
    verb = method
    if method == "GET" and "watch=" in query:
        verb = "WATCH"
    elif method == "GET" and "PartialObjectMetadataList" in headers.get("Accept", ""):
        verb = "SWEEP"
    words = ["kubernetes", verb, resource]
    if resource in ("endpoints", "endpointconfigs", "models", "configmaps", "leases"):
        words[-1] = "/".join([resource, *rest])
    elif verb == "GET" and rest:
        words[-1] += "/*"
    polling = method == "GET"
    if method == "PUT" and rest[-1:] == ["status"]:
        words.append(_status_words(json.loads(body)))
        polling = True
    elif method == "PATCH" and resource == "controllerrevisions":
        words.append(str(json.loads(body)["metadata"]["annotations"].get("sluice.dev/outcome")))
        polling = True
    elif method == "PATCH":
        patch = json.loads(body)
        marks = patch.get("metadata") if isinstance(patch, dict) else None  # a scale's is a list of operations
        words.append("+".join(sorted(marks or rest[1:])))
    elif resource == "events":
        words.append(json.loads(body)["reason"])
        polling = True
    elif resource == "leases":
        polling = True
    confirms = verb == "GET" and bool(rest) and resource in _CONFIRMED
    return Call(" ".join(words), polling, confirms)


def _status_words(item: dict[str, Any]) -> str:
    status = item.get("status") or {}
    if item["kind"] != "Endpoint":
        return " ".join(f"{c['type']}={c['status']}" for c in status.get("conditions") or ())
    intent = status.get("intent") or {}
    return "+".join(
        str(word)
        for word in (
            status.get("endpointStatus"),
            intent.get("operation"),
            "accepted" if intent.get("accepted") else None,
            (status.get("lastDeployment") or {}).get("outcome"),
        )
        if word
    )


def aws_call(port: str) -> Callable[[str, str, Any, bytes], Call]:
    """Names calls to AWS by their operation, whichever of AWS' protocols they use."""

    def name(method: str, raw_path: str, headers: Any, body: bytes) -> Call:
        target = headers.get("X-Amz-Target", "").rpartition(".")[2]
        found = re.search(r"/operation/(\w+)", raw_path) or re.search(r"(?:^|&)Action=(\w+)", body.decode("latin-1"))
        operation = target or (found[1] if found else f"{method} {raw_path}")
        return Call(f"{port} {operation}", operation.startswith(_READS))

    return name


def _kubeconfig(server: str, token: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxied", "cluster": {"server": server}}],
            "users": [{"name": "proxied", "user": {"token": token}}],
            "contexts": [{"name": "proxied", "context": {"cluster": "proxied", "user": "proxied"}}],
            "current-context": "proxied",
        }
    )
