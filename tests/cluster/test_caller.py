"""The demo's callers: they count who answers, start anew when told, and a lost call is an error."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from demo.caller import Answer, Callers
from demo.surroundings import DemoError

Reply = tuple[int, str]
"""Status and the variant that answers."""


@contextmanager
def endpoint(answer: Callable[[], Reply]) -> Iterator[str]:
    """A SageMaker Runtime of one endpoint called iris."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, variant = answer() if self.path == "/endpoints/iris/invocations" else (404, "")
            said = {"Message": "no", "OriginalStatusCode": 500} if status == 424 else {}
            body = json.dumps({"predictions": [f"setosa by {variant}"], **said}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("x-Amzn-Invoked-Production-Variant", variant)
            if status == 424:
                self.send_header("x-Amzn-ErrorType", "ModelError")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


def test_answers_are_counted_by_variant() -> None:
    turns = itertools.cycle(["tree", "tree", "logistic"])
    with endpoint(lambda: (200, next(turns))) as url:
        callers = Callers(url, "eu-west-1", "iris", "{}")
        assert callers.ask() == Answer("tree", "setosa by tree")
        callers.restart({"tree": 2, "logistic": 1})
        with callers:
            tally = callers.until(90, seconds=30)

    assert tally.total >= 90
    assert abs(tally.share("tree") - 2 / 3) < 0.05
    assert (tally.wrong(), tally.failures) == ([], 0)
    assert tally.words().startswith(f"{tally.total} answers: tree 6")


def test_after_a_restart_the_calls_that_were_out_do_not_count() -> None:
    held, arrived, old = threading.Event(), threading.Event(), threading.Event()

    def answer() -> Reply:
        if old.is_set():
            return 200, "logistic"
        arrived.set()
        held.wait(10)
        return 200, "tree"

    with endpoint(answer) as url, Callers(url, "eu-west-1", "iris", "{}") as callers:
        assert arrived.wait(10)
        old.set()  # before the count begins anew: whoever arrives from then on is not one that was out
        callers.restart({"logistic": 1})
        held.set()
        tally = callers.until(20, seconds=30)

    assert dict(tally.answers).keys() == {"logistic"}


def test_a_lost_call_is_an_error_that_names_it() -> None:
    statuses = itertools.chain([200] * 20, itertools.repeat(503))
    with endpoint(lambda: (next(statuses), "tree")) as url, Callers(url, "eu-west-1", "iris", "{}") as callers:
        callers.restart({"tree": 1})
        with pytest.raises(DemoError, match=r"a call was lost: InvokeEndpoint iris: .*503"):
            callers.until(1000, seconds=30)


def test_a_models_error_is_an_answer_and_models_are_told_by_what_they_say() -> None:
    turns = itertools.cycle([(200, "forest"), (424, "")])
    with (
        endpoint(lambda: next(turns)) as url,
        Callers(url, "eu-west-1", "iris", "{}", lambda answer: answer.model) as callers,
    ):
        callers.restart({"forest": 1, "error 500": 1})
        tally = callers.until(40, seconds=30)

    assert dict(tally.answers).keys() == {"forest", "error 500"}
    assert (tally.wrong(), tally.failures) == ([], 0)


def test_too_few_answers_are_an_error() -> None:
    held = threading.Event()

    def answer() -> Reply:
        held.wait(10)
        return 200, "tree"

    with endpoint(answer) as url, Callers(url, "eu-west-1", "iris", "{}") as callers:
        with pytest.raises(DemoError, match="only 0 of 5 answers within 0 s"):
            callers.until(5, seconds=0.3)
        held.set()
