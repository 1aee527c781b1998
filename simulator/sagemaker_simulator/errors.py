"""What the service answers when it refuses: a code, a message and an HTTP status, as boto3 parses them."""

from __future__ import annotations

from http import HTTPStatus


class ServiceError(Exception):
    """A refusal in the service's own words; the server turns it into an error body."""

    def __init__(self, code: str, message: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = int(status)


def invalid(message: str) -> ServiceError:
    """The one error hosting operations use for bad input, missing objects and wrong states alike."""
    return ServiceError("ValidationException", message)


def limit_exceeded(quota: str, limit: int, used: int, delta: int, unit: str) -> ServiceError:
    """The quota error; its text names the quota, the limit, the use and the delta, which clients show to people."""
    return ServiceError(
        "ResourceLimitExceeded",
        f"The account-level service limit '{quota}' is {limit} {unit}, with current utilization of {used} {unit} and a "
        f"request delta of {delta} {unit}. Please use AWS Service Quotas to request an increase for this quota. "
        "If AWS Service Quotas is not available, contact AWS support to request an increase for this quota.",
    )


def access_denied(caller_arn: str, action: str, resource: str) -> ServiceError:
    """An identity policy that does not allow the action."""
    return ServiceError(
        "AccessDeniedException",
        f"User: {caller_arn} is not authorized to perform: {action} on resource: {resource} "
        f"because no identity-based policy allows the {action} action",
    )


def throttled() -> ServiceError:
    """The request rate is above what the service takes."""
    return ServiceError("ThrottlingException", "Rate exceeded")
