"""Decides what kind of failure a call to AWS ended in: the only place that reads AWS' codes and sentences.

Hosting operations have no code for "not found", "exists already" or "busy": all are ValidationException, told apart by
how the message begins (semantics section 10; ACK does the same). Messages made here say what to do and never hold a
credential."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, cast

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from sluice.api.reasons import Reason
from sluice.core.identity import Credentials
from sluice.core.observation import CallProblem
from sluice.ports.aws import Account, Service
from sluice.ports.backend import ActFailed


class Fault(StrEnum):
    """The kinds of failure that Sluice tells apart."""

    NOT_FOUND = "NotFound"
    ALREADY_EXISTS = "AlreadyExists"
    IN_PROGRESS = "InProgress"
    THROTTLED = "Throttled"
    QUOTA = "Quota"
    DENIED = "Denied"
    CREDENTIALS = "Credentials"
    UNREACHABLE = "Unreachable"
    REJECTED = "Rejected"


class CallFailed(ActFailed):
    """A call that failed. `missing` names the kind of a missing object: endpoint, endpoint-config or model."""

    def __init__(self, fault: Fault, problem: CallProblem, missing: str | None = None) -> None:
        super().__init__(problem)
        self.fault = fault
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked, and as whom."""

    service: Service
    operation: str
    credentials: Credentials

    @property
    def action(self) -> str:
        """The IAM action."""
        return f"{self.service}:{self.operation}"

    @property
    def identity(self) -> str:
        """Whose permission or credentials a person has to look at."""
        role = self.credentials.role_arn
        return f"the role {role}" if role else "the operator's own identity"


MESSAGE_LENGTH: Final = 1000

ACCESS_DENIED_RETRY_SECONDS: Final = 30.0
QUOTA_RETRY_SECONDS: Final = 300.0
"""A quota is raised by people or freed by other work: every 5 to 10 minutes is often enough."""
CREDENTIALS_RETRY_SECONDS: Final = 15.0
UNREACHABLE_RETRY_SECONDS: Final = 2.0
THROTTLED_RETRY_SECONDS: Final = 2.0
IN_PROGRESS_RETRY_SECONDS: Final = 5.0

THROTTLING_CODES: Final = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "LimitExceededException",
        "BandwidthLimitExceeded",
        "ProvisionedThroughputExceededException",
        "PriorRequestNotComplete",
        "SlowDown",
    }
)
DENIED_CODES: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized", "FailedResourceAccessException"}
)
CREDENTIAL_CODES: Final = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidIdentityToken",
        "InvalidIdentityTokenException",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
CREDENTIAL_ERRORS: Final = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
    boto.ProfileNotFound,
    boto.ConfigParseError,
    boto.ConfigNotFound,
    boto.InvalidConfigError,
    boto.RefreshWithMFAUnsupportedError,
    boto.UnknownCredentialError,
)
UNREACHABLE_ERRORS: Final = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.BaseEndpointResolverError,
    boto.EndpointProviderError,
    boto.InvalidEndpointConfigurationError,
    boto.InvalidRegionError,
    boto.InvalidProxiesConfigError,
    boto.IncompleteReadError,
    ResponseParserError,
)

_NOT_FOUND = re.compile(r"^Could not find (endpoint configuration|endpoint|model)\b", re.IGNORECASE)
_ALREADY_EXISTS = re.compile(r"^Cannot create already existing ", re.IGNORECASE)
_IN_PROGRESS = re.compile(
    r"^Cannot (update|delete|modify) in-progress |cannot be (modified|updated|deleted)", re.IGNORECASE
)
_MISSING_KIND = {"endpoint configuration": "endpoint-config", "endpoint": "endpoint", "model": "model"}
_DENIED_ACTION = re.compile(r"not authorized to perform:? ([A-Za-z0-9-]+:[A-Za-z0-9*]+)")

# What must not reach a log or a status: key ids, tokens, a proxy's user and password.
_SECRETS: Final = (
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), "(access key id)"),
    (
        re.compile(r"(?i)(x-amz-security-token|aws_secret_access_key)(['\"]?\s*[:=]\s*)\S+"),
        r"\1\2(hidden)",
    ),
    (re.compile(r"//[^/@\s]+@"), "//"),
)
# The service puts the canonical request, session token included, into the message of a wrong signature.
_ECHOES_REQUEST: Final = frozenset({"SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"})


