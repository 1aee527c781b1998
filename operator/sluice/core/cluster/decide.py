"""The decision about one Endpoint in the cluster, top to bottom. Pure: no clock, no I/O, no framework.

admission   may this Endpoint act at all: spec, name, permission; the finalizer before anything is made
facts       what was observed goes into the status; a lost status is recovered from what stands
plan        create, serve, deploy, go back, delete; each keeps up what must stand and takes down what nothing needs
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sluice.api import names
from sluice.api.reasons import Cause, CommandResult, Reason
from sluice.api.status import Problem
from sluice.core import capabilities, guardrails
from sluice.core.actions import Action, DropRevision, MarkRevision, PatchEndpoint
from sluice.core.cluster import (
    deletion,
    deploy,
    fleets,
    gates,
    haste,
    keeping,
    life,
    recovery,
    rolling,
    routers,
    shown,
    sides,
    starting,
    steering,
)
from sluice.core.cluster.actions import EnsureFleet, EnsureRouter, EvictRouter, ScaleFleet, WriteRoute
from sluice.core.cluster.routing import Side
from sluice.core.conditions import Verdict
from sluice.core.decision import Decision
from sluice.core.endpoint import bookkeeping, commands, deployment, facts, freezing, latches
from sluice.core.endpoint.draft import Draft, Pass, deletion_asked, has_finalizer
from sluice.core.finding import Finding
from sluice.core.revision import Revision, StoredRevision

ADDRESS = "http://{service}.{namespace}.svc:8080/endpoints/{name}/invocations"
BACKSTOP_SECONDS = 10.0
"""A deployment that does not bake is looked at again after this long, if nothing woke anybody: its deadline may be
hours away."""


def decide_cluster(given: Pass) -> Decision:
    """Decide one pass."""
    d = Draft(given)
    _decide(d, given)
    return haste.only_back(d) if given.remembered else d.finish()


def _decide(d: Draft, given: Pass) -> None:
    facts.take_problem(d)
    if given.cluster is None:
        _unseen(d)
        return
    d.unanswered = routers.unanswered(given.cluster)
    reason = freezing.frozen(d)
    if deletion_asked(given.endpoint):
        freezing.unless_frozen(d, reason, _guarded(deletion.delete))
        return
    if _name_taken(d):
        return
    if not has_finalizer(given.endpoint):
        finding = given.resolution.finding
        if finding is not None:
            d.stalled(finding.reason, finding.text())
        elif reason is not None:
            freezing.say(d, reason, "put its finalizer on the Endpoint")
        else:
            d.act(PatchEndpoint(add_finalizer=True))
            d.again(1.0)
            d.reconciling(Reason.PENDING, "Taking the Endpoint on.")
        return
    recovery.recover(d)
    shown.take_fleets(d)
    facts.take_alarms(d)
    shown.take_conditions(d)
    d.set(address=ADDRESS.format(service="sluice-router", namespace=d.metadata["namespace"], name=d.endpoint_name))
    freezing.unless_frozen(d, reason, _guarded(_plan))
    running = d.status.deployment
    if running is not None and running.bake_until is None:
        d.again(BACKSTOP_SECONDS)


def _unseen(d: Draft) -> None:
    """The cluster could not be looked at: what is known stays known."""
    d.unseen = True
    facts.say_problem(d)
    if d.verdict is None:
        d.reconciling(Reason.PENDING, "Looking at the cluster.", keep_ready=True)
    d.again(d.given.settings.look_seconds)


def _guarded(step: Any) -> Any:
    """A step whose actions are held back while the next attempt after a failed one is still to come. Where there is
    nothing left to do the problem is over."""

    def run(d: Draft) -> None:
        step(d)
        # The first action that fails ends a pass: what must stand does not wait for the router's update, but for an
        # update without which no router comes up nothing else need be done.
        place = 1 if d.given.cluster is None or routers.ready(d.given.cluster) else -1
        d.actions.sort(key=lambda action: place if isinstance(action, EnsureRouter) and action.update else 0)
        if not any(_may_fail_as(d.status.problem, action) for action in d.actions):
            d.set(problem=None)
        elif facts.waiting(d):
            d.actions[:] = [action for action in d.actions if _cannot_wait(d, action)]
            found = d.verdict
            facts.say_problem(d)
            _not_ready_all_the_same(d, found)

    return run


def _may_fail_as(problem: Problem | None, action: Action) -> bool:
    """Whether a failure before may be this action's. Entries in the books on revisions hold nothing up, and may be
    refused for ever: where nothing else is left to do, another action's problem is over."""
    is_entry = isinstance(action, MarkRevision | DropRevision)
    return not is_entry or (problem is not None and problem.operation == type(action).__name__)


