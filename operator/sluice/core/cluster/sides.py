"""The revisions of one pass as its routes and fleets need them, with the counts and weights that are live."""

from collections.abc import Mapping
from dataclasses import replace

from sluice.api.status import DeploymentStatus, VariantSummary
from sluice.core.cluster.routing import Side
from sluice.core.endpoint.draft import Draft
from sluice.core.resolve import spec_weights
from sluice.core.revision import Revision


def serving(d: Draft) -> Side | None:
    """The revision in service, with the weights that are to be in force. None: nothing serves, or what served is
    stored nowhere any more."""
    if d.status.revision is None:
        return None
    revision = serving_revision(d)
    return side(revision, d.status.production_variants) if revision is not None else None


def serving_revision(d: Draft) -> Revision | None:
    """The revision in service in full: as asked for, where it is the same fleet (what differs then is live: weights,
    counts, the sample invocation), else as it was stored."""
    ours = d.status.revision
    if ours is None:
        return None
    if d.desired is not None and d.desired.fleet_hash == ours.fleet_hash and d.given.resolution.finding is None:
        return d.desired
    stored = d.find_stored(ours.name)
    if stored is not None:
        return stored.revision(d.given.resolution.owner)
    same = next((s for s in d.given.stored if s.fleet_hash == ours.fleet_hash), None)
    return same.revision(d.given.resolution.owner) if same is not None else None


def deployed(d: Draft, deployment: DeploymentStatus) -> Side | None:
    """The revision that is being deployed."""
    revision = d.subject(deployment.revision)
    if revision is None:
        return None
    found = side(revision, deployment.pending_variants)
    return without_shadows(found) if deployment.replace_first else found


def without_shadows(found: Side) -> Side:
    """A revision whose shadow variants have no room yet: where batches go before their successors come, a shadow's pod
    would take the room of the first."""
    kept = {key: value for key, value in found.endpoint_config.items() if key != "shadowProductionVariants"}
    return replace(found, endpoint_config=kept)


def side(revision: Revision, variants: tuple[VariantSummary, ...]) -> Side:
    """A revision with the weights of `variants` (those it does not tell: the spec's)."""
    weights = spec_weights(revision.endpoint_config)
    live = {v.variant_name: v.desired_weight for v in variants if v.desired_weight is not None}
    return Side(
        revision=revision.name,
        fleet_hash=revision.fleet_hash,
        endpoint_config=revision.endpoint_config,
        models=revision.models,
        weights={name: live.get(name, weight) for name, weight in weights.items()},
    )


def counts(variants: tuple[VariantSummary, ...]) -> Mapping[str, int]:
    """The live instance counts, by variant."""
    return {v.variant_name: v.desired_instance_count for v in variants if v.desired_instance_count is not None}
