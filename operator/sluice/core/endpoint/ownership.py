"""An endpoint that stands in SageMaker while the status knows none: ours (recovered), adoptable, or somebody else's.

Ownership is the tag installation/namespace/name: it survives new UIDs, lost status and rebuilt clusters."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sluice.api import names
from sluice.api.reasons import Cause, Outcome, Reason
from sluice.api.status import Intent, Latch, RevisionStatus
from sluice.core.actions import StoreRevision
from sluice.core.endpoint import deployment, facts, latches, live
from sluice.core.endpoint.commands import named, remember_all, unanswered
from sluice.core.endpoint.draft import MOVING, Draft
from sluice.core.endpoint.history import ended
from sluice.core.hashing import canonical
from sluice.core.observation import Described, HostingContent, Presence
from sluice.core.requests import model_members, named_for, runs_fleet, sagemaker_words

ADOPTED_PREFIX = "adopted-"
_SKEW = timedelta(minutes=5)
"""AWS refuses the calls of clocks that are further off."""
_UNKNOWN = "unknown"
"""The fleet hash of what serves where nothing tells it."""
_LIVE = frozenset({"InitialInstanceCount", "InitialVariantWeight"})
"""What is edited in place: an EndpointConfig keeps the values that it was made with."""
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "EnableNetworkIsolation": (False,),
    "InitialVariantWeight": (1, 1.0),
    "Mode": ("SingleModel",),
    "EnableSSMAccess": (False,),
    "EnableCapture": (True,),
}
"""What SageMaker shows for members nobody set."""
_IDENTITIES = frozenset(
    {
        "ModelName", "ModelNameOverride", "ModelArn", "EndpointConfigName", "EndpointConfigArn", "CreationTime",
        "ResponseMetadata", "DeploymentRecommendation", "Tags",
    }
)  # fmt: skip


def doubt(d: Draft) -> None:
    """An endpoint that was created at another moment than the one in the status is another one, though its ARN is the
    same: somebody deleted ours and made one of that name between two looks. Whose it is, is asked anew.

    An answer that is older than one that was seen says nothing: SageMaker's reads are eventually consistent."""
    seen, known = d.described, d.status.creation_time
    if seen is None or known is None:
        return
    newest = d.status.last_modified_time
    if seen.creation == known and newest is not None and seen.last_modified < newest <= d.now + _SKEW:
        unseen = replace(d.observation, presence=Presence.UNKNOWN, endpoint=None, tags=None, content=None)
        d.given = replace(d.given, observation=unseen)
    if seen.creation != known:
        facts.forget_endpoint(d)
        d.set(intent=None, deployment=None, settle=None, adopted=None)


def establish(d: Draft, seen: Described) -> bool:
    """Make sure the endpoint is ours before it is touched. True if this decided the pass."""
    if d.status.endpoint_arn is not None:
        _catch_up(d, seen)
        return False
    tags = d.observation.tags
    if tags is None:
        d.reconciling(Reason.RECOVERING, "Reading whose endpoint this is.", keep_ready=True)
        if d.observation.problem is not None:
            facts.say_problem(d)
        else:
            d.again(1.0)
        return True
    owner = tags.get(names.OWNER_TAG)
    if owner == str(d.given.resolution.owner):
        if tags.get(names.ADOPTED_TAG) == "true":
            d.set(adopted=True)
        if d.status.intent is None and made_elsewhere(d):
            return _take_up(d, seen)
        facts.take_endpoint(d, seen)
        if d.status.intent is None:
            _recover(d, seen, serving_revision(d, seen.endpoint_config_name))
        return False
    if owner is not None:
        d.stalled(
            Reason.NAME_CONFLICT,
            f"Endpoint {seen.name} belongs to {owner}; choose another spec.endpointName for a new Endpoint.",
        )
        return True
    if d.annotation(names.ADOPT) != "true":
        d.stalled(
            Reason.NOT_OWNED,
            f"Endpoint {seen.name} exists and was not made by Sluice; annotate {names.ADOPT}: 'true' to adopt it, or "
            "choose another spec.endpointName.",
        )
        return True
    return _adopt(d, seen)


