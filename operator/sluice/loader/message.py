"""The termination message: how the loader tells the operator what it took or why it failed."""

import json
import logging
from pathlib import Path
from typing import Any, Final

from sluice.loader.failure import LoadFailed
from sluice.loader.load import Loaded
from sluice.loader.version import ALL_SOURCES, version_of_all

MAX_BYTES: Final = 4096
"""What the kubelet reads of one container's message. Of a pod with more than three containers it keeps less: the first
12288 bytes / containers. So what comes first must suffice."""
MAX_VERSIONS_BYTES: Final = MAX_BYTES - 256
"""Beside the versions: the digest over all of them, bytes and seconds."""
MAX_ERROR_CHARACTERS: Final = 1024

logger = logging.getLogger("sluice.loader")


def success(loaded: Loaded) -> str:
    """{"all": digest, "versions": {name: version}, "bytes": n, "seconds": s}. Where many versions do not fit, first
    lastModified goes, then one digest stands for all of them, under "*"; `all` is the same one, for a message that the
    kubelet cuts. Which form it is hangs on the versions alone: two pods' must be comparable."""
    versions: dict[str, dict[str, Any]] = {name: version.as_json() for name, version in loaded.versions.items()}
    shorter = {
        name: {key: value for key, value in version.items() if key != "lastModified" or "eTag" not in version}
        for name, version in versions.items()
    }
    one = version_of_all(loaded.versions)
    fitting = (form for form in (versions, shorter) if len(_json(form)) <= MAX_VERSIONS_BYTES)
    return _json(
        {
            "all": one.digest,
            "versions": next(fitting, {ALL_SOURCES: one.as_json()}),
            "bytes": loaded.placed_bytes,
            "seconds": round(loaded.seconds, 1),
        }
    )


def failure(failed: LoadFailed) -> str:
    """{"reason": ..., "error": ...}, in this order."""
    error = str(failed)
    if len(error) > MAX_ERROR_CHARACTERS:
        error = f"{error[: MAX_ERROR_CHARACTERS - 3]}..."
    text = _json({"reason": failed.reason, "error": error})
    if len(text.encode()) > MAX_BYTES:
        # A character may take twelve bytes, as two times \\uXXXX.
        text = _json({"reason": failed.reason, "error": f"{error[: MAX_BYTES // 13]}..."})
    return text


def write(path: str, text: str) -> None:
    """Leave the message. That it cannot be left does not change how the load ended."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        logger.error("the termination message cannot be written: %s; it is %s", error, text)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"))
