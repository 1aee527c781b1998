"""The ARNs of hosting objects."""

from sluice.ports.aws import Account


def arn(account: Account, region: str, resource: str) -> str:
    """The ARN of `endpoint/<name>`, `endpoint-config/<name>` or `model/<name>`.

    An endpoint's name stands in lower case in its ARN (aws/amazon-sagemaker-examples issue 293)."""
    kind, _, name = resource.partition("/")
    shown = name.lower() if kind == "endpoint" else name
    return f"arn:{account.partition}:sagemaker:{region}:{account.account_id}:{kind}/{shown}"