def _not_ready_all_the_same(d: Draft, found: Verdict | None) -> None:
    """Trouble on the way to the API server keeps Ready as it was, but not where the plan has seen that it is not."""
    said = d.verdict
    if found is None or said is None or not said.keep_ready or found.kind == "ready" or found.keep_ready:
        return
    d.verdict = replace(said, keep_ready=False, message=f"{said.message}; {found.message}")


def _cannot_wait(d: Draft, action: Action) -> bool:
    """Traffic goes back whatever else failed: routes are written, and a router that holds them up is evicted. And a
    router that cannot be brought up to date serves as it is: nothing waits for that."""
    problem, deployment = d.status.problem, d.status.deployment
    if problem is not None and problem.operation == EnsureRouter.__name__ and keeping.seen(d).router.complete:
        return not isinstance(action, EnsureRouter)  # only its update is refused
    if deployment is None or deployment.stage != "RollingBack" or not isinstance(action, WriteRoute | EvictRouter):
        return False
    return problem is None or problem.operation != type(action).__name__


def _name_taken(d: Draft) -> bool:
    """Two Endpoints of the namespace, one name (also in different case): who serves keeps it, then the older one."""
    if d.status.revision is not None or d.status.intent is not None:
        return False
    for rival in d.given.rivals:
        other, status = rival["metadata"], rival.get("status") or {}
        owns = bool(status.get("revision") or status.get("intent"))
        if owns or _seniority(other) < _seniority(d.metadata):
            d.stalled(
                Reason.NAME_CONFLICT,
                f"Endpoint {other['name']} already claims endpoint name {d.endpoint_name} in this namespace (names "
                "differ not by case alone); choose another spec.endpointName.",
            )
            return True
    return False


def _seniority(metadata: Mapping[str, Any]) -> tuple[str, str]:
    return (str(metadata.get("creationTimestamp", "")), str(metadata["name"]))


def _plan(d: Draft) -> None:
    wanted_back = _wanted_back(d)
    if d.status.revision is None:
        finding = _finding(d)
        if finding is not None:
            d.stalled(finding.reason, finding.text())
            return
        life.create(d)
        return
    serving = sides.serving(d)
    if serving is None:
        _unknown_serves(d)
        return
    if wanted_back is not None and starting.stands(d, wanted_back.revision(d.given.resolution.owner)):
        starting.return_to(d, wanted_back.revision(d.given.resolution.owner))
        return
    if wanted_back is None and d.desired is not None and starting.is_reverted(d) and _finding(d) is None:
        starting.return_to(d, d.desired)
        d.confirm_references = True
        return
    if d.status.deployment is not None:
        steering.steer(d)
        rolls = d.status.deployment.policy == guardrails.ROLLING
        if wanted_back is not None and rolls:
            rolling.turn_back(d, serving, Cause.PERSON, f"annotation {names.ROLLBACK}")
        elif wanted_back is not None:
            deploy.turn_back(d, serving, Cause.PERSON, f"annotation {names.ROLLBACK}")
        (rolling if rolls else deploy).go_on(d, serving)
        _old_comes_last(d, serving)
        _keep_books(d)
        return
    _settled(d, serving, wanted_back.revision(d.given.resolution.owner) if wanted_back is not None else None)


def _old_comes_last(d: Draft, serving: Side) -> None:
    """The first action that fails ends a pass: what fails at the old fleets does not hold up the new ones."""
    deployment = d.status.deployment
    if deployment is None or deployment.stage == "RollingBack" or deployment.fleet_hash == serving.fleet_hash:
        return
    old = {fleet.name for fleet in keeping.seen(d).fleets if fleet.fleet_hash == serving.fleet_hash}
    old |= {fleet.name for fleet in fleets.wanted(str(d.metadata["name"]), serving, {})}
    d.actions.sort(key=lambda action: isinstance(action, EnsureFleet | ScaleFleet) and action.name in old)


def _unknown_serves(d: Draft) -> None:
    """What serves is stored nowhere and the spec asks for something else: a person decides."""
    if commands.said_now(d, capabilities.RETRY) and d.desired is not None:
        d.set(revision=None, deployment=None)
        life.create(d)
        return
    name = d.status.revision.name if d.status.revision else "?"
    d.stalled(
        Reason.DRIFTED,
        f"Revision {name} serves but is stored nowhere any more; what stands is left alone. Restore its "
        "ControllerRevision, set the spec back to what serves, or annotate sluice.dev/retry: fleets of what the spec "
        "names are made, and take all requests when they are ready.",
    )


