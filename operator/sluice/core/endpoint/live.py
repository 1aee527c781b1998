"""Weights and counts in place: UpdateEndpointWeightsAndCapacities, without a new fleet.

Counts are three-way: written only when the spec's value differs from what was last written, so that a scaler's value
is never corrected. SageMaker takes the weights of several variants but the capacity of one variant in a call."""

import math

from sluice.api.reasons import Reason
from sluice.api.status import Intent, VariantSummary, WantedVariant
from sluice.core.actions import UpdateWeightsAndCapacities
from sluice.core.endpoint import latches
from sluice.core.endpoint.draft import Draft
from sluice.core.hashing import digest
from sluice.core.resolve import spec_counts, spec_weights
from sluice.core.revision import RawSpec, Revision

OPERATION = "UpdateEndpointWeightsAndCapacities"


def applied(variants: tuple[VariantSummary, ...], content: RawSpec, *, retained: bool) -> tuple[VariantSummary, ...]:
    """The variants with the counts and weights of `content` noted as written. `retained`: a deployment kept the live
    values instead; they are what drift is judged against."""
    counts, weights = spec_counts(content), spec_weights(content)
    return tuple(
        variant.model_copy(
            update={
                "last_applied_count": counts.get(variant.variant_name),
                "last_applied_weight": weights.get(variant.variant_name),
                "retained_weight": variant.desired_weight
                if retained and not same_weight(variant.desired_weight, weights.get(variant.variant_name))
                else None,
            }
        )
        for variant in variants
    )


def same_weight(one: float | None, other: float | None) -> bool:
    """Whether two weights are one: SageMaker may hold them in single precision."""
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-6)


def note_equal(d: Draft) -> None:
    """A value of the spec that is in force already counts as written: somebody else wrote it, or it was retained."""
    if d.desired is None:
        return
    counts, weights = spec_counts(d.desired.endpoint_config), spec_weights(d.desired.endpoint_config)
    noted = []
    for variant in d.status.production_variants:
        weight, count = weights.get(variant.variant_name), counts.get(variant.variant_name)
        update: dict[str, object] = {}
        if weight != variant.last_applied_weight and weight is not None and same_weight(weight, variant.desired_weight):
            update |= {"last_applied_weight": weight, "retained_weight": None}
        if count != variant.last_applied_count and count is not None and count == variant.desired_instance_count:
            update["last_applied_count"] = count
        noted.append(variant.model_copy(update=update))
    d.set(production_variants=tuple(noted))


def wanted_changes(d: Draft) -> tuple[WantedVariant, ...]:
    """What the spec asks for now and what was last written differ in; only variants that serve count. Of a revision
    that is kept out, only what was edited since: its own weights and counts stay out with it (latches.py)."""
    if d.desired is None:
        return ()
    counts, weights = spec_counts(d.desired.endpoint_config), spec_weights(d.desired.endpoint_config)
    latch = d.status.latch if latches.holds(d.status.latch, d.spec, d.desired) else None
    out = {item.variant_name: item for item in latch.asked_variants} if latch is not None else {}
    changes = []
    for variant in d.status.production_variants:
        name = variant.variant_name
        if latch is not None and name not in out:
            continue
        went = out.get(name)
        weight = weights.get(name)
        if weight == variant.last_applied_weight or (went is not None and weight == went.desired_weight):
            weight = None
        count = counts.get(name)
        if count == variant.last_applied_count or (went is not None and count == went.desired_instance_count):
            count = None
        if weight is not None or count is not None:
            changes.append(WantedVariant(variant_name=name, desired_weight=weight, desired_instance_count=count))
    return tuple(changes)


def edited_since(d: Draft, deployed: Revision) -> tuple[WantedVariant, ...]:
    """Where the spec asks for other weights and counts than the revision was deployed with: they wait until the
    deployment has ended."""
    desired = d.desired
    if desired is None or desired.fleet_hash != deployed.fleet_hash or desired.name == deployed.name:
        return ()
    counts, weights = spec_counts(desired.endpoint_config), spec_weights(desired.endpoint_config)
    before = spec_counts(deployed.endpoint_config), spec_weights(deployed.endpoint_config)
    changes = (
        WantedVariant(
            variant_name=name,
            desired_weight=weight if weight != before[1].get(name) else None,
            desired_instance_count=counts.get(name) if counts.get(name) != before[0].get(name) else None,
        )
        for name, weight in sorted(weights.items())
    )
    return tuple(c for c in changes if c.desired_weight is not None or c.desired_instance_count is not None)


def plan(d: Draft) -> bool:
    """Start the next weights and counts call, if one is due. True if this decided the pass."""
    changes = wanted_changes(d)
    if not changes:
        if d.status.live_latch is not None:
            d.set(live_latch=None)
        return False
    call = _one_call(changes)
    if d.status.live_latch == latch_of(changes):
        d.stalled(
            Reason.VARIANT_UPDATE_FAILED,
            f"SageMaker did not take {describe(changes)}: {d.status.failure_reason or 'no reason given'}; the endpoint "
            "serves with the values before; change the values, or annotate sluice.dev/retry",
        )
        return True
    start(d, call)
    return True


