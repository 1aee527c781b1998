"""The two hashes. Both are taken over the users' raw JSON, never over decoded models, so that neither an operator nor
a library upgrade can change them; the version prefix tells which rules made one (golden tests hold them)."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

VERSION = "v1"


def canonical(value: Any) -> Any:
    """JSON without what carries no meaning: nulls and empty maps or lists fall away, 1.0 is 1, keys are sorted later.

    An empty string stays: in an environment it means something."""
    if isinstance(value, Mapping):
        items = {str(key): canonical(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item is not None and item != {} and item != []}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def digest(value: Any) -> str:
    """`v1:` + 64 hex digits: SHA-256 over the canonical JSON (sorted keys, no spaces, UTF-8)."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{VERSION}:{hashlib.sha256(text.encode()).hexdigest()}"


def short(*parts: str, length: int = 10) -> str:
    """The first hex digits of a hash over the parts, for names."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:length]
