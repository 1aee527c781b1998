"""An unmodified boto3 through kube-proxy, a router and real model servers: headers, errors, shares, live edits."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.cluster.conftest import ModelServer
from tests.cluster.hosting import BODY, JSON, Hosting, parrot

from demo.caller import Callers
from demo.install import REGION

pytestmark = pytest.mark.cluster

ENDPOINT = "aviary"
WEIGHTS = {"ara": 2.0, "Budgie": 1.0, "broken": 0.0}
ANSWERS = 3000
ANSWERS_SECONDS = 300
LIMIT = 6 * 1024 * 1024
EDITS = 20


@pytest.fixture(scope="module", autouse=True)
def aviary(hosting: Hosting, mlflow: ModelServer) -> Iterator[None]:
    """Two variants that answer their names, one with a capital, and one without a weight whose every answer is 500."""
    for name, archive in (
        ("ara", parrot("ara")),
        ("budgie", parrot("Budgie")),
        ("broken", mlflow.archives["broken"].read_bytes()),
    ):
        hosting.model(name, hosting.upload(name, archive))
    hosting.endpoint(
        ENDPOINT,
        [
            {"variantName": name, "modelName": name.lower(), "initialVariantWeight": weight}
            for name, weight in WEIGHTS.items()
        ],
    )
    hosting.ready(ENDPOINT)
    yield
    hosting.delete(ENDPOINT)
    hosting.gone(ENDPOINT)


def refused(call: Callable[..., Any], **arguments: Any) -> tuple[str, dict[str, Any]]:
    """The typed exception's name and its answer."""
    with pytest.raises(ClientError) as caught:
        call(**{"EndpointName": ENDPOINT, "Body": BODY, "ContentType": JSON} | arguments)
    return type(caught.value).__name__, dict(caught.value.response)


@pytest.mark.parametrize("variant", ["ara", "Budgie"])
def test_the_variant_that_was_asked_for_answers_with_its_own_model(hosting: Hosting, variant: str) -> None:
    answer = hosting.runtime().invoke_endpoint(
        EndpointName=ENDPOINT,
        Body=BODY,
        ContentType=JSON,
        Accept=JSON,
        TargetVariant=variant,
        CustomAttributes="trace=1",
        InferenceId="order-7",
    )

    assert answer["InvokedProductionVariant"] == variant
    assert answer["ContentType"] == JSON
    assert json.loads(answer["Body"].read()) == {"predictions": [variant]}


def test_names_are_matched_with_their_case(hosting: Hosting) -> None:
    for wrong, said in (
        ({"EndpointName": "Aviary"}, "Aviary"),
        ({"EndpointName": "iris"}, "iris"),  # another namespace's
        ({"TargetVariant": "budgie"}, "its production variants are Budgie, ara, broken"),
    ):
        name, answer = refused(hosting.runtime().invoke_endpoint, **wrong)

        assert (name, answer["ResponseMetadata"]["HTTPStatusCode"]) == ("ValidationError", 400)
        assert said in answer["Error"]["Message"]


def test_what_the_model_said_when_it_failed_reaches_the_caller(hosting: Hosting) -> None:
    iris = json.dumps({"inputs": [[5.1, 3.5, 1.4, 0.2]]}).encode()

    name, answer = refused(hosting.runtime().invoke_endpoint, TargetVariant="broken", Body=iris)

    assert (name, answer["ResponseMetadata"]["HTTPStatusCode"]) == ("ModelError", 424)
    assert answer["OriginalStatusCode"] == 500
    assert answer["OriginalMessage"] == "Internal Server Error"


def test_a_body_over_the_limit_is_refused_and_one_at_it_is_not(hosting: Hosting) -> None:
    body = b'{"inputs": [["' + b"x" * (LIMIT - len(BODY) + len("word")) + b'"]]}'
    assert len(body) == LIMIT

    name, answer = refused(hosting.runtime().invoke_endpoint, Body=body + b" ")
    taken = hosting.runtime().invoke_endpoint(EndpointName=ENDPOINT, Body=body, ContentType=JSON)

    assert (name, answer["ResponseMetadata"]["HTTPStatusCode"]) == ("ValidationError", 413)
    assert taken["InvokedProductionVariant"] in ("ara", "Budgie")


def test_a_stream_is_read_to_its_end(hosting: Hosting) -> None:
    answer = hosting.runtime().invoke_endpoint_with_response_stream(
        EndpointName=ENDPOINT, Body=BODY, ContentType=JSON, TargetVariant="Budgie"
    )

    read = b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])
    assert answer["InvokedProductionVariant"] == "Budgie"
    assert json.loads(read) == {"predictions": ["Budgie"]}


def test_shares_are_those_of_the_weights_and_edits_of_them_lose_nothing(hosting: Hosting) -> None:
    fleets = {one["metadata"]["uid"] for one in hosting.pods(f"sluice.dev/endpoint={ENDPOINT}")}
    with Callers(hosting.url, REGION, ENDPOINT, BODY.decode()) as callers, hosting.load(ENDPOINT) as fresh:
        callers.restart(WEIGHTS)
        assert not callers.until(ANSWERS, seconds=ANSWERS_SECONDS).wrong()

        for turn in range(EDITS):
            weight = float(turn % 2 * 7 + 1)
            hosting.edit_variant(ENDPOINT, 1, initialVariantWeight=weight)
            hosting.weighed(ENDPOINT, WEIGHTS | {"Budgie": weight})
        callers.restart(WEIGHTS | {"Budgie": 8.0})
        tally = callers.until(ANSWERS // 3, seconds=ANSWERS_SECONDS)

    assert not tally.wrong()
    assert tally.failures == 0
    fresh.assert_none_lost()
    assert {one["metadata"]["uid"] for one in hosting.pods(f"sluice.dev/endpoint={ENDPOINT}")} == fleets
