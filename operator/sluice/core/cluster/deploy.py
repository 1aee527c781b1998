"""Deployments in the cluster: a new fleet beside the old one, traffic moved in confirmed steps, and back at once.

Stages: Provisioning -> (Shifting -> Baking)* -> FinalBaking -> CleaningUp; RollingBack from any of them but the last.
Sizes, rounding and waits are SageMaker's (core.guardrails). The plan is computed once, when the deployment starts.
Every wait is an absolute time in status; a bake begins only when every Ready router has confirmed its step."""

from datetime import timedelta

from sluice.api.reasons import Cause, Outcome, Reason
from sluice.api.status import DeploymentStatus, Latch
from sluice.core.cluster import (
    alarms,
    fleets,
    holds,
    instances,
    keeping,
    limits,
    returning,
    routers,
    sides,
    summaries,
    words,
)
from sluice.core.cluster.actions import ScaleFleet, WriteRoute
from sluice.core.cluster.routing import Side, Split
from sluice.core.endpoint import latches, live
from sluice.core.endpoint.draft import Draft
from sluice.core.endpoint.history import ended
from sluice.core.resolve import spec_counts, spec_weights

HELD_ANEW = timedelta(seconds=300)
"""How often the provisioning budget begins anew while fleets that are ready are held."""


# While it runs --------------------------------------------------------------------------------------------------


def go_on(d: Draft, blue: Side) -> None:
    """One pass of a running deployment."""
    deployment = d.status.deployment
    if deployment is None:
        return
    green = sides.deployed(d, deployment)
    subject = d.subject(deployment.revision)
    if subject is not None and deployment.stage != "RollingBack":
        keeping.store(d, subject)
    if deployment.stage == "RollingBack":
        _back(d, blue, deployment)
    elif deployment.stage == "CleaningUp":
        _clean(d, blue, deployment)
    elif green is None:
        _turn_back(d, blue, Cause.UNKNOWN, f"revision {deployment.revision} is stored nowhere any more")
    else:
        wanted = fleets.wanted(str(d.metadata["name"]), green, instances.planned(deployment, new=True))
        failure = trigger(d, deployment, wanted)
        if failure is not None:
            _turn_back(d, blue, *failure)
        else:
            _forward(d, blue, green, wanted)


def _forward(d: Draft, blue: Side, green: Side, wanted: tuple[fleets.Wanted, ...]) -> None:
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101 - the caller has one
    held = _standing(d, blue)
    percent = _percent_of_step(deployment)
    split = Split(blue, green, percent, fleets.strangers(keeping.seen(d)))
    progress = keeping.keep(d, split, (*wanted, *held))
    instances.hold(d, wanted, instances.whole(deployment, new=True), new=True)
    instances.hold(d, held, instances.whole(deployment, new=False), new=False)
    summaries.pending(d, wanted)
    if deployment.stage == "Provisioning":
        if progress.done and not instances.short(d, wanted, 100.0):
            if may_go_on(d, deployment):
                _next_step(d, blue, green, wanted)
            return
        d.again(keeping.WAIT_SECONDS)
        say(d, not_there(d, wanted, progress), progress.rejected)
    elif deployment.stage == "Shifting":
        if progress.done:
            bake(d)
        else:
            say(d, f"waiting for {progress.waiting_for}", progress.rejected)
    elif not may_go_on(d, deployment):
        return
    elif not progress.done:
        say(d, f"waiting for {progress.waiting_for}", progress.rejected)
    elif (deployment.step or 0) < len(deployment.plan):
        _next_step(d, blue, green, wanted)
    elif lacking := instances.short(d, wanted, 100.0):
        d.again(keeping.WAIT_SECONDS)
        say(d, f"the old fleets go when the new ones are all there: {fleets.starting(keeping.seen(d), lacking)}")
    else:
        promote(d, green, deployment)


