"""Why a deployment in the cluster may turn back, and how it may end. Each cause that a status tells is looked for in
what the pass was given: pods, readings, the clock, what was said and asked for. A rollback that nothing there calls for
is nobody's wish (docs/deployments.md, "Rollback")."""

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

from sluice.api.reasons import Cause, CommandResult, Outcome, Reason
from sluice.api.status import DeploymentStatus, EndpointStatus, LastDeployment
from sluice.core.cluster.observation import FleetSeen
from sluice.core.endpoint.draft import Pass
from sluice.core.revision import Revision

NO_ROOM = {"Unschedulable", "Quota", "Refused"}
NO_DATA = {"ModelDataFailed", "SourceMoved"}
PLACE_SECONDS, START_SECONDS, DOWNLOAD_SECONDS = 900, 480, 3600
"""What placing a pod, its start and its download may take where the variant says nothing."""


def may_turn_back(given: Pass, old: DeploymentStatus, cause: Cause | None, message: str | None) -> None:
    """The cause was true when the deployment turned back."""
    assert cause in CAUSES, f"turned back from {old.stage} for {cause}"
    assert CAUSES[cause](given, old), f"turned back from {old.stage} for {cause}, and it is not so: {message}"


def may_begin(given: Pass, new: DeploymentStatus) -> None:
    """At the beginning; but a rolling deployment that was under way when the status was lost goes back."""
    if new.stage == "RollingBack" and given.status.revision is None:
        assert new.cause is Cause.UNKNOWN
        return
    assert (new.stage, new.step, new.traffic_percent, new.cause) == ("Provisioning", 0, 0.0, None)


def may_end(given: Pass, old: DeploymentStatus, after: EndpointStatus) -> None:
    """Cleaned up, it has succeeded; gone back, it has not. What is told of it is how it was."""
    last = after.last_deployment
    if last == given.status.last_deployment:
        _nobody_knows_what_serves(given, after)
        return
    assert last is not None
    assert (last.revision, last.fleet_hash, last.start_time) == (old.revision, old.fleet_hash, old.start_time)
    assert (last.end_time, after.history[0]) == (given.now, last)
    before = given.status.revision
    assert before is not None
    if old.stage == "CleaningUp":
        assert (last.outcome, last.cause) == (Outcome.SUCCEEDED, Cause.NONE)
        assert before.fleet_hash == old.fleet_hash, "it was in service when it cleaned up"
        return
    _has_gone_back(given, old, last, after)


def _has_gone_back(given: Pass, old: DeploymentStatus, last: LastDeployment, after: EndpointStatus) -> None:
    assert after.deployment is None, "the next one begins in a pass of its own"
    assert last.outcome in {Outcome.ROLLED_BACK, Outcome.SUPERSEDED}, f"{last.outcome} from {old.stage}"
    if old.stage == "RollingBack":
        assert last.cause is (old.cause or Cause.UNKNOWN), "it turned back for this"
    else:  # there was nothing to take back
        may_turn_back(given, old, last.cause, last.message)
    if last.outcome is Outcome.SUPERSEDED:
        assert last.cause is Cause.PERSON, "superseded by what somebody asked for"
    elif last.cause is Cause.PERSON:
        assert after.latch is not None
        assert after.latch.reason == Reason.HELD_BY_ROLLBACK, "a person's command holds what was asked for"
    assert after.revision == given.status.revision, "what served goes on serving"
    left = [fleet.name for fleet in _fleets(given, old)]
    assert not left or (after.revision is not None and after.revision.fleet_hash == old.fleet_hash), f"{left} stand"


def _nobody_knows_what_serves(given: Pass, after: EndpointStatus) -> None:
    """What serves is stored nowhere, and a person says to put what is asked for in its place: no deployment is left."""
    serving, desired = given.status.revision, given.resolution.revision
    assert serving is not None
    assert after.revision is None, "it ended, and no outcome is told"
    known = {stored.fleet_hash for stored in given.stored} | ({desired.fleet_hash} if desired is not None else set())
    assert serving.fleet_hash not in known
    assert _annotation(given, "retry")


def said(given: Pass, command: str) -> str:
    """The value of a command that was not answered yet; empty: there is none."""
    value = _annotation(given, command)
    answers = {ack.value: ack.result for ack in given.status.commands if ack.command == command}
    return value if answers.get(value, CommandResult.QUEUED) is CommandResult.QUEUED else ""


