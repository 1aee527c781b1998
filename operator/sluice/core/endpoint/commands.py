"""Command annotations: each value is acted on once and acknowledged in status.

`retry` and `rollback` are answered here; `ignore-firing` where alarms are judged (deployment.py, in the cluster
core.cluster.gates and steering), and in the cluster `pause` and `promote` in core.cluster.steering."""

from collections.abc import Mapping
from typing import Any

from sluice.api import names
from sluice.api.reasons import CommandResult, Reason
from sluice.api.status import CommandAck, EndpointStatus, Latch
from sluice.core import capabilities
from sluice.core.endpoint.draft import MOVING, Draft
from sluice.core.observation import Presence
from sluice.core.revision import StoredRevision

ANNOTATIONS = {
    capabilities.RETRY: names.RETRY,
    capabilities.ROLLBACK: names.ROLLBACK,
    capabilities.PROMOTE: names.PROMOTE,
    capabilities.PAUSE: names.PAUSE,
    capabilities.IGNORE_FIRING: names.IGNORE_FIRING,
}

_SAID_AGAIN = frozenset({capabilities.ROLLBACK, capabilities.PROMOTE})
"""Commands whose value cannot be just any new one: taken away and written again, they are said again."""
_STEERS = frozenset({capabilities.PROMOTE, capabilities.PAUSE})


def unanswered(endpoint: Mapping[str, Any], status: EndpointStatus) -> dict[str, str]:
    """Commands whose value has not been acted on, by command. Queued ones count."""
    annotations = endpoint["metadata"].get("annotations") or {}
    answered = {ack.command: ack for ack in status.commands}
    found = {}
    for command, annotation in ANNOTATIONS.items():
        value = annotations.get(annotation)
        ack = answered.get(command)
        if value and (ack is None or ack.value != value[:253] or ack.result is CommandResult.QUEUED):
            found[command] = value
    return found


def acknowledge(
    d: Draft, command: str, value: str, result: CommandResult, message: str = "", reason: Reason | None = None
) -> None:
    """Note in status what became of a command; the same note twice is one."""
    before = next((ack for ack in d.status.commands if ack.command == command), None)
    value = value[:253]
    if before is not None and (before.value, before.result) == (value, result):
        return
    ack = CommandAck(command=command, value=value, result=result, reason=reason, message=message[:512], time=d.now)
    d.set(commands=(*(a for a in d.status.commands if a.command != command), ack))


def said_now(d: Draft, command: str) -> bool:
    """Whether this pass has acted on a command."""
    return any(ack.command == command and ack.time == d.now for ack in d.status.commands)


def remember_all(d: Draft) -> None:
    """Take all present commands as answered: for a status that was lost, which says nothing of what was done."""
    for command, value in unanswered(d.given.endpoint, d.status).items():
        acknowledge(d, command, value, CommandResult.DONE, "seen when the status was recovered; not repeated")


def answer(d: Draft) -> StoredRevision | None:
    """Act on retry and rollback, refuse what SageMaker has no way to do, queue what must wait.

    Returns the stored revision that a person wants back now."""
    wanted: StoredRevision | None = None
    under_way = d.status.intent is not None and d.status.intent.accepted is not None
    annotations = d.metadata.get("annotations") or {}
    gone = {command for command in _SAID_AGAIN if not annotations.get(ANNOTATIONS[command])}
    d.set(commands=tuple(ack for ack in d.status.commands if ack.command not in gone))
    situation = "moving" if d.status.endpoint_status in MOVING or under_way else "settled"
    for command, value in unanswered(d.given.endpoint, d.status).items():
        result = capabilities.outcome(str(d.spec["backend"]), command, situation)
        if command == capabilities.IGNORE_FIRING and result is not CommandResult.REFUSED:
            continue
        if d.spec["backend"] == names.BACKEND_CLUSTER and command in _STEERS:
            continue
        if result is CommandResult.REFUSED:
            message = f"SageMaker has no way to {command} a deployment"
            acknowledge(d, command, value, result, message, Reason.NOT_SUPPORTED_BY_BACKEND)
        elif result is CommandResult.QUEUED:
            message = (
                f"SageMaker cannot stop what it is doing; done when the endpoint is {d.status.endpoint_status} no more"
            )
            acknowledge(d, command, value, result, message, Reason.WAITING_FOR_SAGEMAKER)
        elif command == capabilities.RETRY:
            _retry(d, value)
        elif command == capabilities.ROLLBACK:
            wanted = _rollback(d, value)
    return wanted


