"""A stage for decisions: one Endpoint with its referents, and SageMaker's answers put there by the test.

Each `step` is one pass as the controller runs it: decide, keep the status, remember the actions."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.api.status import EndpointStatus, VariantSummary
from sluice.core.actions import (
    Action,
    DropRevision,
    MarkRevision,
    PatchEndpoint,
    StoreRevision,
    SyncTags,
    acted_name,
)
from sluice.core.decision import Decision
from sluice.core.endpoint.decide import decide
from sluice.core.endpoint.draft import DecideSettings, Pass
from sluice.core.observation import AlarmReading, CallProblem, Described, Observation, PendingDeployment, Presence
from sluice.core.permission import Policy, Rule
from sluice.core.resolve import Resolution, ResolveSettings, resolve
from sluice.core.revision import StoredRevision, controller_revision, stored_revision

ACCOUNT = "111122223333"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def model(name: str = "churn", image: str = "repo/churn:1", **spec: Any) -> dict[str, Any]:
    """A Model."""
    return _object("Model", name, {"primaryContainer": {"image": image}, **spec})


def config(name: str = "churn", count: int = 4, weight: float | None = None, **variant: Any) -> dict[str, Any]:
    """An EndpointConfig with one variant."""
    one: dict[str, Any] = {
        "variantName": "a",
        "modelName": "churn",
        "instanceType": "ml.m5.large",
        "initialInstanceCount": count,
        **variant,
    }
    if weight is not None:
        one["initialVariantWeight"] = weight
    return _object("EndpointConfig", name, {"productionVariants": [one]})


def canary(alarms: tuple[str, ...] = ()) -> dict[str, Any]:
    """A DeploymentConfig."""
    made: dict[str, Any] = {
        "blueGreenUpdatePolicy": {
            "trafficRoutingConfiguration": {
                "type": "CANARY",
                "canarySize": {"type": "CAPACITY_PERCENT", "value": 25},
                "waitIntervalInSeconds": 60,
            },
            "terminationWaitInSeconds": 60,
        }
    }
    if alarms:
        made["autoRollbackConfiguration"] = {"alarms": [{"alarmName": name} for name in alarms]}
    return made


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": names.API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": "team-a", "uid": f"uid-{kind}-{name}", "generation": 1},
        "spec": spec,
    }


def denied(operation: str) -> CallProblem:
    """A call that IAM does not permit."""
    return CallProblem(
        operation, Reason.ACCESS_DENIED, "denied", code="AccessDeniedException", retry_after_seconds=30.0
    )


def rejected(operation: str) -> CallProblem:
    """A call that SageMaker finds wrong."""
    return CallProblem(
        operation, Reason.REJECTED_BY_SAGEMAKER, "1 validation error", code="ValidationException", transient=False
    )


def _tags(owner: str | None, tags: dict[str, str] | None) -> dict[str, str]:
    if tags is not None:
        return tags
    return {names.OWNER_TAG: owner} if owner else {}


class Stage:
    """One Endpoint, its referents, and the pass."""

    def __init__(self, **spec: Any) -> None:
        self.now = EPOCH
        self.account = ACCOUNT
        self.objects = {("Model", "churn"): model(), ("EndpointConfig", "churn"): config()}
        self.endpoint = _object(
            "Endpoint",
            "churn",
            {"backend": "SageMaker", "endpointConfigName": "churn", "sagemaker": {"region": "eu-west-1"}, **spec},
        )
        self.endpoint["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        self.status = EndpointStatus()
        self.revisions: dict[str, dict[str, Any]] = {}
        self.policy = Policy((Rule(namespaces=("*",), execution_roles=("*",), assume_roles=("*",), adopt=True),))
        self.settings = DecideSettings()
        self.actions: list[Action] = []
        self.decision: Decision | None = None
        self.acted: tuple[str, ...] = ()

    # The world -------------------------------------------------------------------------------------------------

    def edit(self, kind: str, **spec: Any) -> None:
        """Change the spec of the churn Model, EndpointConfig or the Endpoint."""
        target = self.endpoint if kind == "Endpoint" else self.objects[kind, "churn"]
        target["spec"].update(spec)
        target["metadata"]["generation"] += 1

    def annotate(self, **annotations: str) -> None:
        """Set sluice.dev/... annotations (`_` is `-`)."""
        held = self.endpoint["metadata"].setdefault("annotations", {})
        held.update({f"{names.GROUP}/{key.replace('_', '-')}": value for key, value in annotations.items()})

    def delete(self) -> None:
        """kubectl delete: the finalizer keeps it."""
        self.endpoint["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"

    def resolution(self) -> Resolution:
        """What the spec resolves to now."""
        return resolve(
            self.endpoint, lambda kind, name: self.objects.get((kind, name)), ResolveSettings("test", "eu-west-1")
        )

    def stored(self) -> tuple[StoredRevision, ...]:
        """The ControllerRevisions."""
        return tuple(stored_revision(revision) for revision in self.revisions.values())

    def described(
        self, status: str = "InService", config_name: str | None = None, moved: float = 0.0, **more: Any
    ) -> Described:
        """DescribeEndpoint's answer; `moved` seconds are added to LastModifiedTime since the start."""
        serving = self.status.revision.endpoint_config_name if self.status.revision else None
        variants = more.pop("variants", None)
        if variants is None:
            variants = tuple(
                VariantSummary(
                    variant_name=v["variantName"],
                    current_weight=v.get("initialVariantWeight", 1.0),
                    desired_weight=v.get("initialVariantWeight", 1.0),
                    current_instance_count=v.get("initialInstanceCount"),
                    desired_instance_count=v.get("initialInstanceCount"),
                )
                for v in self.objects["EndpointConfig", "churn"]["spec"]["productionVariants"]
            )
        return Described(
            name=more.pop("name", "churn"),
            arn=f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/{more.pop('arn_name', 'churn')}",
            status=status,  # type: ignore[arg-type] # tests name statuses by plain strings
            endpoint_config_name=config_name or serving,
            failure_reason=more.pop("failure_reason", None),
            creation=EPOCH,
            last_modified=EPOCH + timedelta(seconds=moved),
            variants=variants,
            **more,
        )

    # The pass --------------------------------------------------------------------------------------------------

    def step(
        self,
        seen: Described | Presence = Presence.MISSING,
        *,
        seconds: float = 0.0,
        owner: str | None = "test/team-a/churn",
        alarms: dict[str, str] | None = None,
        act_problem: CallProblem | None = None,
        problem: CallProblem | None = None,
        scalable: frozenset[str] | None = frozenset(),
        tags_read: bool = True,
        tags: dict[str, str] | None = None,
        rivals: tuple[dict[str, Any], ...] = (),
        **more: Any,
    ) -> Decision:
        """One pass: see, decide, persist; kube actions are carried out, AWS actions are remembered."""
        self.now += timedelta(seconds=seconds)
        observation = Observation(
            presence=seen if isinstance(seen, Presence) else Presence.DESCRIBED,
            at=self.now,
            account_id=self.account,
            endpoint=None if isinstance(seen, Presence) else seen,
            tags=_tags(owner, tags) if tags_read else None,
            scalable_variants=scalable,
            alarms=tuple(AlarmReading(name, state, self.now) for name, state in (alarms or {}).items()),
            act_problem=act_problem,
            problem=problem,
            acted=self.acted,
            **more,
        )
        decision = decide(
            Pass(
                endpoint=self.endpoint,
                status=self.status,
                resolution=self.resolution(),
                observation=observation,
                now=self.now,
                stored=self.stored(),
                policy=self.policy,
                rivals=rivals,
                settings=self.settings,
            )
        )
        # What was persisted is read back from JSON, as from the API server.
        self.status = EndpointStatus.model_validate(decision.status.model_dump(mode="json", by_alias=True))
        assert self.status == decision.status
        self.actions = list(decision.actions)
        self.decision = decision
        self.acted = tuple(acted_name(action) for action in self.actions if isinstance(action, SyncTags))
        self._carry_out()
        return decision

    def _carry_out(self) -> None:
        for action in self.actions:
            if isinstance(action, PatchEndpoint):
                metadata = self.endpoint["metadata"]
                metadata.setdefault("annotations", {}).update(action.annotations)
                finalizers = set(metadata.get("finalizers") or ())
                finalizers |= {names.FINALIZER} if action.add_finalizer else set()
                finalizers -= {names.FINALIZER} if action.remove_finalizer else set()
                metadata["finalizers"] = sorted(finalizers)
            elif isinstance(action, StoreRevision):
                self.revisions.setdefault(
                    action.name, controller_revision(self.endpoint, action.name, action.data, action.number)
                )
            elif isinstance(action, MarkRevision):
                self.revisions[action.name]["metadata"]["annotations"]["sluice.dev/outcome"] = action.outcome
            elif isinstance(action, DropRevision):
                self.revisions.pop(action.name, None)

    def called(self) -> list[str]:
        """The names of the last pass's actions."""
        return [type(action).__name__ for action in self.actions]

    def condition(self, type_: str) -> tuple[str, str]:
        """(status, reason) of a condition."""
        found = next(c for c in self.status.conditions if c.type == type_)
        return found.status, found.reason

    def bring_into_service(self) -> None:
        """Create the endpoint and see it InService."""
        self.step()
        self.step()
        assert "CreateEndpoint" in self.called()
        assert self.status.intent is not None
        config_name = self.status.intent.endpoint_config_name
        self.step(self.described("Creating", config_name, moved=1), seconds=1)
        self.step(self.described("InService", config_name, moved=2), seconds=1)
        self.settle_down(self.described("InService", config_name, moved=2))
        assert self.condition("Ready") == ("True", "InService")

    def settle_down(self, seen: Described, *, passes: int = 6) -> None:
        """Repeat the pass until it has nothing to do."""
        for _ in range(passes):
            self.step(seen, seconds=0.1)
            if not self.actions:
                return
        raise AssertionError(f"still acting: {self.called()}")

    def pending(self, config_name: str, *variant_status: Any) -> PendingDeployment:
        """A PendingDeploymentSummary."""
        variant = VariantSummary(variant_name="a", desired_instance_count=4, variant_status=variant_status)
        return PendingDeployment(config_name, self.now, (variant,))


def two_revisions(stage: Stage, **first: Any) -> Described:
    """Deploy the Model as it is, then repo/churn:2. Returns what is seen then."""
    stage.objects["Model", "churn"]["spec"].update(first)
    stage.bring_into_service()
    stage.objects["Model", "churn"]["spec"].pop("executionRoleArn", None)
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    before = stage.described(moved=2)
    stage.step(before)
    stage.step(before, seconds=6)
    assert stage.status.intent is not None
    seen = stage.described("InService", stage.status.intent.endpoint_config_name, moved=9)
    stage.settle_down(seen)
    return seen