def _catch_up(d: Draft, seen: Described) -> None:
    """The status is older than the world (it was restored from a backup): what the spec asks for is in service, and the
    status names another revision. It is not deployed onto itself, nor taken back as somebody's doing."""
    serving, desired, config = d.status.revision, d.desired, seen.endpoint_config_name
    if (
        seen.status != "InService"
        or d.status.intent is not None
        or serving is None
        or desired is None
        or config is None
    ):
        return
    if config == serving.endpoint_config_name:
        return
    latch = d.status.latch
    if latch is not None and latch.reason == Reason.HELD_BY_ROLLBACK and latches.holds(latch, d.spec, desired):
        return  # a person turned it away: who brings it back past Sluice is shown
    found = serving_revision(d, config)
    if found is None or found.fleet_hash != desired.fleet_hash:
        return
    facts.take_endpoint(d, seen)
    stored = d.find_stored(found.name)
    content = stored.endpoint_config if stored is not None else desired.endpoint_config
    retained = d.spec.get("retainAllVariantProperties") is True
    d.set(
        revision=found,
        previous_revision=serving if serving.name != found.name else d.status.previous_revision,
        latch=None if latches.holds(latch, d.spec, desired) else latch,
        deployment=None,
        settle=None,
        production_variants=live.applied(d.status.production_variants, content, retained=retained),
    )
    _keep(d, found)


def _keep(d: Draft, serving: RevisionStatus) -> None:
    """What serves is stored, or it could not be gone back to, nor collected one day."""
    if d.desired is not None and serving.name == d.desired.name and d.find_stored(serving.name) is None:
        number = max((s.number for s in d.given.stored), default=0) + 1
        d.act(StoreRevision(d.desired.name, d.desired.data(), number))


def made_elsewhere(d: Draft) -> bool:
    """Whether what serves is neither kept nor named as this owner's EndpointConfigs are: it came with an adoption."""
    config = d.described.endpoint_config_name if d.described is not None else None
    return config is not None and not _is_ours(d, config)


def _is_ours(d: Draft, config: str) -> bool:
    kept = any(stored.endpoint_config_name == config for stored in d.given.stored)
    return kept or named_for(d.given.resolution.owner, config)


def _take_up(d: Draft, seen: Described) -> bool:
    """Status lost beside an endpoint that serves what was adopted. No name says whether that is what the spec asks
    for: its content is compared as on adoption. True if this decided the pass."""
    config = seen.endpoint_config_name
    if d.status.revision is None:
        remember_all(d)  # a retry of long ago is none of this difference
    if d.status.revision is None or d.status.revision.endpoint_config_name != config:
        d.set(revision=_adopted_revision(d, config, _UNKNOWN))
    updating = seen.status in MOVING and seen.pending is not None and _is_ours(d, seen.pending.endpoint_config_name)
    different: tuple[str, ...] = ("an update of ours runs",) if updating else ()
    if not updating:
        compared = _compared(d, seen, _LIVE)
        if compared is None:
            return True
        different = compared
    facts.take_endpoint(d, seen)
    fleet = d.desired.fleet_hash if d.desired is not None and not different else _UNKNOWN
    d.set(adopted=True)
    _recover(d, seen, _adopted_revision(d, config, fleet))
    return False


def _recover(d: Draft, seen: Described, serving: RevisionStatus | None) -> None:
    """Status lost beside a living endpoint of ours: what serves is read from it, latch and outcomes from the stored
    revisions; nothing is created."""
    remember_all(d)
    for stored in sorted(d.given.stored, key=lambda s: s.number):
        if stored.outcome in {Outcome.ROLLED_BACK, Outcome.UPDATE_ROLLBACK_FAILED}:
            d.set(
                latch=Latch(
                    fleet_hash=stored.fleet_hash,
                    reason=Reason.ROLLED_BACK,
                    message=stored.outcome_message or "rolled back before the status was lost",
                    time=d.now,
                )
            )
        elif stored.outcome == Outcome.SUCCEEDED and d.status.latch and d.status.latch.fleet_hash == stored.fleet_hash:
            d.set(latch=None)
    if seen.status in {"Creating", "Failed"} and all(stored.outcome != Outcome.SUCCEEDED for stored in d.given.stored):
        _resume_creation(d, seen)  # it never served
        return
    d.set(revision=serving, previous_revision=_before(d, serving))
    _hold_again(d, serving)
    if d.status.latch is not None and serving is not None and d.status.latch.fleet_hash == serving.fleet_hash:
        d.set(latch=None)
    if d.desired is not None:
        # What was last written is not known any more: the spec's counts and weights count as written, so that
        # nothing is sent; a weight that differs is shown as drift.
        taken = live.applied(
            d.status.production_variants, d.desired.endpoint_config, retained=bool(serving and serving.adopted)
        )
        d.set(production_variants=taken)
        if serving is not None:
            _keep(d, serving)
    if seen.status in MOVING and seen.pending is not None:
        _resume(d, seen, seen.pending.endpoint_config_name)


