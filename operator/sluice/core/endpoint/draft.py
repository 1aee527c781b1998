"""One pass as it is being decided: what came in, frozen, and what has been decided so far.

Steps write a Draft; finishing it turns the verdict into conditions and the differences into events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sluice.api import names
from sluice.api.reasons import ConditionType, Outcome, Reason
from sluice.api.status import AlarmStatus, DeploymentStatus, EndpointStatus
from sluice.core import conditions
from sluice.core.actions import Action
from sluice.core.cluster import findings
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.cluster.peers import Bounds, Peer
from sluice.core.cluster.routing import Limits
from sluice.core.conditions import Truth, Verdict
from sluice.core.decision import Decision, EventNote
from sluice.core.endpoint import latches
from sluice.core.finding import Finding
from sluice.core.observation import Described, Observation
from sluice.core.permission import Ask, Policy
from sluice.core.resolve import Resolution, spec_counts, spec_weights
from sluice.core.revision import Revision, StoredRevision

SERVING = frozenset({"InService", "Updating", "SystemUpdating", "RollingBack", "UpdateRollbackFailed"})
"""Statuses in which SageMaker answers requests."""
MOVING = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting"})
"""Statuses that end by themselves; nothing may be changed meanwhile."""


@dataclass(frozen=True, slots=True)
class DecideSettings:
    """Durations in seconds."""

    settle_seconds: float = 5.0
    settle_limit_seconds: float = 30.0
    look_seconds: float = 5.0
    """Between two looks at something that is about to change: a call's effect, an alarm."""
    fallback_seconds: float = 30.0
    """Where the sweep wakes the Endpoint by itself: a look in case it does not."""
    read_only: bool = False
    bounds: Bounds = field(default_factory=Bounds)
    """How many deployments may run at once (backend Cluster)."""
    limits: Limits = field(default_factory=Limits)
    """Of Endpoints that say nothing of their own (backend Cluster)."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Everything a decision is made from."""

    endpoint: Mapping[str, Any]
    status: EndpointStatus
    resolution: Resolution
    observation: Observation
    now: datetime
    stored: tuple[StoredRevision, ...] = ()
    policy: Policy = field(default_factory=Policy)
    rivals: tuple[Mapping[str, Any], ...] = ()
    """Other Endpoints that ask for the same endpoint name: of the cluster, in the same account and region (backend
    SageMaker); of the namespace, whatever their case (backend Cluster)."""
    cluster: ClusterObservation | None = None
    """What was seen in the cluster (backend Cluster; None: it could not be looked at)."""
    remembered: bool = False
    """`cluster` is what an earlier pass saw: see core.cluster.haste."""
    peers: tuple[Peer, ...] = ()
    """What the other Cluster Endpoints are about, as far as deployments have limits (backend Cluster)."""
    settings: DecideSettings = field(default_factory=DecideSettings)


