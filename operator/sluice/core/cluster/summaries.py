"""The variants of a running deployment as DescribeEndpoint shows them: the new ones that are pending, and the old ones
while they go."""

from sluice.core.cluster import fleets, keeping, words
from sluice.core.cluster.names import fleet_name
from sluice.core.endpoint.draft import Draft


def pending(d: Draft, wanted: tuple[fleets.Wanted, ...]) -> None:
    """The new fleets as PendingDeploymentSummary shows them."""
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101 - the caller has one
    before = {v.variant_name: v for v in deployment.pending_variants}
    shown = []
    for fleet in wanted:
        name = str(fleet.variant["variantName"])
        if not fleet.shadow:
            here = keeping.seen(d).fleet(fleet.name)
            weight = before[name].desired_weight if name in before else None
            shown.append(fleets.summary(fleet, here, weight, before.get(name), None))
    d.set_deployment(pending_variants=words.told(deployment.model_copy(update={"pending_variants": tuple(shown)})))


def confirmed(d: Draft, percent: float) -> None:
    """Every Ready router has this share of the new revision in force."""
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101 - the caller has one
    moved = deployment.model_copy(update={"traffic_percent": percent, "traffic_text": f"{percent:g}%"})
    d.set(deployment=moved.model_copy(update={"pending_variants": words.told(moved)}))


def old(d: Draft) -> None:
    """The old fleets that clean-up takes away, as long as a pod of theirs is there."""
    deployment, before = d.status.deployment, d.status.previous_revision
    assert deployment is not None  # noqa: S101 - the caller has one
    shown = []
    for variant in deployment.old_variants:
        name = fleet_name(str(d.metadata["name"]), variant.variant_name, before.fleet_hash) if before else ""
        here = keeping.seen(d).fleet(name)
        if here is not None and here.existing:
            told = {
                "current_weight": 0.0,
                "current_instance_count": here.existing,
                "desired_instance_count": 0,
                "variant_status": (words.going(here.existing, deployment.stage_since),),
            }
            shown.append(variant.model_copy(update=told))
    d.set_deployment(old_variants=tuple(shown))
