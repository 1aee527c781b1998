"""Asks the cluster's DNS for one name over UDP; a program of its own, run inside the cluster's network.

`python dns.py SERVER NAME` ends with 0 if the server answers the name with at least one address.
"""

from __future__ import annotations

import socket
import struct
import sys

_QUERY_ID = 0x51CE


def resolves(server: str, name: str, timeout_seconds: float = 1.0) -> bool:
    """Whether `server` answers an A query for the full `name` with a record."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    query = struct.pack(">HHHHHH", _QUERY_ID, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout_seconds)
        try:
            client.sendto(query, (server, 53))
            answer = client.recv(4096)
        except OSError:
            return False
    identity, flags, _, answers = struct.unpack(">HHHH", answer[:8])
    no_error = flags & 0x000F == 0
    return bool(identity == _QUERY_ID and no_error and answers > 0)


if __name__ == "__main__":
    sys.exit(0 if resolves(sys.argv[1], sys.argv[2]) else 1)
