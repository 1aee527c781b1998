"""A constant load that counts every answer: `python caller.py OPTIONS PATH ADDRESS:PORT ...`. A program of its own.

So many connections at once, each with one request after the other, to any of the addresses, as kube-proxy spreads them.
`use ADDRESS:PORT ...` on standard input changes the addresses for connections that are made from then on. At the end of
standard input, or after `--requests`, each connection finishes its request, and one JSON line tells everything. Before
that a line `{"total": N}` is written ten times a second, and one for each pod that answers for the first time.

What counts as lost: every answer but a 200, and every request on which the connection broke. Nothing is tried again. A
server that closes an idle connection loses nothing: the caller sees that before its next request, as clients do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from array import array
from collections import Counter
from typing import Any

ATTRIBUTES = b"\r\nx-amzn-sagemaker-custom-attributes: "
LAST_CHUNK = b"\r\n0\r\n\r\n"
"""Ends an answer without a length (a stream); nothing within one ends like this."""
LONGEST_SECONDS = 30.0


class Exchange(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = -1
        self._chunked = False
        self._answer: asyncio.Future[None] | None = None
        self.usable = False
        self.status, self.pod = "", ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.usable = True

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            said = f"cut off after {len(self._buffer)} bytes ({error or 'closed'})"
            self._answer.set_exception(ConnectionError(said))

    def eof_received(self) -> bool:
        self.usable = False
        return False

    async def ask(self, request: bytes) -> None:
        """Send it and wait for the whole answer."""
        self._buffer.clear()
        self._need, self._answer = -1, asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._need < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end])
            low = head.lower()
            self._need = end + 4 + int(low.partition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0] or 0)
            self.status = head[9:12].decode()
            self.pod = low.partition(ATTRIBUTES)[2].split(b"\r\n")[0].decode()
            self._chunked = b"\r\ntransfer-encoding: chunked" in low
            if b"\r\nconnection: close" in low:
                self.usable = False
        if self._chunked and not self._buffer.endswith(LAST_CHUNK):
            return
        if len(self._buffer) >= self._need and self._answer is not None and not self._answer.done():
            self._answer.set_result(None)

    def text(self) -> str:
        """The end of the answer."""
        return bytes(self._buffer[-200:]).decode(errors="replace")


class Caller:
    """All connections and what came of their requests."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._addresses: list[str] = options.addresses
        self._stopping = False
        self._started = 0
        self._turn_at = 0.0
        self.latencies = array("f")
        self.statuses: Counter[str] = Counter()
        self.pods: Counter[str] = Counter()
        self.lost: list[dict[str, Any]] = []

    async def run(self) -> None:
        began = time.monotonic()
        reporting = asyncio.create_task(self._report())
        numbers = range(self._options.concurrency + self._options.singles)
        await asyncio.gather(*(self._line(keep_alive=n < self._options.concurrency) for n in numbers))
        reporting.cancel()
        say(
            seconds=time.monotonic() - began,
            statuses=self.statuses,
            pods=self.pods,
            lost=self.lost,
            latencies=percentiles(self.latencies),
        )

    def told(self, line: str) -> None:
        """A line of standard input, or its end."""
        if line.startswith("use "):
            self._addresses = line.split()[1:]
        elif not line:
            self._stopping = True

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            say(total=self.statuses.total())

    async def _line(self, *, keep_alive: bool) -> None:
        loop = asyncio.get_running_loop()
        exchange: Exchange | None = None
        body = b"x" * self._options.body_bytes
        close = b"" if keep_alive else b"connection: close\r\n"
        head = f"POST {self._options.path} HTTP/1.1\r\nhost: sluice-router\r\ncontent-type: text/csv\r\n".encode()
        request = head + close + b"content-length: %d\r\n\r\n" % len(body) + body
        while not self._stopping and not 0 < self._options.requests <= self._started:
            self._started += 1
            if self._options.per_second:
                await self._turn()
            began, address = time.monotonic(), ""
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    if exchange is None or not exchange.usable:
                        if exchange is not None:
                            exchange.transport.close()
                            exchange = None
                        address = random.choice(self._addresses)  # noqa: S311 - spreads load
                        host, port = address.split(":")
                        _, exchange = await loop.create_connection(Exchange, host, int(port))
                    await exchange.ask(request)
            except (OSError, TimeoutError) as error:
                self._lose(type(error).__name__, began, f"{address} {error}")
                if exchange is not None:
                    exchange.transport.abort()
                    exchange = None
                continue
            took = time.monotonic() - began
            self.statuses[exchange.status] += 1
            if exchange.status != "200":
                self._lose(exchange.status, began, exchange.text(), count=False)
                continue
            self.latencies.append(took)
            if exchange.pod not in self.pods:
                say(pod=exchange.pod, at=time.time())
            self.pods[exchange.pod] += 1
            if not keep_alive:
                exchange.transport.close()
                exchange = None
        if exchange is not None:
            exchange.transport.close()

    async def _turn(self) -> None:
        """Until the next request is due. Whatever keeps them, as many a second are begun."""
        now = time.monotonic()
        self._turn_at = (self._turn_at or now) + 1 / self._options.per_second
        await asyncio.sleep(max(0.0, self._turn_at - now))

    def _lose(self, status: str, began: float, said: str, *, count: bool = True) -> None:
        if count:
            self.statuses[status] += 1
        if len(self.lost) < 1000:
            self.lost.append({"status": status, "began": began, "ended": time.monotonic(), "said": said})


def percentiles(latencies: array[float]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(latencies)
    if not ordered:
        return {}
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in at.items()}


def say(**what: object) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Call until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, default=1, help="connections that are kept alive")
    parser.add_argument("--singles", type=int, default=0, help="connections for one request each, so many at once")
    parser.add_argument("--body-bytes", type=int, default=24)
    parser.add_argument("--requests", type=int, default=0, help="0: until standard input ends")
    parser.add_argument("--per-second", type=float, default=0.0, help="requests of all connections; 0: without a pause")
    parser.add_argument("path")
    parser.add_argument("addresses", nargs="+")
    caller = Caller(parser.parse_args())
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: _read(caller, loop))
    await caller.run()


def _read(caller: Caller, loop: asyncio.AbstractEventLoop) -> None:
    line = sys.stdin.readline()
    caller.told(line)
    if not line:
        loop.remove_reader(sys.stdin)


if __name__ == "__main__":
    asyncio.run(main())
