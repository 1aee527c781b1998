"""A lost status: what was in service, what a person said and was done, a rolling deployment that was under way."""

from sluice.api import names
from sluice.api.reasons import Cause, CommandResult, Outcome, Reason
from sluice.api.status import DeploymentStatus, Latch, PlannedCount, PlanStep, VariantSummary
from sluice.core import capabilities, guardrails
from sluice.core.cluster import fleets, instances, keeping, plans
from sluice.core.cluster.names import fleet_name
from sluice.core.cluster.routing import percent_on
from sluice.core.endpoint.commands import acknowledge, named, unanswered
from sluice.core.endpoint.draft import Draft
from sluice.core.resolve import spec_counts, spec_weights
from sluice.core.revision import Revision

LOST = "its status was lost while it was deployed"


def recover(d: Draft) -> bool:
    """An Endpoint without a status beside standing routes: it serves what was in service and still answers, else what
    the routes send most requests to (in the last bake of a deployment the new revision has them all, and has proved
    nothing). True if the pass goes on with that revision as the one in service."""
    seen = keeping.seen(d)
    if d.status.revision is not None or d.status.intent is not None or seen.route is None:
        return False
    share: dict[str, int] = {}
    hashes = {fleet.name: fleet.fleet_hash for fleet in seen.fleets}
    for entry in seen.route.spec.fleets:
        if entry.name in hashes:
            share[hashes[entry.name]] = share.get(hashes[entry.name], 0) + entry.weight
    proven = {s.fleet_hash for s in d.given.stored if s.outcome == Outcome.SUCCEEDED}
    proven &= {fleet.fleet_hash for fleet in seen.fleets if fleet.ready}
    for fleet_hash in sorted(share, key=lambda key: (key not in proven, -share[key])):
        revision = _known(d, fleet_hash)
        if revision is not None and _served(d, fleet_hash):
            counts, weights = spec_counts(revision.endpoint_config), spec_weights(revision.endpoint_config)
            standing = {fleet.variant: fleet for fleet in seen.fleets if fleet.fleet_hash == fleet_hash}
            d.set(
                revision=revision.status().model_copy(update={"since": d.now}),
                endpoint_status="InService",
                creation_time=min((f.created for f in standing.values() if f.created), default=d.now),
                production_variants=tuple(
                    VariantSummary(
                        variant_name=name,
                        desired_weight=weight,
                        current_weight=weight,
                        desired_instance_count=standing[name].replicas if name in standing else counts.get(name),
                        last_applied_count=counts.get(name),
                        last_applied_weight=weight,
                    )
                    for name, weight in sorted(weights.items())
                ),
            )
            _latch(d)
            _commands(d)
            _rolling_back(d, revision)
            return True
    return False


def _served(d: Draft, fleet_hash: str) -> bool:
    """Whether a revision was in service: one that was still being created is created on."""
    succeeded = any(s.fleet_hash == fleet_hash and s.outcome == Outcome.SUCCEEDED for s in d.given.stored)
    return succeeded or any(fleet.ready and fleet.fleet_hash == fleet_hash for fleet in keeping.seen(d).fleets)


def _known(d: Draft, fleet_hash: str) -> Revision | None:
    if d.desired is not None and d.desired.fleet_hash == fleet_hash:
        return d.desired
    stored = next((s for s in d.given.stored if s.fleet_hash == fleet_hash), None)
    return stored.revision(d.given.resolution.owner) if stored else None


def _latch(d: Draft) -> None:
    """The revision asked for was rolled back before the status was lost: it stays out."""
    desired = d.desired
    if desired is None or d.status.revision is None or desired.fleet_hash == d.status.revision.fleet_hash:
        return
    stored = next((s for s in d.given.stored if s.fleet_hash == desired.fleet_hash), None)
    if stored is not None and stored.outcome == Outcome.ROLLED_BACK:
        message = stored.outcome_message or "it was rolled back before"
        d.set(latch=Latch(fleet_hash=desired.fleet_hash, reason=Reason.ROLLED_BACK, message=message, time=d.now))


def _commands(d: Draft) -> None:
    """Annotations stand for long after they were acted on. A retry is not repeated: what it opened is no latch in the
    stored outcomes. Nor is a rollback, unless fleets of its revision stand beside those in service: then it was under
    way. To what serves it has been, and the revision that it turned away stays out."""
    serving = d.status.revision
    standing = {fleet.fleet_hash for fleet in keeping.seen(d).fleets if not fleet.deleting}
    for command, value in unanswered(d.given.endpoint, d.status).items():
        stored = d.find_stored(named(value)) if command == capabilities.ROLLBACK else None
        if stored is None and command != capabilities.RETRY:
            continue
        if stored is not None and serving is not None and stored.fleet_hash == serving.fleet_hash:
            _hold_again(d)
        elif stored is not None and stored.fleet_hash in standing:
            continue
        acknowledge(d, command, value, CommandResult.DONE, "seen when the status was recovered; not repeated")