# Causes ---------------------------------------------------------------------------------------------------------


def _alarm(given: Pass, old: DeploymentStatus) -> bool:
    """One fires under traffic, or still does at the deadline; or has no data at a bake's end, and says to go back."""
    own = {one["name"]: one for one in (given.endpoint["spec"].get("kubernetes") or {}).get("alarms") or ()}
    for reading in given.observation.alarms:
        alarm = next((a for a in old.alarms if (a.source, a.alarm_name) == (reading.source, reading.name)), None)
        if alarm is None:
            continue
        fires = reading.state == "ALARM"
        if fires and _is_late(given, old):
            return True
        if old.traffic_since is None or (alarm.ignored and reading.state != "OK"):
            continue
        since = min(old.traffic_since, given.now)
        if fires or (reading.alarmed_at is not None and reading.alarmed_at >= since):
            return True
        goes_back = reading.source != "CloudWatch" and own.get(reading.name, {}).get("onInsufficientData") == "RollBack"
        baked = old.bake_until is not None and given.now >= old.bake_until
        if goes_back and baked and reading.state == "INSUFFICIENT_DATA":
            return True
    return False


def _unreadable(given: Pass, old: DeploymentStatus) -> bool:
    """At the deadline one cannot be read, has no data, or was not read since the bake should have ended."""
    if not _is_late(given, old):
        return False
    read = {(reading.source, reading.name): reading for reading in given.observation.alarms}
    readings = [read.get((alarm.source, alarm.alarm_name)) for alarm in old.alarms]
    since = min(old.bake_until or old.stage_since or given.now, given.now)
    return any(r is None or r.state not in {"OK", "ALARM"} or r.read_at < since for r in readings)


def _is_late(given: Pass, old: DeploymentStatus) -> bool:
    """The deadline has passed."""
    return old.deadline is not None and given.now >= old.deadline


def _person(given: Pass, old: DeploymentStatus) -> bool:
    """The spec asks for another revision, or a command does that was not answered yet."""
    desired = given.resolution.revision
    if desired is not None and desired.fleet_hash != old.fleet_hash:
        return True
    named = said(given, "rollback").partition("/")[0]
    return any(stored.name == named and stored.fleet_hash != old.fleet_hash for stored in given.stored)


def _lost(given: Pass, old: DeploymentStatus) -> bool:
    """What is deployed is stored nowhere any more."""
    return _revision(given, old) is None


def _health(given: Pass, old: DeploymentStatus) -> bool:
    return _comes_to_nothing(given, old, Cause.HEALTH) or any(_silent(given, old))


def _model_data(given: Pass, old: DeploymentStatus) -> bool:
    return _comes_to_nothing(given, old, Cause.MODEL_DATA)


def _capacity(given: Pass, old: DeploymentStatus) -> bool:
    return _comes_to_nothing(given, old, Cause.CAPACITY)


CAUSES: Mapping[Cause | None, Callable[[Pass, DeploymentStatus], bool]] = {
    Cause.ALARM: _alarm,
    Cause.ALARMS_UNREADABLE: _unreadable,
    Cause.DEADLINE: _is_late,
    Cause.PERSON: _person,
    Cause.HEALTH: _health,
    Cause.MODEL_DATA: _model_data,
    Cause.CAPACITY: _capacity,
    Cause.UNKNOWN: _lost,
}


# The new fleets -------------------------------------------------------------------------------------------------


def _comes_to_nothing(given: Pass, old: DeploymentStatus, cause: Cause) -> bool:
    """While new instances are to start: a pod has a trouble that no waiting mends; or not all are there in time."""
    if old.stage != "Provisioning":
        return False
    fleets = _fleets(given, old)
    troubles = [trouble for fleet in fleets for trouble in fleet.troubles if trouble.reason != "Starting"]
    if any(trouble.final and _meant(trouble.reason) is cause for trouble in troubles):
        return True
    since, revision = old.stage_since, _revision(given, old)
    if since is None or revision is None or given.now < since + _budget(revision) or _all_there(given, old, fleets):
        return False
    if any(_meant(trouble.reason) is cause for trouble in troubles):
        return True
    return cause is Cause.HEALTH or (cause is Cause.CAPACITY and bool(old.replace_first))


