"""moto's server as CloudWatch, reached as the operator reaches AWS: by environment; and the router tests' Envoy."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.alarms.routers import Operator
from tests.router.conftest import container, drive, envoy, relay  # noqa: F401 - fixtures
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.specs import fleet, route
from tests.sagemaker.world import REGION, CountingTelemetry

from sluice.ports.clock import SystemClock
from sluice.sagemaker.clients import AwsCalls, AwsSettings


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def cloudwatch(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Somebody's plain boto3 client of an empty CloudWatch."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "operator")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret-of-anybody")
    client = boto3.client("cloudwatch", region_name=REGION)
    alarms = client.describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    names = [alarm["AlarmName"] for alarm in (*alarms["MetricAlarms"], *alarms["CompositeAlarms"])]
    if names:
        client.delete_alarms(AlarmNames=names)
    return client


@pytest.fixture
def telemetry() -> CountingTelemetry:
    return CountingTelemetry()


@pytest.fixture
async def calls(cloudwatch: Any, telemetry: CountingTelemetry) -> AsyncIterator[AwsCalls]:
    door = AwsCalls(AwsSettings(read_timeout_seconds=5, read_attempts=1), telemetry, SystemClock())
    yield door
    door.close()


@pytest.fixture
def operator() -> Iterator[Operator]:
    made = Operator()
    yield made
    made.close()


@pytest.fixture
def serve(
    drive: Drive,  # noqa: F811
    container: Callable[..., Container],  # noqa: F811
    operator: Operator,
) -> Callable[..., Container]:
    """An endpoint Churn, whose fleet `new` is one container, in a router that the operator reads."""

    def make(**rest: object) -> Container:
        made = container("new", **rest)
        drive.put(route("Churn", fleet("new", "a", 1_000_000, made.port), timeout_seconds=1), ("new", "127.0.0.1"))
        drive.settle()
        operator.add(drive.envoy)
        return made

    return make


@pytest.fixture
def churn(drive: Drive, container: Callable[..., Container]) -> dict[str, Container]:  # noqa: F811
    """The Endpoint of churn.py, whose old revision answers, beside a new one that gets half of the requests."""
    models = {"old": container("old", keep=False), "new": container("new", keep=False)}
    drive.put(
        route(
            "Churn",
            fleet("old", "a", 500_000, models["old"].port).model_copy(update={"revision": "churn-1"}),
            fleet("new", "a", 500_000, models["new"].port).model_copy(update={"revision": "churn-2"}),
        ),
        ("old", "127.0.0.1"),
        ("new", "127.0.0.1"),
    )
    drive.settle()
    return models
