"""What the benchmark calls lost is lost, and nothing else: its caller against a server that misbehaves on purpose."""

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.bench.lost import upper_bound

CALLER = Path(__file__).parent / "caller.py"
GOOD = b"HTTP/1.1 200 OK\r\nx-amzn-sagemaker-custom-attributes: pod-7\r\ncontent-length: 2\r\n\r\nok"
LAST = GOOD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"
CUT = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
HANG_UP = b""
STREAM = GOOD.replace(b"content-length: 2\r\n\r\nok", b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("connections", "statuses"),
    [
        ([[GOOD, GOOD, GOOD]], {"200": 3}),
        ([[GOOD, BUSY, GOOD]], {"200": 2, "503": 1}),
        ([[GOOD, STREAM, GOOD]], {"200": 3}),
        ([[GOOD, STREAM[:-5]], [STREAM]], {"200": 2, "ConnectionError": 1}),
        ([[GOOD, CUT], [GOOD]], {"200": 2, "ConnectionError": 1}),
        ([[GOOD, HANG_UP], [GOOD]], {"200": 2, "ConnectionError": 1}),
        ([[LAST], [LAST], [LAST]], {"200": 3}),  # a server that says goodbye has lost nothing
    ],
)
def test_every_answer_is_counted_once(connections: list[list[bytes]], statuses: dict[str, int]) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = threading.Thread(target=_serve, args=(listener, connections), daemon=True)
    server.start()
    argv = [sys.executable, str(CALLER), "--requests", "3", "/x", f"127.0.0.1:{listener.getsockname()[1]}"]
    # Its input stays open until it has ended by itself.
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        told = json.loads(process.stdout.read().splitlines()[-1])
    listener.close()
    assert told["statuses"] == statuses
    assert told["pods"] == {"pod-7": statuses["200"]}
    assert len(told["lost"]) == 3 - statuses["200"]


def _serve(listener: socket.socket, connections: list[list[bytes]]) -> None:
    for answers in connections:
        connection, _ = listener.accept()
        for answer in answers:
            asked = b""
            while not asked.endswith(b"\r\n\r\n" + b"x" * 24):
                asked += connection.recv(65536)
            connection.sendall(answer)
        connection.close()


def test_the_bound_of_none_is_three() -> None:
    """-ln 0.05; and the usual table of Poisson's one-sided 95 % bounds."""
    assert [round(upper_bound(lost), 2) for lost in (0, 1, 2, 10)] == [3.0, 4.74, 6.3, 16.96]
