"""InvokeEndpointWithResponseStream through a real Envoy, the real relay and an unmodified boto3."""

import asyncio
import contextlib
import http.client
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import botocore.exceptions
import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st
from tests.router.harness.caller import client, order
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.harness.relay import Relay
from tests.router.specs import fleet, route

from sluice.api.routes import RouteContainer, RouteShadow
from sluice.router import frames, headers
from sluice.router.draining import drain

Start = Callable[..., Container]


@pytest.fixture
def one(drive: Drive, relay: Relay, container: Start) -> Container:
    """An endpoint Churn with variants a and b in one container."""
    made = container("c")
    half = {"port": made.port, "weight": 500_000}
    drive.put(
        route("Churn", fleet("churn-a", "a", **half), fleet("churn-b", "b", **half)),
        ("churn-a", "127.0.0.1"),
        ("churn-b", "127.0.0.1"),
    )
    drive.settle()
    return made


def stream(envoy: Envoy, body: bytes, **rest: Any) -> dict[str, Any]:
    """boto3's answer."""
    answer = client(envoy.url).invoke_endpoint_with_response_stream(EndpointName="Churn", Body=body, **rest)
    return dict(answer)


def parts(events: Iterator[dict[str, Any]]) -> list[bytes]:
    """All of the rest."""
    return [event["PayloadPart"]["Bytes"] for event in events]


