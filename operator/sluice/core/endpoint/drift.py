"""What somebody else changed in SageMaker: shown (driftPolicy Report) or mended (Correct), never fought over.

Counts are not drift: a scaler may hold them. A second foreign change within an hour of a correction stops Sluice."""

from datetime import timedelta

from sluice.api.reasons import Reason
from sluice.api.status import Drift, WantedVariant
from sluice.core.endpoint import deployment, live
from sluice.core.endpoint.draft import Draft


def plan(d: Draft) -> bool:
    """Judge an endpoint that has settled. True if this decided the pass."""
    live.note_equal(d)
    fields = tuple(text[:512] for text in (*_config(d), *_weights(d)))
    drift = d.status.drift
    if not fields:
        if drift is not None and drift.fields:
            d.set(drift=drift.model_copy(update={"fields": (), "since": None}) if drift.corrections else None)
        return False
    drift = (drift or Drift()).model_copy(update={"fields": fields[:20], "since": (drift and drift.since) or d.now})
    d.set(drift=drift)
    text = "; ".join(fields)
    if d.spec.get("driftPolicy") != "Correct":
        d.stalled(
            Reason.DRIFTED,
            f"Somebody else changed the endpoint: {text}. Change the spec to match, undo the change, or set "
            "driftPolicy: Correct.",
        )
        return True
    recent = bool(drift.corrections) and d.now - drift.corrections[-1] < timedelta(hours=1)
    if drift.stopped or recent:
        d.set(drift=drift.model_copy(update={"stopped": True}))
        d.stalled(
            Reason.FOREIGN_OWNER,
            f"Somebody changes the endpoint again and again: {text}. Find out who; annotate sluice.dev/retry to go on.",
        )
        return True
    serving, configured = d.status.revision, _config(d)
    if configured and deployment.asks_scalers(d):
        return True  # before the correction counts: an update resets what a scaler made of the counts
    d.set(drift=drift.model_copy(update={"corrections": (*drift.corrections[-4:], d.now)}))
    if configured and serving is not None:
        revision = d.subject(serving.name)
        if revision is None and d.desired is not None and d.desired.fleet_hash == serving.fleet_hash:
            revision = d.desired
        if revision is None:
            d.stalled(Reason.DRIFTED, f"{text}; revision {serving.name} is not kept, so it cannot be brought back.")
            return True
        deployment.start(d, revision)
        if not d.actions:
            return True
    else:
        live.start(d, _weights_back(d))
    d.reconciling(Reason.CORRECTING_DRIFT, f"Mending what somebody else changed: {text}.")
    return True


def only_scales(d: Draft) -> bool:
    """Whether what moves is somebody else's change of counts, as a scaler makes one every few minutes: no call of ours
    is under way, no other configuration is pending (SageMaker shows those of updates alone), the weights are ours."""
    seen = d.described
    return d.status.intent is None and seen is not None and seen.pending is None and not (_config(d) or _weights(d))


def _config(d: Draft) -> list[str]:
    seen, serving = d.described, d.status.revision
    if seen is None or serving is None or seen.endpoint_config_name is None:
        if seen is None and d.status.drift is not None:
            return [text for text in d.status.drift.fields if text.startswith("endpointConfigName")]
        return []
    if seen.endpoint_config_name == serving.endpoint_config_name:
        return []
    return [f"endpointConfigName: found {seen.endpoint_config_name}, Sluice deployed {serving.endpoint_config_name}"]


def _weights(d: Draft) -> list[str]:
    return [
        f"weight of variant {name}: found {found:g}, Sluice wrote {ours:g}" for name, found, ours in _moved_weights(d)
    ]


def _weights_back(d: Draft) -> tuple[WantedVariant, ...]:
    return tuple(WantedVariant(variant_name=name, desired_weight=ours) for name, _, ours in _moved_weights(d))


def _moved_weights(d: Draft) -> list[tuple[str, float, float]]:
    """(variant, live weight, our weight) where they differ; ours is what a deployment retained, else what we wrote.

    A weight that the spec asks for anew is no drift: it is about to be written."""
    asked = {change.variant_name for change in live.wanted_changes(d) if change.desired_weight is not None}
    moved = []
    for variant in d.status.production_variants:
        if variant.variant_name in asked:
            continue
        ours = variant.retained_weight if variant.retained_weight is not None else variant.last_applied_weight
        if (
            variant.desired_weight is not None
            and ours is not None
            and not live.same_weight(variant.desired_weight, ours)
        ):
            moved.append((variant.variant_name, variant.desired_weight, ours))
    return moved
