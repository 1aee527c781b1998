"""A simulated SageMaker and the operator's own door to it; what a test is about stands in the test."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from sagemaker_simulator.testing import Simulator
from sluice.core.identity import Credentials, Key, Owner, Target
from sluice.core.observation import AlarmReading
from sluice.ports.clock import Clock, SystemClock
from sluice.ports.telemetry import NoTelemetry
from sluice.sagemaker.clients import AwsCalls, AwsSettings

REGION = "eu-west-1"
ROLE = "arn:aws:iam::111122223333:role/models"
OWN = Credentials(REGION)
OWNER = Owner("prod-1", "team-a", "churn")
TARGET = Target(OWNER, OWN, "churn")
KEY = Key("Endpoint", "team-a", "churn")
QUICK = AwsSettings(connect_timeout_seconds=2, read_timeout_seconds=3, deadline_seconds=10, read_attempts=3)


class CountingTelemetry(NoTelemetry):
    """Remembers which calls ended how."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str]] = Counter()

    def aws_call(self, operation: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls[operation, code] += 1


class SteppedClock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def step(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds


class NoAlarms:
    """An AlarmReader for tests in which nothing reads alarms."""

    async def read(self, target: Target, names: tuple[str, ...], not_before: datetime) -> tuple[AlarmReading, ...]:
        raise AssertionError(f"nothing asks for alarms here, but {names} were asked for")


def aws(telemetry: NoTelemetry | None = None, settings: AwsSettings = QUICK, clock: Clock | None = None) -> AwsCalls:
    return AwsCalls(settings, telemetry or NoTelemetry(), clock or SystemClock())


class Hosting:
    """Somebody's plain boto3 client of the simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.boto = simulator.client("sagemaker", region=REGION)

    def model(self, name: str = "m") -> None:
        self.boto.create_model(
            ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "registry.example/churn:1"}
        )

    def config(self, name: str = "c", *, model: str = "m", count: int = 1) -> None:
        self.boto.create_endpoint_config(
            EndpointConfigName=name, ProductionVariants=[variant(model=model, count=count)]
        )

    def endpoint(self, name: str = "churn", *, config: str = "c", tags: dict[str, str] | None = None) -> None:
        more = {"Tags": [{"Key": key, "Value": value} for key, value in (tags or {}).items()]}
        self.boto.create_endpoint(EndpointName=name, EndpointConfigName=config, **more)

    def everything(self, name: str = "churn", *, in_service: bool = True) -> None:
        """A model m, a config c and an endpoint."""
        self.model()
        self.config()
        self.endpoint(name)
        if in_service:
            self.simulator.advance(60)

    def tags(self, arn: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self.boto.list_tags(ResourceArn=arn)["Tags"]}


def variant(name: str = "a", *, model: str = "m", count: int = 1) -> dict[str, Any]:
    return {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": count,
        "InitialVariantWeight": 1.0,
    }
