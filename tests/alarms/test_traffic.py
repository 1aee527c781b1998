"""Alarms on traffic: real requests through a real Envoy, read as the operator reads them."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from tests.alarms.routers import Operator, invoke
from tests.router.harness.caller import client, order
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.harness.relay import Relay
from tests.router.specs import fleet, route

from sluice.alarms.subjects import Traffic, VariantFleets

Start = Callable[..., Container]
NEW = (VariantFleets("a", "new"),)
ERRORS = Traffic("team-a", "Invocation5XXErrors", "GreaterThanThreshold", 0.05, NEW, window_seconds=3600)
LATENCY = replace(ERRORS, metric="ModelLatency", threshold=1_000_000, percentile=90)
ERROR = order("answer", status=500)


def test_quiet_then_clean_then_all_5xx(envoy: Envoy, serve: Start, operator: Operator) -> None:
    serve()
    quiet = operator.ask(ERRORS)
    assert (quiet.state, "0 requests" in (quiet.message or "")) == ("INSUFFICIENT_DATA", True)
    assert set(invoke(envoy, "Churn", 20)) == {200}
    clean = operator.ask(ERRORS)
    assert (clean.state, clean.message) == ("OK", "0 % of 20 requests in 3600 s (alarm: > 5 %)")
    assert set(invoke(envoy, "Churn", 20, ERROR)) == {424}
    bad = operator.ask(ERRORS)
    assert (bad.state, bad.message) == ("ALARM", "50 % of 40 requests in 3600 s (alarm: > 5 %)")


@pytest.mark.parametrize("body", [order("break"), order("wait"), order("answer", status=503)])
def test_what_gets_no_answer_is_a_5xx_too(envoy: Envoy, serve: Start, operator: Operator, body: bytes) -> None:
    """A broken connection, and one that times out."""
    serve()
    operator.ask(ERRORS)
    invoke(envoy, "Churn", 2, body)
    assert operator.ask(ERRORS).state == "ALARM"


def test_a_fleet_without_pods_is_a_5xx_too(envoy: Envoy, drive: Drive, operator: Operator) -> None:
    drive.put(route("Churn", fleet("new", "a", 1_000_000, 8080)))
    drive.settle()
    operator.add(envoy)
    operator.ask(ERRORS)
    assert invoke(envoy, "Churn") == [503]
    assert operator.ask(ERRORS).state == "ALARM"


def test_4xx_of_the_model(envoy: Envoy, serve: Start, operator: Operator) -> None:
    serve()
    theirs = replace(ERRORS, metric="Invocation4XXErrors")
    operator.ask(theirs)
    invoke(envoy, "Churn", 2, order("answer", status=404))
    assert operator.ask(theirs).state == "ALARM"
    assert operator.ask(ERRORS).state == "OK"


def test_a_stream_is_one_request(envoy: Envoy, relay: Relay, serve: Start, operator: Operator) -> None:
    """It passes Envoy twice, and its fleet once."""
    serve()
    operator.ask(ERRORS)
    answer = client(envoy.url).invoke_endpoint_with_response_stream(
        EndpointName="Churn", Body=order("stream", parts=["61", "62"])
    )
    assert b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"]) == b"ab"
    assert operator.ask(ERRORS).message == "0 % of 1 requests in 3600 s (alarm: > 5 %)"


def test_slow_answers(envoy: Envoy, serve: Start, operator: Operator) -> None:
    model = serve()
    assert operator.ask(LATENCY).state == "INSUFFICIENT_DATA"
    invoke(envoy, "Churn", 8)
    operator.until(LATENCY, "OK")
    model.delay_seconds = 2.0
    invoke(envoy, "Churn", 3)
    slow = operator.until(LATENCY, "ALARM")
    assert "alarm: > 1000000 us" in (slow.message or "")


def test_answers_that_do_not_come_are_slow(envoy: Envoy, serve: Start, operator: Operator) -> None:
    serve()
    operator.ask(LATENCY)
    assert invoke(envoy, "Churn", 2, order("wait")) == [424, 424]
    assert "no answer in time" in (operator.until(LATENCY, "ALARM").message or "")


def test_a_canary_is_judged_by_its_own_requests_and_against_the_serving_revision(
    envoy: Envoy, drive: Drive, container: Start, operator: Operator
) -> None:
    old, new = container("old"), container("new", status=500)
    drive.put(
        route("Churn", fleet("old", "a", 900_000, old.port), fleet("new", "a", 100_000, new.port)),
        ("old", "127.0.0.1"),
        ("new", "127.0.0.1"),
    )
    drive.settle()
    operator.add(envoy)
    of_old = replace(ERRORS, variants=(VariantFleets("a", "old"),))
    relative = replace(ERRORS, variants=(VariantFleets("a", "new", ("old",)),), relative=True, threshold=2.0)
    for subject in (ERRORS, of_old, relative):
        assert operator.ask(subject).state == "INSUFFICIENT_DATA"
    asked = {ERRORS, of_old, relative}
    operator.run(operator.source.read(asked))
    Envoy.until(lambda: invoke(envoy, "Churn", 20) and new.answered[500] > 0 and old.answered[200] > 0, 60)
    found = operator.run(operator.source.read(asked))
    assert {subject: found[subject].state for subject in asked} == {ERRORS: "ALARM", of_old: "OK", relative: "ALARM"}


def test_a_restarted_envoy_neither_raises_nor_hides(
    envoy: Envoy, drive: Drive, serve: Start, operator: Operator
) -> None:
    """What it counted before is not counted again, and what comes after the restart is."""
    serve()
    invoke(envoy, "Churn", 5, ERROR)  # before anybody watches
    operator.ask(ERRORS)
    invoke(envoy, "Churn", 10)
    assert operator.ask(ERRORS).message == "0 % of 10 requests in 3600 s (alarm: > 5 %)"
    envoy.kill()
    assert operator.ask(ERRORS).state is None
    envoy.start()
    drive.settle()
    assert set(invoke(envoy, "Churn", 3)) == {200}
    assert operator.ask(ERRORS).message == "0 % of 13 requests in 3600 s (alarm: > 5 %)"
    invoke(envoy, "Churn", 2, ERROR)
    after = operator.ask(ERRORS)
    assert (after.state, after.message) == ("ALARM", "13.33 % of 15 requests in 3600 s (alarm: > 5 %)")


def test_one_router_that_is_frozen_is_named_and_none_that_answers_is_no_reading(
    tmp_path: Path, container: Start
) -> None:
    envoys = [Envoy(tmp_path / name) for name in ("one", "two")]
    operator = Operator(call_seconds=3.0, silent_seconds=0.0)
    try:
        model = container("new")
        for envoy in envoys:
            drive = Drive(envoy)
            envoy.start()
            drive.put(route("Churn", fleet("new", "a", 1_000_000, model.port)), ("new", "127.0.0.1"))
            drive.settle()
            operator.add(envoy)
        operator.ask(ERRORS)
        for envoy in envoys:
            invoke(envoy, "Churn", 3)
        assert operator.ask(ERRORS).message == "0 % of 6 requests in 3600 s (alarm: > 5 %)"
        envoys[0].signal(signal.SIGSTOP)
        invoke(envoys[1], "Churn", 1, ERROR)
        part = operator.until(ERRORS, "ALARM")
        assert "of 7 requests" in (part.message or "")
        assert "router router-0 has not answered" in (part.message or "")
        envoys[1].signal(signal.SIGSTOP)
        assert operator.ask(ERRORS).state is None
        for envoy in envoys:
            envoy.signal(signal.SIGCONT)
        assert "of 7 requests" in (operator.until(ERRORS, "ALARM").message or "")
    finally:
        operator.close()
        for envoy in envoys:
            envoy.kill()
            envoy.end_serving()


def test_no_router_and_no_answer_is_no_reading(operator: Operator) -> None:
    none = operator.ask(ERRORS)
    assert (none.state, none.message) == (None, "namespace team-a has no router")

    async def nonsense(_: web.Request) -> web.Response:
        return web.Response(text=json.dumps({"uptimeSeconds": 1, "fleets": {"new": {"requests": "many"}}}))

    app = web.Application()
    app.add_routes([web.get("/traffic", nonsense)])
    operator.serve(app)
    found = operator.ask(ERRORS)
    assert (found.state, "not understood" in (found.message or "")) == (None, True)


def test_more_fleets_than_one_question_holds(envoy: Envoy, serve: Start, operator: Operator) -> None:
    serve()
    many = replace(ERRORS, variants=(*NEW, *(VariantFleets(f"v{index}", f"x{index}") for index in range(250))))
    operator.ask(many)
    invoke(envoy, "Churn", 2)
    assert operator.ask(many).message == "variant a: 0 % of 2 requests in 3600 s (alarm: > 5 %)"


def test_a_question_that_is_none_is_refused(envoy: Envoy, serve: Start, operator: Operator) -> None:
    serve()
    for name in ("x|y", ".*", "UPPER", "a" * 64):
        found = operator.ask(replace(ERRORS, variants=(VariantFleets("a", name),)))
        assert (found.state, "400" in (found.message or "")) == (None, True)
