"""GetCallerIdentity and AssumeRole, so that keys the simulator issued tell it account and role. Query protocol, XML."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from .errors import ServiceError, access_denied
from .identity import Caller, Callers

_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>\d{12}):role/(?:.*/)?(?P<role>[\w+=,.@-]+)")
_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
_SESSION_SECONDS = 3600


def _answer(action: str, result: str) -> str:
    return (
        f'<{action}Response xmlns="{_NAMESPACE}"><{action}Result>{result}</{action}Result>'
        f"<ResponseMetadata><RequestId>simulated</RequestId></ResponseMetadata></{action}Response>"
    )


def error_body(error: ServiceError) -> str:
    """A refusal as the query protocol has it."""
    return (
        f'<ErrorResponse xmlns="{_NAMESPACE}"><Error><Type>Sender</Type><Code>{escape(error.code)}</Code>'
        f"<Message>{escape(error.message)}</Message></Error><RequestId>simulated</RequestId></ErrorResponse>"
    )


def get_caller_identity(caller: Caller) -> str:
    """GetCallerIdentity."""
    user = f"AROASIMULATOR:{caller.session}" if caller.role else caller.access_key
    return _answer(
        "GetCallerIdentity",
        f"<Arn>{escape(caller.arn)}</Arn><UserId>{escape(user)}</UserId><Account>{caller.account}</Account>",
    )


def assume_role(callers: Callers, caller: Caller, form: dict[str, str], real_now: float) -> str:
    """AssumeRole: any role may be assumed, unless a test said which ExternalId its trust policy asks for."""
    role_arn, session = form.get("RoleArn", ""), form.get("RoleSessionName", "")
    found = _ROLE_ARN.fullmatch(role_arn)
    if found is None or not session:
        raise ServiceError("ValidationError", f"RoleArn '{role_arn}' or RoleSessionName '{session}' is not valid.")
    wanted = callers.external_ids.get(role_arn)
    if wanted is not None and form.get("ExternalId") != wanted:
        error = access_denied(caller.arn, "sts:AssumeRole", role_arn)
        raise ServiceError("AccessDenied", error.message, 403)
    issued = callers.issue(found["account"], found["role"], session)
    seconds = int(form.get("DurationSeconds", _SESSION_SECONDS))
    until = datetime.fromtimestamp(real_now + seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _answer(
        "AssumeRole",
        f"<Credentials><AccessKeyId>{issued.access_key}</AccessKeyId><SecretAccessKey>simulated</SecretAccessKey>"
        f"<SessionToken>simulated-{issued.access_key}</SessionToken><Expiration>{until}</Expiration></Credentials>"
        f"<AssumedRoleUser><Arn>{escape(issued.arn)}</Arn><AssumedRoleId>AROASIMULATOR:{escape(session)}"
        "</AssumedRoleId></AssumedRoleUser>",
    )
