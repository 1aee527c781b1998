"""The pipeline between real servers on the loopback interface."""

import asyncio
import gzip
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from sluice.pipeline.server import BadRequest, Container, application, parse, parse_memory

Answer = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


@dataclass
class Model:
    """A container: answers with its name before the body, and remembers what it was asked."""

    name: str
    answer: Answer | None = None
    ping_status: int = 200
    ping_hangs: bool = False
    asked: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def application(self) -> web.Application:
        """Its server."""
        app = web.Application(client_max_size=2**30, handler_args={"auto_decompress": False})
        app.router.add_get("/ping", self._ping)
        app.router.add_post("/invocations", self._invocations)
        return app

    async def _ping(self, _request: web.Request) -> web.Response:
        if self.ping_hangs:
            await asyncio.Event().wait()
        return web.Response(status=self.ping_status)

    async def _invocations(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append(({name.lower(): value for name, value in request.headers.items()}, body))
        if self.answer is not None:
            return await self.answer(request, body)
        return web.Response(
            body=self.name.encode() + b">" + body,
            headers={
                "Content-Type": f"text/{self.name}",
                "X-Amzn-SageMaker-Custom-Attributes": self.name,
                "X-Own": "1",
            },
        )


async def _serve(app: web.Application, runners: list[web.AppRunner]) -> int:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    runners.append(runner)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port: int = runner.addresses[0][1]
    return port


Start = Callable[..., Awaitable[str]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts models (None: nothing listens there) and a pipeline of them; returns its address."""
    runners: list[web.AppRunner] = []

    async def _start(*models: Model | None, memory_bytes: int = 512 << 20) -> str:
        ports = [await _serve(model.application(), runners) if model else _closed_port() for model in models]
        chain = [Container(number, port) for number, port in enumerate(ports, start=1)]
        return f"http://127.0.0.1:{await _serve(application(chain, memory_bytes), runners)}"

    yield _start
    for runner in reversed(runners):
        await runner.cleanup()


def _closed_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


async def test_each_answer_is_the_next_request(start: Start, client: aiohttp.ClientSession) -> None:
    models = [Model("a"), Model("b"), Model("c")]
    headers = {
        "Content-Type": "text/csv",
        "Accept": "application/x-last",
        "X-Amzn-SageMaker-Inference-Id": "7",
        "Authorization": "secret",
    }
    async with client.post(f"{await start(*models)}/invocations", data=b"1,2", headers=headers) as answer:
        assert (answer.status, await answer.read()) == (200, b"c>b>a>1,2")
        assert answer.headers["Content-Type"] == "text/c"
        assert answer.headers["X-Amzn-SageMaker-Custom-Attributes"] == "c"
        assert "X-Own" not in answer.headers
    seen = [model.asked[0][0] for model in models]
    assert [each["content-type"] for each in seen] == ["text/csv", "text/a", "text/b"]
    assert [each.get("accept") for each in seen] == [None, None, "application/x-last"]
    assert [each["x-amzn-sagemaker-inference-id"] for each in seen] == ["7"] * 3
    assert not any("authorization" in each for each in seen)


async def test_large_bodies_pass(start: Start, client: aiohttp.ClientSession) -> None:
    body = os.urandom(8 * 1024 * 1024)
    async with client.post(f"{await start(Model('a'), Model('b'))}/invocations", data=body) as answer:
        assert await answer.read() == b"b>a>" + body


@pytest.mark.parametrize("body", [b"", b"1,2"])
async def test_bodies_pass_without_a_length_too(start: Start, client: aiohttp.ClientSession, body: bytes) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield body

    async with client.post(f"{await start(Model('a'), Model('b'))}/invocations", data=parts()) as answer:
        assert await answer.read() == b"b>a>" + body
    async with client.post(f"{await start(Model('a'), Model('b'))}/invocations", data=body) as answer:
        assert await answer.read() == b"b>a>" + body


async def test_a_compressed_body_passes_as_it_is(start: Start, client: aiohttp.ClientSession) -> None:
    """It came unpacked, and called gzip: no container could read it, and a small one could fill all memory."""
    body = gzip.compress(bytes(1000))
    first = Model("a")
    url = f"{await start(first, Model('b'))}/invocations"
    async with client.post(url, data=body, headers={"Content-Encoding": "gzip"}) as answer:
        assert answer.status == 200
    ((headers, seen),) = first.asked
    assert (headers["content-encoding"], seen) == ("gzip", body)


async def test_what_is_too_large_for_any_pipeline_is_told(start: Start, client: aiohttp.ClientSession) -> None:
    """By a status that takes no pod out: what one caller sends would else take out all of them."""

    async def large(_request: web.Request, body: bytes) -> web.Response:
        return web.Response(body=bytes(40 << 20 if body == b"large" else 1))

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(1 << 20)

    models = [Model("a", answer=large), Model("b")]
    url = f"{await start(*models, memory_bytes=64 << 20)}/invocations"
    async with client.post(url, data=b"large") as answer:
        assert answer.status == 500
        assert "the answer of container 1 (port " in (text := await answer.text())
        assert "it is more than the 38 MiB that can be held here" in text
    async with client.post(url, data=parts()) as answer:
        assert (answer.status, "has no Content-Length" in await answer.text()) == (413, True)
    async with client.post(url, data=b"small") as answer:
        assert answer.status == 200
    assert (len(models[0].asked), len(models[1].asked)) == (2, 1)


@pytest.mark.parametrize("failing", [0, 1, 2])
@pytest.mark.parametrize("status", [302, 400, 500])
async def test_what_is_no_success_ends_the_chain_as_it_is(
    start: Start, client: aiohttp.ClientSession, failing: int, status: int
) -> None:
    async def refuse(_request: web.Request, _body: bytes) -> web.Response:
        headers = {"Content-Type": "text/x-why", "Location": "/ping"}
        return web.Response(status=status, body=b"no", headers=headers)

    models = [Model("a"), Model("b"), Model("c")]
    models[failing].answer = refuse
    url = f"{await start(*models)}/invocations"
    async with client.post(url, data=b"1", allow_redirects=False) as answer:
        assert (answer.status, await answer.text(), answer.headers["Content-Type"]) == (status, "no", "text/x-why")
    assert [len(model.asked) for model in models] == [1] * (failing + 1) + [0] * (2 - failing)


async def test_a_container_that_is_away_is_named(start: Start, client: aiohttp.ClientSession) -> None:
    async with client.post(f"{await start(Model('a'), None)}/invocations", data=b"1") as answer:
        assert answer.status == 502
        assert "container 2 (port " in await answer.text()


async def test_half_an_answer_is_no_answer(start: Start, client: aiohttp.ClientSession) -> None:
    async def break_off(request: web.Request, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    between = await start(Model("a", answer=break_off), Model("b"))
    async with client.post(f"{between}/invocations", data=b"1") as answer:
        assert (answer.status, "container 1" in await answer.text()) == (502, True)
    last = await start(Model("a"), Model("b", answer=break_off))
    with pytest.raises(aiohttp.ClientError):
        async with client.post(f"{last}/invocations", data=b"1") as answer:
            await answer.read()


async def test_the_last_answer_is_streamed(start: Start, client: aiohttp.ClientSession) -> None:
    received = asyncio.Event()

    async def tokens(request: web.Request, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await asyncio.wait_for(received.wait(), 60)
        await response.write(b"second")
        return response

    async with client.post(f"{await start(Model('a'), Model('b', answer=tokens))}/invocations", data=b"1") as answer:
        assert await answer.content.readany() == b"first"
        received.set()
        assert await answer.content.read() == b"second"


async def test_a_client_that_is_gone_ends_the_invocation(start: Start, client: aiohttp.ClientSession) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request, _body: bytes) -> web.StreamResponse:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    url = f"{await start(Model('a', answer=slow), Model('b'))}/invocations"
    calling = asyncio.create_task(client.post(url, data=b"1"))
    await asyncio.wait_for(asked.wait(), 60)
    calling.cancel()
    await asyncio.wait_for(ended.wait(), 60)


async def test_ping_is_good_when_all_are(start: Start, client: aiohttp.ClientSession) -> None:
    models = [Model("a"), Model("b")]
    url = await start(*models)
    async with client.get(f"{url}/ping") as answer:
        assert answer.status == 200
    models[1].ping_status = 404
    async with client.get(f"{url}/ping") as answer:
        assert answer.status == 503
        assert "container 2" in await answer.text()
        assert "answers 404" in await answer.text()
    models[1].ping_status, models[0].ping_hangs = 200, True
    async with client.get(f"{url}/ping") as answer:
        assert answer.status == 503
        assert "not answered within 2 s" in await answer.text()


async def test_ping_of_a_container_that_is_away(start: Start, client: aiohttp.ClientSession) -> None:
    async with client.get(f"{await start(None, Model('b'))}/ping") as answer:
        assert answer.status == 503
        assert "container 1" in await answer.text()


def test_the_containers_are_read() -> None:
    assert parse('{"ports": [8081, 8082]}') == (Container(1, 8081), Container(2, 8082))
    assert Container(1, 8081).url("/ping") == "http://127.0.0.1:8081/ping"


@pytest.mark.parametrize(
    "text",
    [None, "", "[]", "{}", '{"ports": 1}', '{"ports": [1]}', '{"ports": [1, 1]}', '{"ports": [0, 1]}',
     '{"ports": [true, 2]}', '{"ports": ["1", 2]}', '{"ports": [1, 65536]}', f'{{"ports": {list(range(1, 17))}}}'],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text: str | None) -> None:
    with pytest.raises(BadRequest, match=r"SLUICE_PIPELINE: found .* allowed is"):
        parse(text)


def test_the_memory_is_read() -> None:
    assert (parse_memory("134217728"), parse_memory(None)) == (128 << 20, 512 << 20)


@pytest.mark.parametrize("text", ["", "512Mi", "-1", "1000", "1e9"])
def test_a_memory_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=r"SLUICE_PIPELINE_MEMORY_BYTES: found .* allowed is"):
        parse_memory(text)


def test_the_process_says_what_is_wrong_with_its_environment() -> None:
    environment = {**os.environ, "SLUICE_PIPELINE": "nonsense", "PYTHONPATH": "operator"}
    argv = [sys.executable, "-m", "sluice.pipeline"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    assert (done.returncode, "SLUICE_PIPELINE: found 'nonsense'" in done.stderr) == (2, True)