class Draft:
    """What one pass has decided so far."""

    def __init__(self, given: Pass) -> None:
        self.given = given
        self.status = given.status
        self.actions: list[Action] = []
        self.verdict: Verdict | None = None
        self.confirm_references = False
        self.notes: list[EventNote] = []
        """Events beside those that the status' differences make."""
        self.unanswered = ""
        """Why nobody answers requests, whatever the endpoint's status says (backend Cluster)."""
        self.unseen = False
        """Whether nobody could look who answers: Serving stays as it was."""
        self._again: datetime | None = None

    def fork(self) -> "Draft":
        """A copy to try a plan on."""
        other = Draft(self.given)
        other.status, other.verdict, other._again = self.status, self.verdict, self._again
        return other

    def take(self, other: "Draft") -> None:
        """What a copy came to, without its actions."""
        self.status, self.verdict, self._again = other.status, other.verdict, other._again
        self.notes = other.notes

    # What came in -----------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The moment of the pass, in the status' milliseconds: what this pass writes compares equal to it."""
        now = self.given.now
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    @property
    def spec(self) -> Mapping[str, Any]:
        """The Endpoint's raw spec."""
        spec: Mapping[str, Any] = self.given.endpoint["spec"]
        return spec

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The Endpoint's metadata."""
        metadata: Mapping[str, Any] = self.given.endpoint["metadata"]
        return metadata

    @property
    def observation(self) -> Observation:
        """What was seen."""
        return self.given.observation

    @property
    def described(self) -> Described | None:
        """DescribeEndpoint's answer, if this pass asked."""
        return self.given.observation.endpoint

    @property
    def desired(self) -> Revision | None:
        """The revision the spec asks for."""
        return self.given.resolution.revision

    @property
    def asked_hash(self) -> str | None:
        """The fleet hash of what the spec asks for; where that cannot be resolved now, of what it asked for last."""
        if self.desired is not None:
            return self.desired.fleet_hash
        before = self.status.desired_revision
        return before.fleet_hash if before is not None else None

    @property
    def endpoint_name(self) -> str:
        """SageMaker's endpoint name."""
        return str(self.spec.get("endpointName") or self.metadata["name"])

    def annotation(self, name: str) -> str:
        """An annotation's value; empty if absent."""
        return str((self.metadata.get("annotations") or {}).get(name, ""))

    def ask(self, *, account_id: str | None, execution_roles: tuple[str, ...]) -> Ask:
        """What the administrator's policy is asked about this Endpoint, with these execution roles."""
        target = self.given.resolution.target
        return Ask(
            namespace=self.metadata["namespace"],
            region=target.credentials.region if target else "",
            endpoint_name=target.endpoint_name if target else "",
            account_id=account_id,
            assume_role=target.credentials.role_arn if target else None,
            execution_roles=execution_roles,
            adopt=self.annotation(names.ADOPT) == "true",
        )

    def refused(self, revision: Revision) -> Finding | None:
        """What the policy has against deploying this revision; stored ones were judged when they were new, if ever.
        In the cluster the operator uses no right of its own in AWS: pods load model data as their ServiceAccount, and
        only the roles that they are to assume and the nodes' directories are judged."""
        if self.spec["backend"] == names.BACKEND_CLUSTER:
            roles = self.given.policy.judge_execution_roles(self.metadata["namespace"], revision.assumed_roles())
            return roles or findings.unlisted_cache(revision.models, self.given.resolution.cache_directories)
        return self.given.policy.judge(
            self.ask(account_id=self.observation.account_id, execution_roles=revision.execution_roles())
        )

    def subject(self, revision_name: str | None) -> Revision | None:
        """The revision of this name: the desired one, or a stored one in full."""
        if self.desired is not None and self.desired.name == revision_name:
            return self.desired
        stored = self.find_stored(revision_name)
        return stored.revision(self.given.resolution.owner) if stored else None

    def find_stored(self, revision_name: str | None) -> StoredRevision | None:
        """The stored revision of this name."""
        return next((stored for stored in self.given.stored if stored.name == revision_name), None)

    def status_config_names(self) -> frozenset[str]:
        """AWS EndpointConfigs that serve or are on their way: never deleted."""
        seen = self.described
        names = {r.endpoint_config_name for r in (self.status.revision, self.status.previous_revision) if r is not None}
        if seen is not None:
            names |= {seen.endpoint_config_name, seen.pending.endpoint_config_name if seen.pending else None}
        names |= {i.endpoint_config_name for i in (self.status.intent, self.status.deployment) if i is not None}
        return frozenset(name for name in names if name)

    # What is decided --------------------------------------------------------------------------------------------

    def set(self, **changes: Any) -> None:
        """Change status fields (Python names)."""
        self.status = self.status.model_copy(update=changes)

    def set_deployment(self, **changes: Any) -> None:
        """Change fields of the running deployment."""
        if self.status.deployment is not None:
            self.set(deployment=self.status.deployment.model_copy(update=changes))

    def act(self, *actions: Action) -> None:
        """Add to the action set."""
        self.actions.extend(actions)

    def again(self, seconds: float) -> None:
        """Look again after this long at the latest."""
        self.again_at(self.now + timedelta(seconds=seconds))

    def again_at(self, moment: datetime) -> None:
        """Look again at this moment at the latest."""
        self._again = moment if self._again is None else min(self._again, moment)

    def ready(self, message: str) -> None:
        """Verdict: the revision asked for is in service, its weights and counts in force."""
        self.verdict = Verdict("ready", Reason.IN_SERVICE, message)

    def reconciling(self, reason: Reason, message: str, *, keep_ready: bool = False) -> None:
        """Verdict: on the way."""
        self.verdict = Verdict("reconciling", reason, message, keep_ready and self._as_asked())

    def stalled(self, reason: Reason, message: str, *, keep_ready: bool = False, ready: Truth | None = None) -> None:
        """Verdict: somebody must act."""
        self.verdict = Verdict("stalled", reason, message, keep_ready and self._as_asked(), ready)

    def _as_asked(self) -> bool:
        """Whether what serves is what the spec asks for: only then may Ready stay as it was."""
        serving, desired = self.status.revision, self.desired
        if desired is None or serving is None or serving.fleet_hash != desired.fleet_hash:
            return False
        counts, weights = spec_counts(desired.endpoint_config), spec_weights(desired.endpoint_config)
        return all(
            (variant.last_applied_count, variant.last_applied_weight)
            == (counts.get(variant.variant_name), weights.get(variant.variant_name))
            for variant in self.status.production_variants
        )

    def finish(self) -> Decision:
        """The decision."""
        generation = int(self.metadata.get("generation") or 0)
        resolution = self.given.resolution
        made = self.status.conditions
        if self.verdict is not None:
            made = conditions.with_verdict(made, self.verdict, generation=generation, now=self.now)
        made = self._with_serving(made, generation)
        if resolution.ignored_fields:
            made = conditions.set_condition(
                made,
                ConditionType.FIELDS_IGNORED,
                "True",
                Reason.FIELDS_IGNORED,
                f"{self.spec['backend']} has no use for {', '.join(resolution.ignored_fields)}",
                generation=generation,
                now=self.now,
            )
        else:
            made = conditions.drop_condition(made, ConditionType.FIELDS_IGNORED)
        self.set(
            conditions=made,
            observed_generation=generation,
            observed_references=resolution.references or self.status.observed_references,
            alarms_text=alarms_text(self.status.alarms),
            latch=latches.noted(self.status.latch, self.spec, self.desired, self._as_it_failed()),
        )
        if self.desired is not None:
            self.set(desired_revision=self.desired.status())
        return Decision(
            status=self.status,
            actions=tuple(self.actions),
            look_again=self._again,
            events=(*self.notes, *events(self.given.status, self.status)),
            confirm_references=self.confirm_references,
        )

    def _as_it_failed(self) -> Revision | None:
        """The revision asked for, as it was when it was deployed last."""
        desired = self.desired
        if desired is None:
            return None
        named = (ended.revision for ended in self.status.history if ended.fleet_hash == desired.fleet_hash)
        return self.subject(next(named, None)) or desired

    def _with_serving(self, made: Any, generation: int) -> Any:
        word, before = self.status.endpoint_status, conditions.find(made, ConditionType.SERVING)
        who = "SageMaker" if self.spec["backend"] == names.BACKEND_SAGEMAKER else "The cluster"
        if self.unseen and before is not None:
            truth: Truth = before.status
            message = before.message
        elif word is None:
            truth, message = "False", "No endpoint yet."
        elif word in SERVING and self.unanswered:
            truth = "False"
            message = f"{who} does not answer requests (endpoint status {word}): {self.unanswered}."
        elif word in SERVING:
            truth, message = "True", f"{who} answers requests (endpoint status {word})."
        else:
            truth, message = "False", f"{who} does not answer requests (endpoint status {word})."
        return conditions.set_condition(
            made, ConditionType.SERVING, truth, word or Reason.PENDING, message, generation=generation, now=self.now
        )


