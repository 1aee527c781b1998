"""Which failure is which: every class of the table, from what botocore raises."""

from typing import Any

import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from sluice.api.reasons import Reason
from sluice.core.identity import Credentials
from sluice.sagemaker.errors import MESSAGE_LENGTH, Call, Fault, classify, redact

ROLE = "arn:aws:iam::111122223333:role/team-a"
CALL = Call("sagemaker", "CreateEndpoint", Credentials("eu-west-1", ROLE, "prod-1/team-a"))
INVALID = "ValidationException"


def answered(code: str, message: str, status: int = 400, operation: str = "CreateEndpoint") -> boto.ClientError:
    response: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(response, operation)


@pytest.mark.parametrize(
    ("code", "message", "fault", "reason", "transient"),
    [
        (INVALID, 'Could not find endpoint "arn:..".', Fault.NOT_FOUND, Reason.REJECTED_BY_SAGEMAKER, True),
        (INVALID, 'Could not find model "arn:..".', Fault.NOT_FOUND, Reason.REJECTED_BY_SAGEMAKER, False),
        (INVALID, 'Could not find endpoint configuration "x".', Fault.NOT_FOUND, Reason.REJECTED_BY_SAGEMAKER, False),
        (INVALID, 'Cannot create already existing endpoint "x".', Fault.ALREADY_EXISTS, Reason.NAME_CONFLICT, True),
        (INVALID, 'Cannot create already existing model "x".', Fault.ALREADY_EXISTS, Reason.NAME_CONFLICT, True),
        (INVALID, 'Cannot update in-progress endpoint "x".', Fault.IN_PROGRESS, Reason.WAITING_FOR_SAGEMAKER, True),
        (INVALID, "Endpoint x cannot be deleted in Creating", Fault.IN_PROGRESS, Reason.WAITING_FOR_SAGEMAKER, True),
        (INVALID, "1 validation error detected: ...", Fault.REJECTED, Reason.REJECTED_BY_SAGEMAKER, False),
        ("ResourceLimitExceeded", "limit 'ml.g5' is 0", Fault.QUOTA, Reason.QUOTA_EXCEEDED, True),
        ("ThrottlingException", "Rate exceeded", Fault.THROTTLED, Reason.THROTTLED, True),
        ("Throttling", "Rate exceeded", Fault.THROTTLED, Reason.THROTTLED, True),
        ("TooManyRequestsException", "slow down", Fault.THROTTLED, Reason.THROTTLED, True),
        ("AccessDeniedException", "User: x is not authorized", Fault.DENIED, Reason.ACCESS_DENIED, True),
        ("AccessDenied", "no", Fault.DENIED, Reason.ACCESS_DENIED, True),
        ("ExpiredTokenException", "The security token is expired", Fault.CREDENTIALS, Reason.NO_CREDENTIALS, True),
        ("UnrecognizedClientException", "token is invalid", Fault.CREDENTIALS, Reason.NO_CREDENTIALS, True),
        ("InvalidClientTokenId", "token is invalid", Fault.CREDENTIALS, Reason.NO_CREDENTIALS, True),
    ],
)
def test_what_the_service_answers(code: str, message: str, fault: Fault, reason: Reason, transient: bool) -> None:
    failed = classify(answered(code, message), CALL)
    assert (failed.fault, failed.problem.reason, failed.problem.transient) == (fault, reason, transient)
    assert failed.problem.operation == "CreateEndpoint"
    assert failed.problem.code == code


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_error_is_outlived(status: int) -> None:
    failed = classify(answered("InternalFailure", "oops", status), CALL)
    assert (failed.fault, failed.problem.transient) == (Fault.UNREACHABLE, True)


