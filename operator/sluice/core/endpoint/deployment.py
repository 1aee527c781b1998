"""Deployments on SageMaker: when one starts, what was asked, how it ended.

An update has succeeded when DescribeEndpoint names the requested EndpointConfig, never because it says InService: a
failed or rolled-back update ends InService on the old one, at times without a FailureReason."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sluice.api.reasons import Cause, CommandResult, Outcome, Reason, reason_of
from sluice.api.status import DeploymentStatus, Intent, Latch, Settle
from sluice.core import capabilities, guardrails
from sluice.core.actions import UpdateEndpoint
from sluice.core.endpoint import bookkeeping, facts, latches, live
from sluice.core.endpoint.commands import acknowledge, unanswered
from sluice.core.endpoint.creation import UNSEEN_SECONDS, making
from sluice.core.endpoint.draft import Draft
from sluice.core.endpoint.history import cause_of, ended
from sluice.core.requests import sagemaker_words
from sluice.core.resolve import keeps_counts, spec_counts
from sluice.core.revision import Revision

_LOST_WITHOUT_TRACE = 2
"""Attempts after which an update that left no trace but a moved LastModifiedTime counts as rolled back in silence."""


# How one ends ---------------------------------------------------------------------------------------------------


def conclude(d: Draft) -> None:
    """The endpoint has settled (InService or UpdateRollbackFailed): resolve the call that was under way, if any."""
    intent, seen = d.status.intent, d.described
    if intent is None or seen is None:
        return
    if intent.operation == "UpdateEndpointWeightsAndCapacities":
        if _took_effect(d, intent):
            live.conclude(d, intent)
    elif intent.operation == "UpdateEndpoint":
        _conclude_update(d, intent)
    elif intent.operation == "DeleteEndpoint" and not d.metadata.get("deletionTimestamp"):
        d.set(intent=None)


def _conclude_update(d: Draft, intent: Intent) -> None:
    seen = d.described
    if seen is None:
        return
    # SageMaker goes on showing why an earlier update ended.
    told_why = seen.failure_reason is not None and d.status.failure_reason != d.given.status.failure_reason
    if seen.status == "InService" and seen.endpoint_config_name == intent.endpoint_config_name:
        _succeeded(d, intent)
    elif seen.status == "UpdateRollbackFailed" and _took_effect(d, intent):
        _ended_badly(d, intent, Outcome.UPDATE_ROLLBACK_FAILED)
    elif (
        _took_effect(d, intent)
        and intent.attempt > 0
        and (intent.accepted is not None or told_why or intent.attempt >= _LOST_WITHOUT_TRACE)
    ):
        _ended_badly(d, intent, Outcome.ROLLED_BACK)


def _took_effect(d: Draft, intent: Intent) -> bool:
    """Whether the service acted on the call: LastModifiedTime has moved since before it."""
    moved = d.status.last_modified_time
    return moved is not None and (intent.baseline is None or moved > intent.baseline)


def _succeeded(d: Draft, intent: Intent) -> None:
    revision = d.subject(intent.revision)
    deployment = d.status.deployment
    if revision is None:
        d.set(intent=None, deployment=None)
        return
    retained = bool(deployment and deployment.retain_all_variant_properties)
    latch, before = d.status.latch, d.status.revision
    serving = revision.status().model_copy(update={"since": d.now, "endpoint_config_name": intent.endpoint_config_name})
    d.set(
        intent=None,
        deployment=None,
        settle=None,
        adopted=bookkeeping.adopted(d) or d.status.adopted,
        latch=None if latches.holds(latch, d.spec, revision) else latch,
        previous_revision=before if before is not None and before.name != serving.name else d.status.previous_revision,
        revision=serving,
        drift=_drift_after(d),
        production_variants=live.applied(d.status.production_variants, revision.endpoint_config, retained=retained),
    )
    ended(d, revision.name, revision.fleet_hash, Outcome.SUCCEEDED, Cause.NONE, None, intent.time)


def _drift_after(d: Draft) -> Any:
    drift = d.status.drift
    if drift is None or not (drift.corrections or drift.stopped):
        return None
    return drift.model_copy(update={"fields": (), "since": None})


def _ended_badly(d: Draft, intent: Intent, outcome: Outcome) -> None:
    revision = d.subject(intent.revision)
    fleet_hash = revision.fleet_hash if revision else (d.status.deployment.fleet_hash if d.status.deployment else "")
    reason = d.status.failure_reason
    cause = cause_of(reason)
    firing = [alarm.alarm_name for alarm in d.status.alarms if alarm.state == "ALARM"]
    if cause is Cause.SILENT and firing:
        cause = Cause.ALARM
    parts = [reason or "SageMaker gave no reason", f"alarms in ALARM: {', '.join(firing)}" if firing else ""]
    message = "; ".join(part for part in parts if part)
    latch = d.status.latch
    if latch is None or latch.reason != Reason.HELD_BY_ROLLBACK or latch.fleet_hash == fleet_hash:
        latch = Latch(fleet_hash=fleet_hash, reason=Reason(outcome.value), message=message[:1200], time=d.now)
    d.set(intent=None, deployment=None, settle=None, latch=latch)
    ended(d, intent.revision or "", fleet_hash, outcome, cause, message, intent.time)


def reject(d: Draft) -> None:
    """SageMaker refused the call for good (a validation error): the content is latched, the endpoint serves on."""
    intent, problem = d.status.intent, d.observation.act_problem
    if intent is None or problem is None or problem.transient or problem.reason is not Reason.REJECTED_BY_SAGEMAKER:
        return
    if intent.operation == "UpdateEndpointWeightsAndCapacities":
        d.set(intent=None, live_latch=live.latch_of(live.wanted_changes(d)))
        return
    revision = d.subject(intent.revision)
    if revision is None or intent.operation == "DeleteEndpoint":
        return
    message = f"{problem.operation}: {problem.message}"
    d.set(
        intent=None,
        deployment=None,
        settle=None,
        latch=Latch(
            fleet_hash=latches.request_key(d.spec, revision),
            reason=Reason.REJECTED_BY_SAGEMAKER,
            message=message[:1200],
            time=d.now,
        ),
    )
    ended(d, revision.name, revision.fleet_hash, Outcome.FAILED, Cause.UNKNOWN, message, intent.time)


# A call that is under way ---------------------------------------------------------------------------------------


def note_refused(d: Draft) -> None:
    """A call that was refused, or that an earlier one's failure kept from being made, has had no effect: what moves
    LastModifiedTime meanwhile is somebody else's doing. Only a lost answer leaves that open. What is counted are the
    attempts that may have had one."""
    intent, problem = d.status.intent, d.observation.act_problem
    if intent is None or problem is None or intent.accepted is not None:
        return
    lost = problem.operation == intent.operation and problem.reason is Reason.UNREACHABLE
    if not lost and intent.attempt > 0:
        d.set(intent=intent.model_copy(update={"attempt": intent.attempt - 1}))


def note_accepted(d: Draft) -> None:
    """The service was seen to have taken the call: its answer, or the endpoint in the state the call leads to."""
    intent, seen = d.status.intent, d.described
    if intent is None or intent.accepted is not None:
        return
    call = "UpdateWeightsAndCapacities" if intent.operation == live.OPERATION else intent.operation
    answered = call in d.observation.acted
    visible = seen is not None and (
        (intent.operation == "CreateEndpoint" and d.status.endpoint_arn is not None)
        or (
            intent.operation == "UpdateEndpoint"
            and seen.status == "Updating"
            and seen.pending is not None
            and seen.pending.endpoint_config_name == intent.endpoint_config_name
        )
        or (intent.operation == "DeleteEndpoint" and seen.status == "Deleting")
        or (intent.operation == live.OPERATION and seen.status == "RollingBack" and intent.attempt > 0)
    )
    if answered or visible:
        d.set(intent=intent.model_copy(update={"accepted": d.now}))


def pending(d: Draft) -> bool:
    """A call that has not taken effect yet: wait for it, make it again, or let it go. True if this decided the pass."""
    intent = d.status.intent
    if intent is None:
        return False
    if intent.accepted is not None and d.now < intent.accepted + timedelta(seconds=UNSEEN_SECONDS):
        d.again(d.given.settings.look_seconds)
        d.reconciling(_reason_of(intent), f"SageMaker took {intent.operation}; reads do not show it yet.")
        return True
    if facts.waiting(d):
        facts.say_problem(d)
        return True
    if intent.operation == live.OPERATION:
        if _mends_drift(d) and d.spec.get("driftPolicy") == "Correct":
            live.start(d, intent.variants)  # the same correction again, not a second one
            return True
        d.set(intent=None)  # judged anew from what was last written: the same call, or another
        return False
    deployment, desired = d.status.deployment, d.desired
    held = d.status.latch is not None and d.status.latch.reason == Reason.HELD_BY_ROLLBACK
    superseded = deployment is not None and desired is not None and deployment.fleet_hash != desired.fleet_hash
    mends = _mends_drift(d) and deployment is not None and _serves(d, deployment.fleet_hash)
    if deployment is None or (superseded and not held and not mends):
        d.set(intent=None, deployment=None)
        return False
    revision = desired if desired is not None and desired.fleet_hash == deployment.fleet_hash else None
    revision = revision or d.subject(intent.revision)
    if revision is None:
        d.set(intent=None, deployment=None)
        return False
    # Held and superseded: an earlier release did not note who commands.
    commanded = bool(intent.commanded) or (held and superseded)
    if not commanded and (asks_scalers(d) if mends else _held_up(d, revision)):
        update: dict[str, Any] = {"not_before": intent.not_before or d.now}
        if d.now >= intent.time + timedelta(seconds=UNSEEN_SECONDS) and not _took_effect(d, intent):
            update["attempt"] = 0  # without effect by now: what moves is not its doing
        d.set(intent=intent.model_copy(update=update))
        return True
    start(d, revision, commanded=commanded)
    return True


def _mends_drift(d: Draft) -> bool:
    return d.status.drift is not None and bool(d.status.drift.fields)


def _serves(d: Draft, fleet_hash: str) -> bool:
    return d.status.revision is not None and d.status.revision.fleet_hash == fleet_hash


def _reason_of(intent: Intent) -> Reason:
    return {
        "CreateEndpoint": Reason.CREATING,
        "UpdateEndpoint": Reason.DEPLOYING,
        "DeleteEndpoint": Reason.DELETING,
    }.get(intent.operation, Reason.UPDATING_VARIANTS)


# When one starts ------------------------------------------------------------------------------------------------


def plan(d: Draft) -> bool:
    """The revision asked for is not the one in service: start its deployment, or say what it waits for.

    True if this decided the pass."""
    desired, serving = d.desired, d.status.revision
    if desired is None or serving is None:
        return False
    broken = d.status.endpoint_status == "UpdateRollbackFailed"
    if serving.fleet_hash == desired.fleet_hash and not broken:
        d.set(settle=None)
        latch = d.status.latch
        if latch is not None and latch.fleet_hash != desired.fleet_hash:
            d.set(latch=None)  # back to what serves: what failed may be asked for again
        return False
    if latches.holds(d.status.latch, d.spec, desired):
        d.set(settle=None)
        return False
    if not (settling(d, desired) or _held_up(d, desired)):
        start(d, desired)
    return True


def _held_up(d: Draft, desired: Revision) -> bool:
    """Whether something is against calling UpdateEndpoint now, be it the first attempt or a later one; says so."""
    return asks_scalers(d) or _guarded(d, desired) or _alarms_quiet(d, desired)


def say_latched(d: Draft) -> bool:
    """The revision asked for failed, or was rolled back by a person: it stays out until something is said."""
    latch, desired = d.status.latch, d.desired
    if d.status.endpoint_status == "UpdateRollbackFailed":
        d.stalled(
            Reason.UPDATE_ROLLBACK_FAILED,
            "The update and its rollback both failed, a mix of revisions serves: "
            f"{d.status.failure_reason or 'no reason given'}. Deploy another revision (edit the spec), annotate "
            "sluice.dev/retry to deploy this one again, or "
            "sluice.dev/rollback: <revision> to go back.",
        )
        return True
    if latch is None or desired is None or not latches.holds(latch, d.spec, desired):
        return False
    if d.status.revision is not None and d.status.revision.fleet_hash == desired.fleet_hash:
        return False
    advice = "edit the spec, or annotate sluice.dev/retry"
    reason = reason_of(latch.reason, Reason.ROLLED_BACK)
    d.stalled(reason, f"Revision {desired.name} is not in service: {latch.message}. To go on, {advice}.")
    return True


def settling(d: Draft, desired: Revision) -> bool:
    """Whether a change still waits until nothing it references changes any more; says so."""
    settings, settle = d.given.settings, d.status.settle
    if settle is None or settle.content_hash != desired.content_hash or settle.since > d.now:  # the clock went back
        since = min(settle.since, d.now) if settle is not None else d.now
        until = min(
            d.now + timedelta(seconds=settings.settle_seconds),
            since + timedelta(seconds=settings.settle_limit_seconds),
        )
        retried = d.status.latch is None and any(
            ack.command == capabilities.RETRY and ack.time == d.now for ack in d.status.commands
        )
        settle = Settle(
            fleet_hash=desired.fleet_hash,
            content_hash=desired.content_hash,
            since=since,
            until=d.now if retried else max(until, d.now),
        )
        d.set(settle=settle)
    if d.now >= settle.until:
        return False
    d.again_at(settle.until)
    d.reconciling(Reason.SETTLING, f"Revision {desired.name} starts when nothing it references changes any more.")
    return True


def _guarded(d: Draft, desired: Revision) -> bool:
    config = d.spec.get("deploymentConfig")
    serving = [variant.variant_name for variant in d.status.production_variants]
    wanted = [variant["variantName"] for variant in desired.endpoint_config.get("productionVariants") or ()]
    counts = _counts_at_start(d, desired, retains=_retains(d))
    finding = guardrails.check_variants(config, serving, wanted) or guardrails.check(config, counts)
    if finding is None:
        return False
    d.stalled(finding.reason, finding.text())
    return True


def _retains(d: Draft) -> bool:
    """Whether an update that starts now keeps live counts and weights: as the spec says, else where a scaler holds a
    variant."""
    said = d.spec.get("retainAllVariantProperties")
    if said is not None:
        return bool(said)
    scaled, before = d.observation.scalable_variants, d.status.deployment
    if scaled is not None:
        return bool(scaled)
    # A person's way back waits for no answer: not known, what a scaler may have made of the counts is kept.
    known = before.retain_all_variant_properties if before is not None else None
    return True if known is None else known


def _counts_at_start(d: Draft, revision: Revision, *, retains: bool) -> dict[str, int]:
    """The instance counts that an update gives the new fleet, by variant: the spec's, or live ones that it keeps."""
    counts = spec_counts(revision.endpoint_config)
    if not keeps_counts(d.spec, retains=retains):
        return counts
    live_ones = {v.variant_name: v.desired_instance_count for v in d.status.production_variants}
    return {name: live_ones.get(name) or count for name, count in counts.items()}


