"""What is not tried again by itself: a revision that was rolled back, a request that SageMaker refused.

Rollbacks latch the fleet hash. A refusal latches the whole request, because any part of it may be what was refused:
the policy, a count, a tag.

Weights and counts that came with what stays out stay out with it: two large instances in place of nine small ones are
no reason to leave two small ones. What is edited afterwards is for the revision that serves."""

from collections.abc import Mapping
from typing import Any

from sluice.api.status import Latch, WantedVariant
from sluice.core.hashing import digest
from sluice.core.resolve import spec_counts, spec_weights
from sluice.core.revision import Revision


def request_key(endpoint_spec: Mapping[str, Any], revision: Revision) -> str:
    """The digest of everything that a create or update sends."""
    requests = revision.requests
    return digest({"endpoint": endpoint_spec, "config": requests.endpoint_config, "models": list(requests.models)})


def holds(latch: Latch | None, endpoint_spec: Mapping[str, Any], desired: Revision) -> bool:
    """Whether the latch keeps this revision out."""
    return latch is not None and latch.fleet_hash in {desired.fleet_hash, request_key(endpoint_spec, desired)}


def noted(
    latch: Latch | None, endpoint_spec: Mapping[str, Any], desired: Revision | None, failed: Revision | None
) -> Latch | None:
    """The latch with the weights and counts of what it keeps out, if it does not tell them yet. `failed`: `desired` as
    it was deployed; what was edited while that went on waits for its end, also where that is a rollback."""
    if latch is None or desired is None or latch.asked_variants or not holds(latch, endpoint_spec, desired):
        return latch
    return asked(latch, failed or desired)


def asked(latch: Latch, desired: Revision) -> Latch:
    """The latch with the weights and counts of `desired`: what differs from them later is an edit."""
    counts, weights = spec_counts(desired.endpoint_config), spec_weights(desired.endpoint_config)
    return latch.model_copy(
        update={
            "asked_variants": tuple(
                WantedVariant(variant_name=name, desired_weight=weight, desired_instance_count=counts.get(name))
                for name, weight in sorted(weights.items())
            )
        }
    )
