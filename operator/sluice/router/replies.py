"""What Envoy answers itself, in SageMaker's words. Pure.

Envoy tells its own answers apart by response flags; a container's answer never has one."""

from typing import Any, Final

from sluice.router.headers import ERROR_TYPE

Json = dict[str, Any]

_INVOCATION: Final = r"/endpoints/[^/]+/invocations(-response-stream)?(\?.*)?"

NO_ROUTE: Final = ("NR",)
NO_CAPACITY: Final = ("UH", "UF", "UO", "NC", "OM", "DO")
"""No healthy pod, none that could be connected to, too many requests, no cluster, overload: the request did not run."""
TIMED_OUT: Final = ("UT", "SI", "DT", "UMSDR")
BROKEN: Final = ("UC", "UR", "LR", "UPE", "URX")
"""The container closed the connection or broke the protocol: the request may have run."""


def _model_error(message: str, original: str) -> Json:
    return {
        "ErrorCode": "ModelError",
        "Message": message,
        "OriginalStatusCode": 0,  # there was no status
        "OriginalMessage": original,
        "LogStreamArn": "",
    }


TIMED_OUT_REPLY: Final = _model_error(
    "Your invocation timed out while waiting for a response from the container", "timed out"
)
TOO_LARGE: Final = _model_error(
    "Received an error from the container that is larger than this endpoint takes", "%RESPONSE_CODE_DETAILS%"
)
CONTAINER_BROKE_OFF: Final = _model_error("The container broke off before it answered", "%RESPONSE_CODE_DETAILS%")


def local_replies() -> Json:
    """HttpConnectionManager.local_reply_config. The first mapper that matches wins; answers that the routes themselves
    give (an unknown variant) are none of these."""
    return {
        "mappers": [
            _mapper(
                _all(_flags(NO_ROUTE), _header(":method", "POST"), _path(_INVOCATION)),
                400,
                "ValidationError",
                {"Message": "No endpoint of this name here: %PATH(NQ)%"},
            ),
            _mapper(_flags(NO_ROUTE), 404, "UnknownOperationException", {"Message": "%REQ(:METHOD)% %PATH(NQ)%"}),
            _mapper(
                _flags(NO_CAPACITY),
                503,
                "ServiceUnavailable",
                {"Message": "The endpoint cannot take this request now (%RESPONSE_CODE_DETAILS%); try again"},
            ),
            _mapper(_flags(TIMED_OUT), 424, "ModelError", TIMED_OUT_REPLY),
            _mapper(_flags(BROKEN), 424, "ModelError", CONTAINER_BROKE_OFF),
            # Envoy's only 500: it was to hold an answer as a whole, which the script asks for of errors alone.
            _mapper(_status(500), 424, "ModelError", TOO_LARGE),
            _mapper(
                _status(413), 413, "ValidationError", {"Message": "The request body is larger than this endpoint takes"}
            ),
            _mapper(_status(408), 408, "ValidationError", {"Message": "The request came too slowly"}),
            _mapper(
                _status(431), 431, "ValidationError", {"Message": "The request's headers are too large or too many"}
            ),
            # Whatever else Envoy answers itself is not taken for a container's error either.
            {
                "filter": _status(400, "GE"),
                "headers_to_add": [
                    {
                        "header": {"key": ERROR_TYPE, "value": "ValidationError"},
                        "append_action": "ADD_IF_ABSENT",
                    }
                ],
            },
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


def _flags(flags: tuple[str, ...]) -> Json:
    return {"response_flag_filter": {"flags": [*flags]}}


def _all(*filters: Json) -> Json:
    return {"and_filter": {"filters": [*filters]}}


def _header(name: str, value: str) -> Json:
    return {"header_filter": {"header": {"name": name, "string_match": {"exact": value}}}}


def _path(pattern: str) -> Json:
    return {"header_filter": {"header": {"name": ":path", "string_match": {"safe_regex": {"regex": pattern}}}}}


def _status(code: int, operator: str = "EQ") -> Json:
    return {
        "status_code_filter": {
            "comparison": {"op": operator, "value": {"default_value": code, "runtime_key": f"sluice.{code}"}}
        }
    }
