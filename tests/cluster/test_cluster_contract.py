"""One Endpoint at every limit (ten variants, names of 63 characters that differ in case alone, two containers called
directly, an environment in any script), called by an unmodified boto3 and by callers that do not behave."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from tests.cluster.hosting import CALL_SECONDS, JSON, Hosting

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

ENDPOINT = f"e{'m' * 61}1"
MODEL = f"m{'o' * 61}1"
DEAF = "deaf"
VARIANTS = [f"{first}{'b' * 61}{number}" for number in range(5) for first in "aA"]
GREETING = "Grüße, 世界 🐦 \"'\\ $(HOME) $HOME %s\tand a\nline"
CONTAINERS = ("One", "Two")
SLOW = 30


@pytest.fixture(scope="module", autouse=True)
def limits(hosting: Hosting, contrary_image: str) -> Iterator[None]:
    """The Endpoint; the last variant's containers ignore SIGTERM."""
    for model, deaf in ((MODEL, {}), (DEAF, {"DEAF": "1"})):
        containers = [
            {
                "containerHostname": name,
                "image": contrary_image,
                "environment": {"NAME": name, "GREETING": GREETING, **deaf},
            }
            for name in CONTAINERS
        ]
        hosting.model_of(model, {"containers": containers, "inferenceExecutionConfig": {"mode": "Direct"}})
    models = {VARIANTS[-1]: DEAF}
    hosting.endpoint(ENDPOINT, [{"variantName": name, "modelName": models.get(name, MODEL)} for name in VARIANTS])
    hosting.ready(ENDPOINT)
    yield
    hosting.delete(ENDPOINT)
    hosting.gone(ENDPOINT)


def invoke(hosting: Hosting, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """boto3's answer, and what the container was sent."""
    whole = {"EndpointName": ENDPOINT, "Body": b"{}", "ContentType": JSON, "TargetContainerHostname": "One"}
    answer = hosting.runtime().invoke_endpoint(**(whole | arguments))
    return answer, json.loads(answer["Body"].read())


def refused(hosting: Hosting, **arguments: Any) -> tuple[int, str]:
    """The status and the message of an error."""
    with pytest.raises(ClientError) as caught:
        invoke(hosting, **arguments)
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"], caught.value.response["Error"]["Message"]


def test_ten_variants_are_told_apart_by_names_of_63_characters(hosting: Hosting) -> None:
    assert {len(name) for name in (ENDPOINT, MODEL, *VARIANTS)} == {63}
    answered = {name: invoke(hosting, TargetVariant=name)[0]["InvokedProductionVariant"] for name in VARIANTS}

    assert answered == {name: name for name in VARIANTS}
    fleets = {pod["metadata"]["labels"]["sluice.dev/fleet"] for pod in hosting.pods(f"sluice.dev/endpoint={ENDPOINT}")}
    assert len(fleets) == len(VARIANTS)
    shown = hosting.status(ENDPOINT)["productionVariants"]
    assert {one["variantName"]: one["currentInstanceCount"] for one in shown} == dict.fromkeys(VARIANTS, 1)


def test_headers_go_both_ways(hosting: Hosting) -> None:
    answer, told = invoke(
        hosting, Accept="text/csv", CustomAttributes="trace=1", InferenceId="order-7", TargetVariant=VARIANTS[0]
    )

    assert answer["CustomAttributes"] == "from=One"
    assert answer["ContentType"] == JSON
    assert {
        "content-type": JSON,
        "accept": "text/csv",
        "x-amzn-sagemaker-custom-attributes": "trace=1",
        "x-amzn-sagemaker-inference-id": "order-7",
    }.items() <= told["headers"].items()
    assert not {"authorization", "x-amz-date", "user-agent"} & told["headers"].keys()


def test_a_container_is_called_by_its_name_and_by_no_other(hosting: Hosting) -> None:
    for name in CONTAINERS:
        assert invoke(hosting, TargetContainerHostname=name)[1]["name"] == name
    for wrong in ("one", "Three"):
        status, said = refused(hosting, TargetContainerHostname=wrong)
        assert (status, "must be one of One, Two" in said) == (400, True), said


def test_an_environment_comes_as_it_was_written(hosting: Hosting) -> None:
    _, told = invoke(hosting, Body=json.dumps({"variables": ["GREETING", "SAGEMAKER_BIND_TO_PORT"]}))

    assert told["variables"] == {"GREETING": GREETING, "SAGEMAKER_BIND_TO_PORT": "8080"}


def test_headers_over_the_limit_are_refused_and_long_ones_are_not(hosting: Hosting) -> None:
    long = "a" * 1024

    assert invoke(hosting, CustomAttributes=long)[1]["headers"]["x-amzn-sagemaker-custom-attributes"] == long
    assert refused(hosting, CustomAttributes="a" * 40_000)[0] == 431


def test_callers_that_never_end_hold_up_nobody(hosting: Hosting) -> None:
    at = urlsplit(hosting.url)
    head = (
        f"POST /endpoints/{ENDPOINT}/invocations HTTP/1.1\r\nhost: router\r\ncontent-type: {JSON}\r\n"
        "x-amzn-sagemaker-target-container-hostname: Two\r\n"
    )
    with ExitStack() as open_ones:
        slow = [
            open_ones.enter_context(socket.create_connection((at.hostname, at.port), CALL_SECONDS))
            for _ in range(2 * SLOW)
        ]
        silent, sparing = slow[:SLOW], slow[SLOW:]
        for one in silent:
            one.sendall(head.encode())
        for one in sparing:
            one.sendall(f"{head}content-length: 2\r\nconnection: close\r\n\r\n{{".encode())
        for name in VARIANTS:
            assert invoke(hosting, TargetVariant=name)

        for one in sparing:
            one.sendall(b"}")
        for one in sparing:
            assert read(one).startswith(b"HTTP/1.1 200 "), "slow, but whole"
        for one in silent:
            assert read(one).startswith(b"HTTP/1.1 408 "), "its headers have 10 s to end"


def read(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    return b"".join(iter(lambda: connection.recv(4096), b""))


def test_a_container_that_ignores_being_told_to_end_goes_with_its_endpoint_all_the_same(hosting: Hosting) -> None:
    hosting.delete(ENDPOINT)

    def left() -> set[str] | None:
        """The variants of the pods that are left, once the well-behaved ones are gone."""
        now = {
            pod["metadata"]["annotations"]["sluice.dev/variant"]
            for pod in hosting.every_pod(f"sluice.dev/endpoint={ENDPOINT}")
        }
        return now if len(now) < 2 else None

    assert hosting.until(ENDPOINT, left) == {VARIANTS[-1]}
    hosting.gone(ENDPOINT)
