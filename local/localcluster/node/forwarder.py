"""Carries connections from a loopback port outside to the same port inside the node's network; a program of its own.

`python forwarder.py PORT NETWORK ADDRESS` makes the API server reachable from a shell that is not in the network, so
one kubeconfig that says localhost works on both sides. No interface joins the two networks: a socket belongs to the
namespace in which it was made, so this listens first, enters the network, and connects from there.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys
from contextlib import suppress

_CLONE_NEWNET = 0x40000000


async def _serve(listening: socket.socket, address: str, port: int) -> None:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(address, port)
        except OSError:
            writer.close()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, inner_writer))
            group.create_task(_copy(inner_reader, writer))

    server = await asyncio.start_server(carry, sock=listening)
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Either side may go away at any moment; the other direction then ends by itself.
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()
        await writer.wait_closed()


def _enter_network(path: str) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the network {path}")
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    outside = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    _enter_network(sys.argv[2])
    asyncio.run(_serve(outside, sys.argv[3], int(sys.argv[1])))
