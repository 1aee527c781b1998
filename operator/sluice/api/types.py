r"""SageMaker's scalar types, with the limits and patterns of its service model, and the shapes several kinds share.

Patterns are SageMaker's, anchored. Where SageMaker's pattern has a look-around, which the API server's engine (RE2)
does not know, an equivalent stands in its place: `ModelPackageName`, `MetricsEndpointPath`, `AlarmName`.
"""

from typing import Annotated, Literal

from pydantic import Field

from sluice.api.base import ApiModel, ListSet, Rule, Rules, Schema
from sluice.api.cel import found
from sluice.api.names import GROUP

ObjectName = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""`metadata.name` of a Model or EndpointConfig in the same namespace: SageMaker's name in lower case."""

SageMakerName = Annotated[str, Field(max_length=63, pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$")]
"""EndpointName, VariantName, ContainerHostname, InferenceSpecificationName."""

RoleArn = Annotated[
    str,
    Field(min_length=20, max_length=2048, pattern=r"^arn:aws[a-z\-]*:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+$"),
]
Url = Annotated[str, Field(max_length=1024, pattern=r"^(https|s3)://([^/]+)/?(.*)$")]
ModelDataUrl = Annotated[
    str,
    Field(
        max_length=1024,
        pattern=r"^((https|s3)://([^/]+)/?(.*)|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/.?#][^/?#]*)*/?)$",
    ),
]
"""SageMaker's Url, or a place in a PersistentVolumeClaim; there no part of the path begins with a dot."""
DestinationS3Uri = Annotated[str, Field(max_length=512, pattern=r"^(https|s3)://([^/])/?(.*)$")]
KmsKeyId = Annotated[str, Field(max_length=2048, pattern=r"^[a-zA-Z0-9:/_-]*$")]
SnsTopicArn = Annotated[
    str, Field(max_length=2048, pattern=r"^arn:aws[a-z\-]*:sns:[a-z0-9\-]*:[0-9]{12}:[a-zA-Z0-9_.-]+$")
]
InstanceType = Annotated[str, Field(max_length=63, pattern=r"^ml\.[a-z0-9\-]+\.[a-z0-9\-]+$")]
"""A pattern, not SageMaker's list: a new instance type needs no new operator."""

Int32 = Schema(format="int32")
"""SageMaker's integers have 32 bits. The API server does not hold numbers to the format, so all have bounds too."""

MAX_INT32 = 2**31 - 1

MetricPublishFrequency = Annotated[Literal[10, 30, 60, 120, 180, 240, 300], Int32]

TagText = r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$"


class Tag(ApiModel):
    """A tag of the AWS objects."""

    key: Annotated[str, Field(min_length=1, max_length=128, pattern=TagText)]
    """Unique within the list."""
    value: Annotated[str, Field(max_length=256, pattern=TagText)]
    """May be empty."""


ReservedTagKeys = Rules(
    Rule(
        rule=f"self.all(tag, !tag.key.startsWith('{GROUP}/') && !tag.key.lowerAscii().startsWith('aws:'))",
        message=f"tag keys that begin with '{GROUP}/' or 'aws:' are reserved",
        message_expression=found(
            f'tags: found the reserved key "%s", allowed are keys that begin neither with "{GROUP}/" nor with "aws:"',
            f"self.filter(tag, tag.key.startsWith('{GROUP}/') || tag.key.lowerAscii().startsWith('aws:'))[0].key",
        ),
        reason="FieldValueForbidden",
    )
)


class VpcConfig(ApiModel):
    """The VPC that the model's instances are attached to."""

    security_group_ids: Annotated[
        tuple[Annotated[str, Field(max_length=32, pattern=r"^[-0-9a-zA-Z]+$")], ...],
        ListSet(),
        Field(min_length=1, max_length=5),
    ]
    """Security groups of that VPC."""
    subnets: Annotated[
        tuple[Annotated[str, Field(max_length=32, pattern=r"^[-0-9a-zA-Z]+$")], ...],
        ListSet(),
        Field(min_length=1, max_length=16),
    ]
    """Subnets in at least two availability zones."""