def _hold_again(d: Draft) -> None:
    """A rollback to what serves stands as an annotation; what the spec asks for had been in service before it."""
    serving, desired = d.status.revision, d.desired
    if serving is None or desired is None or d.status.latch is not None or desired.fleet_hash == serving.fleet_hash:
        return
    if any(s.fleet_hash == desired.fleet_hash and s.outcome == Outcome.SUCCEEDED for s in d.given.stored):
        text = f"rolled back to {serving.name} by annotation {names.ROLLBACK}"
        d.set(latch=Latch(fleet_hash=desired.fleet_hash, reason=Reason.HELD_BY_ROLLBACK, message=text, time=d.now))


def _rolling_back(d: Draft, serving: Revision) -> None:
    """The fleets in service have fewer ready instances than they should, and another revision answers for the rest, or
    was to: a rolling deployment was under way. It goes back in its order, capacity before traffic, and starts anew."""
    seen, old = keeping.seen(d), spec_counts(serving.endpoint_config)
    # Pods that answer: on its way back, fleets are told their full size before they have it.
    standing = {fleet.variant: fleet.ready for fleet in seen.fleets if fleet.fleet_hash == serving.fleet_hash}
    config = plans.config_of(d.spec, d.status)
    replaces = plans.replaces(d.spec, config)
    other = _other(d, serving, replaces=replaces)
    if (
        guardrails.policy_name(config) != guardrails.ROLLING
        or other is None
        or seen.route is None
        or all(standing.get(name, 0) >= count for name, count in old.items())
    ):
        return
    new, weights = spec_counts(other.endpoint_config), spec_weights(other.endpoint_config)
    percent = percent_on(seen.route.spec, _fleets(d, other))
    last = PlanStep(
        traffic_percent=100.0,
        wait_seconds=0,
        instances=tuple(PlannedCount(variant_name=name, count=count, new=True) for name, count in sorted(new.items())),
    )
    d.set(
        endpoint_status="Updating",
        deployment=DeploymentStatus(
            revision=other.name,
            fleet_hash=other.fleet_hash,
            policy=guardrails.ROLLING,
            stage="RollingBack",
            stage_since=d.now,
            step=1,
            steps=1,
            step_text="1/1",
            traffic_percent=percent,
            traffic_text=f"{percent:g}%",
            start_time=d.now,
            pending_variants=tuple(
                VariantSummary(variant_name=name, desired_instance_count=new.get(name, 1), desired_weight=weight)
                for name, weight in sorted(weights.items())
            ),
            plan=(last,),
            before=instances.at_start(old, new),
            replace_first=replaces or None,
            cause=Cause.UNKNOWN,
            message=LOST,
        ),
    )


def others_answer(d: Draft, wanted: tuple[fleets.Wanted, ...]) -> bool:
    """Whether requests are answered by fleets of which nothing is known any more, as their revision is stored nowhere,
    or that were in service, while those that are created to follow them (`wanted`) do not have all their pods yet. What
    was only being created itself gives way at once."""
    seen, mine = keeping.seen(d), {fleet.name for fleet in wanted}
    if all((here := seen.fleet(fleet.name)) is not None and here.ready >= fleet.count for fleet in wanted):
        return False
    taking = {f.name for f in seen.route.spec.fleets if f.weight and f.name not in mine} if seen.route else set()
    created = {s.fleet_hash for s in d.given.stored if s.outcome != Outcome.SUCCEEDED}
    return any(f.ready and f.name in taking and f.fleet_hash not in created for f in seen.fleets)


def _other(d: Draft, serving: Revision, *, replaces: bool) -> Revision | None:
    """The revision beside the one in service that most requests go to or, where a batch goes before its successors come
    (`replaces`), that has fleets and never was in service: old instances have gone for it before its first request."""
    seen = keeping.seen(d)
    proven = {s.fleet_hash for s in d.given.stored if s.outcome == Outcome.SUCCEEDED}
    coming = {fleet.fleet_hash for fleet in seen.fleets if replaces and not fleet.deleting} - proven
    stored = [revision.revision(d.given.resolution.owner) for revision in d.given.stored]
    found = [
        (percent_on(seen.route.spec, _fleets(d, revision)) if seen.route is not None else 0.0, revision)
        for revision in (*([d.desired] if d.desired is not None else []), *stored)
        if revision.fleet_hash != serving.fleet_hash
    ]
    beside = [(percent, revision) for percent, revision in found if percent > 0.0 or revision.fleet_hash in coming]
    return max(beside, key=lambda pair: pair[0], default=(0.0, None))[1]


def _fleets(d: Draft, revision: Revision) -> frozenset[str]:
    endpoint = str(d.metadata["name"])
    variants = revision.endpoint_config["productionVariants"]
    return frozenset(fleet_name(endpoint, str(v["variantName"]), revision.fleet_hash) for v in variants)
