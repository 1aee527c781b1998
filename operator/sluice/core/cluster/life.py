"""An Endpoint's life in the cluster outside of deployments: creation, service, live edits."""

from datetime import datetime

from sluice.api.reasons import Cause, Outcome, Reason
from sluice.api.status import Intent, VariantSummary, WantedVariant
from sluice.core import capabilities
from sluice.core.cluster import fleets, keeping, recovery, routers, shown, sides
from sluice.core.cluster.actions import ScaleFleet
from sluice.core.cluster.routing import Side, Split
from sluice.core.endpoint import commands, latches, live
from sluice.core.endpoint.draft import Draft
from sluice.core.endpoint.history import ended
from sluice.core.resolve import spec_counts, spec_weights
from sluice.core.revision import Revision, edited_live

STEADY_SECONDS = 60.0
"""A look in case an event was lost: whatever changes wakes the Endpoint by itself."""


# Creation -------------------------------------------------------------------------------------------------------


def create(d: Draft) -> None:
    """Nothing serves yet: make the fleets and the routes of the revision asked for."""
    desired, intent = d.desired, d.status.intent
    if desired is None:
        d.reconciling(Reason.PENDING, "Waiting for what the spec names.")
        return
    begun = d.subject(intent.revision) if intent is not None else None
    if begun is None or begun.fleet_hash != desired.fleet_hash or _retried(d):
        _begin(d, desired)
        return
    if d.find_stored(desired.name) is None and begun.name != desired.name:
        _begin(d, desired, since=intent.time if intent is not None else None)
        return
    keeping.store(d, begun)
    side = sides.side(begun, ())
    wanted = fleets.wanted(_name(d), side, {})
    if recovery.others_answer(d, wanted):
        keeping.make(d, side, wanted)
        _say_creating(d, wanted, routers.Progress(False), intent)
        return
    progress = keeping.keep(d, Split(side, excluded=fleets.strangers(keeping.seen(d))), wanted)
    keeping.clean_up(d, frozenset(fleet.name for fleet in wanted))
    if progress.done and all(fleets.ready(keeping.seen(d), fleet, fleet.count) for fleet in wanted):
        unheard_of = routers.unheard_of(keeping.seen(d), d.now)
        if not unheard_of:
            _in_service(d, begun)
            return
        d.again(unheard_of)
        progress = routers.Progress(False, "the nodes to hear of a ready router")
    _say_creating(d, wanted, progress, intent)


def _begin(d: Draft, desired: Revision, since: datetime | None = None) -> None:
    d.set(
        intent=Intent(operation="CreateEndpoint", revision=desired.name, time=since or d.now),
        endpoint_status="Creating",
        failure_reason=None,
        creation_time=d.status.creation_time or d.now,
    )
    keeping.store(d, desired)
    side = sides.side(desired, ())
    keeping.warn_of_moving_images(d, side)
    keeping.router(d)
    for fleet in fleets.wanted(_name(d), side, {}):
        keeping.made(d, fleet, {side.fleet_hash: side})
    d.confirm_references = True
    d.again(keeping.WAIT_SECONDS)
    d.reconciling(Reason.CREATING, f"Creating the fleets of revision {desired.name}.")


def _in_service(d: Draft, revision: Revision) -> None:
    counts, weights = spec_counts(revision.endpoint_config), spec_weights(revision.endpoint_config)
    since = d.status.intent.time if d.status.intent is not None else d.now
    config = d.spec.get("deploymentConfig")
    d.set(
        intent=None,
        latch=None,
        failure_reason=None,
        endpoint_status="InService",
        last_modified_time=d.now,
        # As of CreateEndpoint: it alters no creation, and is what RetainDeploymentConfig retains.
        last_deployment_config=dict(config) if config else d.status.last_deployment_config,
        revision=revision.status().model_copy(update={"since": d.now}),
        production_variants=tuple(
            VariantSummary(
                variant_name=name,
                current_weight=weight,
                desired_weight=weight,
                desired_instance_count=counts.get(name),
                last_applied_count=counts.get(name),
                last_applied_weight=weight,
            )
            for name, weight in sorted(weights.items())
        ),
    )
    shown.take_fleets(d)
    ended(d, revision.name, revision.fleet_hash, Outcome.SUCCEEDED, Cause.NONE, None, since)
    d.again(0.0)
    if live.wanted_changes(d):
        d.reconciling(Reason.PENDING, f"Revision {revision.name} is in service; what was edited since follows.")
    else:
        d.ready(f"Revision {revision.name} is in service.")


