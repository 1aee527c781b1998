"""An endpoint that is not there: created for the first time, anew after it failed, or taken away by somebody else."""

from datetime import timedelta
from typing import Any

from sluice.api.reasons import Cause, Outcome, Reason, reason_of
from sluice.api.status import Drift, Intent, Latch
from sluice.core import guardrails
from sluice.core.actions import CreateEndpoint, DeleteEndpoint, EnsureEndpointConfig, EnsureModel, StoreRevision
from sluice.core.endpoint import bookkeeping, facts, latches, live
from sluice.core.endpoint.draft import Draft
from sluice.core.endpoint.history import cause_of, ended
from sluice.core.requests import aws_tags, sagemaker_words
from sluice.core.resolve import spec_counts
from sluice.core.revision import Revision

UNSEEN_SECONDS = 60.0
"""How long reads may lag behind a create that the service has answered."""


def missing(d: Draft) -> None:
    """No endpoint of this name exists."""
    intent = d.status.intent
    if intent is not None and intent.operation == "CreateEndpoint":
        accepted = "CreateEndpoint" in d.observation.acted or intent.accepted is not None
        if accepted and d.now < intent.time + timedelta(seconds=UNSEEN_SECONDS):
            d.set(intent=intent.model_copy(update={"accepted": intent.accepted or d.now}))
            d.again(d.given.settings.look_seconds)
            d.reconciling(Reason.CREATING, "SageMaker took CreateEndpoint; reads do not show the endpoint yet.")
            return
    elif intent is not None:
        d.set(intent=None, deployment=None)
    served = d.status.revision
    if d.status.endpoint_status is not None:
        facts.forget_endpoint(d)
    if d.desired is None:
        d.reconciling(Reason.PENDING, "Waiting for what the spec names.")
        return
    latch = d.status.latch
    if latch is not None and served is None and latch.fleet_hash == latches.request_key(d.spec, d.desired):
        reason = reason_of(latch.reason, Reason.CREATION_FAILED)
        d.stalled(reason, f"{latch.message}; change the spec, or annotate sluice.dev/retry")
        return
    before = served.name if served is not None else intent.revision if intent is not None else None
    wanted = _not_latched(d, before, d.desired)
    unfit = guardrails.check(d.spec.get("deploymentConfig"), spec_counts(wanted.endpoint_config))
    if unfit is not None:  # CreateEndpoint takes it along, and its own counts whatever deployments keep later
        d.stalled(unfit.reason, unfit.text())
    elif served is None or _may_bring_back(d):
        create(d, wanted)


def _not_latched(d: Draft, served: str | None, desired: Revision) -> Revision:
    """What to bring back: the revision asked for, but the one that served while the other is latched."""
    if not latches.holds(d.status.latch, d.spec, desired):
        return desired
    return d.subject(served) or desired


def create(d: Draft, revision: Revision) -> None:
    """Persist the intent, then create the AWS Models, the EndpointConfig and the endpoint."""
    before = d.status.intent
    again = before is not None and before.operation == "CreateEndpoint"
    d.set(
        intent=Intent(
            operation="CreateEndpoint",
            endpoint_config_name=revision.requests.endpoint_config_name,
            revision=revision.name,
            attempt=before.attempt + 1 if again and before is not None else 1,
            time=d.now,
        ),
        revision=None,
        adopted=False if d.status.adopted else None,
        deployment=None,
        settle=None,
    )
    request: dict[str, Any] = {
        "EndpointName": d.endpoint_name,
        "EndpointConfigName": revision.requests.endpoint_config_name,
        "Tags": aws_tags(d.spec.get("tags"), d.given.resolution.owner),
    }
    if d.spec.get("deploymentConfig"):
        request["DeploymentConfig"] = sagemaker_words(d.spec["deploymentConfig"])
    bookkeeping.note_created_endpoint_tags(d, again=again)
    bookkeeping.created_tags(d, revision)
    d.act(*making(d, revision), CreateEndpoint(request))
    d.confirm_references = True
    d.again(d.given.settings.look_seconds)
    d.reconciling(Reason.CREATING, f"Creating endpoint {d.endpoint_name} with revision {revision.name}.")


def making(d: Draft, revision: Revision) -> tuple[StoreRevision | EnsureModel | EnsureEndpointConfig, ...]:
    """What must exist before an endpoint can be given a revision. The revision is stored first: it is the list of
    what there is to collect later."""
    number = max((stored.number for stored in d.given.stored), default=0) + 1
    return (
        StoreRevision(revision.name, revision.data(), number),
        *(EnsureModel(request) for request in revision.requests.models),
        EnsureEndpointConfig(revision.requests.endpoint_config),
    )


