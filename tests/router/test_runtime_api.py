"""An unmodified boto3 through a real Envoy: every header, every error, the stream."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import botocore.exceptions
import pytest
from tests.router.harness.caller import Load, client, order
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.specs import fleet, route

Start = Callable[..., Container]


@pytest.fixture
def one(drive: Drive, container: Start) -> Container:
    """An endpoint Churn with variants a and b in one container."""
    made = container("c")
    half = {"port": made.port, "weight": 500_000}
    drive.put(
        route("Churn", fleet("churn-a", "a", **half), fleet("churn-b", "b", **half), max_payload_bytes=1_000_000),
        ("churn-a", "127.0.0.1"),
        ("churn-b", "127.0.0.1"),
    )
    drive.settle()
    return made


def refused(call: Callable[..., Any], **arguments: Any) -> tuple[str, int, dict[str, Any]]:
    """The typed exception's name, its HTTP status, its members."""
    with pytest.raises(botocore.exceptions.ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return type(caught.value).__name__, answer["ResponseMetadata"]["HTTPStatusCode"], answer


def test_every_header_goes_through_and_no_other(envoy: Envoy, one: Container) -> None:
    runtime = client(envoy.url)

    def forge(request: Any, **_: Any) -> None:
        for name in (
            "x-amzn-invoked-production-variant",
            "x-envoy-upstream-rq-timeout-ms",
            "cookie",
            "x-forwarded-for",
        ):
            request.headers[name] = "1"

    runtime.meta.events.register("before-send.*", forge)
    answer = runtime.invoke_endpoint(
        EndpointName="Churn",
        Body=b"1,2,3",
        ContentType="text/csv",
        Accept="application/json",
        CustomAttributes="trace=1",
        TargetVariant="b",
        InferenceId="id-1",
        SessionId="s1",
        TargetModel="m.tar.gz",
        EnableExplanations="`true`",
    )
    assert answer["InvokedProductionVariant"] == "b"
    assert answer["CustomAttributes"] == "from c"
    assert answer["Body"].read() == b"c"
    assert answer["ResponseMetadata"]["RequestId"]
    assert not {"x-secret", "server"} & answer["ResponseMetadata"]["HTTPHeaders"].keys()
    seen = one.requests[-1]
    assert seen["body"] == b"1,2,3"
    assert seen["path"] == "/invocations"
    assert {name: value for name, value in seen["headers"].items() if name != "host"} == {
        "content-type": "text/csv",
        "content-length": "5",
        "accept": "application/json",
        "x-amzn-sagemaker-custom-attributes": "trace=1",
        "x-amzn-sagemaker-enable-explanations": "`true`",
        "x-amzn-sagemaker-inference-id": "id-1",
        "x-amzn-sagemaker-session-id": "s1",
        "x-amzn-sagemaker-target-model": "m.tar.gz",
        "x-amzn-sagemaker-target-variant": "b",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"EndpointName": "churn"}, "No endpoint of this name"),
        ({"EndpointName": "Churnn"}, "No endpoint of this name"),
        ({"EndpointName": "Churn", "TargetVariant": "A"}, "variants are a, b"),
        ({"EndpointName": "Churn", "TargetContainerHostname": "x"}, "not Direct"),
    ],
)
@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize("operation", ["invoke_endpoint", "invoke_endpoint_with_response_stream"])
def test_unknown_names_are_validation_errors(
    envoy: Envoy, one: Container, operation: str, arguments: dict[str, str], words: str
) -> None:
    name, status, answer = refused(getattr(client(envoy.url), operation), Body=b"x", **arguments)
    assert (name, status) == ("ValidationError", 400)
    assert words in answer["Error"]["Message"]


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize("operation", ["invoke_endpoint", "invoke_endpoint_with_response_stream"])
def test_a_containers_error_is_a_model_error(envoy: Envoy, one: Container, operation: str) -> None:
    said = b'{"bad": "\\"quoted\\""}\n\xff\x00 caf\xc3\xa9 \xed\xa0\x80'
    body = order("answer", status=500, hex=said.hex(), headers={"x-amzn-errortype": "Forged"})
    name, status, answer = refused(getattr(client(envoy.url), operation), EndpointName="Churn", Body=body)
    assert (name, status) == ("ModelError", 424)
    assert answer["OriginalStatusCode"] == 500
    assert answer["OriginalMessage"] == '{"bad": "\\"quoted\\""}\n�\x00 café ���'
    assert answer["LogStreamArn"].startswith("arn:sluice:logs:cluster:team-a:log-group:/aws/sagemaker/Endpoints/Churn:")


