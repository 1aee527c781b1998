"""What a person says to a deployment while it runs, or before one does: pause, promote, ignore-firing.

pause          `true`, or the revision's name: holds as long as the annotation stands. Bakes stand still and no step is
               taken; alarms, health and the deadline go on rolling back. Taking the annotation away resumes the bake
               with what was left of it. A revision that a person brings back is held by its name only: a `true` that
               has stood for long must not hold up the way out.
promote        `<revision>`: all bakes that are left are skipped; `<revision>/<step>`: that step's. Goes past a pause
               and past alarms that cannot be read, never past one that fires. Said again of a revision that is deployed
               again: `<revision>//<anything>`, `<revision>/<step>/<anything>`.
ignore-firing  `<revision>`: alarms that fire before its first traffic count once they have been OK."""

from datetime import timedelta

from sluice.api import names
from sluice.api.reasons import CommandResult
from sluice.api.status import DeploymentStatus
from sluice.core import capabilities
from sluice.core.cluster import alarms
from sluice.core.endpoint.commands import acknowledge, unanswered
from sluice.core.endpoint.draft import Draft

ENDING = frozenset({"RollingBack", "CleaningUp"})
"""Stages in which nothing can be steered any more."""


def settled(d: Draft) -> None:
    """Answer what is said while nothing is deployed."""
    for command, value in unanswered(d.given.endpoint, d.status).items():
        if command == capabilities.PROMOTE:
            text = "nothing is being deployed"
            acknowledge(d, command, value, CommandResult.REFUSED, text)
        elif command == capabilities.PAUSE and value == "true":
            text = "holds the next deployment before its first traffic, as long as the annotation stands"
            acknowledge(d, command, value, CommandResult.QUEUED, text)
        elif command == capabilities.PAUSE:
            name = d.desired.name if d.desired is not None else ""
            ours = value == name
            text = (
                "holds this revision before its first traffic, as long as the annotation stands"
                if ours
                else _pause(name)
            )
            acknowledge(d, command, value, CommandResult.QUEUED if ours else CommandResult.REFUSED, text)


def steer(d: Draft) -> None:
    """Take what is said to the running deployment."""
    _after_a_clock_went_back(d)
    deployment = d.status.deployment
    if deployment is None:
        return
    alarms.remember(d)
    said = unanswered(d.given.endpoint, d.status)
    _take_pause(d, deployment, said.get(capabilities.PAUSE))
    _take_promote(d, deployment, said.get(capabilities.PROMOTE))
    _take_ignore_firing(d, deployment, said.get(capabilities.IGNORE_FIRING))


def _after_a_clock_went_back(d: Draft) -> None:
    """What is on record as begun in the future began now: else a bake would last as long as the clock went back, and
    alarms read until then would not count."""
    deployment = d.status.deployment
    if deployment is None or deployment.stage_since is None or deployment.stage_since <= d.now:
        return
    step = deployment.plan[(deployment.step or 1) - 1]
    d.set_deployment(
        stage_since=d.now,
        bake_until=d.now + timedelta(seconds=step.wait_seconds) if deployment.bake_until is not None else None,
        paused_since=min(deployment.paused_since, d.now) if deployment.paused_since is not None else None,
        traffic_since=min(deployment.traffic_since, d.now) if deployment.traffic_since is not None else None,
        alarms=tuple(
            alarm.model_copy(update={"counts_from": min(alarm.counts_from, d.now)}) if alarm.counts_from else alarm
            for alarm in deployment.alarms
        ),
    )


def _take_pause(d: Draft, deployment: DeploymentStatus, said: str | None) -> None:
    brought_back = d.asked_hash not in {None, deployment.fleet_hash}
    held = {deployment.revision} if brought_back else {"true", deployment.revision}
    wanted = d.annotation(names.PAUSE) in held and deployment.stage not in ENDING
    if said is not None and not wanted:
        text = _pause(deployment.revision)
        if said in held:
            text = f"the deployment is {deployment.stage}, nothing of it can be paused"
        elif said == "true":
            text = f"a person brings {deployment.revision} back: only its name pauses that"
        acknowledge(d, capabilities.PAUSE, said, CommandResult.REFUSED, text)
    elif wanted and (said is not None or deployment.paused_since is None):  # also one that an earlier one refused
        value = d.annotation(names.PAUSE)
        acknowledge(d, capabilities.PAUSE, value, CommandResult.DONE, f"revision {deployment.revision} is paused")
    since, until = deployment.paused_since, deployment.bake_until
    if wanted and since is None:
        d.set_deployment(paused_since=d.now)
    elif not wanted and since is not None:
        began = max(since, deployment.stage_since or since)
        d.set_deployment(paused_since=None, bake_until=until + (d.now - began) if until is not None else None)


def _pause(revision: str) -> str:
    return f"allowed is true, or the revision that is deployed: {revision or 'there is none'}"


def _take_promote(d: Draft, deployment: DeploymentStatus, said: str | None) -> None:
    if said is None:
        return
    steps, step = len(deployment.plan), deployment.step or 0
    revision, number = (*said.split("/"), "")[:2]  # what follows a second slash only tells it from the same said before
    wanted = steps if not number else int(number) if number.isdecimal() and len(number) < 10 else -1
    if revision != deployment.revision or wanted < 0:
        text = f"allowed is {deployment.revision}, which skips all bakes that are left, or {deployment.revision}/{step}"
    elif deployment.stage in ENDING:
        text = f"the deployment is {deployment.stage}"
    elif number and wanted != step:
        text = f"step {step} is under way, not {wanted}: allowed is {deployment.revision}/{step}"
    else:
        d.set_deployment(promoted_step=max(wanted, deployment.promoted_step or 0))
        text = f"goes on from step {wanted} without a bake" if number else "all bakes that are left are skipped"
        acknowledge(d, capabilities.PROMOTE, said, CommandResult.DONE, text)
        return
    acknowledge(d, capabilities.PROMOTE, said, CommandResult.REFUSED, text)


def _take_ignore_firing(d: Draft, deployment: DeploymentStatus, said: str | None) -> None:
    wanted = d.annotation(names.IGNORE_FIRING) == deployment.revision and deployment.stage not in ENDING
    ignored = alarms.ignore_firing(d) if wanted else ()
    if said is None:
        return
    if ignored:
        text = f"goes on although {', '.join(ignored)} fire; each counts once it has been OK"
        acknowledge(d, capabilities.IGNORE_FIRING, said, CommandResult.DONE, text)
    elif said != deployment.revision:
        text = f"the revision that is deployed is {deployment.revision}"
        acknowledge(d, capabilities.IGNORE_FIRING, said, CommandResult.REFUSED, text)
    elif deployment.traffic_since is not None:
        text = "an alarm that fires under traffic rolls back"
        acknowledge(d, capabilities.IGNORE_FIRING, said, CommandResult.REFUSED, text)
