"""The plan of a deployment in the cluster: its steps, each a share of the traffic and a bake. Computed once, when the
deployment starts, from the DeploymentConfig and the instance counts.

Sizes, rounding and waits are SageMaker's (core.guardrails)."""

from collections.abc import Mapping
from typing import Any

from sluice.api.reasons import Reason
from sluice.api.status import EndpointStatus, PlanStep, VariantSummary
from sluice.core import guardrails
from sluice.core.cluster import batches
from sluice.core.endpoint.draft import Draft
from sluice.core.finding import Finding
from sluice.core.resolve import keeps_counts, spec_counts, spec_weights
from sluice.core.revision import Revision


def config_of(endpoint_spec: Mapping[str, Any], status: EndpointStatus) -> Mapping[str, Any] | None:
    """The DeploymentConfig of the next deployment: the spec's or, where it asks for that as UpdateEndpoint's
    RetainDeploymentConfig does and gives none of its own, the one that was used last."""
    config: Mapping[str, Any] | None = endpoint_spec.get("deploymentConfig")
    if config is None and endpoint_spec.get("retainDeploymentConfig"):
        return status.last_deployment_config
    return config


def policy_of(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The one policy of a DeploymentConfig."""
    held = config or {}
    return held.get("rollingUpdatePolicy") or held.get("blueGreenUpdatePolicy") or {}


def replaces(endpoint_spec: Mapping[str, Any], config: Mapping[str, Any] | None) -> bool:
    """Whether batches go before their successors come."""
    wanted = bool((endpoint_spec.get("kubernetes") or {}).get("replaceFirst"))
    return wanted and guardrails.policy_name(config) == guardrails.ROLLING


def plan(
    deployment_config: Mapping[str, Any] | None,
    counts: Mapping[str, int],
    old: Mapping[str, int],
    *,
    replace_first: bool = False,
) -> tuple[PlanStep, ...]:
    """The steps: percent of the traffic, then a bake; the last is 100 % with the final bake. `counts`, `old`: the new
    and the old fleets' instances, by variant.

    With one variant the share is that of whole instances, as on SageMaker; one instance cannot be split, there the
    asked share holds. With several variants, which move in lock-step, the asked share holds (a number of instances: of
    the variant where it is the smallest share)."""
    config = deployment_config or {}
    blue_green = config.get("blueGreenUpdatePolicy") or {}
    routing = blue_green.get("trafficRoutingConfiguration") or {}
    wait = int(routing.get("waitIntervalInSeconds") or 0)
    policy = guardrails.policy_name(config)
    if policy == guardrails.ROLLING:
        return batches.plan(config["rollingUpdatePolicy"], counts, old, replace_first=replace_first)
    shares: tuple[float, ...] = ()
    if policy == "CANARY":
        shares = (_canary_percent(routing["canarySize"], counts),)
    elif policy == "LINEAR":
        shares = _linear_percents(routing["linearStepSize"], counts)
    waits = [(share, wait) for share in shares if share < 100]
    waits.append((100.0, int(blue_green.get("terminationWaitInSeconds") or 0)))
    return tuple(
        PlanStep(traffic_percent=share, wait_seconds=seconds, instances=batches.planned(counts, share))
        for share, seconds in waits
    )


def too_long(deployment_config: Mapping[str, Any] | None, counts: Mapping[str, int]) -> Finding | None:
    """A maximumExecutionTimeoutInSeconds within which the waits alone do not end. guardrails.check counts SageMaker's
    steps, which are whole instances of each variant; a share that is split by weights takes more of them."""
    timeout = policy_of(deployment_config).get("maximumExecutionTimeoutInSeconds")
    waits = sum(step.wait_seconds for step in plan(deployment_config, counts, counts)) if timeout else 0
    if timeout is None or int(timeout) > waits:
        return None
    policy = guardrails.policy_name(deployment_config)
    field = "rollingUpdatePolicy" if policy == guardrails.ROLLING else "blueGreenUpdatePolicy"
    return Finding(
        Reason.INVALID_DEPLOYMENT_CONFIG,
        f"found {timeout} s, but the waits alone take {waits} s; allowed is none, or more than {waits} and up to 28800 "
        "(take larger steps or shorter waits where that is not enough)",
        f"spec.deploymentConfig.{field}.maximumExecutionTimeoutInSeconds",
    )


def _canary_percent(size: Mapping[str, Any], counts: Mapping[str, int]) -> float:
    if size["type"] == "CAPACITY_PERCENT" and (len(counts) != 1 or min(counts.values()) <= 1):
        return float(size["value"])
    return min(_percent(guardrails.instances(size, total), total) for total in counts.values())


def _linear_percents(size: Mapping[str, Any], counts: Mapping[str, int]) -> tuple[float, ...]:
    if size["type"] == "CAPACITY_PERCENT" and (len(counts) != 1 or min(counts.values()) <= 1):
        value = int(size["value"])
        return tuple(min(100.0, float(value * step)) for step in range(1, -(-100 // value) + 1))
    total = max(counts.values())
    shares: list[float] = []
    step = 1
    while not shares or shares[-1] < 100:
        shares.append(_percent(guardrails.linear_active(size, total, step), total))
        step += 1
    return tuple(shares)


def _percent(part: int, total: int) -> float:
    return min(100.0, round(100.0 * part / total, 4))


def variants_of(d: Draft, revision: Revision) -> tuple[dict[str, int], tuple[VariantSummary, ...]]:
    """The new revision's counts and weights: the spec's, or the live ones that it retains (UpdateEndpoint's
    RetainAllVariantProperties and ExcludeRetainedVariantProperties)."""
    counts, weights = spec_counts(revision.endpoint_config), spec_weights(revision.endpoint_config)
    excluded = {item["variantPropertyType"] for item in d.spec.get("excludeRetainedVariantProperties") or ()}
    live = {v.variant_name: v for v in d.status.production_variants}
    if keeps_counts(d.spec):
        counts = {n: (live[n].desired_instance_count or c) if n in live else c for n, c in counts.items()}
    if d.spec.get("retainAllVariantProperties") and "DesiredWeight" not in excluded:
        weights = _kept_weights(weights, d.status.production_variants)
    return counts, _pending(counts, weights)


def brought_back(
    revision: Revision, bears: Mapping[str, int], live: tuple[VariantSummary, ...]
) -> tuple[dict[str, int], tuple[VariantSummary, ...]]:
    """Counts and weights of a revision that takes all requests at once, without a bake: as many instances as `bears`
    them now, where it was stored with fewer, and the weights that are in force (`live`, whose word of what was last
    written stays: an edit counts as one against that)."""
    counts, weights = spec_counts(revision.endpoint_config), spec_weights(revision.endpoint_config)
    counts = {name: max(count, bears.get(name, 0)) for name, count in counts.items()}
    written = {v.variant_name: v for v in live}
    return counts, tuple(
        variant.model_copy(
            update={
                "last_applied_count": written[variant.variant_name].last_applied_count,
                "last_applied_weight": written[variant.variant_name].last_applied_weight,
            }
        )
        if variant.variant_name in written
        else variant
        for variant in _pending(counts, _kept_weights(weights, live))
    )


def _kept_weights(weights: dict[str, float], live: tuple[VariantSummary, ...]) -> dict[str, float]:
    """Weights in force, of the variants that have one; the given ones where those would leave nobody to ask."""
    held = {v.variant_name: v.desired_weight for v in live if v.desired_weight is not None}
    kept = {name: held.get(name, weight) for name, weight in weights.items()}
    return kept if any(kept.values()) else weights


def _pending(counts: Mapping[str, int], weights: Mapping[str, float]) -> tuple[VariantSummary, ...]:
    return tuple(
        VariantSummary(
            variant_name=name,
            desired_instance_count=counts.get(name, 1),
            desired_weight=weight,
            current_instance_count=0,
            current_weight=0.0,
        )
        for name, weight in sorted(weights.items())
    )