def start(d: Draft, call: tuple[WantedVariant, ...]) -> None:
    """Persist the intent and make the call."""
    before = d.status.intent
    again = before is not None and before.operation == OPERATION and before.variants == call
    d.set(
        intent=Intent(
            operation="UpdateEndpointWeightsAndCapacities",
            variants=call,
            variants_before=_before(d, call),
            baseline=d.status.last_modified_time,
            attempt=before.attempt + 1 if again and before is not None else 1,
            time=d.now,
        )
    )
    d.act(UpdateWeightsAndCapacities({"EndpointName": d.endpoint_name, "DesiredWeightsAndCapacities": _items(call)}))
    d.again(1.0)
    d.reconciling(Reason.UPDATING_VARIANTS, f"Writing {describe(call)}.")


def conclude(d: Draft, intent: Intent) -> None:
    """The endpoint has moved since the call and has settled: did the call do what was asked? One that is not known to
    have been taken is not judged: a scaler moves the endpoint too, and the call can be made again.

    A value that is the one before the call was rolled back by SageMaker. Any other was written, and somebody changed it
    since: a count is a scaler's, a weight is drift."""
    wanted = {item.variant_name: item for item in intent.variants}
    before = {item.variant_name: item for item in intent.variants_before}
    done, failed, moved = [], False, False
    for variant in d.status.production_variants:
        item = wanted.get(variant.variant_name)
        was = before.get(variant.variant_name, WantedVariant(variant_name=variant.variant_name))
        update: dict[str, object] = {}
        if item is not None and item.desired_weight is not None:
            there = same_weight(variant.desired_weight, item.desired_weight)
            if there or not _as_before(variant.desired_weight, was.desired_weight):
                update |= {"last_applied_weight": item.desired_weight, "retained_weight": None}
                moved = moved or not there
            else:
                failed = True
        if item is not None and item.desired_instance_count is not None:
            there = variant.desired_instance_count == item.desired_instance_count
            if there or not _as_before(variant.desired_instance_count, was.desired_instance_count):
                update["last_applied_count"] = item.desired_instance_count
                moved = moved or not there
            else:
                failed = True
        done.append(variant.model_copy(update=update))
    if (failed or moved) and intent.accepted is None:
        return
    d.set(production_variants=tuple(done), intent=None)
    if failed:
        d.set(live_latch=latch_of(wanted_changes(d)))


def _as_before(found: float | None, before: float | None) -> bool:
    return before is None or same_weight(found, before)  # an earlier release did not note it


def _before(d: Draft, call: tuple[WantedVariant, ...]) -> tuple[WantedVariant, ...]:
    """What the call is about to change, as it is now."""
    found = {variant.variant_name: variant for variant in d.status.production_variants}
    return tuple(
        WantedVariant(
            variant_name=item.variant_name,
            desired_weight=found[item.variant_name].desired_weight if item.desired_weight is not None else None,
            desired_instance_count=found[item.variant_name].desired_instance_count
            if item.desired_instance_count is not None
            else None,
        )
        for item in call
        if item.variant_name in found
    )


def latch_of(changes: tuple[WantedVariant, ...]) -> str:
    """The digest under which a refused set of changes is remembered."""
    return digest([change.model_dump(mode="json", exclude_none=True) for change in changes])


def describe(changes: tuple[WantedVariant, ...]) -> str:
    """The changes in words."""
    texts = []
    for change in changes:
        if change.desired_weight is not None:
            texts.append(f"weight {change.desired_weight:g} of variant {change.variant_name}")
        if change.desired_instance_count is not None:
            texts.append(f"{change.desired_instance_count} instances of variant {change.variant_name}")
    return ", ".join(texts)


def _one_call(changes: tuple[WantedVariant, ...]) -> tuple[WantedVariant, ...]:
    """All weights, and the first count."""
    call, counted = [], False
    for change in changes:
        if change.desired_instance_count is not None and counted:
            change = change.model_copy(update={"desired_instance_count": None})
        counted = counted or change.desired_instance_count is not None
        if change.desired_weight is not None or change.desired_instance_count is not None:
            call.append(change)
    return tuple(call)


def _items(call: tuple[WantedVariant, ...]) -> list[dict[str, object]]:
    items = []
    for change in call:
        item: dict[str, object] = {"VariantName": change.variant_name}
        if change.desired_weight is not None:
            item["DesiredWeight"] = change.desired_weight
        if change.desired_instance_count is not None:
            item["DesiredInstanceCount"] = change.desired_instance_count
        items.append(item)
    return items
