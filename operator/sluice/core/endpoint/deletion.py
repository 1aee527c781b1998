"""Deleting an Endpoint: the living endpoint first, then its AWS EndpointConfigs and Models, last the finalizer.

SageMaker cannot delete what is Creating or Updating: Sluice waits and says so. deletionPolicy Retain (the default of
adopted endpoints) leaves everything in AWS as it is."""

from datetime import timedelta

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.api.status import Intent
from sluice.core.actions import Action, DeleteEndpoint, DropRevision, PatchEndpoint
from sluice.core.endpoint import bookkeeping, facts, ownership
from sluice.core.endpoint.bookkeeping import collection
from sluice.core.endpoint.creation import UNSEEN_SECONDS
from sluice.core.endpoint.draft import MOVING, Draft, has_finalizer
from sluice.core.observation import Presence


def retains(d: Draft) -> bool:
    """Whether AWS is left as it is."""
    policy = d.spec.get("deletionPolicy")
    if policy is not None:
        return bool(policy == "Retain")
    if bookkeeping.adopted(d) or d.annotation(names.ADOPT) == "true":
        return True
    # A lost status: the tag says it, and of what an earlier release adopted, what serves.
    tags = d.observation.tags or {}
    if d.status.endpoint_arn is not None or tags.get(names.OWNER_TAG) != str(d.given.resolution.owner):
        return False
    return tags.get(names.ADOPTED_TAG) == "true" or (d.described is not None and ownership.made_elsewhere(d))


def lets_go(d: Draft) -> bool:
    """Whether AWS needs no call for this Endpoint to go."""
    return retains(d) or not _pinned(d)


def decide(d: Draft) -> None:
    """One pass of an Endpoint that is being deleted."""
    if not has_finalizer(d.given.endpoint):
        return
    problem = d.status.problem
    if problem is not None and problem.operation == DropRevision.__name__ and lets_go(d) and facts.waiting(d):
        facts.say_problem(d)
        return
    if retains(d):
        d.act(*(DropRevision(stored.name) for stored in d.given.stored), PatchEndpoint(remove_finalizer=True))
        d.reconciling(Reason.DELETING, "deletionPolicy Retain: AWS keeps the endpoint.")
        return
    if not _pinned(d):
        # Nothing was ever written to AWS: the pin comes before the first write.
        d.act(*(DropRevision(stored.name) for stored in d.given.stored), PatchEndpoint(remove_finalizer=True))
        d.reconciling(Reason.DELETING, "Nothing was made in AWS.")
        return
    presence, seen = d.observation.presence, d.described
    if presence is Presence.UNKNOWN:
        _say_unknown(d)
    elif presence in {Presence.MISSING, Presence.OTHER_CASE} or (seen is not None and _is_foreign(d)):
        if _create_may_still_show(d):
            return
        _collect_all(d)
    elif seen is None:
        d.again(1.0)
        d.reconciling(Reason.DELETING, f"Looking at endpoint {d.endpoint_name}.")
    elif d.status.endpoint_arn is None and d.observation.tags is None:
        _say_unknown(d)  # whose endpoint it is must be known before it is deleted
    else:
        facts.take_endpoint(d, seen)
        _delete(d)


def _delete(d: Draft) -> None:
    word = d.status.endpoint_status
    d.again(d.given.settings.look_seconds)
    if word == "Deleting":
        d.reconciling(Reason.DELETING, "SageMaker is deleting the endpoint.")
    elif word in MOVING:
        d.reconciling(
            Reason.DELETING,
            f"Waiting for endpoint {d.endpoint_name} to leave {word}: SageMaker cannot delete it before.",
        )
    elif facts.waiting(d):
        facts.say_problem(d)
    elif just_deleted(d):
        d.reconciling(Reason.DELETING, "SageMaker took DeleteEndpoint; reads do not show it yet.")
    else:
        d.set(
            intent=Intent(operation="DeleteEndpoint", baseline=d.status.last_modified_time, time=d.now),
            deployment=None,
        )
        d.act(DeleteEndpoint(d.endpoint_name))
        d.reconciling(Reason.DELETING, f"Deleting endpoint {d.endpoint_name}.")


def just_deleted(d: Draft) -> bool:
    """Whether SageMaker took our DeleteEndpoint a moment ago, though reads do not show it yet."""
    intent = d.status.intent
    if intent is None or intent.operation != "DeleteEndpoint":
        return False
    if intent.accepted is None and "DeleteEndpoint" in d.observation.acted:
        intent = intent.model_copy(update={"accepted": d.now})
        d.set(intent=intent)
    return intent.accepted is not None and d.now < intent.accepted + timedelta(seconds=UNSEEN_SECONDS)


def _collect_all(d: Draft) -> None:
    if facts.waiting(d):
        facts.say_problem(d)
        return
    actions: list[Action] = []
    stored = sorted(d.given.stored, key=lambda s: s.number)
    for index, revision in enumerate(stored):
        actions += collection(d.given.resolution.owner, revision, stored[index + 1 :], frozenset())
    d.act(*actions, PatchEndpoint(remove_finalizer=True))
    d.again(d.given.settings.look_seconds)
    d.reconciling(Reason.DELETING, "The endpoint is gone; deleting its EndpointConfigs and Models.")


def _create_may_still_show(d: Draft) -> bool:
    """A create call of ours may have been answered while reads do not show it yet."""
    intent = d.status.intent
    if intent is None or intent.operation != "CreateEndpoint":
        return False
    age = (d.now - intent.time).total_seconds()
    if age >= 60.0:
        return False
    d.again(min(60.0 - age, d.given.settings.look_seconds))
    d.reconciling(Reason.DELETING, "Making sure that a CreateEndpoint call has left nothing behind.")
    return True


def _is_foreign(d: Draft) -> bool:
    if d.status.endpoint_arn is not None:
        return False
    tags = d.observation.tags
    return tags is not None and tags.get(names.OWNER_TAG) != str(d.given.resolution.owner)


def _say_unknown(d: Draft) -> None:
    if d.status.problem is not None:
        facts.say_problem(d)
    else:
        d.reconciling(Reason.DELETING, "Waiting to see the endpoint.")
    d.again(d.given.settings.look_seconds)


def _pinned(d: Draft) -> bool:
    """Whether something may have been written to AWS. The pin is an annotation, which people can remove."""
    status = d.status
    return bool(d.annotation(names.EXTERNAL) or status.endpoint_arn or status.intent or d.given.stored)
