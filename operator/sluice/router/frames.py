"""AWS' event stream as InvokeEndpointWithResponseStream uses it. Pure.

A message: lengths of the whole and of the headers, CRC-32 of both, headers, payload, CRC-32 of all before."""

import json
import struct
from collections.abc import Iterator
from typing import Final, Literal
from zlib import crc32

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
MAX_PAYLOAD: Final = 65536
"""Bytes of a PayloadPart: what readers surely take, and little to hold at once."""

ErrorCode = Literal["StreamBroken", "ModelInvocationTimeExceeded"]
"""Of ModelStreamError (botocore, sagemaker-runtime)."""


def payload_parts(chunk: bytes) -> Iterator[bytes]:
    """A chunk of the container's answer as PayloadPart events, each of at most MAX_PAYLOAD bytes; none when empty."""
    if len(chunk) <= MAX_PAYLOAD:
        if chunk:
            yield _message(_PART, chunk)
        return
    whole = memoryview(chunk)
    for start in range(0, len(chunk), MAX_PAYLOAD):
        yield _message(_PART, whole[start : start + MAX_PAYLOAD])


def model_stream_error(code: ErrorCode, message: str) -> bytes:
    """The exception that ends a stream."""
    return _message(_MODEL_STREAM_ERROR, json.dumps({"Message": message, "ErrorCode": code}).encode())


def internal_stream_failure(message: str) -> bytes:
    """The exception that ends a stream which the router, not the container, could not go on with."""
    return _message(_INTERNAL_STREAM_FAILURE, json.dumps({"Message": message}).encode())


def _message(headers: bytes, payload: bytes | memoryview) -> bytes:
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    head = b"".join((prelude, struct.pack("!I", crc32(prelude)), headers))
    return b"".join((head, payload, struct.pack("!I", crc32(payload, crc32(head)))))


def _headers(**values: str) -> bytes:
    """Of type string (7), names with a colon in front."""
    made = b""
    for name, value in values.items():
        key, text = f":{name.replace('_', '-')}".encode(), value.encode()
        made += struct.pack("!B", len(key)) + key + struct.pack("!BH", 7, len(text)) + text
    return made


_PART: Final = _headers(message_type="event", event_type="PayloadPart", content_type="application/octet-stream")
_MODEL_STREAM_ERROR: Final = _headers(
    message_type="exception", exception_type="ModelStreamError", content_type="application/json"
)
_INTERNAL_STREAM_FAILURE: Final = _headers(
    message_type="exception", exception_type="InternalStreamFailure", content_type="application/json"
)