def _say_creating(
    d: Draft, wanted: tuple[fleets.Wanted, ...], progress: routers.Progress, intent: Intent | None
) -> None:
    seen = keeping.seen(d)
    blocked = fleets.trouble(seen, wanted)
    since = intent.time if intent is not None else d.now
    late = d.now >= since + fleets.budget(wanted)
    d.again(keeping.WAIT_SECONDS if not late else STEADY_SECONDS / 2)
    if blocked is not None and (blocked[1].final or late):
        _failed(d, fleets.words(*blocked))
    elif late:
        _failed(d, f"not ready in time: {fleets.starting(seen, wanted)}")
    elif blocked is not None:
        d.reconciling(fleets.meaning(blocked[1])[0], fleets.words(*blocked))
    elif not all(fleets.ready(seen, fleet, fleet.count) for fleet in wanted):
        d.reconciling(Reason.CREATING, fleets.starting(seen, wanted))
    elif progress.rejected:
        d.reconciling(Reason.ROUTER_NOT_CONVERGED, progress.rejected)
    else:
        d.reconciling(Reason.WAITING_FOR_ROUTERS, f"waiting for {progress.waiting_for}")


def _failed(d: Draft, reason: str) -> None:
    """SageMaker's Failed. The fleets stay to be looked at; if their pods become ready all the same, they serve."""
    if d.status.endpoint_status != "Failed":
        revision, intent = d.desired, d.status.intent
        if revision is not None:
            start = intent.time if intent is not None else None
            ended(d, revision.name, revision.fleet_hash, Outcome.FAILED, Cause.HEALTH, reason, start)
    d.set(endpoint_status="Failed", failure_reason=reason[:1024])
    d.stalled(
        Reason.CREATION_FAILED,
        f"{reason}. A change of the spec, or annotation sluice.dev/redeploy, makes new fleets; annotation "
        "sluice.dev/retry waits for these anew; if the pods become ready they are taken into service.",
    )


def _retried(d: Draft) -> bool:
    """Begin anew to wait: Kubernetes goes on trying by itself, and what only another template mends is for redeploy."""
    return d.status.endpoint_status == "Failed" and commands.said_now(d, capabilities.RETRY)


# In service -----------------------------------------------------------------------------------------------------


def serve(d: Draft, serving: Side) -> bool:
    """Keep the revision in service, its weights and counts. True if all that was asked of them is in force."""
    note_live(d)
    _store_content(d)
    serving = sides.serving(d) or serving  # with the weights just noted
    wanted = fleets.wanted(_name(d), serving, sides.counts(d.status.production_variants))
    edited = d.status.intent is not None
    split = Split(serving, excluded=fleets.strangers(keeping.seen(d)))
    progress = keeping.keep(d, split, wanted, require_ready=edited)
    gone = keeping.clean_up(d, frozenset(fleet.name for fleet in wanted))
    scaled = _scale(d, wanted)
    d.again(STEADY_SECONDS)
    _word(d, wanted, progress, scaled=scaled)
    if not progress.done:
        text = progress.rejected or f"waiting for {progress.waiting_for}"
        reason = Reason.ROUTER_NOT_CONVERGED if progress.rejected else Reason.WAITING_FOR_ROUTERS
        keep_ready = not edited and not progress.rejected and routers.serves(keeping.seen(d))
        if keep_ready and _without_pods(d, wanted):
            return False  # whatever routers have confirmed, nobody answers
        d.reconciling(reason, text, keep_ready=keep_ready)
        return False
    d.set(
        production_variants=tuple(
            v.model_copy(update={"current_weight": v.desired_weight}) for v in d.status.production_variants
        )
    )
    if _without_pods(d, wanted):
        return False
    if not scaled:
        blocked = fleets.trouble(keeping.seen(d), wanted)
        reason = fleets.meaning(blocked[1])[0] if blocked else Reason.UPDATING_VARIANTS
        text = fleets.words(*blocked) if blocked else fleets.starting(keeping.seen(d), wanted)
        d.reconciling(reason, text)
        return False
    d.set(intent=None)
    if not gone.done:
        d.reconciling(Reason.DRAINING, f"waiting for {gone.waiting_for}", keep_ready=True)
        return False
    return True