def alarms_text(alarms: tuple[AlarmStatus, ...]) -> str | None:
    """The ALARMS column: `2 OK`, or the names that are not, with their state."""
    if not alarms:
        return None
    bad = [f"{alarm.state} {alarm.alarm_name}" for alarm in alarms if alarm.state != "OK"]
    return (", ".join(bad) if bad else f"{len(alarms)} OK")[:64]


def events(before: EndpointStatus, after: EndpointStatus) -> tuple[EventNote, ...]:
    """Events for what this pass changed: transitions only, so a pass that repeats itself is silent."""
    notes: list[EventNote] = []
    old, new = before.deployment, after.deployment
    if new is not None and (old is None or old.revision != new.revision or old.start_time != new.start_time):
        notes.append(EventNote("Normal", "DeploymentStarted", _started(new)))
    ended = after.last_deployment
    if ended is not None and ended != before.last_deployment:
        good = ended.outcome is Outcome.SUCCEEDED
        text = f"Revision {ended.revision}: {ended.outcome}" + (f", cause {ended.cause}" if not good else "")
        notes.append(
            EventNote("Normal" if good else "Warning", f"Deployment{ended.outcome}", _join(text, ended.message))
        )
    if before.endpoint_status != after.endpoint_status:
        notes.append(
            EventNote(
                "Warning" if after.endpoint_status in {"Failed", "OutOfService", "UpdateRollbackFailed"} else "Normal",
                f"Endpoint{after.endpoint_status or 'Gone'}",
                _join(f"{before.endpoint_status or 'none'} -> {after.endpoint_status or 'none'}", after.failure_reason),
            )
        )
    was, stalled = (conditions.find(s.conditions, ConditionType.STALLED) for s in (before, after))
    if stalled and stalled.status == "True" and (was is None or (was.status, was.reason) != ("True", stalled.reason)):
        notes.append(EventNote("Warning", stalled.reason, stalled.message))
    was, ready = (conditions.find(s.conditions, ConditionType.READY) for s in (before, after))
    if ready and ready.status == "True" and (was is None or was.status != "True"):
        notes.append(EventNote("Normal", "Ready", ready.message))
    for ack in after.commands:
        if ack not in before.commands:
            notes.append(EventNote("Normal", f"Command{ack.result}", _join(f"{ack.command} {ack.value}", ack.message)))
    return tuple(notes)


def _started(deployment: DeploymentStatus) -> str:
    return f"Revision {deployment.revision} under {deployment.policy}"


def _join(text: str, more: str | None) -> str:
    return f"{text}: {more}" if more else text


def deletion_asked(endpoint: Mapping[str, Any]) -> bool:
    """Whether the Endpoint is being deleted."""
    return bool(endpoint["metadata"].get("deletionTimestamp"))


def has_finalizer(endpoint: Mapping[str, Any]) -> bool:
    """Whether the operator's finalizer is on the Endpoint."""
    return names.FINALIZER in (endpoint["metadata"].get("finalizers") or ())
