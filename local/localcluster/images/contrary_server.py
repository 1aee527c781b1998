#!/usr/bin/env python3
"""A model server that does what it is told: it fails to start, to answer /ping or to end, and tells what it was sent.

Its environment says how it begins: LAST_WORDS (it ends with them), PING (the status of /ping), DEAF (it ignores
SIGTERM), NAME (what it calls itself). A request whose body is {"ping": 500} changes the answer to /ping. Every
invocation is answered with what was received, and with the variables that {"variables": [...]} names.

With model data, a file `name`, it predicts that name, until {"inputs": [["spoil"]]}: from then on each answer is a
500. It starts in a fraction of the time of a real model server."""

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TERMINATION_LOG = Path("/dev/termination-log")
MODEL = Path("/opt/ml/model/name")
FAILED = 3


class Contrary(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    ping = int(os.environ.get("PING", "200"))
    model = MODEL.read_text() if MODEL.is_file() else ""
    spoilt = False

    def do_GET(self) -> None:
        """Answer /ping as told."""
        self._answer(Contrary.ping, b"")

    def do_POST(self) -> None:
        """Obey, and tell what was received."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        order = json.loads(body) if body.startswith(b"{") else {}
        Contrary.ping = order.get("ping", Contrary.ping)
        if self.model:
            self._predict(order["inputs"][0])
            return
        told = {
            "name": os.environ.get("NAME", ""),
            "body": body.decode(errors="replace"),
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "variables": {name: os.environ.get(name) for name in order.get("variables", ())},
        }
        self._answer(200, json.dumps(told).encode())

    def _predict(self, words: list[str]) -> None:
        if Contrary.spoilt:
            self._answer(500, b"")
        else:
            Contrary.spoilt = words[0] == "spoil"
            self._answer(200, json.dumps({"predictions": [self.model]}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: its log is for last words."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Amzn-SageMaker-Custom-Attributes", f"from={os.environ.get('NAME', '')}")
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until told to end, and then end, or not."""
    words = os.environ.get("LAST_WORDS")
    if words:
        TERMINATION_LOG.write_text(words)
        sys.exit(FAILED)
    # As a container's first process it would not even notice a SIGTERM that it does not handle.
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "DEAF" in os.environ else lambda *_: os._exit(0))
    ThreadingHTTPServer(("", int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))), Contrary).serve_forever()


if __name__ == "__main__":
    main()
