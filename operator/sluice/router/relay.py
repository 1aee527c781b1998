"""InvokeEndpointWithResponseStream: frames the container's answer and says in the stream when it broke off.

Envoy ends a caller's stream together with the container's, so it cannot say why. It therefore hands these requests to
this process, which sends them back through Envoy's inner listener, where variants, weights, retries, shadows, limits
and metrics are those of every invocation. Both ways are sockets in the directory of the pod's containers.

What fails before the first byte is an ordinary answer, and passed on as it is. After it, what the container does wrong
is a ModelStreamError, and what the router does (it must go, or has a bug) an InternalStreamFailure."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from sluice.router import frames, headers
from sluice.router.bootstrap import INNER_SOCKET, RELAY_SOCKET
from sluice.router.replies import CONTAINER_BROKE_OFF, TIMED_OUT_REPLY, Json

logger = logging.getLogger(__name__)

BUFFER_BYTES: Final = 65536
"""Of a container's answer; aiohttp stops reading at twice this while the caller does not take it."""
READ_AT_ONCE_BYTES: Final = 65536
"""A request of at most this is sent on in one piece (Envoy has all of it by then); larger ones are passed through."""
LAST_WORDS_SECONDS: Final = 5
"""For telling the callers of streams that this router goes; then their connections close."""
LIVE_PATH: Final = "/relay"
_HEADER_SIZES: Final[dict[str, Any]] = {"max_line_size": 65536, "max_field_size": 65536}
"""More than Envoy lets through."""
_NOT_PASSED_ON: Final = frozenset({"connection", "transfer-encoding", "keep-alive"})
_NOT_IN_A_STREAM: Final = frozenset({*_NOT_PASSED_ON, "content-length", "content-encoding", "content-type", "date"})


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a container may take."""

    pause_seconds: float
    """To the first byte and from one to the next."""
    whole_seconds: float

    @classmethod
    def read(cls, text: str) -> "Limits":
        """As the route writes it (headers.RELAY). Raises ValueError."""
        pause, whole = text.split("/")
        return cls(float(pause), float(whole))


class _Watch:
    """Ends the wait for a container's next bytes: when they are late, when the stream has lasted too long, or when the
    router goes. One timer for a whole stream, set anew only when it has rung: a chunk costs it nothing."""

    def __init__(self, limits: Limits, ends: float, timeout: asyncio.Timeout) -> None:
        self._limits, self._ends, self._timeout = limits, ends, timeout
        self._loop = asyncio.get_running_loop()
        self._since: float | None = self._loop.time()
        self._leaving = False
        self._timer = self._loop.call_at(min(self._loop.time() + limits.pause_seconds, ends), self._ring)

    @property
    def waiting(self) -> bool:
        """Whether it is the container that is waited for, not the caller."""
        return self._since is not None

    def waits(self) -> None:
        """The container's next bytes are waited for. Raises TimeoutError when the stream has lasted too long."""
        self._since = self._loop.time()
        if self._since >= self._ends:  # also while chunks come without a pause
            raise TimeoutError

    def got(self) -> None:
        """They came; now it is the caller who is waited for."""
        self._since = None

    def leave(self) -> None:
        """The router goes: end now."""
        if not self._timeout.expired():
            self._leaving = True
            self._timeout.reschedule(self._loop.time())

    def close(self) -> None:
        """The stream has ended."""
        self._timer.cancel()

    def last_words(self) -> bytes:
        """The message that ends a stream whose wait was ended."""
        if self._leaving:
            return frames.internal_stream_failure("The router that this stream came through goes; invoke again")
        message = f"The container sent nothing for {self._limits.pause_seconds:g} s"
        if self._loop.time() >= self._ends:
            message = f"The container did not end its answer within {self._limits.whole_seconds:g} s"
        return frames.model_stream_error("ModelInvocationTimeExceeded", message)

    def _ring(self) -> None:
        now = self._loop.time()
        due = min((now if self._since is None else self._since) + self._limits.pause_seconds, self._ends)
        if self._since is not None and now >= due:
            self._timeout.reschedule(now)
            return
        # A caller who does not read is Envoy's to end; once he does, the loop looks at the stream's end itself.
        self._timer = self._loop.call_at(max(due, now + 1) if self._since is None else due, self._ring)