def broken(events: Iterator[dict[str, Any]]) -> tuple[str, str]:
    """The error that ends it: code and message."""
    with pytest.raises(botocore.exceptions.EventStreamError) as caught:
        next(events)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def last_message(envoy: Envoy, body: bytes) -> dict[str, Any]:
    """All that the exception says at the end of a stream; boto3 shows no ErrorCode."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", envoy.settings.port, timeout=60)) as connection:
        connection.request("POST", "/endpoints/Churn/invocations-response-stream", body)
        return read_exception(connection.getresponse().read())


def read_exception(text: bytes) -> dict[str, Any]:
    """Of the last message."""
    buffer = EventStreamBuffer()
    buffer.add_data(text)
    *before, last = [*buffer]
    assert before
    assert last.headers[":message-type"] == "exception"
    assert last.headers[":exception-type"] == "ModelStreamError"
    return dict(json.loads(last.payload))


def running(envoy: Envoy) -> dict[str, int]:
    """Requests under way, per fleet."""
    found = envoy.ask(lambda admin: admin.activity()).running
    return {name: count for name, count in found.items() if count}


@given(st.binary(max_size=200_000))
def test_frames_are_what_botocore_reads(chunk: bytes) -> None:
    buffer = EventStreamBuffer()
    for part in frames.payload_parts(chunk):
        assert len(part) < frames.MAX_PAYLOAD + 200
        buffer.add_data(part)
    assert b"".join(event.payload for event in buffer) == chunk


def test_it_comes_as_the_container_sends_it(envoy: Envoy, one: Container) -> None:
    """The container waits with its end until the caller has seen the beginning."""
    said = [f"part {n}".encode() for n in range(5)]
    body = order("stream", parts=[part.hex() for part in said], gate=True)
    answer = stream(envoy, body, Accept="text/plain", TargetVariant="a")
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("text/plain", "a")
    events = iter(answer["Body"])
    got = b""
    while got != b"".join(said):
        got += next(events)["PayloadPart"]["Bytes"]
    assert one.answered == {}
    assert running(envoy) == {"churn-a": 1}
    one.open_gate()
    assert parts(events) == []


def test_the_container_gets_what_it_gets_of_other_invocations(envoy: Envoy, one: Container) -> None:
    runtime = client(envoy.url)

    def forge(request: Any, **_: Any) -> None:
        request.headers[headers.RELAY] = "1/1"
        request.headers["cookie"] = "1"

    runtime.meta.events.register("before-send.*", forge)
    arguments = {"EndpointName": "Churn", "ContentType": "text/csv", "CustomAttributes": "t=1", "InferenceId": "i"}
    runtime.invoke_endpoint(Body=b"1,2", Accept="a/b", **arguments)
    answer = runtime.invoke_endpoint_with_response_stream(Body=b"1,2", Accept="a/b", **arguments)
    assert parts(iter(answer["Body"])) == [b"c"]
    assert answer["CustomAttributes"] == "from c"
    assert not {"x-secret", "server", headers.RELAY} & answer["ResponseMetadata"]["HTTPHeaders"].keys()
    plain, streamed = one.requests
    assert streamed["headers"].pop(headers.STREAM_ACCEPT) == "a/b"
    assert streamed == plain
    assert parts(iter(stream(envoy, b"")["Body"])) == [b"c"], "a body of no bytes"


def test_a_large_one_is_whole_and_comes_in_small_parts(envoy: Envoy, one: Container) -> None:
    sizes = [len(part) for part in parts(iter(stream(envoy, order("stream", parts=[], mebibytes=16))["Body"]))]
    assert sum(sizes) == 16 << 20
    assert max(sizes) <= 65536


def test_a_container_that_breaks_off_is_a_model_stream_error(envoy: Envoy, one: Container) -> None:
    for _ in range(3):
        events = iter(stream(envoy, order("break", after=b"part".hex()))["Body"])
        assert next(events) == {"PayloadPart": {"Bytes": b"part"}}
        code, message = broken(events)
        assert code == "ModelStreamError"
        assert "closed the connection" in message
    assert last_message(envoy, order("break", after=b"part".hex()))["ErrorCode"] == "StreamBroken"
    assert parts(iter(stream(envoy, b"x")["Body"])) == [b"c"]


def test_a_container_that_falls_silent_has_run_out_of_time(
    envoy: Envoy, relay: Relay, drive: Drive, container: Start
) -> None:
    made = container("silent")
    drive.put(route("Churn", fleet("churn", port=made.port), timeout_seconds=2), ("churn", "127.0.0.1"))
    drive.settle()
    events = iter(stream(envoy, order("stream", parts=[b"part".hex()], gate=True))["Body"])
    assert next(events) == {"PayloadPart": {"Bytes": b"part"}}
    assert broken(events) == ("ModelStreamError", "The container sent nothing for 2 s")
    silent = order("stream", parts=[b"part".hex()], gate=True)
    assert last_message(envoy, silent)["ErrorCode"] == "ModelInvocationTimeExceeded"
    Envoy.until(lambda: running(envoy) == {}, 60)


@pytest.mark.parametrize("pause", [0.01, 0])
def test_a_stream_has_to_end_at_all(envoy: Envoy, one: Container, pause: float) -> None:
    """As Envoy asks the relay, with less time than routes give: 1 s for a stream that goes on for longer."""

    async def ask() -> bytes:
        connector = aiohttp.UnixConnector(str(envoy.directory / "relay.sock"))
        async with aiohttp.ClientSession(connector=connector) as session:
            path = "http://relay/endpoints/Churn/invocations-response-stream"
            endless = order("stream", parts=[b"x".hex()] * 100_000, pause=pause, gate=True)
            async with session.post(path, data=endless, headers={headers.RELAY: "60/1"}) as answer:
                return await answer.read()

    assert read_exception(asyncio.run(ask())) == {
        "ErrorCode": "ModelInvocationTimeExceeded",
        "Message": "The container did not end its answer within 1 s",
    }


def test_a_caller_that_goes_away_ends_the_containers_request(envoy: Envoy, relay: Relay, one: Container) -> None:
    for body in (order("stream", parts=[b"part".hex()], gate=True), order("wait")):
        connection = http.client.HTTPConnection("127.0.0.1", envoy.settings.port, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", "/endpoints/Churn/invocations-response-stream", body)
            Envoy.until(lambda: sum(running(envoy).values()) == 1, 60)
        Envoy.until(lambda: running(envoy) == {}, 60)
    assert relay.log() == ""


def test_a_caller_that_reads_slowly_slows_the_container_down(envoy: Envoy, one: Container) -> None:
    total = 64 << 20
    events = iter(stream(envoy, order("stream", parts=[], mebibytes=64))["Body"])
    seen = [-1]

    def stands() -> bool:
        seen.append(one.written)
        return len(seen) > 100 and seen[-100] == seen[-1] > 0

    Envoy.until(stands, 60)
    assert one.written < total / 2, "nobody holds what the caller has not read"
    assert sum(map(len, parts(events))) == total


def test_everything_is_counted_once(envoy: Envoy, relay: Relay, drive: Drive, container: Start) -> None:
    made, shadow = container("c"), container("s")
    drive.put(
        route(
            "Churn",
            fleet("churn-a", port=made.port),
            shadows=(RouteShadow(fleet=fleet("churn-s", "s", 0, shadow.port), sampling=1_000_000),),
        ),
        ("churn-a", "127.0.0.1"),
        ("churn-s", "127.0.0.1"),
    )
    drive.settle()
    for _ in range(3):
        assert parts(iter(stream(envoy, b"x")["Body"])) == [b"c"]
    Envoy.until(lambda: shadow.answered[200] == 3, 60)
    assert made.answered == {200: 3}

    def counted(pattern: str) -> list[str]:
        with urllib.request.urlopen(envoy.metrics + "/stats/prometheus", timeout=30) as answer:  # noqa: S310 - loopback
            return re.findall(rf"^{pattern} (\d+)$", answer.read().decode(), re.MULTILINE)

    for name in ("churn-a", "churn-s"):
        assert counted(rf'envoy_cluster_upstream_rq_total{{sluice_fleet="{name}"[^}}]*}}') == ["3"]
    assert counted(r"envoy_http_downstream_rq_completed{[^}]*}") == ["3"]
    assert counted(r'envoy_http_downstream_rq_xx{envoy_response_code_class="2"[^}]*}') in (["3"], [])


def test_direct_containers_are_reached(envoy: Envoy, relay: Relay, drive: Drive, container: Start) -> None:
    x, y = container("x"), container("y")
    containers = (RouteContainer(hostname="x", port=x.port), RouteContainer(hostname="y", port=y.port))
    drive.put(route("Churn", fleet("churn", containers=containers)), ("churn", "127.0.0.1"))
    drive.settle()
    for name in ("x", "y"):
        assert parts(iter(stream(envoy, b"x", TargetContainerHostname=name)["Body"])) == [name.encode()]


def test_the_access_log_has_one_line_of_each(tmp_path: Path, container: Start, request: pytest.FixtureRequest) -> None:
    envoy = Envoy(tmp_path / "logged", access_log=True)
    drive = Drive(envoy)
    request.addfinalizer(drive.close)
    envoy.start()
    request.addfinalizer(envoy.kill)
    relay, made = Relay(envoy), container("c")
    relay.start()
    request.addfinalizer(relay.kill)
    drive.put(route("Churn", fleet("churn-a", port=made.port)), ("churn-a", "127.0.0.1"))
    drive.settle()
    assert parts(iter(stream(envoy, b"x", InferenceId="good")["Body"])) == [b"c"]
    with pytest.raises(botocore.exceptions.ClientError):
        stream(envoy, b"x", InferenceId="refused", TargetVariant="none")
    relay.kill()
    with pytest.raises(botocore.exceptions.ClientError):
        stream(envoy, b"x", InferenceId="down")
    client(envoy.url).invoke_endpoint(EndpointName="Churn", Body=b"x", InferenceId="plain")

    def lines() -> list[dict[str, Any]]:
        written, _, _ = envoy.log().rpartition("\n")  # the last one may be half a line
        return [json.loads(line) for line in written.splitlines() if line.startswith("{")]

    Envoy.until(lambda: {"good", "refused", "down", "plain"} <= {line["inference_id"] for line in lines()}, 60)
    assert [(line["inference_id"], line["status"], line["fleet"], line["variant"]) for line in lines()] == [
        ("good", 200, "churn-a", "a"),
        ("refused", 400, None, None),
        ("down", 503, "relay", None),
        ("plain", 200, "churn-a", "a"),
    ]


def test_without_the_relay_only_streams_are_unavailable(envoy: Envoy, relay: Relay, one: Container) -> None:
    def alive() -> int:
        try:
            with urllib.request.urlopen(envoy.metrics + "/relay", timeout=30) as answer:  # noqa: S310 - loopback
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert alive() == 200
    relay.kill()
    assert alive() == 503
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        stream(envoy, b"x")
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert client(envoy.url).invoke_endpoint(EndpointName="Churn", Body=b"x")["Body"].read() == b"c"
    relay.start()
    assert parts(iter(stream(envoy, b"x")["Body"])) == [b"c"]


def test_a_router_that_drains_waits_for_its_streams(envoy: Envoy, relay: Relay, one: Container) -> None:
    events = iter(stream(envoy, order("stream", parts=[b"part".hex()], gate=True))["Body"])
    assert next(events) == {"PayloadPart": {"Bytes": b"part"}}
    done: list[bool] = []
    drains = threading.Thread(target=lambda: done.append(envoy.ask(lambda admin: drain(admin, 100, 0))))
    drains.start()
    assert relay.process is not None
    relay.process.terminate()
    Envoy.until(lambda: not envoy.ask(lambda admin: admin.ready()), 60)
    assert done == []
    assert relay.process.poll() is None
    one.open_gate()
    assert parts(events) == []
    drains.join(60)
    assert done == [True]
    assert relay.stop() == 0


def internal_failure(events: Iterator[dict[str, Any]]) -> str:
    """The message of the InternalStreamFailure that ends it."""
    code, message = broken(events)
    assert code == "InternalStreamFailure"
    return message


def test_a_router_that_goes_tells_the_callers_of_streams_that_it_cuts(
    envoy: Envoy, relay: Relay, one: Container, request: pytest.FixtureRequest
) -> None:
    """The drain ends before the stream does: the relay says so while Envoy still stands, and what waited for the drain
    goes on."""
    relay.kill()
    relay = Relay(envoy, drain_seconds="6")
    relay.start()
    request.addfinalizer(relay.kill)
    events = iter(stream(envoy, order("stream", parts=[b"part".hex()], gate=True))["Body"])
    assert next(events) == {"PayloadPart": {"Bytes": b"part"}}
    assert relay.process is not None
    relay.process.terminate()
    assert "invoke again" in internal_failure(events)
    assert relay.process.wait(60) == 0
    assert envoy.ask(lambda admin: drain(admin, 60, 0)), "nothing is left to wait for"
    Envoy.until(lambda: running(envoy) == {}, 60)


def test_a_caller_who_does_not_read_does_not_keep_a_relay_from_going(
    envoy: Envoy, relay: Relay, one: Container, request: pytest.FixtureRequest
) -> None:
    relay.kill()
    relay = Relay(envoy, drain_seconds="6")
    relay.start()
    request.addfinalizer(relay.kill)
    answer = stream(envoy, order("stream", parts=[], mebibytes=64))
    Envoy.until(lambda: one.written > 0, 60)
    assert relay.stop() == 0
    answer["Body"].close()


def test_a_fault_of_the_relays_own_is_an_internal_stream_failure(
    envoy: Envoy, relay: Relay, one: Container, request: pytest.FixtureRequest
) -> None:
    fault = (
        "from sluice.router import frames\n"
        "well = frames.payload_parts\n"
        "frames.payload_parts = lambda chunk: well(chunk) if chunk == b'part' else 1 / 0"
    )
    relay.kill()
    relay = Relay(envoy, before=fault)
    relay.start()
    request.addfinalizer(relay.kill)
    events = iter(stream(envoy, order("stream", parts=[b"part".hex()], gate=True, mebibytes=1))["Body"])
    assert next(events) == {"PayloadPart": {"Bytes": b"part"}}
    one.open_gate()
    assert "its log tells more" in internal_failure(events)
    assert "ZeroDivisionError" in relay.log()
    assert parts(iter(stream(envoy, order("stream", parts=[b"part".hex()]))["Body"])) == [b"part"]


def test_more_streams_than_the_relay_can_hold_are_refused_and_nothing_else(
    tmp_path: Path, container: Start, request: pytest.FixtureRequest
) -> None:
    envoy = Envoy(tmp_path / "few", max_streams=2)
    drive, relay, made = Drive(envoy), Relay(envoy), container("c")
    envoy.start()
    request.addfinalizer(drive.close)
    request.addfinalizer(envoy.kill)
    relay.start()
    request.addfinalizer(relay.kill)
    drive.put(route("Churn", fleet("churn-a", port=made.port)), ("churn-a", "127.0.0.1"))
    drive.settle()
    gated = order("stream", parts=[b"part".hex()], gate=True)
    streams = [iter(stream(envoy, gated)["Body"]) for _ in range(2)]
    for events in streams:
        assert next(events) == {"PayloadPart": {"Bytes": b"part"}}
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        stream(envoy, gated)
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert client(envoy.url).invoke_endpoint(EndpointName="Churn", Body=b"x")["Body"].read() == b"c"
    made.open_gate()
    assert [parts(events) for events in streams] == [[], []]
    Envoy.until(lambda: running(envoy) == {}, 60)
    assert parts(iter(stream(envoy, b"x")["Body"])) == [b"c"]


def test_a_router_holds_1024_streams_unless_told_otherwise(tmp_path: Path) -> None:
    envoy = Envoy(tmp_path / "run")
    [relayed] = [
        cluster
        for cluster in json.loads(envoy.bootstrap.read_text())["static_resources"]["clusters"]
        if cluster["name"] == "relay"
    ]
    [limits] = relayed["circuit_breakers"]["thresholds"]
    assert limits["max_requests"] == 1024
