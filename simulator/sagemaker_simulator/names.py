"""ARNs, name identity and the sentences that name an object which is missing, present already or busy.

Endpoint names are unique without regard to case at creation, keep their case, and stand lower-cased in the ARN
(aws/amazon-sagemaker-examples issue 293). Models and configs keep their case throughout.
"""

from __future__ import annotations

from enum import StrEnum

from .errors import ServiceError, invalid


class Kind(StrEnum):
    """A hosting object, by the word its ARN carries."""

    MODEL = "model"
    ENDPOINT_CONFIG = "endpoint-config"
    ENDPOINT = "endpoint"


_WORDS = {Kind.MODEL: "model", Kind.ENDPOINT_CONFIG: "endpoint configuration", Kind.ENDPOINT: "endpoint"}


def arn(kind: Kind, account: str, region: str, name: str) -> str:
    """The object's ARN in the partition its region belongs to."""
    partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
    return f"arn:{partition}:sagemaker:{region}:{account}:{kind}/{name.lower() if kind is Kind.ENDPOINT else name}"


def not_found(kind: Kind, object_arn: str) -> ServiceError:
    """Hosting has no not-found code: clients tell it by this message's beginning."""
    return invalid(f'Could not find {_WORDS[kind]} "{object_arn}".')


def already_exists(kind: Kind, object_arn: str) -> ServiceError:
    """The name is taken."""
    return invalid(f'Cannot create already existing {_WORDS[kind]} "{object_arn}".')


def in_progress(object_arn: str) -> ServiceError:
    """The endpoint is changing; the service says "update" to a refused delete as well."""
    return invalid(f'Cannot update in-progress endpoint "{object_arn}".')