class Relay:
    """Bounded in memory: a stream holds at most BUFFER_BYTES a few times. Made inside the event loop."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / RELAY_SOCKET
        self._session = aiohttp.ClientSession(
            # Envoy bounds the number of streams (circuit breaker of the relay's cluster).
            connector=aiohttp.UnixConnector(str(directory / INNER_SOCKET), limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("accept", "accept-encoding", "user-agent", "content-type"),
            read_bufsize=BUFFER_BYTES,
            **_HEADER_SIZES,
        )
        app = web.Application()
        app.add_routes([web.get(LIVE_PATH, self._live), web.post("/endpoints/{name}/{operation}", self._relay)])
        app.on_response_prepare.append(_without_server)
        # A caller that goes away ends the handler, and with it the request to the container.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=75,
            shutdown_timeout=LAST_WORDS_SECONDS,
            **_HEADER_SIZES,
        )
        self._watches: set[_Watch] = set()

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        await web.UnixSite(self._runner, self._socket, backlog=1024).start()
        self._socket.chmod(0o600)

    async def close(self) -> None:
        """Take nothing new. The callers of streams that run are told, within LAST_WORDS_SECONDS."""
        for watch in self._watches:
            watch.leave()
        await self._runner.cleanup()
        await self._session.close()

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="LIVE\n")

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        limits = Limits.read(request.headers[headers.RELAY])
        clock = asyncio.get_running_loop()
        ends = clock.time() + limits.whole_seconds
        passed_on = [(k, v) for k, v in request.headers.items() if k.lower() not in _NOT_PASSED_ON]
        try:
            async with asyncio.timeout(min(limits.pause_seconds, limits.whole_seconds)):
                answer = await self._session.post(
                    f"http://envoy{request.raw_path}",
                    headers=passed_on,
                    data=await _body(request),
                    allow_redirects=False,
                )
        except TimeoutError:
            return _reply(424, "ModelError", TIMED_OUT_REPLY)
        except aiohttp.ClientConnectorError as error:
            return _reply(503, "ServiceUnavailable", {"Message": f"The router is not ready: {error}"})
        except aiohttp.ClientError as error:
            return _reply(424, "ModelError", {**CONTAINER_BROKE_OFF, "OriginalMessage": str(error)})
        # Leaving the block before the answer's end closes the connection: Envoy then cancels the container's request.
        async with answer:
            if answer.status >= 300 or headers.ERROR_TYPE in answer.headers:
                return await _pass_on(request, answer)
            return await self._stream(request, answer, limits, ends)

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, limits: Limits, ends: float
    ) -> web.StreamResponse:
        """A container's good answer, framed chunk by chunk as it comes."""
        response = _framed(answer)
        await response.prepare(request)
        try:
            async with asyncio.timeout(None) as timeout:
                watch = _Watch(limits, ends, timeout)
                self._watches.add(watch)
                try:
                    await _frame(answer, response, watch)
                finally:
                    self._watches.discard(watch)
                    watch.close()
        except TimeoutError:
            await response.write(watch.last_words())
        except aiohttp.ClientError as error:
            if not watch.waiting:
                raise  # the caller is gone
            logger.info("%s: the container broke off: %s", request.path, error)
            message = "The container closed the connection before it had sent its whole answer"
            await response.write(frames.model_stream_error("StreamBroken", message))
        except Exception:
            logger.exception("%s: the stream could not be framed", request.path)
            await response.write(frames.internal_stream_failure("The router failed; its log tells more"))
        return response


async def _body(request: web.Request) -> bytes | aiohttp.StreamReader | None:
    if not request.can_read_body:
        return None
    if request.content_length is not None and request.content_length <= READ_AT_ONCE_BYTES:
        return await request.read()
    return request.content


async def _without_server(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("server", None)


async def _pass_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """An answer that is no stream: Envoy's own, or a container's error as answers.lua wrote it."""
    passed_on = [(k, v) for k, v in answer.headers.items() if k.lower() not in _NOT_PASSED_ON]
    response = web.StreamResponse(status=answer.status, headers=passed_on)
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    return response


def _framed(answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status)
    for name, value in answer.headers.items():
        if name.lower() not in _NOT_IN_A_STREAM:
            response.headers.add(name, value)
    response.headers["content-type"] = frames.CONTENT_TYPE
    response.headers[headers.STREAM_CONTENT_TYPE] = answer.headers.get("content-type", "application/octet-stream")
    return response


async def _frame(answer: aiohttp.ClientResponse, response: web.StreamResponse, watch: _Watch) -> None:
    while True:
        watch.waits()
        chunk = await answer.content.readany()
        watch.got()
        if not chunk:
            return
        for part in frames.payload_parts(chunk):
            await response.write(part)


def _reply(status: int, error: str, body: Json) -> web.Response:
    return web.json_response(body, status=status, headers={headers.ERROR_TYPE: error})
