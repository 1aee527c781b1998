"""Why a load failed: a reason for machines, a sentence for people, and no secret in it."""

from typing import Final, Literal
from urllib.parse import urlsplit

Reason = Literal["ModelDataFailed", "SourceMoved", "TooLarge", "TimedOut", "BadArchive"]
MAX_NAME_SHOWN: Final = 200


class LoadFailed(Exception):
    """The load cannot succeed as it is. `str()` is the sentence of the termination message."""

    def __init__(self, reason: Reason, error: str) -> None:
        super().__init__(error)
        self.reason: Reason = reason


class Transient(Exception):
    """One request failed in a way that another try may mend."""

    def __init__(self, error: str, after_seconds: float | None = None) -> None:
        super().__init__(error)
        self.after_seconds = after_seconds
        """What the server asked us to wait."""


class BadRequest(Exception):
    """SLUICE_LOADER is not what the loader takes: the operator's mistake, not the user's."""


def failed(uri: str, why: str, reason: Reason = "ModelDataFailed") -> LoadFailed:
    """The failure of one source, in SageMaker's words for it."""
    return LoadFailed(reason, f"failed to download model data from {shown(uri)}: {why}")


def shown(uri: str) -> str:
    """The URI as it may be shown: a query (presigned URLs are secrets), a fragment and user:password@ are cut off."""
    if uri.startswith("s3://"):
        return uri
    parts = urlsplit(uri)
    query = "?..." if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"


def named(name: str) -> str:
    """A file's name as it may be shown: hostile ones hold control characters, or are very long."""
    text = ascii(name)
    return text if len(text) <= MAX_NAME_SHOWN else f"{text[:MAX_NAME_SHOWN]}...'"


def size_text(count: float) -> str:
    """A number of bytes for people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
