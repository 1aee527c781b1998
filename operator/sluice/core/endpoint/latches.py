"""What is not tried again by itself: a revision that was rolled back, a request that SageMaker refused.

Rollbacks latch the fleet hash. A refusal latches the whole request, because any part of it may be what was refused:
the policy, a count, a tag."""

from collections.abc import Mapping
from typing import Any

from sluice.api.status import Latch
from sluice.core.hashing import digest
from sluice.core.revision import Revision


def request_key(endpoint_spec: Mapping[str, Any], revision: Revision) -> str:
    """The digest of everything that a create or update sends."""
    requests = revision.requests
    return digest({"endpoint": endpoint_spec, "config": requests.endpoint_config, "models": list(requests.models)})


def holds(latch: Latch | None, endpoint_spec: Mapping[str, Any], desired: Revision) -> bool:
    """Whether the latch keeps this revision out."""
    return latch is not None and latch.fleet_hash in {desired.fleet_hash, request_key(endpoint_spec, desired)}