def asks_scalers(d: Draft) -> bool:
    """Whether it is still to be asked which variants a scaler holds, for an update that is to start; says so."""
    if d.spec.get("retainAllVariantProperties") is not None or d.observation.scalable_variants is not None:
        return False
    d.reconciling(Reason.DEPLOYING, "Asking which variants a scaler holds.")
    if d.observation.problem is not None:
        facts.say_problem(d)
    else:
        d.again(1.0)
    return True


def _alarms_quiet(d: Draft, desired: Revision) -> bool:
    """Firing before the start holds; missing is refused; unreadable holds."""
    names = guardrails.alarm_names(d.spec.get("deploymentConfig"))
    if not names:
        return False
    read = {alarm.name: alarm for alarm in d.observation.alarms}
    d.again(d.given.settings.look_seconds)
    absent = [name for name in names if name in read and read[name].state == "Missing"]
    if absent:
        d.stalled(
            Reason.ALARM_MISSING,
            f"spec.deploymentConfig.autoRollbackConfiguration.alarms: CloudWatch knows no {', '.join(absent)}; create "
            "it, or take it out. The deployment starts by itself then.",
        )
        return True
    unread = [name for name in names if name not in read or read[name].state == "Unreadable"]
    if unread:
        why = "; ".join(f"{name}: {read[name].message}" for name in unread if name in read) or "not read yet"
        d.reconciling(Reason.ALARMS_UNREADABLE, f"Alarms cannot be read, the deployment waits ({why}).")
        return True
    firing = [name for name in names if read[name].state == "ALARM"]
    if not firing:
        return False
    asked = unanswered(d.given.endpoint, d.status).get(capabilities.IGNORE_FIRING)
    ignored = next((a for a in d.status.commands if a.command == capabilities.IGNORE_FIRING), None)
    if asked == desired.name or (ignored and (ignored.value, ignored.result) == (desired.name, CommandResult.DONE)):
        acknowledge(
            d, capabilities.IGNORE_FIRING, desired.name, CommandResult.DONE, f"started although {firing} are in ALARM"
        )
        return False
    if asked:
        acknowledge(
            d, capabilities.IGNORE_FIRING, asked, CommandResult.REFUSED, f"the revision that waits is {desired.name}"
        )
    d.reconciling(
        Reason.ALARM_FIRING,
        f"{', '.join(firing)} in ALARM before the start; revision {desired.name} starts by itself when OK, or now with "
        f"annotation sluice.dev/ignore-firing: {desired.name}.",
    )
    return True