@pytest.mark.parametrize(
    ("said", "headers", "expected"),
    [
        (b"", {}, ""),
        (b"x" * 20_000, {}, "x" * 8192 + "... (20000 bytes)"),
        (b"\x1f\x8bzip", {"content-encoding": "gzip"}, "(5 bytes, content-encoding gzip)"),
    ],
)
def test_original_messages_are_bounded(
    envoy: Envoy, one: Container, said: bytes, headers: dict[str, str], expected: str
) -> None:
    body = order("answer", status=413, hex=said.hex(), headers=headers)
    _, _, answer = refused(client(envoy.url).invoke_endpoint, EndpointName="Churn", Body=body)
    assert (answer["OriginalStatusCode"], answer["OriginalMessage"]) == (413, expected)


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize("operation", ["invoke_endpoint", "invoke_endpoint_with_response_stream"])
def test_an_error_too_large_to_hold_is_a_model_error_too(envoy: Envoy, one: Container, operation: str) -> None:
    body = order("answer", status=500, hex="78", times=2_000_000)
    name, status, answer = refused(getattr(client(envoy.url), operation), EndpointName="Churn", Body=body)
    assert (name, status) == ("ModelError", 424)
    assert "larger" in answer["Error"]["Message"] or answer["OriginalStatusCode"] == 500


def test_a_container_that_breaks_off_is_a_model_error_without_status(envoy: Envoy, one: Container) -> None:
    name, status, answer = refused(client(envoy.url).invoke_endpoint, EndpointName="Churn", Body=order("break"))
    assert (name, status, answer["OriginalStatusCode"]) == ("ModelError", 424, 0)
    assert len(one.requests) == 1, "it may have run, so it is not sent again"


@pytest.mark.usefixtures("relay")
def test_a_late_answer_is_a_model_error_with_status_zero(envoy: Envoy, drive: Drive, container: Start) -> None:
    slow = container("slow")
    drive.put(route("Slow", fleet("slow", port=slow.port), timeout_seconds=1), ("slow", "127.0.0.1"))
    drive.settle()
    started = time.monotonic()
    for operation in ("invoke_endpoint", "invoke_endpoint_with_response_stream"):
        name, status, answer = refused(getattr(client(envoy.url), operation), EndpointName="Slow", Body=order("wait"))
        assert (name, status, answer["OriginalStatusCode"]) == ("ModelError", 424, 0)
        assert "timed out" in answer["Error"]["Message"]
    assert 2 <= time.monotonic() - started < 60, "a second each, not the minute that routes give by default"


def test_a_request_that_waits_for_a_connection_is_under_way(envoy: Envoy, drive: Drive) -> None:
    """Pods of a fleet that it may still reach are not to be stopped."""
    with socket.socket() as deaf, ExitStack() as stack:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)  # who is not accepted soon fills it, and then nobody is connected
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        drive.put(route("Deaf", fleet("deaf", port=deaf.getsockname()[1])), ("deaf", "127.0.0.1"))
        drive.settle()
        with Load(envoy.url, "Deaf", concurrency=1):
            envoy.until(lambda: envoy.ask(lambda admin: admin.activity()).running.get("deaf"), 30)


def test_a_body_over_the_limit_is_refused(envoy: Envoy, one: Container) -> None:
    runtime = client(envoy.url)
    assert runtime.invoke_endpoint(EndpointName="Churn", Body=b"x" * 1_000_000)
    name, status, _ = refused(runtime.invoke_endpoint, EndpointName="Churn", Body=b"x" * 1_000_001)
    assert (name, status) == ("ValidationError", 413)


def test_no_pod_and_too_many_requests_are_service_unavailable(envoy: Envoy, drive: Drive, container: Start) -> None:
    drive.put(route("Empty", fleet("empty")))
    drive.put(route("Gone", fleet("gone", port=1)), ("gone", "127.0.0.1"))
    drive.settle()
    for endpoint in ("Empty", "Gone"):
        name, status, _ = refused(client(envoy.url).invoke_endpoint, EndpointName=endpoint, Body=b"x")
        assert (name, status) == ("ServiceUnavailable", 503)


def test_what_is_not_the_api_is_unknown(envoy: Envoy, one: Container) -> None:
    import urllib.error
    import urllib.request

    def ask(path: str, method: str) -> tuple[int, str | None]:
        request = urllib.request.Request(envoy.url + path, method=method)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - loopback
                return answer.status, None
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("x-amzn-errortype")

    assert ask("/ping", "GET") == (200, None)
    unknown = (404, "UnknownOperationException")
    assert ask("/", "GET") == unknown
    assert ask("/endpoints/Churn/invocations", "GET") == unknown
    assert ask("/endpoints/Churn/invocations/x", "POST") == unknown
    assert ask("/endpoints/Churn", "POST") == unknown
    assert ask("/endpoints/Churn//invocations", "POST") == (200, None), "slashes are merged"
    assert not one.requests[0]["headers"].get("x-request-id")