def classify(error: Exception, call: Call, *, spread: float = 0.0) -> CallFailed:
    """The failure as a classified problem. `spread` in [0, 1) spreads the retries of many Endpoints that hit the
    same quota over five minutes."""
    if isinstance(error, CallFailed):
        return error
    if isinstance(error, boto.ClientError):
        return _answered(error, call, spread)
    if isinstance(error, CREDENTIAL_ERRORS):
        return _no_credentials(call, type(error).__name__, str(error))
    if isinstance(error, boto.ParamValidationError):
        return _failed(Fault.REJECTED, Reason.REJECTED_BY_SAGEMAKER, call, str(error), type(error).__name__, None)
    if isinstance(error, UNREACHABLE_ERRORS):
        return unreachable(call, type(error).__name__, f"{error} {_remedy(error, call)}")
    if isinstance(error, OSError | RuntimeError):
        # Reading a token file that is not there; botocore: "refreshed credentials are still expired".
        return _no_credentials(call, type(error).__name__, str(error))
    return unreachable(call, type(error).__name__, str(error))


def unreachable(call: Call, code: str, message: str) -> CallFailed:
    """No answer, or none that can be read: the operator outlives it."""
    text = f"no answer to {call.action} in {call.credentials.region}: {message}"
    return _failed(Fault.UNREACHABLE, Reason.UNREACHABLE, call, text, code, UNREACHABLE_RETRY_SECONDS)


def no_credentials(call: Call) -> CallFailed:
    """The chain of credential providers ended without credentials."""
    return _no_credentials(call, "NoCredentialsError", "no provider of the AWS SDK's chain has any")


def role_not_an_arn(call: Call) -> CallFailed:
    """A role that cannot be assumed because it is not one."""
    text = (
        f"assumeRoleArn is {call.credentials.role_arn!r}; allowed is the ARN of an IAM role, "
        "arn:aws:iam::<account>:role/<name>"
    )
    return _failed(Fault.REJECTED, Reason.NO_CREDENTIALS, call, text, "InvalidRoleArn", None)


def account_changed(call: Call, known: Account, found: Account) -> CallFailed:
    """Our own identity has come to be of another account. What is decided next is decided with that one."""
    text = (
        f"{call.identity} is of account {found.account_id} now, and was of account {known.account_id}: nothing is "
        f"written there, and that {call.action} finds nothing there says nothing"
    )
    return _failed(Fault.CREDENTIALS, Reason.PLACEMENT_CHANGED, call, text, "AccountChanged", 1.0)


def over_own_rate(call: Call, delay_seconds: float, calls_per_second: float) -> CallFailed:
    """Sluice's own limiter has no room in time."""
    text = (
        f"{call.action} waits for Sluice's own limit in this account and region, "
        f"{calls_per_second:.1f} calls per second at the moment; free in {delay_seconds:.0f} s"
    )
    return _failed(Fault.THROTTLED, Reason.THROTTLED, call, text, "OwnRateLimit", round(delay_seconds, 1))


def no_thread_in_time(call: Call, longest_seconds: float) -> CallFailed:
    """A write that the calls before it, which hang, kept waiting too long. It was not made: its answer is not lost,
    though what hangs is the way (and nobody throttles)."""
    text = (
        f"{call.action} was not made: earlier calls in this account and region wait for their answers, and took all of "
        f"its {longest_seconds:.0f} s"
    )
    return _failed(Fault.UNREACHABLE, Reason.THROTTLED, call, text, "CallsInFlight", THROTTLED_RETRY_SECONDS)