def start(d: Draft, revision: Revision, *, commanded: bool = False) -> None:
    """Persist deployment and intent, then make the AWS objects and call UpdateEndpoint.

    commanded: a person brings a revision back; no policy and no alarms then, or the alarm that fires because of the
    bad revision would roll back the way out of it."""
    finding = d.refused(revision)
    if finding is not None:
        d.set(intent=None, deployment=None, settle=None)
        d.stalled(finding.reason, f"Revision {revision.name} may not be deployed: {finding.text()}")
        return
    before = d.status.intent
    again = before is not None and before.operation == "UpdateEndpoint" and before.revision == revision.name
    old = d.status.deployment
    # The policy and the counts are those of this attempt: one without effect before it binds nothing.
    deployment = new_deployment(d, revision, d.now, commanded=commanded)
    if again and old is not None and old.revision == revision.name:
        deployment = deployment.model_copy(update={"start_time": old.start_time})
    d.set(
        deployment=deployment,
        settle=None,
        intent=Intent(
            operation="UpdateEndpoint",
            endpoint_config_name=revision.requests.endpoint_config_name,
            revision=revision.name,
            commanded=commanded or None,
            baseline=d.status.last_modified_time,
            attempt=before.attempt + 1 if again and before is not None else 1,
            time=d.now,
        ),
    )
    bookkeeping.created_tags(d, revision)
    d.act(*making(d, revision), UpdateEndpoint(_request(d, revision, deployment, commanded=commanded)))
    d.confirm_references = not commanded
    d.again(d.given.settings.look_seconds)
    d.reconciling(Reason.DEPLOYING, f"Deploying revision {revision.name} under {deployment.policy}.")