def _next_step(d: Draft, blue: Side, green: Side, wanted: tuple[fleets.Wanted, ...]) -> None:
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101
    step = (deployment.step or 0) + 1
    share = deployment.plan[step - 1].traffic_percent
    if lacking := instances.short(d, wanted, share):
        d.again(keeping.WAIT_SECONDS)
        say(
            d,
            f"waiting for instances that {share:g}% of the traffic needs: {fleets.starting(keeping.seen(d), lacking)}",
        )
        return
    shift(d, step)
    keeping.route(d, Split(blue, green, share, fleets.strangers(keeping.seen(d))))
    say(d, f"moving {share:g}% of the traffic")


def may_go_on(d: Draft, deployment: DeploymentStatus) -> bool:
    """Whether the deployment may take its next step; says what it waits for, or what it goes on without."""
    held = holds.before_next(d, deployment)
    if held is None:
        holds.passed(d, deployment)
        return True
    holds.wait(d, deployment, held)
    if held.any_moment and deployment.bake_until is not None and deployment.message == words.baking(deployment)[:1024]:
        return False  # until when it bakes is said; for the moment that follows nothing is written
    if deployment.stage == "Provisioning" and d.now >= (deployment.stage_since or d.now) + HELD_ANEW:
        d.set_deployment(stage_since=d.now)  # the budget is for getting ready, which these fleets are
    say(d, held.text, reason=held.reason)
    return False


def shift(d: Draft, step: int) -> None:
    """Traffic moves to the share of this step (1-based); alarms count from the first on."""
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101
    d.set_deployment(
        stage="Shifting",
        stage_since=d.now,
        bake_until=None,
        step=step,
        step_text=f"{step}/{len(deployment.plan)}",
        traffic_since=deployment.traffic_since or d.now,
    )


def bake(d: Draft) -> None:
    """The step is confirmed: its bake begins."""
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101
    step = deployment.plan[(deployment.step or 1) - 1]
    last = deployment.step == len(deployment.plan)
    until = d.now + timedelta(seconds=step.wait_seconds)
    d.set_deployment(stage="FinalBaking" if last else "Baking", stage_since=d.now, bake_until=until)
    summaries.confirmed(d, step.traffic_percent)
    d.again_at(d.now if holds.promoted(deployment) else until)
    if deployment.deadline is not None:
        d.again_at(deployment.deadline)  # which a late start may have put before the bake's end
    say(d, words.baking(d.status.deployment or deployment))


def promote(d: Draft, green: Side, deployment: DeploymentStatus) -> None:
    """The final bake is over: the new revision is the one in service, the old fleets go."""
    before, revision = d.status.revision, d.subject(deployment.revision)
    assert revision is not None  # noqa: S101 - green is this revision's
    counts, weights = spec_counts(revision.endpoint_config), spec_weights(revision.endpoint_config)
    retained = bool(deployment.retain_all_variant_properties)
    old = d.status.production_variants
    d.set(
        intent=None,  # counts that were on their way to the old fleets
        previous_revision=before,
        revision=revision.status().model_copy(update={"since": d.now}),
        production_variants=tuple(
            variant.model_copy(
                update={
                    "current_weight": variant.desired_weight,
                    "variant_status": (),
                    "last_applied_count": variant.last_applied_count
                    if variant.last_applied_count is not None
                    else counts.get(variant.variant_name),
                    "last_applied_weight": variant.last_applied_weight
                    if variant.last_applied_weight is not None
                    else weights.get(variant.variant_name),
                    "retained_weight": variant.desired_weight if retained else None,
                }
            )
            for variant in deployment.pending_variants
        ),
    )
    d.set_deployment(stage="CleaningUp", stage_since=d.now, bake_until=None, old_variants=old)
    summaries.old(d)
    d.again(1.0)  # the routes may be without the old fleet already
    keeping.route(d, Split(green, excluded=fleets.strangers(keeping.seen(d))))
    say(d, "the old fleet goes")


