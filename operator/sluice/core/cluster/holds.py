"""What keeps a running deployment from its next step, in this order: an alarm that fires before the first traffic, a
person's pause, the bake, the alarms' readings. A person's promote goes past all but the first."""

from datetime import timedelta

from sluice.api.reasons import Cause, Reason
from sluice.api.status import DeploymentStatus
from sluice.core.cluster import alarms, words
from sluice.core.cluster.alarms import Hold
from sluice.core.decision import EventNote
from sluice.core.endpoint.draft import Draft

LOOK_SECONDS = 60.0
"""In case an event was lost."""
READING_SECONDS = 1.1
"""From one reading of an alarm to the next where its source is read every second; a second later each where it is
not."""


def promoted(deployment: DeploymentStatus) -> bool:
    """Whether a person said to go on from the step that is under way."""
    return deployment.promoted_step is not None and deployment.promoted_step >= (deployment.step or 0)


def bake_over(d: Draft, deployment: DeploymentStatus) -> bool:
    """Whether the bake under way, if any, has lasted. One that is paused does not."""
    until = deployment.bake_until
    return until is not None and deployment.paused_since is None and d.now >= until and not promoted(deployment)


def before_next(d: Draft, deployment: DeploymentStatus) -> Hold | None:
    """What keeps the deployment from its next step; None: it may go on. Its bake, if it has one, is judged too."""
    not_before = deployment.bake_until or deployment.stage_since or d.now
    of_alarms = alarms.hold(d, deployment, not_before=not_before)
    if of_alarms is not None and of_alarms.reason is Reason.ALARM_FIRING:
        return of_alarms
    if promoted(deployment):
        return None
    if deployment.paused_since is not None:
        return Hold(Reason.PAUSED, words.paused(deployment))
    if deployment.bake_until is not None and d.now < deployment.bake_until:
        return Hold(Reason.DEPLOYING, words.baking(deployment), deployment.bake_until)
    return of_alarms


def wait(d: Draft, deployment: DeploymentStatus, held: Hold) -> None:
    """Look again when the hold may have gone. Pauses end by an edit, which wakes the Endpoint, and so does a reading
    that changes; one that only has to be newer does not, nor does the deadline."""
    d.again(LOOK_SECONDS)
    if deployment.deadline is not None:
        d.again_at(deployment.deadline)
    if held.again_at is None:
        return
    if held.reason is Reason.DEPLOYING:
        d.again_at(held.again_at)
    else:
        expected = held.again_at + timedelta(seconds=READING_SECONDS)
        d.again_at(expected if expected > d.now else d.now + timedelta(seconds=1))


def passed(d: Draft, deployment: DeploymentStatus) -> None:
    """The deployment goes on: what it goes on without is said."""
    text = alarms.without_data(d, deployment)
    if text:
        d.notes.append(EventNote("Warning", "AlarmWithoutData", text))


def at_deadline(d: Draft, deployment: DeploymentStatus, *, ready: bool) -> tuple[Cause, str]:
    """Why a deployment has not ended by its deadline. `ready`: its fleets would let it go on."""
    late = f"not finished by {deployment.deadline:%Y-%m-%d %H:%M:%S} UTC"
    held = before_next(d, deployment) if ready and deployment.stage != "Shifting" else None
    if held is not None and held.reason in {Reason.ALARMS_UNREADABLE, Reason.ALARM_FIRING}:
        cause = Cause.ALARMS_UNREADABLE if held.reason is Reason.ALARMS_UNREADABLE else Cause.ALARM
        return cause, f"{late}: {held.text}"
    return Cause.DEADLINE, f"{late}: {held.text}" if held is not None else late
