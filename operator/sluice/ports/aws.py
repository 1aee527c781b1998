"""Calls to AWS, for the rooms that make them: one door with one limiter, one clock and one classification of errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sluice.core.identity import Credentials

Service = Literal["sagemaker", "sts", "application-autoscaling", "cloudwatch"]
"""The services Sluice calls, by their boto3 names (also the prefix of their IAM actions)."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account that credentials belong to."""

    account_id: str
    partition: str
    """`aws`, `aws-cn`, `aws-us-gov` ...: the second part of every ARN."""


class Aws(Protocol):
    """Calls by the API's own names: call(credentials, "sagemaker", "DescribeEndpoint", EndpointName=...)."""

    async def account(self, credentials: Credentials) -> Account:
        """Whose account the credentials are for (cached). Raises ActFailed."""
        ...

    async def call(
        self, credentials: Credentials, service: Service, operation: str, /, **request: Any
    ) -> Mapping[str, Any]:
        """One call and its answer. Raises ActFailed with a classified problem, and nothing else."""
        ...