def conclude(d: Draft, intent: Intent) -> None:
    """CreateEndpoint has ended InService."""
    revision = d.subject(intent.revision)
    found = d.described.endpoint_config_name if d.described else None
    if revision is None or found != intent.endpoint_config_name:
        d.set(intent=None)
        return
    latch = d.status.latch
    d.set(
        intent=None,
        latch=None if latches.holds(latch, d.spec, revision) else latch,
        revision=revision.status().model_copy(update={"since": d.now}),
        production_variants=live.applied(d.status.production_variants, revision.endpoint_config, retained=False),
    )
    ended(d, revision.name, revision.fleet_hash, Outcome.SUCCEEDED, Cause.NONE, None, intent.time)


def failed(d: Draft) -> None:
    """EndpointStatus Failed: only deletion is allowed. One that never served is recreated on any change of the spec;
    one that served only when a person says so."""
    intent, latch = d.status.intent, d.status.latch
    if intent is not None and intent.operation != "DeleteEndpoint":
        reason = d.status.failure_reason or "no reason given"
        revision = d.subject(intent.revision)
        key = latches.request_key(d.spec, revision) if revision is not None else ""
        if revision is not None and (latch is None or latch.fleet_hash != key):
            d.set(latch=Latch(fleet_hash=key, reason=Reason.CREATION_FAILED, message=reason[:1200], time=d.now))
            ended(d, revision.name, revision.fleet_hash, Outcome.FAILED, cause_of(reason), reason, intent.time)
        d.set(intent=None, deployment=None)
        latch = d.status.latch
    served = d.status.revision is not None
    reason = d.status.failure_reason or "no reason given"
    if served:
        retried = _just_retried(d)
        if not retried:
            d.stalled(
                Reason.ENDPOINT_FAILED,
                f"SageMaker gave the endpoint up: {reason}. Annotate sluice.dev/retry to delete and create it again.",
            )
            return
    elif d.desired is None or latches.holds(latch, d.spec, d.desired):
        d.stalled(
            Reason.CREATION_FAILED,
            f"SageMaker could not create the endpoint: {reason}. Any change of the spec, or annotation "
            "sluice.dev/retry, creates it again.",
        )
        return
    recreate(d)


def recreate(d: Draft) -> None:
    """Delete what failed; the next pass finds nothing and creates. Persisted as an endpoint that serves nothing: what
    a person said once is then gone on with, whatever becomes of the call."""
    if facts.waiting(d):
        facts.say_problem(d)
        return
    intent = d.status.intent
    if (
        intent is not None
        and intent.accepted is not None
        and d.now < intent.accepted + timedelta(seconds=UNSEEN_SECONDS)
    ):
        d.again(d.given.settings.look_seconds)
        d.reconciling(Reason.RECREATING, "SageMaker took DeleteEndpoint; reads do not show it yet.")
        return
    d.set(
        intent=Intent(operation="DeleteEndpoint", baseline=d.status.last_modified_time, time=d.now),
        latch=None,
        revision=None,
    )
    d.act(DeleteEndpoint(d.endpoint_name))
    d.again(d.given.settings.look_seconds)
    d.reconciling(Reason.RECREATING, "Deleting the failed endpoint to create it again.")


def _just_retried(d: Draft) -> bool:
    return any(ack.command == "retry" and ack.time == d.now for ack in d.status.commands)


def _may_bring_back(d: Draft) -> bool:
    """The endpoint served and is gone: somebody deleted it. Bring it back if that is wanted."""
    drift = d.status.drift or Drift()
    text = f"endpoint {d.endpoint_name}: deleted outside"
    d.set(drift=drift.model_copy(update={"fields": (text,), "since": drift.since or d.now}))
    if _just_retried(d):
        d.set(drift=None)
        return True
    if d.spec.get("driftPolicy") != "Correct":
        d.stalled(
            Reason.DRIFTED,
            f"Somebody else deleted endpoint {d.endpoint_name}; annotate sluice.dev/retry to create it again, or set "
            "driftPolicy: Correct.",
        )
        return False
    recent = drift.corrections and d.now - drift.corrections[-1] < timedelta(hours=1)
    if drift.stopped or recent:
        d.set(drift=drift.model_copy(update={"fields": (text,), "stopped": True}))
        d.stalled(Reason.FOREIGN_OWNER, f"{text} again within an hour; annotate sluice.dev/retry to go on.")
        return False
    d.set(drift=Drift(corrections=(*drift.corrections[-4:], d.now)))
    return True