def _clean(d: Draft, serving: Side, deployment: DeploymentStatus) -> None:
    """Every router lets go of the old fleets, then they are deleted."""
    held = _standing(d, serving)
    progress = keeping.keep(d, Split(serving, excluded=fleets.strangers(keeping.seen(d))), held)
    gone = keeping.clean_up(d, frozenset(fleet.name for fleet in held))
    summaries.old(d)
    if not progress.done or not gone.done:
        say(d, f"waiting for {gone.waiting_for or progress.waiting_for}", progress.rejected or gone.rejected)
        return
    latch = d.status.latch
    revision = d.subject(deployment.revision)
    cleared = latch is not None and revision is not None and latches.holds(latch, d.spec, revision)
    d.set(
        deployment=None,
        endpoint_status="InService",
        last_modified_time=d.now,
        latch=None if cleared else latch,
    )
    ended(d, deployment.revision, deployment.fleet_hash, Outcome.SUCCEEDED, Cause.NONE, None, deployment.start_time)
    d.again(0.0)
    same = d.desired is not None and d.desired.fleet_hash == deployment.fleet_hash
    if silent := fleets.silent(keeping.seen(d), held):
        text = fleets.starting(keeping.seen(d), silent)
        d.reconciling(Reason.PENDING, f"Revision {deployment.revision} is in service: {text}.")
    elif same and d.given.resolution.finding is None and not live.wanted_changes(d):
        d.ready(f"Revision {deployment.revision} is in service.")
    elif same:
        d.reconciling(Reason.PENDING, f"Revision {deployment.revision} is in service; what was edited since follows.")
    else:
        d.reconciling(Reason.PENDING, f"Revision {deployment.revision} is in service; the spec asks for another.")


# When it turns back ---------------------------------------------------------------------------------------------


def turn_back(d: Draft, blue: Side, cause: Cause, message: str) -> None:
    """A person wants it back."""
    if d.status.deployment is not None and d.status.deployment.stage not in {"RollingBack", "CleaningUp"}:
        _turn_back(d, blue, cause, message)


def trigger(d: Draft, deployment: DeploymentStatus, wanted: tuple[fleets.Wanted, ...]) -> tuple[Cause, str] | None:
    """What ends a deployment before its time; the first that holds."""
    seen, desired, serving = keeping.seen(d), d.desired, d.status.revision
    alarm = alarms.trigger(d, deployment, bake_over=holds.bake_over(d, deployment))
    if alarm is not None:
        return alarm
    if desired is not None and desired.fleet_hash != deployment.fleet_hash and not _held_by_person(d):
        d.confirm_references = True
        back = serving is not None and desired.fleet_hash == serving.fleet_hash
        text = "the spec asks for the revision in service again" if back else f"superseded by {desired.name}"
        return Cause.PERSON, text
    blocked = fleets.trouble(seen, wanted)
    ready = all(fleets.ready(seen, fleet, fleet.count) for fleet in wanted)
    if deployment.stage == "Provisioning":
        if blocked is not None and blocked[1].final:
            return fleets.meaning(blocked[1])[1], fleets.words(*blocked)
        since = deployment.stage_since or deployment.start_time or d.now
        if not ready and d.now >= since + fleets.budget(wanted):
            text = fleets.words(*blocked) if blocked else fleets.starting(seen, wanted)
            cause = fleets.meaning(blocked[1])[1] if blocked else Cause.HEALTH
            if deployment.replace_first and not blocked and all(fleets.ready(seen, fleet) for fleet in wanted):
                # All that were asked for are there: of the others no pod was made, so nothing is said against them.
                cause, text = Cause.CAPACITY, f"the instances that the batch replaces have not gone; {text}"
            return cause, f"not ready in time: {text}"
    if deployment.stage != "Provisioning" or deployment.step or deployment.traffic_percent:  # it has traffic
        for fleet in wanted:
            here = seen.fleet(fleet.name)
            silent = here is None or here.ready == 0 or (bool(fleet.sample) and routers.sees_none(seen, fleet.name))
            if silent and fleet.count > 0 and not fleet.shadow:
                text = fleets.words(*blocked) if blocked else f"variant {fleet.variant['variantName']}: no ready pod"
                return Cause.HEALTH, text
    if deployment.deadline is not None and d.now >= deployment.deadline:
        return holds.at_deadline(d, deployment, ready=ready)
    return None


