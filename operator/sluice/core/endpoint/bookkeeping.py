"""What an endpoint at rest needs besides its revision: tags in step, outcomes noted on the stored revisions, old AWS
objects collected. Level-triggered: compared with what is stored, so a pass that was killed is simply repeated."""

from typing import Any

from sluice.api.names import ADOPTED_TAG
from sluice.api.reasons import Outcome
from sluice.api.status import AppliedTags
from sluice.core.actions import Action, DeleteEndpointConfig, DeleteModel, DropRevision, MarkRevision, SyncTags
from sluice.core.endpoint.draft import Draft
from sluice.core.hashing import digest
from sluice.core.identity import Owner
from sluice.core.requests import tag_map
from sluice.core.revision import Revision, StoredRevision

_MOST_TAGS = 50
"""That SageMaker takes on one resource."""


_BAD = frozenset({Outcome.ROLLED_BACK, Outcome.UPDATE_ROLLBACK_FAILED, Outcome.FAILED})


def adopted(d: Draft) -> bool:
    """Whether somebody else made the endpoint. Earlier releases noted it with the revision alone."""
    if d.status.adopted is not None:
        return d.status.adopted
    return any(r is not None and r.adopted for r in (d.status.revision, d.status.previous_revision))


def sync_tags(d: Draft) -> bool:
    """Bring tags in step with the spec. True if this pass sends any."""
    changed = False
    for resource, wanted in _wanted_tags(d).items():
        kind = "endpoint" if resource.startswith("endpoint/") else resource
        before = next((tags for tags in d.status.applied_tags if tags.resource == kind), None)
        mark = digest(wanted)
        if before is not None and before.digest == mark:
            continue
        made = AppliedTags(resource=kind, digest=mark, keys=tuple(sorted(wanted)))
        if f"SyncTags:{resource}:{mark}" in d.observation.acted:
            d.set(applied_tags=(*(t for t in d.status.applied_tags if t.resource != kind), made)[-64:])
            continue
        remove = tuple(sorted(set(before.keys if before else ()) - set(wanted)))
        d.act(SyncTags(resource, wanted, remove))
        changed = True
    if changed:
        d.again(d.given.settings.look_seconds)
    else:
        noted = {"endpoint", *_wanted_tags(d)}
        d.set(applied_tags=tuple(tags for tags in d.status.applied_tags if tags.resource in noted))
    return changed


def created_tags(d: Draft, revision: Revision) -> None:
    """The calls that are about to be made carry the tags of what they create: note them as written. What may be there
    already keeps its older tags; nothing is noted for it, so that they are compared."""
    if d.find_stored(revision.name) is not None:
        return
    noted = {tags.resource for tags in d.status.applied_tags}
    shared = {name for stored in d.given.stored for name in stored.model_names}
    made = []
    for resource, tags in _tags_of(revision, d.given.resolution.owner).items():
        if resource not in noted and resource.removeprefix("model/") not in shared:
            made.append(AppliedTags(resource=resource, digest=digest(tags), keys=tuple(sorted(tags))))
    d.set(applied_tags=(*d.status.applied_tags, *made)[-64:])


def note_created_endpoint_tags(d: Draft, *, again: bool) -> None:
    """CreateEndpoint carries the endpoint's tags. Made again with other tags, it is not known which ones count."""
    wanted = tag_map(d.spec.get("tags"), d.given.resolution.owner)
    made = AppliedTags(resource="endpoint", digest=digest(wanted), keys=tuple(sorted(wanted)))
    others = tuple(tags for tags in d.status.applied_tags if tags.resource != "endpoint")
    before = next((tags for tags in d.status.applied_tags if tags.resource == "endpoint"), None)
    d.set(applied_tags=others if again and before != made else (made, *others))


def _wanted_tags(d: Draft) -> dict[str, dict[str, str]]:
    owner = d.given.resolution.owner
    on_endpoint = tag_map(d.spec.get("tags"), owner)
    if adopted(d) and len(on_endpoint) < _MOST_TAGS:
        on_endpoint[ADOPTED_TAG] = "true"
    wanted = {f"endpoint/{d.endpoint_name}": on_endpoint}
    serving, desired = d.status.revision, d.desired
    if serving is not None and not serving.adopted and desired is not None and desired.fleet_hash == serving.fleet_hash:
        stored = d.find_stored(serving.name)
        config = serving.endpoint_config_name
        names = stored.model_names if stored else desired.requests.model_names
        if config:
            wanted[f"endpoint-config/{config}"] = tag_map(desired.endpoint_config.get("tags"), owner)
        for request, spec in zip(desired.requests.models, desired.models.values(), strict=False):
            if request["ModelName"] in names:
                wanted[f"model/{request['ModelName']}"] = tag_map(spec.get("tags"), owner)
    return wanted


