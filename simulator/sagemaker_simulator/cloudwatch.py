"""Reads alarm states from a CloudWatch endpoint such as moto's server, for all deployments at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient

_NAMES_PER_CALL = 100


class CloudWatch:
    """Blocking reader; the server runs it in a thread. One client per region."""

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        self._clients: dict[str, CloudWatchClient] = {}

    def _client(self, region: str) -> CloudWatchClient:
        if region not in self._clients:
            session = boto3.Session(
                aws_access_key_id="simulator",
                aws_secret_access_key="simulator",  # noqa: S106 - the stand-in for AWS takes any
                region_name=region,
            )
            config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}, proxies={})
            self._clients[region] = session.client("cloudwatch", endpoint_url=self.endpoint_url, config=config)
        return self._clients[region]

    def read(self, watched: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], str]:
        """States by region and name. Both AlarmTypes are asked for, or a composite alarm would look missing."""
        states: dict[tuple[str, str], str] = {}
        for region, names in watched.items():
            ordered = sorted(names)
            for start in range(0, len(ordered), _NAMES_PER_CALL):
                answer = self._client(region).describe_alarms(
                    AlarmNames=ordered[start : start + _NAMES_PER_CALL], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
                )
                for alarm in (*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", [])):
                    states[region, alarm["AlarmName"]] = alarm["StateValue"]
        return states
