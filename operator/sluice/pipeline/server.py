"""One container contract in front of several: /ping is good when all containers' are, and /invocations hands each
answer on to the next container.

The body and Content-Type of an answer become the next container's request. Accept is the client's word about the last
answer and goes to the last container only; between containers their own default counts. An answer that is no success
ends the chain and is the client's, as it is. Nothing is tried twice: an invocation may have had effects."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from aiohttp import hdrs, web

logger = logging.getLogger(__name__)

PING_TIMEOUT_SECONDS: Final = 2.0
CONNECT_TIMEOUT_SECONDS: Final = 5.0
MAX_CONTAINERS: Final = 15
_SAGEMAKER: Final = "x-amzn-sagemaker-"
_CHUNK_BYTES: Final = 64 * 1024
_ANY_SIZE: Final = 2**63 - 1
"""The router bounds what comes in; what the containers say to each other has no bound but their memory."""
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


def application(containers: Sequence[Container]) -> web.Application:
    """The server of a pipeline of these containers."""
    pipeline = _Pipeline(tuple(containers))
    app = web.Application(client_max_size=_ANY_SIZE)
    app.cleanup_ctx.append(pipeline.session_of)
    app.router.add_get("/ping", pipeline.ping)
    app.router.add_post("/invocations", pipeline.invoke)
    return app


class _Pipeline:
    def __init__(self, containers: tuple[Container, ...]) -> None:
        self._containers = containers
        self._session: aiohttp.ClientSession | None = None

    async def session_of(self, _app: web.Application) -> AsyncIterator[None]:
        # A connection for each request: a kept one that the container is about to close would lose the request.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
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
        body: bytes = await request.read()
        content = _content_headers(request.headers)
        last = self._containers[-1]
        for container in self._containers:
            headers = {**_sagemaker_headers(request.headers), **content}
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
                    return await _hand_back(request, container, answer)
                try:
                    body = await answer.read()
                except (aiohttp.ClientError, TimeoutError) as error:
                    return _broken(container, error)
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
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except aiohttp.ClientError as error:
        logger.warning("%s broke off its answer: %s", container, error)
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


def _broken(container: Container, error: BaseException) -> web.Response:
    text = f"{container} did not answer: {error or type(error).__name__}"
    logger.warning("%s", text)
    return web.Response(status=HTTPStatus.BAD_GATEWAY, text=text)


def _content_headers(headers: Any) -> dict[str, str]:
    return {name: headers[name] for name in (hdrs.CONTENT_TYPE, hdrs.CONTENT_ENCODING) if name in headers}


def _sagemaker_headers(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower().startswith(_SAGEMAKER)}