def _store_content(d: Draft) -> None:
    """What changed live is stored like the rest of the revision: it serves whatever becomes of the objects."""
    serving, desired = d.status.revision, d.desired
    if serving is None or desired is None or d.given.resolution.finding is not None:
        return
    if desired.fleet_hash != serving.fleet_hash:
        return
    if desired.name == serving.name:
        keeping.store(d, desired)
        return
    before = d.find_stored(serving.name)
    if before is not None and not edited_live(str(d.spec["backend"]), before, desired):
        return  # weights and counts are in the status; they make no other revision
    if d.find_stored(desired.name) is None:
        keeping.store(d, desired)
        d.again(1.0)
    else:
        d.set(revision=serving.model_copy(update={"name": desired.name}))


def note_live(d: Draft) -> None:
    """Weights and counts of the spec that differ from what was last written become those to be in force. Only while
    the revision in service is the one asked for: another's come with its deployment. Of one that is kept out, what is
    edited since is for the revision that serves. Of a spec that is wrong nothing is."""
    serving, desired, latch = d.status.revision, d.desired, d.status.latch
    if serving is None or desired is None or d.given.resolution.finding is not None:
        return
    kept_out = latch is not None and desired.fleet_hash != serving.fleet_hash and latches.holds(latch, d.spec, desired)
    if desired.fleet_hash != serving.fleet_hash and not kept_out:
        return
    changes = live.wanted_changes(d)
    if not changes:
        return
    weights, written = spec_weights(desired.endpoint_config), {change.variant_name: change for change in changes}
    edited = {change.variant_name: change.desired_weight for change in changes if change.desired_weight is not None}
    live_weights = {v.variant_name: edited.get(v.variant_name, v.desired_weight) for v in d.status.production_variants}
    if not any(live_weights.values()):
        # Beside weights that a deployment retained, the edited ones would leave nobody to ask. Of what is kept out,
        # those who are to answer may be variants that do not stand.
        live_weights |= weights
        if not any(live_weights[v.variant_name] for v in d.status.production_variants):
            live_weights |= {v.variant_name: v.desired_weight for v in d.status.production_variants}
    if latch is not None and kept_out:
        d.set(latch=latches.asked(latch, desired))
    d.set(
        intent=Intent(operation="UpdateEndpointWeightsAndCapacities", variants=_merged(d, changes), time=d.now),
        last_modified_time=d.now,
        production_variants=tuple(
            v.model_copy(
                update={
                    "desired_weight": live_weights[v.variant_name],
                    **_written(written.get(v.variant_name)),
                }
            )
            for v in d.status.production_variants
        ),
    )


def _written(change: WantedVariant | None) -> dict[str, object]:
    """What a variant's summary notes of a change."""
    if change is None:
        return {}
    noted = {"last_applied_weight": change.desired_weight, "last_applied_count": change.desired_instance_count}
    return {name: value for name, value in noted.items() if value is not None}


