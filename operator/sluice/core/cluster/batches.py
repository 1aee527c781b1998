"""The arithmetic of rolling deployments: batches of new instances in place of old ones, with one batch to spare.

Sizes and rounding are SageMaker's (core.guardrails). Variants move in lock-step: the share of the traffic is that of
the variant which is furthest behind, and the old fleets keep what the rest of the traffic needs."""

import math
from collections.abc import Mapping
from typing import Any

from sluice.api.status import DeploymentStatus, PlannedCount, PlanStep
from sluice.core import guardrails


def plan(
    policy: Mapping[str, Any], new: Mapping[str, int], old: Mapping[str, int], *, replace_first: bool = False
) -> tuple[PlanStep, ...]:
    """The steps of a rollingUpdatePolicy. `new`, `old`: instance counts by variant.

    Each step has the instances of both fleets once it is done: the new ones are there before traffic moves, the old
    ones go after the bake or, with `replace_first`, before the new ones come."""
    size, wait = policy["maximumBatchSize"], int(policy["waitIntervalInSeconds"])
    batch = {name: guardrails.instances(size, total) for name, total in new.items()}
    steps = max(math.ceil(total / batch[name]) for name, total in new.items())
    made = []
    for number in range(1, steps + 1):
        at = {name: total if number == steps else min(total, number * batch[name]) for name, total in new.items()}
        share = min(at[name] / total for name, total in new.items())
        if replace_first:  # a variant that is ahead of the others takes no more room than its share of the traffic
            at = parts(new, share)
        left = remaining(old, share, at if replace_first else None)
        made.append(
            PlanStep(
                traffic_percent=round(100.0 * share, 4),
                wait_seconds=wait,
                instances=(*_counts(at, is_new=True), *_counts(left, is_new=False)),
            )
        )
    return tuple(made)


def remaining(old: Mapping[str, int], share: float, beside: Mapping[str, int] | None = None) -> dict[str, int]:
    """The old instances that the rest of the traffic needs when `share` (0 to 1) of it has moved. `beside`: the new
    ones that must have room among as many as there were; one old one stays while it has traffic."""
    needed = {name: math.ceil(round(total * (1.0 - share), 3)) for name, total in old.items()}
    if beside is None:
        return needed
    least = 1 if share < 0.9999 else 0
    return {name: min(count, max(old[name] - beside.get(name, 0), least)) for name, count in needed.items()}


def for_share(total: int, percent: float) -> int:
    """Instances of `total` that so many percent of the traffic need."""
    return math.ceil(round(total * percent / 100.0, 3))


def left(deployment: DeploymentStatus, steps: int, whole: Mapping[str, int]) -> dict[str, int]:
    """The old instances that stand when the batches of so many steps have gone, of `whole` fleets."""
    if not steps:
        return dict(whole)
    step = deployment.plan[steps - 1]
    return remaining(whole, step.traffic_percent / 100.0, new_of(step) if deployment.replace_first else None)


def between(before: float, after: float) -> float:
    """The share, in percent, of who has `before` percent of the traffic while what makes it `after` is missing: every
    instance that is there has its even part."""
    there = before + 100.0 - after
    return round(100.0 * before / there, 4) if there > 0.01 else 0.0


def parts(new: Mapping[str, int], share: float) -> dict[str, int]:
    """So many of the new instances as have room within a share (0 to 1): of each variant one at least as soon as it has
    traffic, and not all before the end."""
    if share < 0.0001:
        return dict.fromkeys(new, 0)
    if share > 0.9999:
        return dict(new)
    return {name: max(1, min(total - 1, math.floor(round(total * share, 3)))) for name, total in new.items()}


def new_of(step: PlanStep) -> dict[str, int]:
    """The new fleets' instances of a step."""
    return {count.variant_name: count.count for count in step.instances if count.new}


def old_of(step: PlanStep) -> dict[str, int]:
    """The old fleets' instances once a step is done."""
    return {count.variant_name: count.count for count in step.instances if not count.new}


def back_percent(
    policy: Mapping[str, Any], percent: float, old: Mapping[str, int], *, replace_first: bool = False
) -> float:
    """The next share, in percent, of a rollback from `percent`: one batch of rollbackMaximumBatchSize less; without one
    the whole old fleet comes back at once or, with `replace_first`, as many as a batch forward had. A variant that
    somebody had scaled to nothing has no batches."""
    size = policy.get("rollbackMaximumBatchSize") or (policy.get("maximumBatchSize") if replace_first else None)
    parted = [(guardrails.instances(size, total) / total, total) for total in old.values() if total > 0] if size else []
    if not parted:
        return 0.0
    part, total = min(parted)
    there = total * percent / 100.0
    if abs(there - round(there)) < 0.01:  # what was rounded in each batch before does not add up to an instance
        there = round(there)
    left = 100.0 * (there / total - part)
    return round(left, 4) if left > 0.01 else 0.0


def planned(at: Mapping[str, int], percent: float) -> tuple[PlannedCount, ...]:
    """Of new fleets that are there as a whole: the instances that a share of the traffic, in percent, is for."""
    return _counts({name: for_share(total, percent) for name, total in at.items()}, is_new=True)


def _counts(at: Mapping[str, int], *, is_new: bool) -> tuple[PlannedCount, ...]:
    return tuple(PlannedCount(variant_name=name, count=count, new=is_new) for name, count in sorted(at.items()))