def _tags_of(revision: Revision, owner: Any) -> dict[str, dict[str, str]]:
    found = {
        f"endpoint-config/{revision.requests.endpoint_config_name}": tag_map(
            revision.endpoint_config.get("tags"), owner
        )
    }
    for request in revision.requests.models:
        found[f"model/{request['ModelName']}"] = {t["Key"]: t["Value"] for t in request["Tags"]}
    return found


def mark_outcomes(d: Draft) -> None:
    """Note outcomes on the stored revisions: they are what a lost status is recovered from."""
    wanted: dict[str, tuple[str, str]] = {}
    for last in reversed(d.status.history):
        if last.outcome is not Outcome.SUPERSEDED:
            wanted[last.revision] = (str(last.outcome), last.message or "")
    if d.status.revision is not None:
        wanted[d.status.revision.name] = (str(Outcome.SUCCEEDED), "")
    latch = d.status.latch
    for stored in d.given.stored:
        outcome, message = wanted.get(stored.name, ("", ""))
        if latch is None and outcome in {Outcome.ROLLED_BACK, Outcome.UPDATE_ROLLBACK_FAILED}:
            outcome = Outcome.FAILED  # a person said retry: it failed, but it is not latched
        if outcome and stored.outcome != outcome:
            d.act(MarkRevision(stored.name, outcome, message[:1000]))


def collect(d: Draft) -> bool:
    """Delete the AWS objects of one revision that nothing needs any more, then the revision. True if there was one."""
    if d.status.endpoint_status == "UpdateRollbackFailed":
        return False  # a mix serves, and DescribeEndpoint names one EndpointConfig of it
    kept = _needed(d)
    for stored in sorted(d.given.stored, key=lambda s: s.number):
        if stored.name not in kept:
            others = [s for s in d.given.stored if s.name in kept]
            d.act(*collection(d.given.resolution.owner, stored, others, d.status_config_names()))
            return True
    return False


def collection(
    owner: Owner, stored: StoredRevision, others: list[StoredRevision], in_use: frozenset[str]
) -> tuple[Action, ...]:
    """The actions that collect one stored revision: first what it names in AWS, last the record of it."""
    models = {name for other in others for name in other.model_names}
    configs = {other.endpoint_config_name for other in others} | in_use
    actions: list[Action] = []
    config_name, model_names = stored.collectable(owner)
    if config_name and config_name not in configs:
        actions.append(DeleteEndpointConfig(config_name))
    actions += [DeleteModel(name) for name in model_names if name not in models]
    return (*actions, DropRevision(stored.name))


def _needed(d: Draft) -> frozenset[str]:
    status = d.status
    names = {r.name for r in (status.revision, status.previous_revision) if r is not None}
    if status.deployment is not None:
        names.add(status.deployment.revision)
    if status.intent is not None and status.intent.revision:
        names.add(status.intent.revision)
    names |= {stored.name for stored in (_last_failed(d), *_still_asked_for(d)) if stored is not None}
    configs = d.status_config_names()
    names |= {stored.name for stored in d.given.stored if stored.endpoint_config_name in configs}
    return frozenset(names)


def _last_failed(d: Draft) -> StoredRevision | None:
    """What failed last: people look at it, and say retry. The history goes with the status, the outcomes do not."""
    failed = next((last.revision for last in d.status.history if last.outcome is not Outcome.SUCCEEDED), None)
    if failed is not None:
        return d.find_stored(failed)
    bad = [stored for stored in d.given.stored if stored.outcome in _BAD]
    return max(bad, key=lambda stored: stored.number, default=None)


def _still_asked_for(d: Draft) -> list[StoredRevision]:
    """The newest revision of the fleet that the spec asks for, if another serves, and of the one that is latched."""
    wanted = {d.asked_hash, d.status.latch.fleet_hash if d.status.latch is not None else None}
    wanted -= {d.status.revision.fleet_hash if d.status.revision is not None else None}
    newest = {stored.fleet_hash: stored for stored in sorted(d.given.stored, key=lambda stored: stored.number)}
    return [stored for fleet_hash, stored in newest.items() if fleet_hash in wanted]


def say_ready(d: Draft) -> None:
    """The revision asked for is in service."""
    serving = d.status.revision
    d.ready(f"Revision {serving.name if serving else '?'} is in service.")
