"""Rolling deployments in the cluster: a batch of new instances, traffic for them, a bake, then as many old ones go.

Needs room for one batch only, or for none with replaceFirst (replacing.py). Goes back in batches of
rollbackMaximumBatchSize: old instances first, then traffic, then new instances go; each batch has a time budget of its
own, and what runs out of it is UpdateRollbackFailed: a mix serves, and it goes on by itself when room is there."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from sluice.api import names
from sluice.api.reasons import CommandResult, Reason
from sluice.api.status import DeploymentStatus, PlanStep
from sluice.core import capabilities
from sluice.core.cluster import (
    batches,
    deploy,
    fleets,
    instances,
    keeping,
    plans,
    replacing,
    returning,
    routers,
    sides,
    starting,
    summaries,
)
from sluice.core.cluster.actions import ScaleFleet
from sluice.core.cluster.routing import Side, Split
from sluice.core.endpoint.commands import acknowledge, said_now
from sluice.core.endpoint.draft import Draft

FAILED: Final = "UpdateRollbackFailed"


def go_on(d: Draft, blue: Side) -> None:
    """One pass of a running rolling deployment."""
    deployment = d.status.deployment
    if deployment is None:
        return
    green = sides.deployed(d, deployment)
    subject = d.subject(deployment.revision)
    if subject is not None and deployment.stage != "RollingBack":
        keeping.store(d, subject)
    if deployment.stage in {"CleaningUp"} or (green is None and deployment.stage != "RollingBack"):
        deploy.go_on(d, blue)
        return
    if deployment.stage == "RollingBack":
        _take_retry(d, green, deployment)
        deployment = d.status.deployment or deployment
    if deployment.stage == "RollingBack":
        _back(d, blue, green, deployment)
        return
    assert green is not None  # noqa: S101 - judged above
    trigger = deploy.trigger(d, deployment, _wanted(d, green, _target(deployment)))
    if trigger is not None:
        deploy.begin_back(d, *trigger)
        _back(d, blue, green, d.status.deployment or deployment)
        return
    _forward(d, blue, green, deployment)


def turn_back(d: Draft, blue: Side, cause: Any, message: str) -> None:
    """A person wants it back. Where its rollback has failed for want of room: back to what stands, at once."""
    deployment = d.status.deployment
    if deployment is None or deployment.stage == "CleaningUp":
        return
    if deployment.stage != "RollingBack":
        deploy.begin_back(d, cause, message)
    elif d.status.endpoint_status == FAILED:
        _be_content(d, blue, deployment)


# The ways out of a rollback that has failed ---------------------------------------------------------------------


def _be_content(d: Draft, blue: Side, deployment: DeploymentStatus) -> None:
    """All traffic to the old pods that are ready, however few: what is brought back is what stands."""
    standing = {
        str(fleet.variant["variantName"]): here.ready
        for fleet in fleets.wanted(_name(d), blue, {})
        if (here := keeping.seen(d).fleet(fleet.name)) is not None and not fleet.shadow
    }
    planned = instances.planned(deployment, new=False)
    if not all(standing.get(name) for name, count in planned.items() if count):
        text = f"no pod of {blue.revision} is ready in one of its variants"
        acknowledge(d, capabilities.ROLLBACK, d.annotation(names.ROLLBACK), CommandResult.REFUSED, text)
        return
    old = {name: min(count, standing.get(name, 0)) for name, count in planned.items()}
    new = instances.planned(deployment, new=True)
    grown = tuple(count for count in deployment.grown if count.new)
    d.set_deployment(before=instances.at_start(old, new), grown=grown, stage_since=d.now)
    d.set(endpoint_status="Updating")


def _take_retry(d: Draft, green: Side | None, deployment: DeploymentStatus) -> None:
    """Retry after a failed rollback: where the spec asks for the very revision that was going back, it is deployed on
    from the mix, without alarms; else the rollback's time begins anew."""
    if d.status.endpoint_status != FAILED or not said_now(d, capabilities.RETRY):
        return
    d.set(endpoint_status="Updating", failure_reason=None)
    d.set_deployment(stage_since=d.now)
    if green is None or d.desired is None or d.desired.fleet_hash != deployment.fleet_hash:
        return
    if deployment.replace_first and len(deployment.plan) < 2:
        return  # recovered without its batches: forward all old instances would go at once; it starts anew when back
    if deployment.replace_first:
        target = _back_target(d, deployment, deployment.traffic_percent or 0.0)
        summaries.confirmed(d, replacing.brought(d, green, deployment, target))
        deployment = d.status.deployment or deployment
    done = [step for step in deployment.plan if step.traffic_percent <= (deployment.traffic_percent or 0.0)]
    left = deployment.plan[len(done) :]
    waits = sum(step.wait_seconds for step in left)
    budget = fleets.budget(_wanted(d, green, deployment.plan[-1])) * max(1, len(left))
    d.set_deployment(
        stage="Provisioning" if len(done) < len(deployment.plan) else "Shifting",
        step=len(done),
        step_text=f"{len(done)}/{len(deployment.plan)}",
        deadline=d.now + budget + timedelta(seconds=waits + starting.SLACK_SECONDS),
        alarms=(),
        cause=None,
        message=None,
    )


