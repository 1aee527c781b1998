"""Runs a deployment: walks its plan, watches its alarms, and turns back when something says so.

The plans are made by ``blue_green`` and ``rolling``; this module only moves between their stages and decides when a
deployment goes back: an alarm, a fleet that does not come up, the deadline, or a fault that asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from . import blue_green, failures, guardrails, rolling
from .activities import Deployment
from .faults import FaultKind
from .guardrails import Policy
from .rolling import Rolling
from .stages import Capacity, Durations, Side, StageKind, Standing
from .state import Declared, Endpoint, Variant, World


def durations(world: World) -> Durations:
    """How long stages take now."""
    settings = world.settings
    return Durations(settings.provision_seconds, settings.flip_seconds, settings.cleanup_seconds)


def begin(
    world: World,
    endpoint: Endpoint,
    config: Declared,
    fleet: dict[str, Variant],
    policy: Policy,
    deployment_config: Mapping[str, object] | None,
) -> None:
    """Starts an update: Updating, with the new fleet pending."""
    old = {variant.name: variant.current_count for variant in endpoint.variants.values()}
    new = {variant.name: variant.desired_count for variant in fleet.values()}
    if isinstance(policy, Rolling):
        (name,) = new
        plan = rolling.plan(policy, name, old[name], new[name], durations(world))
    else:
        plan = blue_green.plan(policy, old, new, durations(world))
    timeout = policy.timeout_seconds or world.settings.default_execution_timeout_seconds
    alarms = guardrails.alarm_names(deployment_config)
    deployment = Deployment(config, fleet, policy, plan, world.now, world.now + timeout, alarms)
    if world.settings.ignore_alarms_firing_at_start:
        deployment.ignored_alarms = set(world.alarms.firing(endpoint.region.name, alarms))
    endpoint.activity = deployment
    endpoint.failure_reason = None
    world.touch(endpoint, "Updating")
    _enter(world, endpoint, deployment, 0)
    world.timeline.plan(deployment.deadline, lambda: _deadline(world, endpoint, deployment))


def _enter(world: World, endpoint: Endpoint, deployment: Deployment, index: int) -> None:
    deployment.index = index
    deployment.entered = world.now
    if not deployment.going_back and deployment.stage.watched and (firing := _tripped(world, endpoint, deployment)):
        _turn_back(world, endpoint, deployment, _alarm_reason(firing))
        return
    world.after(endpoint, deployment.stage.seconds, lambda: _stage_over(world, endpoint, deployment))


def _stage_over(world: World, endpoint: Endpoint, deployment: Deployment) -> None:
    stage = deployment.stage
    if not deployment.going_back:
        if stage.kind is StageKind.CREATE and _fleet_fails(world, endpoint, deployment):
            return
        over_at = deployment.entered + stage.seconds
        if stage.kind is StageKind.BAKE and deployment.alarms and not world.alarms.fresh_at(over_at):
            deployment.awaits_reading = True
            return
    deployment.awaits_reading = False
    if deployment.index + 1 < len(deployment.plan):
        _enter(world, endpoint, deployment, deployment.index + 1)
    elif deployment.going_back:
        _returned(world, endpoint, deployment)
    else:
        _succeeded(world, endpoint, deployment)


def _fleet_fails(world: World, endpoint: Endpoint, deployment: Deployment) -> bool:
    if world.faults.strike(FaultKind.SILENT_ROLLBACK, target=endpoint.name):
        _turn_back(world, endpoint, deployment, "")
        return True
    later_batch = any(capacity.active for capacity in deployment.stage.new.values())
    only_batch = sum(stage.kind is StageKind.CREATE for stage in deployment.plan) == 1
    if (
        isinstance(deployment.policy, Rolling)
        and (later_batch or only_batch)
        and (fault := world.faults.strike(FaultKind.UPDATE_ROLLBACK_FAILED, target=endpoint.name))
    ):
        deployment.back_fails = True
        reason = fault.parameters.get("reason", "Failed to update the endpoint, and failed to roll it back.")
        _turn_back(world, endpoint, deployment, str(reason))
        return True
    failure = failures.strike(world, endpoint.name, deployment.variants, *failures.FLEET_FAILURES)
    if failure is None:
        return False
    _turn_back(world, endpoint, deployment, failure)
    return True


def _standing(deployment: Deployment) -> Standing:
    """Both fleets as they stand when a stage is broken off: launched instances are there, doomed ones are gone."""
    stage = deployment.stage
    old, new = dict(stage.old), dict(stage.new)
    for name, amount in stage.amounts.items():
        if stage.kind is StageKind.CREATE:
            new[name] = replace(new[name], up=new[name].up + amount)
        elif stage.kind is StageKind.CLEAN:
            old[name] = Capacity(old[name].up - amount, old[name].active)
    return Standing(old, new)


def _turn_back(world: World, endpoint: Endpoint, deployment: Deployment, cause: str) -> None:
    standing = _standing(deployment)
    if isinstance(deployment.policy, Rolling):
        (name,) = deployment.variants
        whole = endpoint.variants[name].current_count
        plan = rolling.way_back(deployment.policy, name, whole, standing, durations(world))
        if deployment.back_fails:
            plan = plan[:1]
    else:
        plan = blue_green.way_back(standing, durations(world))
    deployment.plan = plan
    deployment.going_back = True
    deployment.awaits_reading = False
    deployment.cause = cause
    _enter(world, endpoint, deployment, 0)


def _returned(world: World, endpoint: Endpoint, deployment: Deployment) -> None:
    stage = deployment.stage
    endpoint.activity = None
    endpoint.failure_reason = deployment.cause or None
    if not deployment.back_fails:
        world.touch(endpoint, "UpdateRollbackFailed" if endpoint.leftover else "InService")
        return
    for name, variant in endpoint.variants.items():
        variant.current_count = stage.old[name].active
    endpoint.leftover = {name: variant for name, variant in deployment.variants.items() if stage.new[name].active}
    for name, variant in endpoint.leftover.items():
        variant.current_count = stage.new[name].active
    endpoint.leftover_config = deployment.config
    world.touch(endpoint, "UpdateRollbackFailed")


def _succeeded(world: World, endpoint: Endpoint, deployment: Deployment) -> None:
    for variant in deployment.variants.values():
        variant.current_count = variant.desired_count
        variant.current_weight = variant.desired_weight
    endpoint.variants = deployment.variants
    endpoint.leftover, endpoint.leftover_config = {}, None
    endpoint.config = deployment.config
    endpoint.activity = None
    world.touch(endpoint, "InService")


def _tripped(world: World, endpoint: Endpoint, deployment: Deployment) -> list[str]:
    firing = world.alarms.firing(endpoint.region.name, deployment.alarms)
    deployment.ignored_alarms &= set(firing)
    return [name for name in firing if name not in deployment.ignored_alarms]


def _alarm_reason(firing: list[str]) -> str:
    return f"The endpoint update was rolled back because these CloudWatch alarms are in ALARM: {', '.join(firing)}."


def _deadline(world: World, endpoint: Endpoint, deployment: Deployment) -> None:
    if endpoint.activity is not deployment or deployment.going_back:
        return
    if deployment.index == len(deployment.plan) - 1:
        return  # the last old instances are going already: there is nothing to go back to
    _turn_back(
        world,
        endpoint,
        deployment,
        "The endpoint update did not complete within MaximumExecutionTimeoutInSeconds and was rolled back.",
    )


def overdue(world: World, endpoint: Endpoint) -> None:
    """The deadline of the deployment under way is now; raises ValueError if there is none."""
    if not isinstance(endpoint.activity, Deployment):
        raise ValueError(f"endpoint {endpoint.name}: no deployment is under way")
    endpoint.activity.deadline = world.now
    _deadline(world, endpoint, endpoint.activity)


def alarms_changed(world: World) -> None:
    """Looks at every deployment whose alarms may have changed or whose bake waited for this reading."""
    for endpoint, deployment in under_way(world):
        if deployment.going_back or not deployment.alarms:
            continue
        firing = _tripped(world, endpoint, deployment)
        if firing and deployment.stage.watched:
            _turn_back(world, endpoint, deployment, _alarm_reason(firing))
        elif deployment.awaits_reading:
            _stage_over(world, endpoint, deployment)


def under_way(world: World) -> list[tuple[Endpoint, Deployment]]:
    """Every deployment that runs."""
    return [
        (endpoint, endpoint.activity)
        for region in world.regions.values()
        for endpoint in region.endpoints.values()
        if isinstance(endpoint.activity, Deployment)
    ]


def watched_alarms(world: World) -> dict[str, set[str]]:
    """The names of all alarms some deployment depends on now, by region."""
    watched: dict[str, set[str]] = {}
    for endpoint, deployment in under_way(world):
        if deployment.alarms:
            watched.setdefault(endpoint.region.name, set()).update(deployment.alarms)
    return watched


def traffic(endpoint: Endpoint) -> list[tuple[Variant, str, float, Side]]:
    """Who answers: each production variant of each fleet with its config's name and its share of the traffic."""
    activity = endpoint.activity
    rows: list[tuple[Variant, str, float, Side]] = []
    if isinstance(activity, Deployment):
        stage = activity.stage
        for fleet, capacities, config, side in (
            (endpoint.variants, stage.old, endpoint.config, Side.OLD),
            (activity.variants, stage.new, activity.config, Side.NEW),
        ):
            for name, variant in fleet.items():
                both = (stage.old.get(name), stage.new.get(name))
                active = sum(one.active for one in both if one)
                mine = capacities[name].active / active if active else 0.0
                rows.append((variant, config.name, variant.desired_weight * mine, side))
    else:
        total = {
            name: variant.current_count + (endpoint.leftover[name].current_count if name in endpoint.leftover else 0)
            for name, variant in endpoint.variants.items()
        }
        left = endpoint.leftover_config or endpoint.config
        for fleet, named, side in ((endpoint.variants, endpoint.config, Side.OLD), (endpoint.leftover, left, Side.NEW)):
            for name, variant in fleet.items():
                share = variant.current_count / total[name] if total.get(name) else 0.0
                rows.append((variant, named.name, variant.current_weight * share, side))
    return [row for row in rows if not row[0].shadow]
