"""One container contract in front of several: /ping is good when all containers' are, and /invocations hands each
answer on to the next container.

The body and Content-Type of an answer become the next container's request. Accept is the client's word about the last
answer and goes to the last container only; between containers their own default counts. An answer that is no success
ends the chain and is the client's, as it is. Nothing is tried twice: an invocation may have had effects.

A request and the last answer are passed on as they come. What one container says to the next is held until it is whole,
because half an answer is none; `room` says how much of that there may be."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from aiohttp import hdrs, web

from sluice.pipeline.room import BLOCK_BYTES, Held, NoRoom, Room, Share

logger = logging.getLogger(__name__)

PING_TIMEOUT_SECONDS: Final = 2.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0
MAX_CONTAINERS: Final = 15
_SAGEMAKER: Final = "x-amzn-sagemaker-"
DEFAULT_MEMORY_BYTES: Final = 512 << 20
"""Of the container, where SLUICE_PIPELINE_MEMORY_BYTES does not say it."""
_SMALLEST_MEMORY_BYTES: Final = 64 << 20
_SOCKET_BYTES: Final = 128 * 1024
"""Of each connection, in each direction; the kernel doubles it. By itself it takes megabytes for a peer that does not
read, and they count as the container's memory."""
_NO_HEADERS_OF_ITS_OWN: Final = (hdrs.USER_AGENT, hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE)


class BadRequest(ValueError):
    """SLUICE_PIPELINE cannot be read; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container: its place in the chain, from 1, and where it listens."""

    number: int
    port: int
    host: str = "127.0.0.1"

    def url(self, path: str) -> str:
        """An address of the container."""
        return f"http://{self.host}:{self.port}{path}"

    def __str__(self) -> str:
        return f"container {self.number} (port {self.port})"


def parse(text: str | None) -> tuple[Container, ...]:
    """The containers in SLUICE_PIPELINE: `{"ports": [8081, 8082]}`. Raises BadRequest."""
    allowed = f'{{"ports": [...]}} with 2 to {MAX_CONTAINERS} different ports'
    try:
        ports = json.loads(text or "")["ports"]
    except (ValueError, KeyError, TypeError):
        raise BadRequest(f"SLUICE_PIPELINE: found {text!r:.200}, allowed is {allowed}") from None
    good = isinstance(ports, list) and all(type(port) is int and 0 < port < 65536 for port in ports)
    if not good or not 2 <= len(ports) <= MAX_CONTAINERS or len(set(ports)) != len(ports):
        raise BadRequest(f"SLUICE_PIPELINE: found the ports {ports!r:.200}, allowed is {allowed}")
    return tuple(Container(number, port) for number, port in enumerate(ports, start=1))


def parse_memory(text: str | None) -> int:
    """SLUICE_PIPELINE_MEMORY_BYTES: the memory limit of the pipeline's container. Raises BadRequest."""
    if text is None:
        return DEFAULT_MEMORY_BYTES
    if not text.isdecimal() or int(text) < _SMALLEST_MEMORY_BYTES:
        raise BadRequest(
            f"SLUICE_PIPELINE_MEMORY_BYTES: found {text!r:.200}, allowed is an integer from {_SMALLEST_MEMORY_BYTES}"
        )
    return int(text)


def application(containers: Sequence[Container], memory_bytes: int = DEFAULT_MEMORY_BYTES) -> web.Application:
    """The server of a pipeline of these containers. `memory_bytes`: what the process may have in all."""
    pipeline = _Pipeline(tuple(containers), Room(memory_bytes))
    # Bodies pass as they are, with their Content-Encoding: unpacked, they would be something else, of any size.
    app = web.Application(handler_args={"auto_decompress": False, "read_bufsize": BLOCK_BYTES})
    app.cleanup_ctx.append(pipeline.session_of)
    app.router.add_get("/ping", pipeline.ping)
    app.router.add_post("/invocations", pipeline.invoke)
    return app