# Forward --------------------------------------------------------------------------------------------------------


def _target(deployment: DeploymentStatus) -> PlanStep:
    """The step that is being worked on: in Provisioning the next one."""
    step = deployment.step or 0
    index = step if deployment.stage == "Provisioning" else step - 1
    return deployment.plan[min(index, len(deployment.plan) - 1)]


def _forward(d: Draft, blue: Side, green: Side, deployment: DeploymentStatus) -> None:
    target, provisioning = _target(deployment), deployment.stage == "Provisioning"
    wanted = _wanted(d, green, target)
    if provisioning and deployment.replace_first:
        standing, percent = replacing.forward(d, blue, wanted, green, deployment, target)
    else:
        standing = wanted
        percent = deployment.traffic_percent or 0.0 if provisioning else target.traffic_percent
    split = _split(d, blue, green, percent)
    old = _standing(d, blue) if split.serving is blue else ()
    progress = keeping.keep(d, split, (*standing, *old))
    free = progress.done
    if deployment.replace_first:
        free = free and not instances.short(d, standing, 100.0) and (percent < 100.0 or _let_go_of(d, blue))
    _hold(d, blue, standing, deployment, free=free)
    summaries.pending(d, wanted)
    if provisioning:
        lacking = standing is not wanted or instances.short(d, wanted, 100.0)
        if progress.done and not lacking:
            if deploy.may_go_on(d, deployment):
                _shift(d, blue, green)
            return
        d.again(keeping.WAIT_SECONDS)
        blocked = fleets.trouble(keeping.seen(d), wanted)
        text = deploy.not_there(d, wanted, progress)
        first = standing is not wanted and not blocked
        deploy.say(d, f"the instances that the batch replaces go first; {text}" if first else text, progress.rejected)
    elif deployment.stage == "Shifting":
        if progress.done:
            deploy.bake(d)
        else:
            deploy.say(d, f"waiting for {progress.waiting_for}", progress.rejected)
    elif not deploy.may_go_on(d, deployment):
        return
    elif not progress.done:
        deploy.say(d, f"waiting for {progress.waiting_for}", progress.rejected)
    elif lacking := instances.short(d, wanted, 100.0):
        d.again(keeping.WAIT_SECONDS)
        starting = fleets.starting(keeping.seen(d), lacking)
        deploy.say(d, f"old instances go when the new ones that answer for them are there: {starting}")
    elif (deployment.step or 0) < len(deployment.plan):
        _next_batch(d, blue, deployment)
    else:
        deploy.promote(d, green, deployment)


