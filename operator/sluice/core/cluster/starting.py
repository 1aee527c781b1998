"""How a deployment in the cluster starts: its plan, computed once and stored; a revision that a person brings back; the
return to old fleets that still stand."""

from datetime import timedelta

from sluice.api.reasons import Cause, Outcome, Reason
from sluice.api.status import DeploymentStatus, VariantSummary
from sluice.core import guardrails
from sluice.core.cluster import alarms, batches, fleets, instances, keeping, plans, sides
from sluice.core.endpoint import latches
from sluice.core.endpoint.draft import Draft
from sluice.core.endpoint.history import ended
from sluice.core.revision import Revision

SLACK_SECONDS = 3600
"""What a deployment without a deadline of its own may take beyond its waits and its provisioning."""


def start(d: Draft, revision: Revision) -> None:
    """Persist the plan, store the revision, make the new fleets."""
    counts, variants = plans.variants_of(d, revision)
    _start(d, revision, counts, variants)


def bring_back(d: Draft, revision: Revision) -> None:
    """A person wants it: all at once and without alarms, at the size of what serves now."""
    live = d.status.production_variants
    counts, variants = plans.brought_back(revision, sides.counts(live), live)
    _start(d, revision, counts, variants, commanded=True)


def _start(
    d: Draft,
    revision: Revision,
    counts: dict[str, int],
    variants: tuple[VariantSummary, ...],
    *,
    commanded: bool = False,
) -> None:
    config = None if commanded else plans.config_of(d.spec, d.status)
    old = sides.counts(d.status.production_variants)
    replaces = plans.replaces(d.spec, config)
    steps = plans.plan(config, counts, old, replace_first=replaces)
    green = sides.side(revision, variants)
    keeping.warn_of_moving_images(d, green)
    green = sides.without_shadows(green) if replaces else green
    wanted = fleets.wanted(str(d.metadata["name"]), green, counts)
    waits = sum(step.wait_seconds for step in steps)
    rolls = guardrails.policy_name(config) == guardrails.ROLLING
    first = {name: 0 if replaces else count for name, count in batches.new_of(steps[0]).items()} if rolls else {}
    asked = plans.policy_of(config).get("maximumExecutionTimeoutInSeconds")
    # Each batch of a rolling deployment has the time to start that trigger() gives it.
    starts = fleets.budget(wanted) * (len(steps) if rolls else 1)
    limit = timedelta(seconds=int(asked)) if asked else starts + timedelta(seconds=waits + SLACK_SECONDS)
    d.set(
        endpoint_status="Updating",
        settle=None,
        failure_reason=None,
        deployment=DeploymentStatus(
            revision=revision.name,
            fleet_hash=revision.fleet_hash,
            policy=guardrails.policy_name(config),
            stage="Provisioning",
            stage_since=d.now,
            step=0,
            steps=len(steps),
            step_text=f"0/{len(steps)}",
            traffic_percent=0.0,
            traffic_text="0%",
            start_time=d.now,
            deadline=d.now + limit,
            retain_all_variant_properties=bool(d.spec.get("retainAllVariantProperties")),
            pending_variants=variants,
            plan=steps,
            before=instances.at_start(old, counts),
            replace_first=replaces or None,
            alarms=() if commanded else alarms.at_start(d),
        ),
        last_deployment_config=d.status.last_deployment_config if commanded else dict(config) if config else None,
    )
    keeping.store(d, revision)
    to_make = fleets.wanted(str(d.metadata["name"]), green, {**counts, **first})
    d.act(*(fleets.ensure(fleet, green) for fleet in to_make if keeping.seen(d).fleet(fleet.name) is None))
    d.confirm_references = not commanded
    d.again(keeping.WAIT_SECONDS)
    d.reconciling(Reason.DEPLOYING, f"Revision {revision.name} under {guardrails.policy_name(config)}: Provisioning.")


def stands(d: Draft, revision: Revision) -> bool:
    """Whether the old fleets of a deployment that only cleans up are these, all there and ready: then who wants them
    back has them at once."""
    deployment, before = d.status.deployment, d.status.previous_revision
    if deployment is None or deployment.stage != "CleaningUp" or before is None:
        return False
    if revision.fleet_hash != before.fleet_hash:
        return False
    counts, _ = _as_it_stood(deployment, revision)
    old = fleets.wanted(str(d.metadata["name"]), sides.side(revision, ()), counts)
    # By their pods: routers tell how a sample invocation is answered by what their routes name, which are these again
    # before they get their traffic. Shadows answer nobody.
    found = [(fleet, keeping.seen(d).fleet(fleet.name)) for fleet in old if not fleet.shadow]
    return all(here is not None and not here.deleting and here.ready >= fleet.count for fleet, here in found)


def return_to(d: Draft, revision: Revision) -> None:
    """The deployment that only cleans up has succeeded; the way back to its old fleets is the next one. They are as
    large as they were when they bore all requests; counts that were edited since follow in service."""
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101 - stands() has seen it
    counts, variants = _as_it_stood(deployment, revision)
    d.set(deployment=None)
    ended(d, deployment.revision, deployment.fleet_hash, Outcome.SUCCEEDED, Cause.NONE, None, deployment.start_time)
    _start(d, revision, counts, variants, commanded=True)


def _as_it_stood(deployment: DeploymentStatus, revision: Revision) -> tuple[dict[str, int], tuple[VariantSummary, ...]]:
    return plans.brought_back(revision, instances.planned(deployment, new=False), deployment.old_variants)


def is_reverted(d: Draft) -> bool:
    """Whether the spec asks again for the old revision of a deployment that only cleans up, and its fleets stand."""
    deployment, desired = d.status.deployment, d.desired
    if deployment is None or desired is None or desired.fleet_hash == deployment.fleet_hash:
        return False
    return not latches.holds(d.status.latch, d.spec, desired) and stands(d, desired)
