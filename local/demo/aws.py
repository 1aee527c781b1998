"""The stand-in for AWS, seen from outside: alarms in moto's CloudWatch, and the SageMaker simulator's own clock."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from demo.surroundings import DemoError
from sagemaker_simulator.testing import Control

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.literals import StateValueType


class Alarms:
    """CloudWatch alarms as the demo's people would have made them."""

    def __init__(self, url: str, region: str) -> None:
        session = boto3.Session(
            aws_access_key_id="demo",
            aws_secret_access_key="demo",  # noqa: S106 - the stand-in for AWS takes any
            region_name=region,
        )
        config = Config(connect_timeout=3, read_timeout=10, proxies={}, retries={"total_max_attempts": 3})
        self._client: CloudWatchClient = session.client("cloudwatch", endpoint_url=url, config=config)

    def create(self, names: Iterable[str], *, endpoint_name: str, namespace: str = "AWS/SageMaker") -> None:
        """PutMetricAlarm on the endpoint's server errors, in state OK. Raises DemoError."""
        for name in names:
            try:
                self._client.put_metric_alarm(
                    AlarmName=name,
                    Namespace=namespace,
                    MetricName="Invocation5XXErrors",
                    Dimensions=[{"Name": "EndpointName", "Value": endpoint_name}],
                    Statistic="Average",
                    Period=60,
                    EvaluationPeriods=1,
                    Threshold=0.01,
                    ComparisonOperator="GreaterThanThreshold",
                    TreatMissingData="notBreaching",
                )
            except (ClientError, BotoCoreError) as error:
                raise DemoError(f"CloudWatch (moto): PutMetricAlarm {name}: {error}") from error
            self.set(name, "OK", "no errors")

    def set(self, name: str, state: StateValueType, reason: str) -> None:
        """SetAlarmState. Raises DemoError."""
        try:
            self._client.set_alarm_state(AlarmName=name, StateValue=state, StateReason=reason)
        except (ClientError, BotoCoreError) as error:
            raise DemoError(f"CloudWatch (moto): SetAlarmState {name} {state}: {error}") from error


class Objects:
    """Objects in S3, put there as a training job would."""

    def __init__(self, url: str, region: str) -> None:
        session = boto3.Session(
            aws_access_key_id="demo",
            aws_secret_access_key="demo",  # noqa: S106 - the stand-in for AWS takes any
            region_name=region,
        )
        config = Config(
            connect_timeout=3, read_timeout=30, proxies={}, retries={"total_max_attempts": 3},
            s3={"addressing_style": "path"},
        )  # fmt: skip
        self._client = session.client("s3", endpoint_url=url, config=config)
        self._region = region

    def put(self, uri: str, content: bytes) -> None:
        """CreateBucket, unless it is there, and PutObject at s3://bucket/key. Raises DemoError."""
        bucket, key = urlsplit(uri).netloc, urlsplit(uri).path.lstrip("/")
        where = {"LocationConstraint": self._region}
        try:
            with suppress(self._client.exceptions.BucketAlreadyOwnedByYou):
                self._client.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
            self._client.put_object(Bucket=bucket, Key=key, Body=content)
        except (ClientError, BotoCoreError) as error:
            raise DemoError(f"S3 (moto): {uri}: {error}") from error

    def deny(self, bucket: str) -> None:
        """PutBucketPolicy: nobody may read the bucket's objects. Raises DemoError."""
        # AWS has no action of HEAD's own; moto asks for one.
        reads, objects = ["s3:GetObject", "s3:HeadObject"], f"arn:aws:s3:::{bucket}/*"
        statement = {"Effect": "Deny", "Principal": "*", "Action": reads, "Resource": objects}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        try:
            self._client.put_bucket_policy(Bucket=bucket, Policy=policy)
        except (ClientError, BotoCoreError) as error:
            raise DemoError(f"S3 (moto): the policy of {bucket}: {error}") from error


class SimulatedTime:
    """The simulator's clock runs faster than ours and ahead of it; this turns its moments into seconds from now."""

    def __init__(self, control: Control) -> None:
        clock = control.ask("GET", "clock")
        self.speed = float(clock["speed"]) or 1.0
        self._then, self._simulated = time.monotonic(), float(clock["now"])

    def seconds_until(self, moment: datetime) -> float:
        """Real seconds until a simulated moment; negative when it is over."""
        simulated = self._simulated + (time.monotonic() - self._then) * self.speed
        return (moment.astimezone(UTC).timestamp() - simulated) / self.speed