def _merged(d: Draft, changes: tuple[WantedVariant, ...]) -> tuple[WantedVariant, ...]:
    """The changes over those of an edit that is still under way."""
    before = d.status.intent.variants if d.status.intent is not None else ()
    merged = {item.variant_name: item for item in before}
    for change in changes:
        old = merged.get(change.variant_name, change)
        merged[change.variant_name] = WantedVariant(
            variant_name=change.variant_name,
            desired_weight=change.desired_weight if change.desired_weight is not None else old.desired_weight,
            desired_instance_count=change.desired_instance_count
            if change.desired_instance_count is not None
            else old.desired_instance_count,
        )
    return tuple(merged[name] for name in sorted(merged))


def _scale(d: Draft, wanted: tuple[fleets.Wanted, ...]) -> bool:
    """Bring the counts of the edit under way into force. True if there are none, or they stand and are ready. Once they
    were seen to stand (`accepted`) they are a scaler's: it is not fought."""
    intent = d.status.intent
    if intent is None:
        return True
    asked = {i.variant_name: i.desired_instance_count for i in intent.variants if i.desired_instance_count is not None}
    stood = intent.accepted is not None or all(
        here.replicas == asked.get(str(fleet.variant["variantName"]), here.replicas)
        for fleet in wanted
        if (here := keeping.seen(d).fleet(fleet.name)) is not None
    )
    if asked and stood and intent.accepted is None:
        d.set(intent=intent.model_copy(update={"accepted": d.now}))
    done = True
    for fleet in wanted:
        count = asked.get(str(fleet.variant["variantName"]))
        here = keeping.seen(d).fleet(fleet.name)
        if count is None or here is None:
            continue
        if not stood and here.replicas != count:
            d.act(ScaleFleet(fleet.name, count))
        done = done and stood and fleets.ready(keeping.seen(d), fleet)
    if not done:
        d.again(keeping.WAIT_SECONDS)
    return done


def _word(d: Draft, wanted: tuple[fleets.Wanted, ...], progress: routers.Progress, *, scaled: bool) -> None:
    """SageMaker's status: Updating while an edit comes into force, OutOfService without a pod, or without a router,
    that answers."""
    alive = [
        fleet
        for fleet in wanted
        if not fleet.shadow and (here := keeping.seen(d).fleet(fleet.name)) is not None and here.ready
        if not routers.sees_none(keeping.seen(d), fleet.name)
    ]
    if not alive or not routers.ready(keeping.seen(d)):
        d.set(endpoint_status="OutOfService")
    elif d.status.intent is not None and not (progress.done and scaled):
        d.set(endpoint_status="Updating")
    else:
        d.set(endpoint_status="InService")


def _without_pods(d: Draft, wanted: tuple[fleets.Wanted, ...]) -> bool:
    """A variant that takes requests has no pod that answers: Ready may not say True."""
    weights = {v.variant_name: v.desired_weight for v in d.status.production_variants}
    seen = keeping.seen(d)
    empty = [
        fleet
        for fleet in wanted
        if not fleet.shadow
        and weights.get(str(fleet.variant["variantName"]), 1.0)
        and ((here := seen.fleet(fleet.name)) is None or here.ready == 0 or not here.reachable)
    ]
    unseen = [fleet for fleet in wanted if not fleet.shadow and routers.sees_none(seen, fleet.name)]
    if not empty and unseen:
        empty = [fleet for fleet in unseen if weights.get(str(fleet.variant["variantName"]), 1.0)]
    if not empty:
        return False
    blocked = fleets.trouble(seen, empty)
    reason = fleets.meaning(blocked[1])[0] if blocked else Reason.PING_FAILING
    names = ", ".join(str(fleet.variant["variantName"]) for fleet in empty)
    text = fleets.words(*blocked) if blocked else fleets.starting(seen, empty)
    if not blocked and empty[0] in unseen:
        text += ", and no router sees one of them"
    d.again(keeping.WAIT_SECONDS)
    d.reconciling(reason, f"no ready pod of variant {names}: {text}")
    return True


def _name(d: Draft) -> str:
    return str(d.metadata["name"])
