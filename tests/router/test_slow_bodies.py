"""Requests whose body arrives for longer than their fleet stands: they take the routes of when the body is there."""

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.harness.relay import Relay
from tests.router.specs import fleet, route

Start = Callable[..., Container]
BODY = b"1,2,3"


@contextmanager
def half_sent(envoy: Envoy, path: str, variant: str | None = None) -> Iterator[http.client.HTTPConnection]:
    """A request that Envoy has the head of, and of the body all but the last byte."""
    with closing(http.client.HTTPConnection("127.0.0.1", envoy.settings.port, timeout=60)) as connection:
        connection.putrequest("POST", path)
        connection.putheader("content-length", str(len(BODY)))
        if variant is not None:
            connection.putheader("X-Amzn-SageMaker-Target-Variant", variant)
        connection.endheaders(BODY[:-1])
        Envoy.until(lambda: running(envoy) == 1, 60)
        yield connection


def running(envoy: Envoy) -> int:
    """Requests whose head Envoy has read."""
    return int(envoy.ask(lambda admin: admin.requests_running()))


def let_go(drive: Drive, name: str) -> None:
    """Until Envoy has the fleet no more."""
    Envoy.until(lambda: drive.turn() and name not in drive.ledger.placed, 60)


@pytest.mark.parametrize("operation", ["invocations", "invocations-response-stream"])
def test_they_are_answered_by_the_fleet_that_serves_then(
    envoy: Envoy, relay: Relay, drive: Drive, container: Start, operation: str
) -> None:
    old, new = container("old"), container("new")
    drive.put(route("Churn", fleet("churn-1", "a", port=old.port)), ("churn-1", "127.0.0.1"))
    drive.settle()
    with half_sent(envoy, f"/endpoints/Churn/{operation}", "a") as request:
        drive.put(route("Churn", fleet("churn-2", "a", port=new.port)), ("churn-2", "127.0.0.1"))
        let_go(drive, "churn-1")
        old.stop()
        request.send(BODY[-1:])
        answer = request.getresponse()
        assert (answer.status, b"new" in answer.read()) == (200, True)
    (asked,) = new.requests
    assert (asked["body"], asked["path"]) == (BODY, "/invocations")
    assert "x-amzn-sagemaker-target-variant" in asked["headers"]
    assert old.requests == []


def test_where_the_endpoint_is_gone_they_are_told_so(envoy: Envoy, drive: Drive, container: Start) -> None:
    made = container("c")
    drive.put(route("Churn", fleet("churn-1", port=made.port)), ("churn-1", "127.0.0.1"))
    drive.put(route("Other", fleet("other-1", port=made.port)), ("other-1", "127.0.0.1"))
    drive.settle()
    with half_sent(envoy, "/endpoints/Churn/invocations") as request:
        drive.routes.pop("churn")
        let_go(drive, "churn-1")
        request.send(BODY[-1:])
        answer = request.getresponse()
        assert (answer.status, b"Churn" in answer.read()) == (400, True)
