"""The decision about one Endpoint, top to bottom. Pure: no clock, no I/O, no framework.

facts       what was observed goes into the status; a call that was under way is resolved
admission   may this Endpoint act at all: spec, permission, place, name, ownership
plan        by SageMaker's own status: wait, create, deploy, weights, tags, drift, collection
"""

from collections.abc import Mapping
from typing import Any

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.core.actions import PatchEndpoint
from sluice.core.cluster.decide import decide_cluster
from sluice.core.decision import Decision
from sluice.core.endpoint import (
    bookkeeping,
    commands,
    creation,
    deletion,
    deployment,
    drift,
    facts,
    freezing,
    live,
    ownership,
    placement,
    progress,
)
from sluice.core.endpoint.draft import MOVING, Draft, Pass, deletion_asked, has_finalizer
from sluice.core.identity import Place
from sluice.core.observation import Presence
from sluice.core.permission import Ask
from sluice.core.resolve import pin

__all__ = ["Pass", "ask", "decide"]

ACCOUNT_SECONDS = 300.0
"""How often an Endpoint that the policy refuses for its credentials' account asks whose they are now: nothing tells."""


def decide(given: Pass) -> Decision:
    """Decide one pass."""
    if given.endpoint["spec"]["backend"] == names.BACKEND_CLUSTER:
        return decide_cluster(given)
    d = Draft(given)
    facts.take_alarms(d)
    facts.take_problem(d)
    ownership.doubt(d)
    _look_out_for_credentials(d)
    frozen = freezing.frozen(d)
    if deletion_asked(given.endpoint):
        finding = placement.moved(d) or given.policy.judge(ask(given, account_id=given.observation.account_id))
        if finding is not None and has_finalizer(given.endpoint) and not deletion.lets_go(d):
            d.stalled(finding.reason, f"{finding.text()} (deletionPolicy: Retain lets go without a call)")
        else:
            freezing.unless_frozen(d, frozen, deletion.decide)
        return d.finish()
    if _not_admitted(d):
        return d.finish()
    if frozen and not has_finalizer(given.endpoint):
        freezing.say(d, frozen, "pin the endpoint's place")
        return d.finish()
    if _pin(d) or _unseen(d):
        return d.finish()
    if d.described is not None and ownership.establish(d, d.described):
        return d.finish()
    _follow(d)
    freezing.unless_frozen(d, frozen, _plan)
    return d.finish()


def ask(given: Pass, *, account_id: str | None) -> Ask:
    """What the administrator's policy is asked about this Endpoint."""
    return Draft(given).ask(account_id=account_id, execution_roles=given.resolution.execution_roles)


def _look_out_for_credentials(d: Draft) -> None:
    """Credentials may become another account's. Where the policy does not permit the one whose they are, nothing is
    looked at there, so that nothing wakes the Endpoint."""
    account_id = d.observation.account_id
    if account_id is not None and d.given.policy.judge(ask(d.given, account_id=account_id)) is not None:
        d.again(ACCOUNT_SECONDS)


# Admission ------------------------------------------------------------------------------------------------------


def _not_admitted(d: Draft) -> bool:
    """A finding, a missing permission, a moved place or a taken name. What serves goes on serving: facts are still
    taken from an endpoint that is known to be ours."""
    finding = placement.moved(d)
    if finding is not None:
        d.stalled(finding.reason, finding.text())
        return True
    finding = d.given.resolution.finding
    if finding is None:
        account_id = d.observation.account_id
        finding = d.given.policy.judge(ask(d.given, account_id=account_id))
    if finding is not None:
        _facts_only(d)
        d.stalled(finding.reason, finding.text())
        if facts.waiting(d) and d.status.problem and d.status.problem.next_attempt:
            d.again_at(d.status.problem.next_attempt)
        return True
    return _name_taken(d)


def _name_taken(d: Draft) -> bool:
    """Two Endpoints, one name (also in different case): the one that SageMaker knows as its owner keeps it, then the
    one that began to create it, then the one that came first."""
    if d.status.endpoint_arn is not None or d.status.intent is not None:
        return False
    tags = d.observation.tags
    if tags is not None and tags.get(names.OWNER_TAG) == str(d.given.resolution.owner):
        return False
    for rival in d.given.rivals:
        other = rival["metadata"]
        status = rival.get("status") or {}
        owns = bool(status.get("endpointArn") or status.get("intent"))
        if owns or (_contends(d, rival) and _seniority(other) < _seniority(d.metadata)):
            d.stalled(
                Reason.NAME_CONFLICT,
                f"Endpoint {other['namespace']}/{other['name']} already claims endpoint name {d.endpoint_name} in this "
                "account and region (SageMaker's names differ not by case alone); choose another spec.endpointName.",
            )
            return True
    return False