def redact(text: str) -> str:
    """The text without credentials, cut to what a status can hold."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    text = " ".join(text.split())
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 3] + "..."


def _answered(error: boto.ClientError, call: Call, spread: float) -> CallFailed:
    response = cast("dict[str, Any]", error.response)
    details = response.get("Error", {})
    code = str(details.get("Code") or "Unknown")
    message = str(details.get("Message") or details.get("message") or code)
    http_status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    operation = str(error.operation_name or call.operation)
    if operation != call.operation:  # the credentials' own call failed: AssumeRole
        call = Call("sts", operation, call.credentials)

    if code in THROTTLING_CODES or http_status == 429:
        return _failed(Fault.THROTTLED, Reason.THROTTLED, call, message, code, THROTTLED_RETRY_SECONDS)
    if code in DENIED_CODES:
        return _denied(call, code, message)
    if code in CREDENTIAL_CODES:
        return _no_credentials(call, code, "the signature was refused" if code in _ECHOES_REQUEST else message)
    if code == "ResourceLimitExceeded":
        return _failed(Fault.QUOTA, Reason.QUOTA_EXCEEDED, call, message, code, QUOTA_RETRY_SECONDS * (1.0 + spread))
    if http_status >= 500:
        return unreachable(call, code, f"HTTP {http_status} {message}")
    if code in ("ResourceInUse", "ConcurrentUpdateException", "ConflictException") or _IN_PROGRESS.search(message):
        return _failed(Fault.IN_PROGRESS, Reason.WAITING_FOR_SAGEMAKER, call, message, code, IN_PROGRESS_RETRY_SECONDS)
    if missing := _NOT_FOUND.match(message):
        kind = _MISSING_KIND[missing.group(1).lower()]
        # A missing endpoint: the next look decides. A missing model or config does not come by waiting.
        retry = 1.0 if kind == "endpoint" else None
        return _failed(Fault.NOT_FOUND, Reason.REJECTED_BY_SAGEMAKER, call, message, code, retry, kind)
    if _ALREADY_EXISTS.match(message):
        return _failed(Fault.ALREADY_EXISTS, Reason.NAME_CONFLICT, call, message, code, 1.0)
    return _failed(Fault.REJECTED, Reason.REJECTED_BY_SAGEMAKER, call, message, code, None)


def _denied(call: Call, code: str, message: str) -> CallFailed:
    found = _DENIED_ACTION.search(message)
    action = found.group(1) if found else call.action
    if call.operation == "AssumeRole":
        condition = f" with sts:ExternalId {call.credentials.external_id}" if call.credentials.external_id else ""
        text = (
            f"sts:AssumeRole of the role {call.credentials.role_arn} is denied: its trust policy must let the "
            f"operator's identity assume it{condition}, and the operator's identity must be allowed sts:AssumeRole on "
            f"it. {message}"
        )
    else:
        text = f"{action} is denied for {call.identity}: allow the action in its policy. {message}"
    return _failed(Fault.DENIED, Reason.ACCESS_DENIED, call, text, code, ACCESS_DENIED_RETRY_SECONDS)


def _no_credentials(call: Call, code: str, message: str) -> CallFailed:
    text = (
        f"no usable AWS credentials for {call.identity} in {call.credentials.region} ({code}: {message}). Give the "
        "operator's pod an identity: EKS Pod Identity or IRSA on its ServiceAccount, an instance profile, or "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY from a Secret"
    )
    return _failed(Fault.CREDENTIALS, Reason.NO_CREDENTIALS, call, text, code, CREDENTIALS_RETRY_SECONDS)


def _remedy(error: Exception, call: Call) -> str:
    variable = f"AWS_ENDPOINT_URL_{call.service.upper().replace('-', '_')}".replace("AUTOSCALING", "AUTO_SCALING")
    if isinstance(error, boto.SSLError) or "certificate" in str(error):
        return "(check AWS_CA_BUNDLE: it must name a readable bundle that holds the certificate's issuer)"
    if isinstance(error, boto.ProxyConnectionError | boto.InvalidProxiesConfigError):
        return "(check HTTPS_PROXY, HTTP_PROXY and NO_PROXY)"
    return f"(check the region's name, DNS, the network, HTTPS_PROXY and NO_PROXY, {variable})"


def _failed(
    fault: Fault,
    reason: Reason,
    call: Call,
    message: str,
    code: str,
    retry_after_seconds: float | None,
    missing: str | None = None,
) -> CallFailed:
    problem = CallProblem(
        operation=call.operation,
        reason=reason,
        message=redact(message),
        code=code[:64],
        transient=retry_after_seconds is not None,
        retry_after_seconds=retry_after_seconds,
    )
    return CallFailed(fault, problem, missing)