def test_a_status_of_429_is_throttling_whatever_its_code() -> None:
    assert classify(answered("Odd", "odd", 429), CALL).fault is Fault.THROTTLED


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("endpoint", 'Could not find endpoint "a".'),
        ("endpoint-config", 'Could not find endpoint configuration "a".'),
        ("model", 'Could not find model "a".'),
    ],
)
def test_what_is_missing_is_named(kind: str, message: str) -> None:
    assert classify(answered(INVALID, message), CALL).missing == kind


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (boto.NoCredentialsError(), Fault.CREDENTIALS),
        (boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), Fault.CREDENTIALS),
        (boto.CredentialRetrievalError(provider="sso", error_msg="x"), Fault.CREDENTIALS),
        (boto.ProfileNotFound(profile="p"), Fault.CREDENTIALS),
        (FileNotFoundError(2, "No such file", "/var/run/secrets/token"), Fault.CREDENTIALS),
        (boto.EndpointConnectionError(endpoint_url="https://x"), Fault.UNREACHABLE),
        (boto.ConnectTimeoutError(endpoint_url="https://x"), Fault.UNREACHABLE),
        (boto.ReadTimeoutError(endpoint_url="https://x"), Fault.UNREACHABLE),
        (boto.ConnectionClosedError(endpoint_url="https://x"), Fault.UNREACHABLE),
        (boto.ProxyConnectionError(proxy_url="http://u:hunter2@proxy:1"), Fault.UNREACHABLE),
        (boto.SSLError(endpoint_url="https://x", error=OSError("certificate verify failed")), Fault.UNREACHABLE),
        (boto.UnknownEndpointError(service_name="sagemaker", region_name="x"), Fault.UNREACHABLE),
        (ResponseParserError("not XML"), Fault.UNREACHABLE),
        (boto.ParamValidationError(report="Missing required parameter"), Fault.REJECTED),
    ],
)
def test_what_never_reached_the_service(error: Exception, fault: Fault) -> None:
    failed = classify(error, CALL)
    assert failed.fault is fault
    assert failed.problem.transient is (fault is not Fault.REJECTED)
    assert "hunter2" not in failed.problem.message


def test_access_denied_names_action_and_role() -> None:
    problem = classify(answered("AccessDeniedException", "User: u is not authorized"), CALL).problem
    assert "sagemaker:CreateEndpoint" in problem.message
    assert ROLE in problem.message
    assert problem.retry_after_seconds == 30


def test_access_denied_names_the_action_that_was_denied_not_the_one_that_was_called() -> None:
    message = "User: u is not authorized to perform: iam:PassRole on resource: arn:aws:iam::1:role/x"
    problem = classify(answered("AccessDeniedException", message, operation="CreateModel"), CALL).problem
    assert problem.message.startswith("iam:PassRole is denied")


def test_a_denied_assume_role_says_what_the_trust_policy_needs() -> None:
    problem = classify(answered("AccessDenied", "User: u is not ...", 403, "AssumeRole"), CALL).problem
    assert problem.operation == "AssumeRole"
    assert ROLE in problem.message
    assert "sts:ExternalId prod-1/team-a" in problem.message


def test_without_a_role_the_operators_own_identity_is_named() -> None:
    call = Call("sagemaker", "ListEndpoints", Credentials("eu-west-1"))
    problem = classify(answered("AccessDeniedException", "no", operation="ListEndpoints"), call).problem
    assert "sagemaker:ListEndpoints is denied for the operator's own identity" in problem.message


def test_quota_retries_are_spread_over_five_to_ten_minutes() -> None:
    error = answered("ResourceLimitExceeded", "limit")
    assert classify(error, CALL, spread=0.0).problem.retry_after_seconds == 300
    assert classify(error, CALL, spread=0.999).problem.retry_after_seconds == pytest.approx(600, abs=1)


def test_credentials_never_stand_in_a_message() -> None:
    canonical = "host:sts\nx-amz-security-token:FwoGZXIvYXdzEAE\n key ASIAIOSFODNN7EXAMPLE"
    echoed = classify(answered("SignatureDoesNotMatch", canonical, 403), CALL).problem.message
    assert "FwoGZXIvYXdzEAE" not in echoed
    assert "ASIAIOSFODNN7EXAMPLE" not in redact(canonical)
    assert "FwoGZXIvYXdzEAE" not in redact(canonical)
    assert "hunter2" not in redact("via http://user:hunter2@proxy.example:3128")


def test_a_message_fits_a_status() -> None:
    assert len(classify(answered(INVALID, "x" * 5000), CALL).problem.message) <= MESSAGE_LENGTH