def _seniority(metadata: Mapping[str, Any]) -> tuple[str, str, str]:
    return (metadata.get("creationTimestamp", ""), metadata["namespace"], metadata["name"])


def _contends(d: Draft, rival: Mapping[str, Any]) -> bool:
    """Whether a rival could ever have the name. Its claim is an annotation, which people can write: it counts only
    as far as the rival's immutable spec says the same and the policy permits it."""
    spec, metadata, target = rival["spec"], rival["metadata"], d.given.resolution.target
    name = str(spec.get("endpointName") or metadata["name"])
    placement = spec.get("sagemaker") or {}
    if target is None or spec.get("backend") != names.BACKEND_SAGEMAKER or name.lower() != d.endpoint_name.lower():
        return False
    region = str(placement.get("region") or target.credentials.region)
    if region != target.credentials.region:
        return False
    asked = Ask(
        namespace=metadata["namespace"],
        region=region,
        endpoint_name=name,
        account_id=d.observation.account_id,
        assume_role=placement.get("assumeRoleArn"),
    )
    return d.given.policy.judge(asked) is None


def _pin(d: Draft) -> bool:
    """Before the first AWS write: the finalizer, and the place that is used for ever."""
    wants_pin = not d.annotation(names.EXTERNAL)
    if has_finalizer(d.given.endpoint) and not wants_pin:
        return False
    target, account = d.given.resolution.target, d.observation.account_id
    if target is None or account is None:
        facts.say_problem(d)
        if d.verdict is None:
            d.again(d.given.settings.look_seconds)
            d.reconciling(Reason.PENDING, "Finding out which AWS account this is.")
        return True
    place = Place(account, target.credentials.region, target.endpoint_name)
    d.act(
        PatchEndpoint(
            add_finalizer=not has_finalizer(d.given.endpoint),
            annotations={names.EXTERNAL: pin(place)} if wants_pin else {},
        )
    )
    d.again(1.0)
    d.reconciling(Reason.PENDING, f"Pinned to account {account}, region {place.region}, name {place.endpoint_name}.")
    return True


def _unseen(d: Draft) -> bool:
    """SageMaker could not be asked, or another case of the name is taken."""
    if d.observation.presence is Presence.OTHER_CASE:
        d.stalled(
            Reason.NAME_CONFLICT,
            f"An endpoint whose name differs from {d.endpoint_name} in case only exists in this account and region; "
            "choose another spec.endpointName.",
        )
        return True
    if d.observation.presence is not Presence.UNKNOWN:
        return False
    facts.say_problem(d)
    if d.verdict is None:
        d.reconciling(Reason.PENDING, "Looking at SageMaker.", keep_ready=True)
    if not facts.waiting(d):
        d.again(d.given.settings.look_seconds)
    return True


# Facts ----------------------------------------------------------------------------------------------------------


def _facts_only(d: Draft) -> None:
    if d.described is not None and d.status.endpoint_arn is not None:
        _follow(d)


def _follow(d: Draft) -> None:
    """Take what was described, and resolve the call that was under way."""
    seen = d.described
    if seen is None:
        return
    facts.take_endpoint(d, seen)
    deployment.note_refused(d)
    deployment.note_accepted(d)
    progress.follow(d, seen)
    intent = d.status.intent
    if seen.status == "InService" and intent is not None and intent.operation == "CreateEndpoint":
        creation.conclude(d, intent)
        if d.status.revision is None:
            ownership.know_serving(d, seen)
    elif seen.status in {"InService", "UpdateRollbackFailed"}:
        deployment.conclude(d)


# Plan -----------------------------------------------------------------------------------------------------------


def _plan(d: Draft) -> None:
    """By SageMaker's own status."""
    wanted_back = commands.answer(d)
    deployment.reject(d)
    word = d.status.endpoint_status
    if d.observation.presence is Presence.MISSING:
        if facts.waiting(d) and d.status.intent is not None:
            facts.say_problem(d)
        else:
            creation.missing(d)
    elif word in MOVING:
        _wait(d)
    elif word == "Failed":
        creation.failed(d)
    elif word == "OutOfService":
        d.stalled(
            Reason.OUT_OF_SERVICE, f"SageMaker took the endpoint out of service: {d.status.failure_reason or '-'}."
        )
    else:
        if wanted_back is not None and _bring_back(d, wanted_back.name):
            return
        _settled(d)