def _hold(
    d: Draft, blue: Side, standing: tuple[fleets.Wanted, ...], deployment: DeploymentStatus, *, free: bool
) -> None:
    """Both fleets have what their parts of the traffic need. `free`: traffic has left the old batch that goes, and who
    has it now is there."""
    provisioning = deployment.stage == "Provisioning"
    new = {str(fleet.variant["variantName"]): fleet.count for fleet in standing}
    grown = {count.variant_name: count.count for count in deployment.grown if count.new}
    instances.hold(d, standing, {name: max(count, grown.get(name, 0)) for name, count in new.items()}, new=True)
    step, whole = deployment.step or 0, instances.whole(deployment, new=False)
    replaces = provisioning and deployment.replace_first
    gone = step - 1 if not provisioning and not deployment.replace_first else step
    going = free or replacing.none_beyond(d, blue, batches.left(deployment, step + 1, whole)) if replaces else False
    gone += 1 if going else 0
    left, moved = batches.left(deployment, gone, whole), deployment.plan[gone - 1].traffic_percent if gone else 0.0
    if replaces and not going:  # deployed on after a rollback that failed, it may be between two steps
        moved = deployment.traffic_percent or 0.0
        left = replacing.old_at(deployment, moved)
    shrink = provisioning and free
    instances.hold(d, _standing(d, blue), left, new=False, share=1.0 - moved / 100.0, shrink=shrink)


def _shift(d: Draft, blue: Side, green: Side) -> None:
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101 - the caller has one
    step = (deployment.step or 0) + 1
    share = deployment.plan[step - 1].traffic_percent
    deploy.shift(d, step)
    d.again(1.0)  # the routes may be as the step wants them already
    keeping.route(d, _split(d, blue, green, share))
    deploy.say(d, f"moving {share:g}% of the traffic")


def _next_batch(d: Draft, blue: Side, deployment: DeploymentStatus) -> None:
    """The batch has baked: the old instances that it replaces go, the next new ones come."""
    left = batches.left(deployment, deployment.step or 0, instances.whole(deployment, new=False))
    for fleet in _standing(d, blue):
        here, name = keeping.seen(d).fleet(fleet.name), str(fleet.variant["variantName"])
        if here is not None and not fleet.shadow and here.replicas > left.get(name, here.replicas):
            d.act(ScaleFleet(fleet.name, left[name]))
    d.set_deployment(stage="Provisioning", stage_since=d.now, bake_until=None)
    d.again(1.0)
    deploy.say(d, f"batch {(deployment.step or 0) + 1} of {len(deployment.plan)}")


# Back -----------------------------------------------------------------------------------------------------------


def _back(d: Draft, blue: Side, green: Side | None, deployment: DeploymentStatus) -> None:
    """One batch at a time: old instances, then traffic, then new instances go. Where the new fleets answer nothing any
    more, all traffic goes to what stands at once."""
    seen = keeping.seen(d)
    percent = _percent(d, blue, green, deployment)
    planned, replaces = instances.planned(deployment, new=False), bool(deployment.replace_first)
    dead = green is None or _answers_nothing(d, blue, green, percent)
    if green is not None:
        summaries.pending(d, _wanted(d, green, _target(deployment)))
    target = 0.0 if dead else _back_target(d, deployment, percent)
    move = (replacing.back if replaces else _next_back)(d, blue, green, deployment, percent, target, dead=dead)
    held = fleets.wanted(_name(d), blue, batches.remaining(planned, target / 100.0))
    # The old fleets are named also while the new ones have all requests: how their pods answer the sample invocation,
    # without which none of them counts, routers tell of what their routes name.
    split = Split(blue, green if move.percent else None, move.percent, fleets.strangers(seen))
    standing = held if green is None or not move.percent else (*held, *fleets.wanted(_name(d), green, move.new))
    progress = keeping.keep(d, split, standing, rolling_back=True)
    instances.hold(d, held, move.old, new=False, share=1.0 - target / 100.0, room=move.room)
    if green is not None and progress.done:
        if percent == move.percent > (deployment.traffic_percent or 0.0):
            summaries.confirmed(d, percent)
        _let_go(d, green, move.new)
    if move.arrived and progress.done and move.percent > 0.0:
        _batch_is_back(d, move.percent)
        return
    if move.arrived and move.percent == 0.0:
        deploy.finish_back(d, held, progress, deployment)
        return
    _wait(d, held, progress, deployment)