def _held_by_person(d: Draft) -> bool:
    """Whether a person wanted another revision back although the spec asks for this one."""
    latch = d.status.latch
    return latch is not None and latch.reason == Reason.HELD_BY_ROLLBACK and latch.fleet_hash == d.asked_hash


def begin_back(d: Draft, cause: Cause, message: str) -> None:
    """The deployment goes back from now on: the latch of its stage outranks everything. Routes that could not be
    written on the way forward, or instances that could not be made, do not make the way back wait."""
    if d.status.problem is not None and d.status.problem.operation in {WriteRoute.__name__, ScaleFleet.__name__}:
        d.set(problem=None)
    d.set_deployment(stage="RollingBack", stage_since=d.now, bake_until=None, cause=cause, message=message[:1024])


def _turn_back(d: Draft, blue: Side, cause: Cause, message: str) -> None:
    begin_back(d, cause, message)
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101
    _back(d, blue, deployment)


def _back(d: Draft, blue: Side, deployment: DeploymentStatus) -> None:
    """All traffic to the revision in service, which stands at full size; when every router has let go, the new fleets
    are deleted. Where all old pods are gone and nothing is said against the new ones, traffic waits for a pod."""
    held = _standing(d, blue)
    green = sides.deployed(d, deployment)
    if green is not None:
        summaries.pending(d, fleets.wanted(str(d.metadata["name"]), green, sides.counts(deployment.pending_variants)))
    strangers = fleets.strangers(keeping.seen(d))
    lacking = returning.without_pods(d, blue, green, held, deployment)
    moved = returning.moved_percent(d, green, deployment)
    split = Split(blue, green, moved, strangers) if lacking else Split(blue, excluded=strangers)
    progress = keeping.keep(d, split, held, rolling_back=not lacking, require_ready=False)
    instances.hold(d, held, instances.whole(deployment, new=False), new=False)
    if lacking:
        d.again(keeping.WAIT_SECONDS)
        if progress.done:
            summaries.confirmed(d, moved)
        text = f"traffic stays as it is until fleets of revision {blue.revision} answer: "
        _say_back_in_time(d, held, deployment, text + fleets.starting(keeping.seen(d), lacking))
        return
    finish_back(d, held, progress, deployment)


def finish_back(
    d: Draft, held: tuple[fleets.Wanted, ...], progress: routers.Progress, deployment: DeploymentStatus
) -> None:
    """No traffic is left on the new revision once `progress` is done: its fleets go, and the deployment has ended."""
    gone = keeping.clean_up(d, frozenset(fleet.name for fleet in held), rolling_back=True)
    if progress.done:
        summaries.confirmed(d, 0.0)
    if not progress.done or not gone.done:
        rejected = progress.rejected or gone.rejected
        text = f"waiting for {progress.waiting_for or gone.waiting_for}"
        _say_back_in_time(d, held, deployment, text, rejected)
        return
    _rolled_back(d, deployment)