def _wait(d: Draft) -> None:
    """Something moves: say what, queue what the spec asks for meanwhile. The sweep looks every few seconds."""
    d.again(d.given.settings.fallback_seconds)
    word, running = d.status.endpoint_status, d.status.deployment
    queued = d.desired is not None and (
        (running is not None and running.fleet_hash != d.desired.fleet_hash)
        or (running is None and d.status.revision is not None and d.status.revision.fleet_hash != d.desired.fleet_hash)
    )
    if word == "SystemUpdating":
        d.reconciling(
            Reason.SYSTEM_UPDATING, "SageMaker maintains the endpoint; nothing of it changes.", keep_ready=True
        )
    elif word == "Creating":
        d.reconciling(Reason.CREATING, f"SageMaker is creating endpoint {d.endpoint_name}.")
    elif word == "Deleting":
        d.reconciling(Reason.DELETING, "SageMaker is deleting the endpoint.")
    elif word == "RollingBack":
        text = "SageMaker is rolling a weight or count change back."
        d.reconciling(Reason.ROLLING_BACK, text, keep_ready=drift.only_scales(d))
    elif queued and d.desired is not None:
        d.reconciling(
            Reason.WAITING_FOR_SAGEMAKER,
            f"SageMaker is {word}; revision {d.desired.name} starts when the endpoint has settled.",
        )
    elif running is not None:
        text = f"{running.stage}, step {running.step_text}, {running.traffic_text} of the traffic"
        d.reconciling(Reason.DEPLOYING, f"Revision {running.revision} under {running.policy}: {text}.")
    elif d.status.intent is not None:
        d.reconciling(Reason.UPDATING_VARIANTS, f"SageMaker is changing {live.describe(d.status.intent.variants)}.")
    else:
        text = "Somebody else's update is running."
        d.reconciling(Reason.ENDING_FOREIGN_UPDATE, text, keep_ready=drift.only_scales(d))


def _bring_back(d: Draft, revision_name: str) -> bool:
    revision = d.subject(revision_name)
    if revision is None:
        return False
    if commands.serves(d, revision.fleet_hash):
        if commands.deploys_other(d, revision.fleet_hash):
            d.set(intent=None, deployment=None, settle=None)  # or it would be started once it can be
        return False
    d.set(intent=None, deployment=None, settle=None)
    deployment.start(d, revision, commanded=True)
    return True


def _settled(d: Draft) -> None:
    """InService or UpdateRollbackFailed, and no call under way that has taken effect."""
    if deployment.pending(d):
        return
    held_up = facts.waiting(d) and d.status.problem is not None and d.status.problem.operation in _WRITES
    if held_up and not _tidies(d):
        facts.say_problem(d)
        return
    if deployment.plan(d):
        return
    known = d.status.revision is not None
    if known and d.status.endpoint_status == "InService" and (drift.plan(d) or live.plan(d)):
        return
    syncing = not held_up and bookkeeping.sync_tags(d)
    bookkeeping.mark_outcomes(d)
    collecting = not held_up and not syncing and bookkeeping.collect(d)
    problem, news = d.status.problem, d.observation.problem or d.observation.act_problem
    if problem is not None and problem.operation in _WRITES and not (held_up or syncing or collecting or news):
        d.set(problem=None)  # what could not be written needs it no more
    if deployment.say_latched(d):
        return
    if d.status.revision is None:
        d.stalled(Reason.DRIFTED, "The endpoint serves a configuration that Sluice did not make.")
    elif _tidies(d):
        facts.say_housekeeping(d)
    elif syncing:
        d.reconciling(Reason.UPDATING_TAGS, "Bringing tags in step.", keep_ready=True)
    elif d.status.problem is not None and d.observation.presence is not Presence.UNCHANGED:
        facts.say_problem(d)
    else:
        bookkeeping.say_ready(d)


def _tidies(d: Draft) -> bool:
    return d.status.problem is not None and d.status.problem.operation in facts.HOUSEKEEPING


_WRITES = frozenset(
    {
        "CreateModel", "CreateEndpointConfig", "CreateEndpoint", "UpdateEndpoint", "DeleteEndpoint", "AddTags",
        "DeleteTags", "DeleteModel", "DeleteEndpointConfig", "UpdateEndpointWeightsAndCapacities", "ListTags",
    }
)  # fmt: skip