def new_deployment(d: Draft, revision: Revision, start_time: datetime, *, commanded: bool = False) -> DeploymentStatus:
    """A deployment at its start."""
    config = None if commanded else d.spec.get("deploymentConfig")
    retain = _retains(d)
    counts = _counts_at_start(d, revision, retains=retain)
    steps = max((guardrails.step_count(config, total) for total in counts.values()), default=1)
    timeout = _timeout_seconds(config)
    return DeploymentStatus(
        revision=revision.name,
        fleet_hash=revision.fleet_hash,
        endpoint_config_name=revision.requests.endpoint_config_name,
        policy=guardrails.policy_name(config),
        stage="Provisioning",
        step=0,
        steps=steps,
        step_text=f"0/{steps}",
        traffic_percent=0.0,
        traffic_text="0%",
        start_time=start_time,
        deadline=start_time + timedelta(seconds=timeout) if timeout else None,
        retain_all_variant_properties=retain,
    )


def _timeout_seconds(config: Mapping[str, Any] | None) -> int | None:
    policy = (config or {}).get("rollingUpdatePolicy") or (config or {}).get("blueGreenUpdatePolicy") or {}
    timeout = policy.get("maximumExecutionTimeoutInSeconds")
    return int(timeout) if timeout else None


def _request(d: Draft, revision: Revision, deployment: DeploymentStatus, *, commanded: bool) -> dict[str, Any]:
    request: dict[str, Any] = {
        "EndpointName": d.endpoint_name,
        "EndpointConfigName": revision.requests.endpoint_config_name,
        "RetainAllVariantProperties": bool(deployment.retain_all_variant_properties),
    }
    excluded = d.spec.get("excludeRetainedVariantProperties")
    if excluded and deployment.retain_all_variant_properties:
        request["ExcludeRetainedVariantProperties"] = sagemaker_words(excluded)
    if commanded:
        return request
    if d.spec.get("deploymentConfig"):
        request["DeploymentConfig"] = sagemaker_words(d.spec["deploymentConfig"])
    elif d.spec.get("retainDeploymentConfig"):
        request["RetainDeploymentConfig"] = True
    return request
