"""A model container that costs next to nothing: `python pod.py NAME ADDRESS PORT`. A program of its own.

It answers every POST with the request's own body, or, where that begins with `stream N`, with N bytes in chunks of
64 KiB, and with its name. SIGTERM lets it answer what it has and close what is idle.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import ClassVar

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\nx-amzn-sagemaker-custom-attributes: "
CHUNK = b"10000\r\n" + bytes(65536) + b"\r\n"


class Connection(asyncio.Protocol):
    """HTTP/1.1 as Envoy and the benchmark's caller send it: bodies with a content-length."""

    open: ClassVar[set[Connection]] = set()
    leaving: ClassVar[bool] = False
    closed: ClassVar[asyncio.Event] = asyncio.Event()

    def __init__(self, name: bytes) -> None:
        self._head = HEAD + name
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        Connection.open.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        Connection.open.discard(self)
        Connection.closed.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            size = content_length(bytes(self._buffer[:end]).lower())
            if len(self._buffer) < end + 4 + size:
                return
            body = bytes(self._buffer[end + 4 : end + 4 + size])
            del self._buffer[: end + 4 + size]
            self._answer(body)
        self.let_go()

    def let_go(self) -> None:
        """Close it if the pod is leaving and nothing has begun to arrive."""
        if Connection.leaving and not self._buffer:
            self._transport.close()

    def _answer(self, body: bytes) -> None:
        if body.startswith(b"stream "):
            count = int(body.split()[1]) // 65536
            self._transport.write(self._head + b"\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(count):
                self._transport.write(CHUNK)
            self._transport.write(b"0\r\n\r\n")
        else:
            self._transport.write(self._head + b"\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


def content_length(head: bytes) -> int:
    """Of a head in lower case."""
    found = head.find(b"\r\ncontent-length:")
    return int(head[found + 17 :].split(b"\r\n", 1)[0]) if found >= 0 else 0


async def main(name: str, address: str, port: int) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Connection(name.encode()), address, port, backlog=1024)
    await stop.wait()
    server.close()
    Connection.leaving = True
    for connection in list(Connection.open):
        connection.let_go()
    while Connection.open:
        Connection.closed.clear()
        await Connection.closed.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
