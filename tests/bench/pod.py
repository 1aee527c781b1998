"""A model container that costs next to nothing: `python pod.py NAME ADDRESS PORT [RECORD]`. A program of its own.

It answers every POST with the request's own body, or, where that begins with `stream N`, with N bytes in chunks of
64 KiB, and with its name. SIGTERM lets it answer what it has and close what is idle. With a RECORD it is a bad model:
every answer is a 500, and the file gets a line with the time (seconds since 1970) at which each request came.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO, ClassVar

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\nx-amzn-sagemaker-custom-attributes: "
BAD = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 3\r\n\r\nbad"
CHUNK = b"10000\r\n" + bytes(65536) + b"\r\n"


class Connection(asyncio.Protocol):
    """HTTP/1.1 as Envoy and the benchmark's caller send it: bodies with a content-length."""

    open: ClassVar[set[Connection]] = set()
    leaving: ClassVar[bool] = False
    closed: ClassVar[asyncio.Event] = asyncio.Event()

    def __init__(self, name: bytes, record: BinaryIO | None) -> None:
        self._head = HEAD + name
        self._record = record
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
        if self._record is not None:
            self._record.write(b"%.6f\n" % time.time())
            self._transport.write(BAD)
        elif body.startswith(b"stream "):
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


async def main(name: str, address: str, port: int, record: BinaryIO | None) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Connection(name.encode(), record), address, port, backlog=1024)
    await stop.wait()
    server.close()
    Connection.leaving = True
    for connection in list(Connection.open):
        connection.let_go()
    while Connection.open:
        Connection.closed.clear()
        await Connection.closed.wait()


if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(Path(sys.argv[4]).open("ab", buffering=0)) if len(sys.argv) > 4 else None
        asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), file))
