"""What the start of a deployment waits for: gates that are asked in turn, and the first that holds says why.

A gate holds by giving the pass its verdict; nothing has been made yet, so holding costs nothing. A revision that a
person brings back passes no gate: it is the way out of what a gate would wait for."""

from collections.abc import Callable

from sluice.core import guardrails
from sluice.core.cluster import deploy
from sluice.core.endpoint import deployment
from sluice.core.endpoint.draft import Draft
from sluice.core.resolve import spec_counts
from sluice.core.revision import Revision

Gate = Callable[[Draft, Revision], bool]
"""Whether the start of this revision's deployment is held; then the reason has been said."""


def _guarded(d: Draft, desired: Revision) -> bool:
    """The deploymentConfig fits the instance counts."""
    finding = deploy.refused(d.spec) or guardrails.check(d.spec.get("deploymentConfig"), _counts(d, desired))
    if finding is None:
        return False
    d.stalled(finding.reason, finding.text())
    return True


def _counts(d: Draft, desired: Revision) -> dict[str, int]:
    counts = spec_counts(desired.endpoint_config)
    if d.spec.get("retainAllVariantProperties"):
        kept = {v.variant_name: v.desired_instance_count for v in d.status.production_variants}
        counts = {name: kept.get(name) or count for name, count in counts.items()}
    return counts


GATES: tuple[Gate, ...] = (deployment.settling, _guarded)
"""In this order: what a person must mend comes before what is waited for, and a place among the deployments that may
run at once is taken last, by what could start."""
