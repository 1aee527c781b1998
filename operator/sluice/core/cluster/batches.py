"""The arithmetic of rolling deployments: batches of new instances in place of old ones, with one batch to spare.

Sizes and rounding are SageMaker's (core.guardrails). Variants move in lock-step: the share of the traffic is that of
the variant which is furthest behind, and the old fleets keep what the rest of the traffic needs."""

import math
from collections.abc import Mapping
from typing import Any

from sluice.api.status import PlannedCount, PlanStep
from sluice.core import guardrails


def plan(policy: Mapping[str, Any], new: Mapping[str, int], old: Mapping[str, int]) -> tuple[PlanStep, ...]:
    """The steps of a rollingUpdatePolicy. `new`, `old`: instance counts by variant.

    Each step has the instances of both fleets once it is done: the new ones are there before traffic moves, the old
    ones go after the bake."""
    size, wait = policy["maximumBatchSize"], int(policy["waitIntervalInSeconds"])
    batch = {name: guardrails.instances(size, total) for name, total in new.items()}
    steps = max(math.ceil(total / batch[name]) for name, total in new.items())
    made = []
    for number in range(1, steps + 1):
        at = {name: total if number == steps else min(total, number * batch[name]) for name, total in new.items()}
        share = min(at[name] / total for name, total in new.items())
        made.append(
            PlanStep(
                traffic_percent=round(100.0 * share, 4),
                wait_seconds=wait,
                instances=(*_counts(at, is_new=True), *_counts(remaining(old, share), is_new=False)),
            )
        )
    return tuple(made)


def remaining(old: Mapping[str, int], share: float) -> dict[str, int]:
    """The old instances that the rest of the traffic needs when `share` (0 to 1) of it has moved."""
    return {name: math.ceil(round(total * (1.0 - share), 6)) for name, total in old.items()}


def new_of(step: PlanStep) -> dict[str, int]:
    """The new fleets' instances of a step."""
    return {count.variant_name: count.count for count in step.instances if count.new}


def old_of(step: PlanStep) -> dict[str, int]:
    """The old fleets' instances once a step is done."""
    return {count.variant_name: count.count for count in step.instances if not count.new}


def back_percent(policy: Mapping[str, Any], percent: float, old: Mapping[str, int]) -> float:
    """The next share, in percent, of a rollback from `percent`: one batch of rollbackMaximumBatchSize less; without one
    the whole old fleet comes back at once."""
    size = policy.get("rollbackMaximumBatchSize")
    if not size or not old:
        return 0.0
    part = min(guardrails.instances(size, total) / total for total in old.values())
    left = percent - 100.0 * part
    return round(left, 4) if left > 0.01 else 0.0


def _counts(at: Mapping[str, int], *, is_new: bool) -> tuple[PlannedCount, ...]:
    return tuple(PlannedCount(variant_name=name, count=count, new=is_new) for name, count in sorted(at.items()))
