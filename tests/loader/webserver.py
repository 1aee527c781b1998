"""A small web server on loopback whose answers are a test's own: ranges, redirects, changes midway, trickles."""

import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def range(self) -> tuple[int, int] | None:
        match = _RANGE.fullmatch(self.headers.get("range", ""))
        return (int(match[1]), int(match[2])) if match else None


class Answering(BaseHTTPRequestHandler):
    """Finds the answer to a path and gives it."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: "_Server"

    def do_GET(self) -> None:
        self._do("GET")

    def do_HEAD(self) -> None:
        self._do("HEAD")

    def do_POST(self) -> None:
        self._do("POST")

    def _do(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        asked = Asked(method, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        with self.server.lock:
            self.server.asked.append(asked)
            answer = self.server.answers.get(self.path.partition("?")[0])
        if answer is None:
            self.plain(404, b"")
            return
        try:
            answer(self, asked)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def plain(self, status: int, body: bytes, **headers: str) -> None:
        self.head(status, **{"Content-Length": str(len(body))}, **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def part(self, asked: Asked, body: bytes, e_tag: str | None, **more: str) -> None:
        """As a good server does it: a range if asked for one, only of the content that If-Match names."""
        tag = more | ({"ETag": e_tag} if e_tag is not None else {})
        wanted = asked.headers.get("if-match")
        if wanted is not None and wanted != e_tag:
            self.plain(412, b"", **tag)
            return
        if asked.range is None:
            self.plain(200, body, **tag)
            return
        start, end = asked.range
        if start >= len(body):
            self.plain(416, b"", Content_Range=f"bytes */{len(body)}", **tag)
            return
        piece = body[start : end + 1]
        where = f"bytes {start}-{start + len(piece) - 1}/{len(body)}"
        self.plain(206, piece, Content_Range=where, **tag)

    def log_message(self, *args: object) -> None:
        pass


Answer = Callable[[Answering, Asked], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.lock = threading.Lock()
        self.asked: list[Asked] = []
        self.answers: dict[str, Answer] = {}


@dataclass
class WebServer:
    """The server, running as long as the block lasts."""

    context: ssl.SSLContext | None = None
    _server: _Server = field(init=False)

    def __enter__(self) -> "WebServer":
        self._server = _Server()
        if self.context is not None:
            self._server.socket = self.context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        scheme, host = ("http", "127.0.0.1") if self.context is None else ("https", "localhost")
        return f"{scheme}://{host}:{self.port}"

    @property
    def asked(self) -> list[Asked]:
        with self._server.lock:
            return list(self._server.asked)

    def forget(self) -> None:
        with self._server.lock:
            self._server.asked.clear()

    def answer(self, path: str, answer: Answer) -> str:
        """Answer this path so; its URL."""
        with self._server.lock:
            self._server.answers[path] = answer
        return self.url + path

    def serve(self, path: str, body: bytes, e_tag: str | None = '"one"') -> str:
        """A well-behaved file; its URL."""
        return self.answer(path, lambda handler, asked: handler.part(asked, body, e_tag))