def _retry(d: Draft, value: str) -> None:
    deployment, word = d.status.deployment, d.status.endpoint_status
    nothing_yet = d.status.latch is None and d.status.problem is None
    if deployment is not None and deployment.stage == "RollingBack" and word == "Updating" and nothing_yet:
        # What is on its way back is latched when it is there: said before, it would be of no use.
        text = f"revision {deployment.revision} is still being rolled back: say it when it has been"
        acknowledge(d, capabilities.RETRY, value, CommandResult.REFUSED, text)
        return
    problem = d.status.problem.model_copy(update={"next_attempt": d.now}) if d.status.problem else None
    drift = d.status.drift.model_copy(update={"stopped": None, "corrections": ()}) if d.status.drift else None
    d.set(latch=None, live_latch=None, problem=problem, drift=drift)
    acknowledge(d, capabilities.RETRY, value, CommandResult.DONE, "what was latched is tried again")


def named(value: str) -> str:
    """The revision that a rollback names. What follows a slash only tells it from the same said before."""
    return value.partition("/")[0]


def _rollback(d: Draft, value: str) -> StoredRevision | None:
    stored = d.find_stored(named(value))
    if stored is None:
        kept = ", ".join(sorted(s.name for s in d.given.stored)) or "none"
        acknowledge(
            d,
            capabilities.ROLLBACK,
            value,
            CommandResult.REFUSED,
            f"found no kept revision {named(value)}; kept are: {kept}",
        )
        return None
    serving = serves(d, stored.fleet_hash)
    # What serves is not made anew: going back to it is never refused for what the policy has become since.
    finding = d.refused(stored.revision(d.given.resolution.owner)) if not serving else None
    if finding is not None:
        acknowledge(d, capabilities.ROLLBACK, value, CommandResult.REFUSED, finding.text(), finding.reason)
        return None
    on_sagemaker = d.spec["backend"] == names.BACKEND_SAGEMAKER
    unfit = d.observation.presence is Presence.MISSING or d.status.endpoint_status in {"Failed", "OutOfService"}
    if on_sagemaker and unfit:
        word = d.status.endpoint_status or "missing"
        message = f"SageMaker updates no endpoint that is {word}; see condition Stalled"
        acknowledge(d, capabilities.ROLLBACK, value, CommandResult.REFUSED, message, Reason.NOT_SUPPORTED_BY_BACKEND)
        return None
    asked, text = d.asked_hash, f"revision {stored.name} is brought back"
    if serving:
        deploys = deploys_other(d, stored.fleet_hash)
        if asked in {None, stored.fleet_hash} and not deploys:
            message = (
                f"found {stored.name}, whose fleet serves already; counts, weights and what else changes in place are "
                f"the spec's: edit EndpointConfig {d.spec['endpointConfigName']} or its Models"
            )
            acknowledge(d, capabilities.ROLLBACK, value, CommandResult.REFUSED, message)
            return None
        if on_sagemaker or not deploys:  # in the cluster what is deployed is under way, and turns back
            text = "its fleet serves already, and no other is deployed"
    if asked == stored.fleet_hash:
        d.set(latch=None)
    elif asked is not None:
        # The spec stays as it is in Git; it is not deployed again until it asks for something else or retry is said.
        # Nor is it when an object that it names is only missing now.
        d.set(
            latch=Latch(
                fleet_hash=asked,
                reason=Reason.HELD_BY_ROLLBACK,
                message=f"rolled back to {stored.name} by annotation {names.ROLLBACK}",
                time=d.now,
            )
        )
    acknowledge(d, capabilities.ROLLBACK, value, CommandResult.DONE, text)
    return stored


def serves(d: Draft, fleet_hash: str) -> bool:
    """Whether this fleet is in service as it was deployed, so that there is nothing to bring back."""
    serving, seen = d.status.revision, d.described
    if serving is None or serving.fleet_hash != fleet_hash or d.status.endpoint_status == "UpdateRollbackFailed":
        return False
    return seen is None or seen.endpoint_config_name == serving.endpoint_config_name


def deploys_other(d: Draft, fleet_hash: str) -> bool:
    """Whether the deployment of another fleet has been decided: on SageMaker, which is settled, it could not be started
    yet; in the cluster it runs."""
    return d.status.deployment is not None and d.status.deployment.fleet_hash != fleet_hash
