"""Free loopback ports for servers that must be told their port before they start."""

from __future__ import annotations

import random
import socket
import time

from localcluster.errors import LocalClusterError

# Below the kernel's ephemeral range (32768 and up), so that no outgoing connection takes a port between two starts.
_RANGE = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """`count` different ports that nobody listens on at 127.0.0.1."""
    free: list[int] = []
    deadline = time.monotonic() + 10
    while len(free) < count:
        if time.monotonic() > deadline:
            raise LocalClusterError(f"found no {count} free loopback ports in {_RANGE}")
        port = random.choice(_RANGE)  # noqa: S311  spreads concurrent runs, nothing secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in free:
            free.append(port)
    return free