def _meant(trouble: str) -> Cause:
    return Cause.CAPACITY if trouble in NO_ROOM else Cause.MODEL_DATA if trouble in NO_DATA else Cause.HEALTH


def _budget(revision: Revision) -> timedelta:
    """What the start of the slowest variant may take."""
    config = revision.endpoint_config
    found = [0]
    for variant in (*config["productionVariants"], *(config.get("shadowProductionVariants") or ())):
        text = repr(revision.models[variant["modelName"]])
        seconds = int(variant.get("containerStartupHealthCheckTimeoutInSeconds") or START_SECONDS)
        if "modelDataUrl" in text or "odelDataSource" in text:
            seconds += int(variant.get("modelDataDownloadTimeoutInSeconds") or DOWNLOAD_SECONDS)
        found.append(PLACE_SECONDS + seconds)
    return timedelta(seconds=max(found))


def _all_there(given: Pass, old: DeploymentStatus, fleets: tuple[FleetSeen, ...]) -> bool:
    """Every instance that the step under way asks for is ready, and passes the sample invocation if there is one."""
    step = old.plan[min(old.step or 0, len(old.plan) - 1)]
    rolls = old.policy == "ROLLING"
    wanted = {c.variant_name: c.count for c in (step.instances if rolls else old.before) if c.new}
    here = {fleet.variant: fleet for fleet in fleets if not fleet.deleting}
    if any(fleet.ready < fleet.replicas for fleet in fleets if fleet.variant not in wanted):  # shadows
        return False
    for variant, count in wanted.items():
        fleet = here.get(variant)
        if fleet is None or fleet.ready < count:
            return False
        if _samples(given, old, variant) and min(_healthy(given, fleet.name), default=0) < count:
            return False
    return True


def _silent(given: Pass, old: DeploymentStatus) -> Iterator[bool]:
    """Of each production variant with traffic: whether none of its pods answers."""
    if not old.step and not old.traffic_percent:
        return
    step = old.plan[max((old.step or 0) - 1, 0)]
    planned = {count.variant_name: count.count for count in step.instances if count.new}
    fleets = {fleet.variant: fleet for fleet in _fleets(given, old)}
    for variant in old.pending_variants:
        fleet = fleets.get(variant.variant_name)
        if not planned.get(variant.variant_name, 1):
            continue
        if fleet is None or not fleet.ready:
            yield True
        elif _samples(given, old, variant.variant_name):
            healthy = _healthy(given, fleet.name)
            yield bool(healthy) and not any(healthy)


def _fleets(given: Pass, old: DeploymentStatus) -> tuple[FleetSeen, ...]:
    assert given.cluster is not None
    return tuple(fleet for fleet in given.cluster.fleets if fleet.fleet_hash == old.fleet_hash)


def _healthy(given: Pass, fleet: str) -> list[int]:
    """How many of its pods pass the sample invocation, by each ready router that has the routes in force."""
    cluster = given.cluster
    assert cluster is not None
    found = []
    for router in cluster.routers:
        if not router.ready or router.terminating or router.report is None or cluster.route is None:
            continue
        for routes in router.report.routes:
            if (routes.uid, routes.generation) == (cluster.route.uid, cluster.route.generation):
                found += [one.healthy for one in routes.fleets if one.name == fleet]
    return found


def _samples(given: Pass, old: DeploymentStatus, variant: str) -> bool:
    """Whether its pods are asked a sample invocation."""
    revision = _revision(given, old)
    if revision is None:
        return False
    model = next(v["modelName"] for v in revision.endpoint_config["productionVariants"] if v["variantName"] == variant)
    return bool((revision.models[model].get("kubernetes") or {}).get("sampleInvocation"))


def _revision(given: Pass, old: DeploymentStatus) -> Revision | None:
    """What is deployed: as it is asked for, or as it was stored."""
    desired = given.resolution.revision
    if desired is not None and desired.name == old.revision:
        return desired
    found = next((stored for stored in given.stored if stored.name == old.revision), None)
    return found.revision(given.resolution.owner) if found is not None else None


def _annotation(given: Pass, name: str) -> str:
    return str((given.endpoint["metadata"].get("annotations") or {}).get(f"sluice.dev/{name}") or "")