def _before(d: Draft, serving: RevisionStatus | None) -> RevisionStatus | None:
    """The revision that was in service before, as far as stored outcomes tell."""
    served = [
        s for s in d.given.stored if s.outcome == Outcome.SUCCEEDED and (serving is None or s.name != serving.name)
    ]
    last = max(served, key=lambda stored: stored.number, default=None)
    if last is None:
        return None
    return RevisionStatus(name=last.name, fleet_hash=last.fleet_hash, endpoint_config_name=last.endpoint_config_name)


def _resume_creation(d: Draft, seen: Described) -> None:
    """CreateEndpoint was under way, or has failed, when the status was lost."""
    found = [s for s in d.given.stored if s.endpoint_config_name == seen.endpoint_config_name]
    d.set(
        intent=Intent(
            operation="CreateEndpoint",
            endpoint_config_name=seen.endpoint_config_name,
            revision=found[-1].name if found else d.desired.name if d.desired is not None else None,
            time=d.now,
            accepted=d.now,
        )
    )


def _hold_again(d: Draft, serving: RevisionStatus | None) -> None:
    """A person's rollback outlives the status: the annotation names what serves, and what the spec asks for had been
    deployed before."""
    if serving is None or d.desired is None or named(d.annotation(names.ROLLBACK)) != serving.name:
        return
    known = any(stored.fleet_hash == d.desired.fleet_hash for stored in d.given.stored)
    if known and d.desired.fleet_hash != serving.fleet_hash and d.status.latch is None:
        message = f"rolled back to {serving.name} by annotation {names.ROLLBACK}"
        d.set(latch=Latch(fleet_hash=d.desired.fleet_hash, reason=Reason.HELD_BY_ROLLBACK, message=message, time=d.now))


def know_serving(d: Draft, seen: Described) -> None:
    """What serves is not what the creation that is remembered was to bring, but one of ours all the same: an earlier
    attempt whose answer was lost."""
    if any(stored.endpoint_config_name == seen.endpoint_config_name for stored in d.given.stored):
        serving = serving_revision(d, seen.endpoint_config_name)
        stored = d.find_stored(serving.name) if serving is not None else None
        content = stored.endpoint_config if stored is not None else {}
        d.set(
            revision=serving,
            production_variants=live.applied(d.status.production_variants, content, retained=False),
        )


def serving_revision(d: Draft, config_name: str | None) -> RevisionStatus | None:
    if config_name is None:
        return None
    for stored in d.given.stored:
        if stored.endpoint_config_name == config_name:
            return RevisionStatus(
                name=stored.name, fleet_hash=stored.fleet_hash, endpoint_config_name=config_name, since=d.now
            )
    if d.desired is not None and runs_fleet(d.given.resolution.owner, d.desired.fleet_hash, config_name):
        # Made for this fleet hash, maybe with other counts and weights than the spec has now.
        return d.desired.status().model_copy(update={"endpoint_config_name": config_name, "since": d.now})
    return RevisionStatus(name=config_name, fleet_hash=_UNKNOWN, endpoint_config_name=config_name, since=d.now)


def _resume(d: Draft, seen: Described, pending_config: str) -> None:
    """An update was running when the status was lost: take it up again if it is one of ours."""
    revision = None
    if d.desired is not None and d.desired.requests.endpoint_config_name == pending_config:
        revision = d.desired
    else:
        stored = next((s for s in d.given.stored if s.endpoint_config_name == pending_config), None)
        revision = stored.revision(d.given.resolution.owner) if stored else None
    if revision is None:
        return
    start = seen.pending.start_time if seen.pending and seen.pending.start_time else d.now
    d.set(
        deployment=deployment.new_deployment(d, revision, start),
        intent=Intent(
            operation="UpdateEndpoint",
            endpoint_config_name=pending_config,
            revision=revision.name,
            time=d.now,
            accepted=d.now,
        ),
    )


