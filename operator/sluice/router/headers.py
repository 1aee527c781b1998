"""Which headers cross the router. SageMaker lets only those of its API through, in both directions.

Envoy can remove headers whose name matches a pattern, and its patterns know no negation: `all_but` writes the pattern
that matches every name except the given ones."""

import re
from collections.abc import Iterable
from typing import Final

TARGET_VARIANT: Final = "x-amzn-sagemaker-target-variant"
TARGET_CONTAINER: Final = "x-amzn-sagemaker-target-container-hostname"
INFERENCE_ID: Final = "x-amzn-sagemaker-inference-id"
STREAM_ACCEPT: Final = "x-amzn-sagemaker-accept"
"""Accept of InvokeEndpointWithResponseStream (botocore, sagemaker-runtime); the container gets it as Accept."""
STREAM_CONTENT_TYPE: Final = "x-amzn-sagemaker-content-type"
INVOKED_VARIANT: Final = "x-amzn-invoked-production-variant"
ERROR_TYPE: Final = "x-amzn-errortype"
REQUEST_ID: Final = "x-amzn-requestid"
RELAY: Final = "x-sluice-relay"
"""Between Envoy and the relay of streams, never from or to anybody else: `PAUSE/WHOLE`, the seconds that the container
may take to the next byte and to the end."""

REQUEST_HEADERS: Final = (
    "content-type",
    "accept",
    "x-amzn-sagemaker-custom-attributes",
    "x-amzn-sagemaker-enable-explanations",
    "x-amzn-sagemaker-inference-component",
    "x-amzn-sagemaker-prefix-aware-id",
    "x-amzn-sagemaker-session-id",
    "x-amzn-sagemaker-target-model",
    INFERENCE_ID,
    STREAM_ACCEPT,
    TARGET_CONTAINER,
    TARGET_VARIANT,
)
"""The headers of InvokeEndpoint and InvokeEndpointWithResponseStream (botocore, sagemaker-runtime)."""

RESPONSE_HEADERS: Final = (
    "content-type",
    "content-encoding",
    "x-amzn-sagemaker-closed-session-id",
    "x-amzn-sagemaker-custom-attributes",
    "x-amzn-sagemaker-new-session-id",
)
"""What a container's answer may carry; content-encoding because the body is passed on as it is."""

_FRAMING: Final = ("host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te")
"""What HTTP itself needs; Envoy handles these hop by hop."""


def all_but(names: Iterable[str]) -> str:
    """A regular expression (RE2, full match) for every header name except `names` and pseudo-headers."""
    tree: dict[str, dict] = {}  # type: ignore[type-arg] # a tree of characters; "" marks the end of a name
    for name in names:
        node = tree
        for character in name:
            node = node.setdefault(character, {})
        node[""] = {}

    def beyond(node: dict[str, dict], first: bool) -> str:  # type: ignore[type-arg] # as above
        """What may follow here so that the whole is none of the names."""
        following = sorted(character for character in node if character)
        excluded = "".join(re.escape(character) for character in following) + (":" if first else "")
        options = [f"[^{excluded}].*" if excluded else ".+"]
        if "" not in node and not first:
            options.append("")
        options += [re.escape(character) + beyond(node[character], False) for character in following]
        return "(?:" + "|".join(options) + ")"

    return beyond(tree, True)


REQUEST_HEADERS_REMOVED: Final = all_but((*REQUEST_HEADERS, *_FRAMING))
RELAYED_HEADERS_REMOVED: Final = all_but((*REQUEST_HEADERS, *_FRAMING, RELAY))
RESPONSE_HEADERS_REMOVED: Final = all_but((*RESPONSE_HEADERS, *_FRAMING))
