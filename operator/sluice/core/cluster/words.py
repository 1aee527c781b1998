"""What deployments in the cluster are called: SageMaker's VariantStatus words and the sentences that go with them."""

from datetime import datetime

from sluice.api.status import DeploymentStatus, VariantStatus, VariantSummary
from sluice.core.cluster import batches

CREATING, ACTIVATING, BAKING, DELETING = "Creating", "ActivatingTraffic", "Baking", "Deleting"

_STAGES = {
    "Provisioning": CREATING,
    "Shifting": ACTIVATING,
    "Baking": BAKING,
    "FinalBaking": BAKING,
    "RollingBack": DELETING,
}


def scope(deployment: DeploymentStatus) -> str:
    """Which part of the new capacity the present step is about: full, canary, linear step or batch."""
    if deployment.policy == "ROLLING":
        return "batch"
    if (deployment.step or 0) >= len(deployment.plan):
        return "full"
    return {"CANARY": "canary", "LINEAR": "linear step"}.get(deployment.policy, "full")


def wait_field(deployment: DeploymentStatus) -> str:
    """The request field that the present bake's length comes from."""
    final = deployment.policy != "ROLLING" and (deployment.step or 0) >= len(deployment.plan)
    return "TerminationWaitInSeconds" if final else "WaitIntervalInSeconds"


def active(deployment: DeploymentStatus, variant: str, total: int) -> int:
    """Instances of a new variant of `total` that answer for the present step's share, at least one. Of a rolling
    deployment: those that its step adds."""
    step = deployment.step or 0
    now = deployment.plan[step - 1] if step else None
    if deployment.policy == "ROLLING" and now is not None:
        before = batches.new_of(deployment.plan[step - 2]).get(variant, 0) if step > 1 else 0
        return max(1, batches.new_of(now).get(variant, total) - before)
    return max(1, batches.for_share(total, now.traffic_percent if now is not None else 0.0))


def told(deployment: DeploymentStatus) -> tuple[VariantSummary, ...]:
    """The new variants with the VariantStatus of the present stage, and as their current weight the part of the wanted
    one that the routers have confirmed."""
    share = (deployment.traffic_percent or 0.0) / 100.0
    return tuple(
        variant.model_copy(
            update={
                "variant_status": _status(deployment, variant),
                "current_weight": round((1.0 if variant.desired_weight is None else variant.desired_weight) * share, 6),
            }
        )
        for variant in deployment.pending_variants
    )


def going(count: int, since: datetime | None) -> VariantStatus:
    """Of a variant so many of whose instances are on their way out."""
    return VariantStatus(status=DELETING, status_message=f"Terminating {count} instance(s).", start_time=since)


def _status(deployment: DeploymentStatus, variant: VariantSummary) -> tuple[VariantStatus, ...]:
    total, here = variant.desired_instance_count or 1, variant.current_instance_count or 0
    word = _STAGES.get(deployment.stage)
    if word is None:
        return ()
    if word == DELETING:
        return (going(here, deployment.stage_since),)
    amount = active(deployment, variant.variant_name, total)
    if word == CREATING:
        text = f"Launching {max(total - here, 0) or total} instance(s)."
    elif word == ACTIVATING:
        text = f"Activating traffic on {scope(deployment)} capacity of {amount} instance(s)."
    else:
        text = _bake(deployment, amount) + "."
    return (VariantStatus(status=word, status_message=text, start_time=deployment.stage_since),)


def baking(deployment: DeploymentStatus) -> str:
    """The sentence of a bake, with all variants' instances, and when it ends."""
    total = sum(active(deployment, v.variant_name, v.desired_instance_count or 1) for v in deployment.pending_variants)
    return f"{_bake(deployment, max(total, 1))}, until {deployment.bake_until:%H:%M:%S} UTC"


def paused(deployment: DeploymentStatus) -> str:
    """The sentence of a pause."""
    since, until = deployment.paused_since, deployment.bake_until
    text = f"paused since {since:%H:%M:%S} UTC by annotation sluice.dev/pause"
    if until is not None and since is not None and until > since:
        text += f" with {(until - since).total_seconds():.0f} s of the bake left"
    return (
        f"{text}; the deadline stands at {deployment.deadline:%Y-%m-%d %H:%M:%S} UTC" if deployment.deadline else text
    )


def _bake(deployment: DeploymentStatus, amount: int) -> str:
    step = deployment.plan[(deployment.step or 1) - 1]
    return (
        f"Baking for {step.wait_seconds} seconds ({wait_field(deployment)}) with traffic enabled on "
        f"{scope(deployment)} capacity of {amount} instance(s)"
    )
