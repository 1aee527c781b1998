"""What the process holds at most, measured from outside: its memory is limited, and it must not be killed with all
invocations that it has in hand."""

import asyncio
import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sluice.pipeline.room import Held, Room

MEBIBYTE = 1 << 20
MEMORY_BYTES = 128 * MEBIBYTE
PROCESS = """
import asyncio, sys
from aiohttp import web
from sluice.pipeline.server import Container, application

async def main():
    chain = [Container(number, int(port)) for number, port in enumerate(sys.argv[2:], start=1)]
    runner = web.AppRunner(application(chain, int(sys.argv[1])), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pipeline:
    """A pipeline in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}/invocations"

    @property
    def most_bytes(self) -> int:
        """The most that it ever had in memory."""
        assert self._process.poll() is None
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@asynccontextmanager
async def pipeline(*answers: Answer) -> AsyncIterator[Pipeline]:
    """One of containers that answer so."""
    runners, ports = [], []
    for answer in answers:
        app = web.Application(client_max_size=1 << 40)
        app.router.add_post("/invocations", answer)
        runners.append(web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1))
        await runners[-1].setup()
        await web.TCPSite(runners[-1], "127.0.0.1", 0, backlog=1024).start()
        ports.append(str(runners[-1].addresses[0][1]))
    argv = [sys.executable, "-c", PROCESS, str(MEMORY_BYTES), *ports]
    environment = {**os.environ, "PYTHONPATH": "operator"}
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: ASYNC220, S603
    try:
        assert process.stdout is not None
        yield Pipeline(process, int(await asyncio.to_thread(process.stdout.readline)))
    finally:
        process.kill()
        process.communicate()
        for runner in runners:
            await runner.cleanup()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=100)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


async def invoke_until_refused(client: aiohttp.ClientSession, url: str, body: bytes, number: int) -> list[str]:
    """That many at once, none of which is answered but by a refusal. Returns the refusals, after all others have been
    given up."""
    refusals: list[str] = []
    refused = asyncio.Event()

    async def one() -> None:
        async with client.post(url, data=body) as answer:
            assert answer.status == 503
            refusals.append(await answer.text())
            refused.set()

    calling = [asyncio.create_task(one()) for _ in range(number)]
    await asyncio.wait_for(refused.wait(), 60)
    await asyncio.wait(calling, timeout=2)
    for task in calling:
        task.cancel()
    ended = await asyncio.gather(*calling, return_exceptions=True)
    assert {type(one) for one in ended if isinstance(one, Exception)} <= {asyncio.CancelledError}
    return refusals


async def read(request: web.Request) -> web.StreamResponse:
    """Reads to the end, and says how much it was."""
    count = 0
    async for chunk in request.content.iter_chunked(MEBIBYTE):
        count += len(chunk)
    return web.Response(text=str(count))


async def read_nothing(request: web.Request) -> web.StreamResponse:
    if request.headers.get("Content-Length") == "1":
        return web.Response(text="small")
    await asyncio.Event().wait()
    raise AssertionError


async def test_requests_that_a_container_does_not_take_are_bounded(client: aiohttp.ClientSession) -> None:
    async with pipeline(read_nothing, read) as chain:
        refusals = await invoke_until_refused(client, chain.url, bytes(2 * MEBIBYTE), 120)
        assert chain.most_bytes < MEMORY_BYTES
        assert "the pipeline has no room for this invocation" in refusals[0]
        assert "MiB of at most 76 MiB here: try again later" in refusals[0]
        async with client.post(chain.url, data=b"1") as answer:
            assert (answer.status, await answer.text()) == (200, "5")


async def test_answers_that_the_next_container_does_not_take_are_bounded(client: aiohttp.ClientSession) -> None:
    async def large(request: web.Request) -> web.StreamResponse:
        return web.Response(body=bytes(8 * MEBIBYTE if await request.read() == b"large" else 1))

    async with pipeline(large, read_nothing) as chain:
        refusals = await invoke_until_refused(client, chain.url, b"large", 40)
        assert chain.most_bytes < MEMORY_BYTES
        assert re.search(r"the answer of container 1 \(port \d+\) cannot be handed on: invocations hold", refusals[0])
        async with client.post(chain.url, data=b"1") as answer:
            assert (answer.status, await answer.text()) == (200, "small")


async def test_a_request_of_any_size_passes(client: aiohttp.ClientSession) -> None:
    size = 160 * MEBIBYTE

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(size // MEBIBYTE):
            yield bytes(MEBIBYTE)

    async with pipeline(read, read) as chain:
        async with client.post(chain.url, data=parts(), headers={"Content-Length": str(size)}) as answer:
            assert (answer.status, await answer.text()) == (200, str(len(str(size))))
        assert chain.most_bytes < MEMORY_BYTES


async def test_a_body_that_comes_byte_by_byte_is_no_larger_than_it_is() -> None:
    async def drops() -> AsyncIterator[bytes]:
        for number in range(200_000):
            yield bytes([number % 256])

    share = Room(MEMORY_BYTES).share()
    held = Held(share)
    tracemalloc.start()
    try:
        await held.fill(drops(), None)
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    finally:
        tracemalloc.stop()
    assert b"".join([part async for part in held.sent()]) == bytes(number % 256 for number in range(200_000))