def _adopt(d: Draft, seen: Described) -> bool:
    """Compare content, not names: an equal endpoint is taken over with no call but that for its tags."""
    different = _compared(d, seen)
    if d.desired is None or different is None:
        return True
    facts.take_endpoint(d, seen)
    serving = _adopted_revision(d, seen.endpoint_config_name, _UNKNOWN if different else d.desired.fleet_hash)
    d.set(
        revision=serving,
        adopted=True,
        production_variants=live.applied(d.status.production_variants, d.desired.endpoint_config, retained=True),
    )
    ended(d, serving.name, serving.fleet_hash, Outcome.SUCCEEDED, Cause.NONE, f"adopted {seen.name}", None)
    return False


def _adopted_revision(d: Draft, config: str | None, fleet: str) -> RevisionStatus:
    name = f"{ADOPTED_PREFIX}{config}"
    return RevisionStatus(name=name, fleet_hash=fleet, endpoint_config_name=config, adopted=True, since=d.now)


def _compared(d: Draft, seen: Described, but: frozenset[str] = frozenset()) -> tuple[str, ...] | None:
    """What an endpoint that others made differs in; None where that is not known yet, or waits for a person: says so.
    `but`: members that are not compared."""
    content = d.observation.content
    if d.desired is None or content is None or seen.status in MOVING:
        d.reconciling(Reason.ADOPTING, f"Waiting to compare endpoint {seen.name} (status {seen.status}) with the spec.")
        if d.observation.problem is not None:
            facts.say_problem(d)
        else:
            d.again(d.given.settings.look_seconds)
        return None
    different = differences(d, content, but)
    if different and "retry" not in unanswered(d.given.endpoint, d.status):
        d.stalled(
            Reason.ADOPTION_DIFFERS,
            f"Endpoint {seen.name} differs from the spec: {'; '.join(different[:10])}. Change the spec, or annotate "
            "sluice.dev/retry to deploy the spec onto it.",
        )
        return None
    return different


def differences(d: Draft, content: HostingContent, but: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """`field: found x, the spec has y` for each difference between the living content and the desired one. What stands
    in an environment may be secret, and status, events and log have other readers than the Model: never its values."""
    if d.desired is None:
        return ()
    wanted_config = _with_models(
        sagemaker_words(d.desired.endpoint_config), {name: sagemaker_words(s) for name, s in d.desired.models.items()}
    )
    found_config = _with_models(dict(content.endpoint_config), dict(content.models))
    return tuple(_diff(canonical(found_config), canonical(wanted_config), "", _IDENTITIES | but))


def _with_models(config: dict[str, Any], models: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(config)
    for list_name in ("ProductionVariants", "ShadowProductionVariants"):
        variants = [dict(variant) for variant in made.get(list_name) or ()]
        for variant in variants:
            if variant.get("InstancePools"):
                variant["InstancePools"] = [dict(pool) for pool in variant["InstancePools"]]
            for holder, member in model_members(variant):
                holder["Model"] = models.get(holder[member], {})
        if variants:
            made[list_name] = {variant["VariantName"]: variant for variant in variants}
    return made


def _diff(found: Any, wanted: Any, path: str, passed_over: frozenset[str]) -> list[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        lines = []
        for key in sorted({*found, *wanted} - passed_over):
            if key not in wanted and found[key] in _DEFAULTS.get(key, ()):
                continue
            if key not in found and wanted[key] in _DEFAULTS.get(key, ()):
                continue
            step = f"{path}.{key}" if path else key
            if key == "Environment":
                lines += _environment(found.get(key) or {}, wanted.get(key) or {}, step)
            else:
                lines += _diff(found.get(key), wanted.get(key), step, passed_over)
        return lines
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [
            line
            for i, (a, b) in enumerate(zip(found, wanted, strict=True))
            for line in _diff(a, b, f"{path}[{i}]", passed_over)
        ]
    return [] if found == wanted else [f"{path}: found {_shown(found)}, the spec has {_shown(wanted)}"]


def _environment(found: Mapping[str, Any], wanted: Mapping[str, Any], path: str) -> list[str]:
    lines = []
    for key in sorted({*found, *wanted}):
        if key not in wanted:
            lines.append(f"{path}.{key}: only in SageMaker")
        elif key not in found:
            lines.append(f"{path}.{key}: only in the spec")
        elif found[key] != wanted[key]:
            lines.append(f"{path}.{key}: differs")
    return lines


def _shown(value: Any) -> str:
    """A map or a list may hold an environment: nothing of it is shown."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "something"
    return f"a list of {len(value)}" if isinstance(value, list) else str(value)[:120]