def _back_target(d: Draft, deployment: DeploymentStatus, percent: float) -> float:
    """The percent of the traffic that is left when the next batch is back."""
    policy = plans.policy_of(d.status.last_deployment_config or d.spec.get("deploymentConfig"))
    planned = instances.planned(deployment, new=False)
    return batches.back_percent(policy, percent, planned, replace_first=bool(deployment.replace_first))


def _answers_nothing(d: Draft, blue: Side, green: Side, percent: float) -> bool:
    """Whether the new fleets answer nothing: no pod is ready, or while an old one is, none passes the sample
    invocation. Once the routes have let go of them for that, and old pods answer, they stay so: routers tell no more
    how they do, and a share that came back would rise and fall with a pod that crashes again and again."""
    seen, new = keeping.seen(d), fleets.wanted(_name(d), green, {})
    old = any((here := seen.fleet(fleet.name)) is not None and here.ready for fleet in _standing(d, blue))
    if old and percent > 0.0 and seen.route is not None:
        names = {fleet.name for fleet in new}
        if not any(fleet.weight for fleet in seen.route.spec.fleets if fleet.name in names):
            return True

    def answers(fleet: fleets.Wanted) -> bool:
        here = seen.fleet(fleet.name)
        if here is None or not here.ready:
            return False
        return not (old and fleet.sample and routers.sees_none(seen, fleet.name))

    return not any(map(answers, new))


def _percent(d: Draft, blue: Side, green: Side | None, deployment: DeploymentStatus) -> float:
    """The percent of the traffic that there is to bring back: what was confirmed, as what else a step was moving goes
    back at once. It stays, too, while old instances that would answer it are not ready and the new ones do answer."""
    confirmed = deployment.traffic_percent or 0.0
    if (deployment.replace_first and confirmed) or not returning.is_answered(d, green, deployment):
        return confirmed  # replacing.back keeps what the routes give once there is something to bring back
    needed = batches.remaining(instances.planned(deployment, new=False), confirmed / 100.0)
    old = (fleet for fleet in fleets.wanted(_name(d), blue, needed) if not fleet.shadow)
    if all(fleets.ready(keeping.seen(d), fleet, fleet.count) for fleet in old):
        return confirmed
    return returning.moved_percent(d, green, deployment)


def _next_back(
    d: Draft, blue: Side, green: Side | None, deployment: DeploymentStatus, percent: float, target: float, *, dead: bool
) -> replacing.Back:
    """With room for a batch: what a step had brought before it turned back goes first, then the old ones come."""
    if green is not None:  # added in the moment in which it turned back, too, it has its part of the traffic
        instances.note_added(d, fleets.wanted(_name(d), green, {}), instances.whole(deployment, new=True), new=True)
        deployment = d.status.deployment or deployment
    planned, whole = instances.planned(deployment, new=False), instances.whole(deployment, new=False)
    final = instances.whole(deployment, new=True)
    needed, wished = (batches.remaining(counts, target / 100.0) for counts in (planned, whole))
    if dead or percent == 0.0:
        return replacing.Back(0.0, wished, dict.fromkeys(final, 0), arrived=True)
    used = batches.remaining(final, 1.0 - percent / 100.0)
    if green is not None and not replacing.none_beyond(d, green, used, pods=False):
        return replacing.Back(percent, batches.remaining(whole, percent / 100.0), used, arrived=False)
    wanted = fleets.wanted(_name(d), blue, needed)
    roomy = all(fleets.ready(keeping.seen(d), fleet, fleet.count) for fleet in wanted if not fleet.shadow)
    if not roomy:
        return replacing.Back(percent, wished, used, arrived=False)
    return replacing.Back(target, wished, batches.remaining(final, 1.0 - target / 100.0), arrived=True)


