"""The service models this simulator answers for, read from botocore so that they are AWS's own and never ours."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import botocore.session

if TYPE_CHECKING:
    from botocore.model import OperationModel, ServiceModel

SAGEMAKER = "sagemaker"
RUNTIME = "sagemaker-runtime"
AUTOSCALING = "application-autoscaling"
STS = "sts"


@cache
def service(name: str) -> ServiceModel:
    """One service's model; reading SageMaker's takes about half a second, so it is read once."""
    return botocore.session.Session().get_service_model(name)


def operation(service_name: str, name: str) -> OperationModel:
    """One operation's model; raises botocore's OperationNotFoundError for a name the service does not have."""
    return service(service_name).operation_model(name)