class _Pipeline:
    def __init__(self, containers: tuple[Container, ...], room: Room) -> None:
        self._containers = containers
        self._room = room
        self._session: aiohttp.ClientSession | None = None

    async def session_of(self, _app: web.Application) -> AsyncIterator[None]:
        # A connection for each request: a kept one that the container is about to close would lose the request.
        connector = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_socket)
        async with aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            read_bufsize=BLOCK_BYTES,
            skip_auto_headers=_NO_HEADERS_OF_ITS_OWN,
            # How long an invocation may take is the router's to say; it closes the connection then.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS),
        ) as self._session:
            yield

    @property
    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the application has not been started")
        return self._session

    async def ping(self, _request: web.Request) -> web.Response:
        """200 if every container says 200 within two seconds; else 503 and which do not."""
        problems = [said for said in await asyncio.gather(*map(self._problem, self._containers)) if said]
        if problems:
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text="; ".join(problems))
        return web.Response()

    async def _problem(self, container: Container) -> str | None:
        timeout = aiohttp.ClientTimeout(total=PING_TIMEOUT_SECONDS)
        try:
            async with self._client.get(container.url("/ping"), timeout=timeout, allow_redirects=False) as answer:
                return None if answer.status == HTTPStatus.OK else f"{container}: /ping answers {answer.status}"
        except TimeoutError:
            return f"{container}: /ping is not answered within {PING_TIMEOUT_SECONDS:g} s"
        except aiohttp.ClientError as error:
            return f"{container}: /ping fails: {error}"

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        """The chain. The last answer, or the first that is no success, is streamed back."""
        if request.transport is not None:
            _limit(request.transport.get_extra_info("socket"))
        try:
            with self._room.share() as share:
                return await self._chain(request, share)
        except NoRoom as error:
            # 503 may take the pod out for some seconds, which helps one that is full. What is too large would be too
            # large for all pods, so it must have no status by which one caller could take them out.
            too_large = HTTPStatus.INTERNAL_SERVER_ERROR
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE if error.later else too_large, str(error))

    async def _chain(self, request: web.Request, share: Share) -> web.StreamResponse:
        """Raises NoRoom."""
        length = request.content_length
        body: AsyncIterator[bytes] = request.content.iter_chunked(BLOCK_BYTES)
        if length is None:
            held = Held(share)
            try:
                await held.fill(body, None)
            except NoRoom as error:
                if error.later:
                    raise
                return _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request has no Content-Length, and {error}")
            length, body = held.length, held.sent()
        else:
            share.passes(length)
        content = _content_headers(request.headers)
        last = self._containers[-1]
        for container in self._containers:
            headers = {**_sagemaker_headers(request.headers), **content, hdrs.CONTENT_LENGTH: str(length)}
            if container is last and hdrs.ACCEPT in request.headers:
                headers[hdrs.ACCEPT] = request.headers[hdrs.ACCEPT]
            try:
                answer = await self._client.post(
                    container.url("/invocations"), data=body, headers=headers, allow_redirects=False
                )
            except (aiohttp.ClientError, TimeoutError) as error:
                return _broken(container, error)
            async with answer:
                if container is last or answer.status >= HTTPStatus.MULTIPLE_CHOICES:
                    share.passes(answer.content_length)
                    return await _hand_back(request, container, answer)
                held = Held(share)
                try:
                    await held.fill(answer.content.iter_chunked(BLOCK_BYTES), answer.content_length)
                except (aiohttp.ClientError, TimeoutError) as error:
                    return _broken(container, error)
                except NoRoom as error:
                    raise NoRoom(f"the answer of {container} cannot be handed on: {error}", later=error.later) from None
                length, body = held.length, held.sent()
                content = _content_headers(answer.headers)
        raise AssertionError("a pipeline has containers")


async def _hand_back(request: web.Request, container: Container, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Streams an answer as it comes. Where the container breaks off, the connection does too: the client must not take
    half an answer for a whole one."""
    headers = {**_sagemaker_headers(answer.headers), **_content_headers(answer.headers)}
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    if answer.content_length is not None:
        response.content_length = answer.content_length
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_chunked(BLOCK_BYTES):
            await response.write(chunk)
    except aiohttp.ClientError as error:
        logger.warning("%s broke off its answer: %s", container, error)
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    _limit(made)
    return made


def _limit(connection: Any) -> None:
    """Of a socket, or what asyncio shows of one."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BYTES)


def _refused(status: HTTPStatus, why: str) -> web.Response:
    text = f"the pipeline has no room for this invocation: {why}"
    logger.warning("%s", text)
    return web.Response(status=status, text=text)


def _broken(container: Container, error: BaseException) -> web.Response:
    text = f"{container} did not answer: {error or type(error).__name__}"
    logger.warning("%s", text)
    return web.Response(status=HTTPStatus.BAD_GATEWAY, text=text)


def _content_headers(headers: Any) -> dict[str, str]:
    return {name: headers[name] for name in (hdrs.CONTENT_TYPE, hdrs.CONTENT_ENCODING) if name in headers}


def _sagemaker_headers(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower().startswith(_SAGEMAKER)}