def _let_go(d: Draft, green: Side, counts: Mapping[str, int]) -> None:
    """New instances go that no traffic of theirs is left for."""
    for fleet in fleets.wanted(_name(d), green, counts):
        here = keeping.seen(d).fleet(fleet.name)
        if here is None or here.deleting or fleet.shadow or here.replicas <= fleet.count:
            continue
        if fleet.count or _let_go_of(d, green):
            d.act(ScaleFleet(fleet.name, fleet.count))
            d.again(1.0)


def _let_go_of(d: Draft, side: Side) -> bool:
    """Whether nobody sends to these fleets any more: before that no fleet loses its last pod."""
    gone = routers.destroy(keeping.seen(d), (fleet.name for fleet in fleets.wanted(_name(d), side, {})), d.now)
    if not gone.done:
        keeping.evict(d, rolling_back=True)
    return gone.done


def _batch_is_back(d: Draft, share: float) -> None:
    """Traffic for one batch has moved back."""
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101 - the caller has one
    d.set_deployment(stage_since=d.now)
    summaries.confirmed(d, share)
    d.set(endpoint_status="Updating")
    d.again(1.0)
    d.reconciling(
        Reason.ROLLING_BACK, f"Revision {deployment.revision} is rolled back: {share:g}% of the traffic left."
    )


def _wait(d: Draft, held: tuple[fleets.Wanted, ...], progress: routers.Progress, deployment: DeploymentStatus) -> None:
    seen = keeping.seen(d)
    d.again(keeping.WAIT_SECONDS)
    blocked = fleets.trouble(seen, held)
    ready = all(fleets.ready(seen, fleet, fleet.count) for fleet in held if not fleet.shadow)
    text = f"waiting for {progress.waiting_for}" if ready else fleets.starting(seen, held)
    text = fleets.words(*blocked) if blocked and not ready else text
    since = deployment.stage_since or d.now
    serving = d.status.revision.name if d.status.revision is not None else "?"
    if d.now >= since + fleets.budget(held):
        d.set(endpoint_status=FAILED, failure_reason=text[:1024])
        d.stalled(
            Reason.UPDATE_ROLLBACK_FAILED,
            f"Revision {deployment.revision} failed ({deployment.message}) and its rollback does not come forward: "
            f"{text}. A mix of revisions serves; the rollback goes on by itself when there is room. To go back with "
            f"what stands, annotate {names.ROLLBACK}: {serving}; to deploy {deployment.revision} on without alarms, "
            f"let the spec ask for it and annotate {names.RETRY}.",
        )
        return
    deploy.say_back(d, deployment, text, progress.rejected)


# Shared ---------------------------------------------------------------------------------------------------------


def _wanted(d: Draft, green: Side, step: PlanStep) -> tuple[fleets.Wanted, ...]:
    return fleets.wanted(_name(d), green, batches.new_of(step))


def _standing(d: Draft, blue: Side) -> tuple[fleets.Wanted, ...]:
    return fleets.wanted(_name(d), blue, sides.counts(d.status.production_variants))


def _split(d: Draft, blue: Side, green: Side | None, percent: float) -> Split:
    deployment, strangers = d.status.deployment, fleets.strangers(keeping.seen(d))
    if green is not None and percent >= 100.0 and deployment is not None and deployment.replace_first:
        return Split(green, excluded=strangers)  # the last old instances go next: routers must have forgotten them
    return Split(blue, green, percent, strangers)


def _name(d: Draft) -> str:
    return str(d.metadata["name"])
