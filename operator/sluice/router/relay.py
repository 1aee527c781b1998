"""InvokeEndpointWithResponseStream: frames the container's answer and says in the stream when it broke off.

Envoy ends a caller's stream together with the container's, so it cannot say why. It therefore hands these requests to
this process, which sends them back through Envoy's inner listener, where variants, weights, retries, shadows, limits
and metrics are those of every invocation. Both ways are sockets in the directory of the pod's containers.

What fails before the first byte is an ordinary answer, and passed on as it is."""

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
            app, access_log=None, handler_cancellation=True, keepalive_timeout=75, **_HEADER_SIZES
        )

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        await web.UnixSite(self._runner, self._socket, backlog=1024).start()
        self._socket.chmod(0o600)

    async def close(self) -> None:
        """Take nothing new. What runs has a minute (AppRunner's), then it is cut."""
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
                    data=request.content if request.can_read_body else None,
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
            return await _stream(request, answer, limits, ends)


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


async def _stream(
    request: web.Request, answer: aiohttp.ClientResponse, limits: Limits, ends: float
) -> web.StreamResponse:
    """A container's good answer, framed chunk by chunk as it comes."""
    response = web.StreamResponse(status=answer.status)
    for name, value in answer.headers.items():
        if name.lower() not in _NOT_IN_A_STREAM:
            response.headers.add(name, value)
    response.headers["content-type"] = frames.CONTENT_TYPE
    response.headers[headers.STREAM_CONTENT_TYPE] = answer.headers.get("content-type", "application/octet-stream")
    await response.prepare(request)
    clock = asyncio.get_running_loop()
    while True:
        try:
            if clock.time() >= ends:  # also while chunks come without a pause
                raise TimeoutError
            async with asyncio.timeout_at(min(clock.time() + limits.pause_seconds, ends)):
                chunk = await answer.content.readany()
        except TimeoutError:
            message = f"The container sent nothing for {limits.pause_seconds:g} s"
            if clock.time() >= ends:
                message = f"The container did not end its answer within {limits.whole_seconds:g} s"
            await response.write(frames.model_stream_error("ModelInvocationTimeExceeded", message))
            break
        except aiohttp.ClientError as error:
            logger.info("%s: the container broke off: %s", request.path, error)
            message = "The container closed the connection before it had sent its whole answer"
            await response.write(frames.model_stream_error("StreamBroken", message))
            break
        if not chunk:
            break
        for part in frames.payload_parts(chunk):
            await response.write(part)
    return response


def _reply(status: int, error: str, body: Json) -> web.Response:
    return web.json_response(body, status=status, headers={headers.ERROR_TYPE: error})
