"""What Envoy answers itself, in SageMaker's words. Pure.

Envoy tells its own answers apart by response flags; a container's answer never has one."""

from typing import Any, Final

from sluice.router.headers import ERROR_TYPE

Json = dict[str, Any]

_INVOCATION: Final = r"/endpoints/[^/]+/invocations(-response-stream)?(\?.*)?"

NO_ROUTE: Final = ("NR",)
NO_CAPACITY: Final = ("UH", "UF", "UO", "NC", "OM", "DO", "LH", "FI")
"""No healthy pod, none that could be connected to, too many requests, no cluster, overload."""
TIMED_OUT: Final = ("UT", "SI", "DT", "UMSDR", "UPE_TIMEOUT")
BROKEN: Final = ("UC", "UR", "LR", "UPE", "URX")
"""The container closed the connection or broke the protocol: the request may have run."""


def local_replies(namespace: str) -> Json:
    """HttpConnectionManager.local_reply_config."""
    del namespace
    return {
        "mappers": [
            _mapper(
                _all(_flags(*NO_ROUTE), _header(":method", "POST"), _path(_INVOCATION)),
                400,
                "ValidationError",
                {"Message": "Endpoint not found: %PATH(NQ)%"},
            ),
            _mapper(_flags(*NO_ROUTE), 404, "UnknownOperationException", {"Message": "Unknown operation"}),
            _mapper(
                _flags("UH", "UF", "UO", "NC", "OM", "DO"),
                503,
                "ServiceUnavailable",
                {"Message": "The endpoint has no capacity for this request now (%RESPONSE_CODE_DETAILS%); try again"},
            ),
            _mapper(
                _flags("UT", "SI", "DT", "UMSDR"),
                424,
                "ModelError",
                {
                    "ErrorCode": "ModelError",
                    "Message": "Your invocation timed out while waiting for a response from the container",
                    "OriginalStatusCode": 0,
                    "OriginalMessage": "timed out",
                },
            ),
            _mapper(
                _flags("UC", "UR", "LR", "UPE", "URX"),
                424,
                "ModelError",
                {
                    "ErrorCode": "ModelError",
                    "Message": "The container broke off the connection before it answered",
                    "OriginalStatusCode": 0,
                    "OriginalMessage": "%RESPONSE_CODE_DETAILS%",
                },
            ),
            _mapper(
                _status(413),
                413,
                "ValidationError",
                {"Message": "The request body is larger than this endpoint takes"},
            ),
        ],
    }


def _mapper(when: Json, status: int, error: str, body: Json) -> Json:
    return {
        "filter": when,
        "status_code": status,
        "headers_to_add": [
            {"header": {"key": ERROR_TYPE, "value": error}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        ],
        "body_format_override": {"json_format": body, "content_type": "application/json"},
    }


def _flags(*flags: str) -> Json:
    return {"response_flag_filter": {"flags": [*flags]}}


def _all(*filters: Json) -> Json:
    return {"and_filter": {"filters": [*filters]}}


def _header(name: str, value: str) -> Json:
    return {"header_filter": {"header": {"name": name, "string_match": {"exact": value}}}}


def _path(pattern: str) -> Json:
    return {"header_filter": {"header": {"name": ":path", "string_match": {"safe_regex": {"regex": pattern}}}}}


def _status(code: int) -> Json:
    return {
        "status_code_filter": {
            "comparison": {"op": "EQ", "value": {"default_value": code, "runtime_key": f"sluice.{code}"}}
        }
    }