def _rolled_back(d: Draft, deployment: DeploymentStatus) -> None:
    cause, message = deployment.cause or Cause.UNKNOWN, deployment.message or ""
    superseded = cause is Cause.PERSON and not _held_by_person(d)
    outcome = Outcome.SUPERSEDED if superseded else Outcome.ROLLED_BACK
    images = limits.rolled_back_images(d, deployment)
    latch = d.status.latch
    if latch is not None and returning.latched_besides(d, deployment):
        text = f"revision {deployment.revision}, which a person brought back, failed: {message}"
        latch = latch.model_copy(update={"message": text[:1200]})
    elif cause not in {Cause.PERSON, Cause.UNKNOWN}:
        latch = Latch(fleet_hash=deployment.fleet_hash, reason=Reason.ROLLED_BACK, message=message[:1200], time=d.now)
    d.set(
        deployment=None,
        endpoint_status="InService",
        failure_reason=None if superseded else message[:1024] or None,
        last_modified_time=d.now,
        latch=latch,
    )
    ended(d, deployment.revision, deployment.fleet_hash, outcome, cause, message, deployment.start_time, images)
    d.again(0.0)
    d.reconciling(Reason.ROLLING_BACK, f"Revision {deployment.revision} was rolled back: {message}.")


# What is shown --------------------------------------------------------------------------------------------------


def _standing(d: Draft, side: Side) -> tuple[fleets.Wanted, ...]:
    return fleets.wanted(str(d.metadata["name"]), side, sides.counts(d.status.production_variants))


def say_back(d: Draft, deployment: DeploymentStatus, text: str, rejected: str = "") -> None:
    """What a rollback waits for. `rejected`: what a router said against its routes."""
    reason = Reason.ROUTER_NOT_CONVERGED if rejected else Reason.ROLLING_BACK
    told = f"{text}; {rejected}" if rejected else text
    d.reconciling(reason, f"Revision {deployment.revision} is rolled back ({deployment.message}): {told}.")


def _say_back_in_time(
    d: Draft, held: tuple[fleets.Wanted, ...], deployment: DeploymentStatus, text: str, rejected: str = ""
) -> None:
    """What a rollback waits for that needs no more instances: for as long as some would have to start. After that it
    has failed in SageMaker's words, and goes on all the same."""
    if d.now < (deployment.stage_since or d.now) + fleets.budget(held):
        say_back(d, deployment, text, rejected)
        return
    told = f"{text}; {rejected}" if rejected else text
    d.set(endpoint_status="UpdateRollbackFailed", failure_reason=told[:1024])
    d.stalled(
        Reason.UPDATE_ROLLBACK_FAILED,
        f"Revision {deployment.revision} failed ({deployment.message}) and its rollback does not come forward, "
        f"{deployment.traffic_text} of the traffic is not known to have left it: {told}. It goes on by itself.",
    )


def not_there(d: Draft, wanted: tuple[fleets.Wanted, ...], progress: routers.Progress) -> str:
    """What keeps new fleets from their traffic: pods, or routers that have not followed although all pods are ready."""
    seen = keeping.seen(d)
    pods = all((here := seen.fleet(fleet.name)) is not None and here.ready >= fleet.count for fleet in wanted)
    if pods and not progress.done:
        return f"waiting for {progress.waiting_for}"
    blocked = fleets.trouble(seen, wanted)
    return fleets.words(*blocked) if blocked else fleets.starting(seen, wanted)


def _percent_of_step(deployment: DeploymentStatus) -> float:
    step = deployment.step or 0
    return deployment.plan[step - 1].traffic_percent if step else 0.0


def say(d: Draft, text: str, rejected: str = "", reason: Reason = Reason.DEPLOYING) -> None:
    """What the deployment does or waits for. `rejected`: what a router said against its routes."""
    deployment = d.status.deployment
    assert deployment is not None  # noqa: S101
    d.set_deployment(message=text[:1024], pending_variants=words.told(deployment))
    stage = f"{deployment.stage}, step {deployment.step_text}, {deployment.traffic_text} of the traffic"
    subject = d.subject(deployment.revision)
    if subject is not None and (edits := live.edited_since(d, subject)):
        text += f"; {live.describe(edits)} when it has ended"
    if rejected:
        d.reconciling(Reason.ROUTER_NOT_CONVERGED, f"Revision {deployment.revision}: {stage}; {rejected}.")
    else:
        d.reconciling(reason, f"Revision {deployment.revision} under {deployment.policy}: {stage}: {text}.")
