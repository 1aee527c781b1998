"""What a container said last, where that is JSON, although kubelet may have cut it. Pure.

Of a container's termination message kubelet keeps 4096 bytes, and of these only the first 12288 / (containers and init
containers of the pod): what is read here has what matters most at its beginning (sluice.loader.message)."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

ALL_SOURCES: Final = "*"
"""The loader's name of the one version that stands for all."""
POD_BYTES: Final = 12288
"""Kubelet's room for the messages of one pod (MaxPodTerminationMessageLogLength)."""
_LONGEST_ESCAPE: Final = len(r"\ud83d\ude00")
_ALL: Final = re.compile(r'\{"all":"(sha256:[0-9a-f]{64})",')


def said(ended: Mapping[str, Any]) -> Mapping[str, Any]:
    """The JSON object that a container left when it ended; empty if there is none. Of the loader's, where it was cut,
    the digest over all versions, or why it failed."""
    text = str(ended.get("message") or "")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _beginning(text)
    return found if isinstance(found, Mapping) else {}


def _beginning(text: str) -> Mapping[str, Any]:
    if whole := _ALL.match(text):
        return {"versions": {ALL_SOURCES: {"digest": whole[1]}}}
    if not text.startswith('{"reason":"'):
        return {}
    for cut in range(_LONGEST_ESCAPE):
        try:
            return {**json.loads(f'{text[: len(text) - cut]}..."}}')}
        except (ValueError, RecursionError):
            continue
    return {}