def _wanted_back(d: Draft) -> StoredRevision | None:
    """The revision that a person wants back. What a running deployment has to end for is queued until then: the
    deployment goes back at once or, where it only cleans up, comes to its end."""
    before = d.status
    wanted = commands.answer(d)
    deployment, serving = d.status.deployment, d.status.revision
    if wanted is None or deployment is None or serving is None or wanted.fleet_hash == serving.fleet_hash:
        return wanted
    if wanted.fleet_hash == deployment.fleet_hash and deployment.stage != "RollingBack":
        return None  # it is on its way
    if starting.stands(d, wanted.revision(d.given.resolution.owner)):
        return wanted
    said = next((ack for ack in before.commands if ack.command == capabilities.ROLLBACK), None)
    value = d.annotation(names.ROLLBACK)
    d.set(commands=tuple(ack for ack in d.status.commands if ack.command != capabilities.ROLLBACK))
    if said is not None:
        d.set(commands=(*d.status.commands, said))
    text = f"done when the deployment of revision {deployment.revision} has ended"
    commands.acknowledge(d, capabilities.ROLLBACK, value, CommandResult.QUEUED, text)
    held, latch = before.latch, d.status.latch
    if held is not None and latch is not None and (held.fleet_hash, held.reason) == (latch.fleet_hash, latch.reason):
        d.set(latch=held)
    return wanted


def _settled(d: Draft, serving: Side, wanted_back: Revision | None) -> None:
    """In service, nothing deployed: bring back, start, or keep serving and say what is not as asked."""
    if wanted_back is not None and wanted_back.fleet_hash != serving.fleet_hash:
        starting.bring_back(d, wanted_back)
        return
    steering.settled(d)
    steady = life.serve(d, serving)
    _keep_books(d)
    finding = _finding(d)
    if finding is not None:
        d.stalled(finding.reason, finding.text())
        return
    desired = d.desired
    if desired is None:
        return
    if desired.fleet_hash == serving.fleet_hash:
        d.set(settle=None)
        latch = d.status.latch
        if latch is not None and latch.fleet_hash != desired.fleet_hash:
            d.set(latch=None)
        if steady:
            d.ready(f"Revision {d.status.revision.name if d.status.revision else '?'} is in service.")
        return
    if latches.holds(d.status.latch, d.spec, desired):
        d.set(settle=None)
        if steady or d.status.endpoint_status == "InService":
            deployment.say_latched(d)
        return
    if any(gate(d, desired) for gate in gates.GATES):
        return
    d.actions.clear()  # what keeps the old revision up comes again with the deployment's passes
    starting.start(d, desired)


def _finding(d: Draft) -> Finding | None:
    """What is wrong with what is asked for."""
    found = d.given.resolution.finding
    if found is not None or d.given.cluster is None:
        return found
    refused = d.refused(d.desired) if d.desired is not None else None
    if refused is not None:
        return refused
    unknown = d.given.cluster.unknown_instance_types
    if unknown:
        return Finding(
            Reason.UNKNOWN_INSTANCE_TYPE,
            f"found {', '.join(unknown)}; ConfigMap sluice-instance-types in the operator's namespace does not know "
            f"{'it' if len(unknown) == 1 else 'them'}: add the key {unknown[0]} there",
            "EndpointConfig productionVariants[].instanceType",
        )
    return None


def _keep_books(d: Draft) -> None:
    """Outcomes on the stored revisions, which a lost status is recovered from; old ones go."""
    bookkeeping.mark_outcomes(d)
    kept = {r.name for r in (d.status.revision, d.status.previous_revision) if r is not None}
    if d.status.deployment is not None:
        kept.add(d.status.deployment.revision)
    kept |= {last.revision for last in d.status.history[:1]}
    failed = next((last.revision for last in d.status.history if last.outcome != "Succeeded"), None)
    kept |= {failed} if failed else set()
    # A rollback that waits for a deployment to end is to find its revision then.
    waiting = commands.unanswered(d.given.endpoint, d.status).get(capabilities.ROLLBACK)
    kept |= {commands.named(waiting)} if waiting else set()
    standing = {fleet.fleet_hash for fleet in keeping.seen(d).fleets}
    spared = {stored.fleet_hash for stored in d.given.stored if stored.name in kept}
    for stored in d.given.stored:
        if stored.name in kept:
            continue
        if stored.fleet_hash not in standing or stored.fleet_hash in spared:
            d.act(DropRevision(stored.name))
