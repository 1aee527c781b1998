"""The stage of one scenario: a namespace of a real API server, a SageMaker simulator, CloudWatch, and the operator.

Simulated time runs fast (`SPEED`), real time is what the operator lives in; waits have a deadline and say at the end
what was seen instead.
"""

import itertools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.operator.harness.kube import POLL_SECONDS, Kube, Object, until
from tests.operator.harness.manifests import NAME
from tests.operator.harness.nursery import Nursery
from tests.operator.harness.operator_process import Operator

from sagemaker_simulator.testing import Simulator

SPEED = 20.0
"""Simulated seconds per second."""
HURRY = 500.0
"""The same, where nothing is left to be seen on the way."""
LONG = 1000
"""Simulated: so long lasts what a scenario is to see on the way, on a busy machine too; then it hurries."""
SECONDS = 120.0
"""How long a scenario waits for what should come, unless it says otherwise."""
CREATE_SECONDS = 6.0
"""Simulated: nearly every scenario begins with a creation, and few look at it."""
ACCOUNT = "111122223333"
REGION = "us-east-1"
READS = ("Describe", "List", "Get")
ALLOW_ALL: Object = {
    "rules": [{"namespaces": ["*"], "assumeRoles": ["*"], "executionRoles": ["*"], "adopt": True}],
}
FAST: Mapping[str, str] = {
    "SLUICE_IDENTITY": "operator",
    "SLUICE_SETTLE_SECONDS": "0",
    "SLUICE_LEASE_SECONDS": "6",
    "SLUICE_SWEEP_SECONDS": "10",
    "SLUICE_PERMISSIONS_SECONDS": "1",
    "SLUICE_SAGEMAKER_SWEEP_SECONDS": "0.5",
    "SLUICE_SAGEMAKER_FULL_LIST_SECONDS": "3",
    "SLUICE_SAGEMAKER_MOVING_SECONDS": "0.2",
    "SLUICE_AWS_CALLS_PER_SECOND": "1000",
    "SLUICE_CLOUDWATCH_SECONDS": "0.2",
    "SLUICE_HEALTH_PORT": "0",
    "SLUICE_LOG_FORMAT": "plain",
}
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all scenarios of a run share."""

    kube: Kube
    kubeconfig: Path
    nursery: Nursery
    cloudwatch_url: str


class World:
    """One scenario."""

    def __init__(
        self,
        surroundings: Surroundings,
        directory: Path,
        *,
        speed: float = SPEED,
        namespace: str = "",
        policy: Object | None = ALLOW_ALL,
        environment: Mapping[str, str] | None = None,
        patience: float = SECONDS,
        **durations: Any,
    ) -> None:
        self.patience = patience
        self.surroundings = surroundings
        self.kube = surroundings.kube
        self.namespace = namespace or f"scenario-{next(_numbers)}"
        self.simulator = Simulator(
            speed=speed,
            account=ACCOUNT,
            cloudwatch_endpoint=surroundings.cloudwatch_url,
            **{"create_seconds": CREATE_SECONDS, **durations},
        )
        self.simulator.start()
        self._directory = directory
        self._ignored = 0
        self._clients: dict[str, Any] = {}
        if self.kube.get("Namespace", "", self.namespace) is None:
            self.kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        if policy is not None:
            self.permit(policy)
        self.operator = self.installation(environment=environment)

    def installation(
        self,
        *,
        identity: str = "operator",
        kubeconfig: Path | None = None,
        sagemaker_url: str | None = None,
        cloudwatch_url: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Operator:
        """An operator for this namespace, not started; addresses of proxies may stand in for the real ones."""
        aws = sagemaker_url or self.simulator.url
        return Operator(
            self.surroundings.nursery,
            kubeconfig=kubeconfig or self.surroundings.kubeconfig,
            log=self._directory / f"{self.namespace}.log",
            environment={
                **FAST,
                "SLUICE_IDENTITY": identity,
                "SLUICE_INSTALLATION_ID": "test",
                "SLUICE_OPERATOR_NAMESPACE": self.namespace,
                "SLUICE_WATCH_NAMESPACES": self.namespace,
                "AWS_REGION": REGION,
                "AWS_ACCESS_KEY_ID": "operator",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_ENDPOINT_URL_SAGEMAKER": aws,
                "AWS_ENDPOINT_URL_STS": aws,
                "AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING": aws,
                "AWS_ENDPOINT_URL_CLOUDWATCH": cloudwatch_url or self.surroundings.cloudwatch_url,
                **(environment or {}),
            },
        )

    def close(self) -> None:
        """Kill the operator and stop the simulator; fails if the simulator broke SageMaker's service model."""
        self.operator.kill()
        self.simulator.stop()

    # Kubernetes -------------------------------------------------------------------------------------------------

    def permit(self, policy: Object) -> None:
        """The administrator's permission policy."""
        self.kube.apply(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "sluice-permissions"},
                "data": {"policy.yaml": yaml.safe_dump(policy)},
            },
            self.namespace,
        )

    def apply(self, *objects: Object) -> None:
        """kubectl apply."""
        for item in objects:
            self.kube.apply(item, self.namespace)

    def annotate(self, name: str = NAME, kind: str = "Endpoint", **values: str | None) -> None:
        """Set sluice.dev/ annotations on an object; underscores are dashes, None removes."""
        annotations = {f"sluice.dev/{key.replace('_', '-')}": value for key, value in values.items()}
        self.kube.patch(kind, self.namespace, name, {"metadata": {"annotations": annotations}})

    def delete(self, kind: str = "Endpoint", name: str = NAME) -> None:
        """kubectl delete, without waiting."""
        self.kube.delete(kind, self.namespace, name)

    def endpoint(self, name: str = NAME) -> Object:
        """The Endpoint as it is now."""
        found = self.kube.get("Endpoint", self.namespace, name)
        assert found is not None, f"Endpoint {name} does not exist"
        return found

    def status(self, name: str = NAME) -> Object:
        """The Endpoint's status; empty if there is none."""
        found: Object = self.endpoint(name).get("status") or {}
        return found

    def revisions(self) -> list[Object]:
        """The stored ControllerRevisions, oldest first."""
        return sorted(self.kube.list("ControllerRevision", self.namespace), key=lambda r: int(r["revision"]))

    def outcomes(self, *wanted: str) -> None:
        """Until the stored revisions, oldest first, carry these outcomes."""

        def noted() -> list[str | None]:
            return [r["metadata"]["annotations"].get("sluice.dev/outcome") for r in self.revisions()]

        self.wait(lambda: noted() == list(wanted), f"outcomes {wanted} on the stored revisions")

    def events(self) -> list[tuple[str, str]]:
        """(name of the object, reason) of every Event, oldest first."""
        found = sorted(self.kube.list("Event", self.namespace), key=lambda event: str(event["eventTime"]))
        return [(event["regarding"]["name"], event["reason"]) for event in found]

    # Waiting ----------------------------------------------------------------------------------------------------

    def wait(
        self, look: Callable[[], Any], what: str, *, seconds: float | None = None, every: float = POLL_SECONDS
    ) -> Any:
        """Until `look` gives something true; an AssertionError shows what stands there instead."""
        bound = seconds or self.patience
        return until(lambda: look() or None, seconds=bound, what=lambda: f"{what}\n{self.report()}", every=every)

    def expect(
        self,
        name: str = NAME,
        *,
        kind: str = "Endpoint",
        seconds: float | None = None,
        status: Object | None = None,
        message: str = "",
        conditions: Mapping[str, str] | None = None,
        **named: str,
    ) -> Object:
        """Until an object has these conditions ("True InService": status and reason) for its present generation, these
        status fields, and `message` in one of the conditions; returns the object."""
        seen: Object = {}
        wanted_of = {**(conditions or {}), **named}

        def look() -> Object | None:
            found = self.kube.get(kind, self.namespace, name)
            seen.clear()
            if found is None:
                return None
            state = found.get("status") or {}
            shown = {c["type"]: f"{c['status']} {c['reason']}" for c in state.get("conditions") or ()}
            current = {c["type"]: c.get("observedGeneration") for c in state.get("conditions") or ()}
            texts = [c.get("message", "") for c in state.get("conditions") or () if c["type"] in wanted_of]
            seen.update(shown)
            fits = (
                all(shown.get(type_) == wanted for type_, wanted in wanted_of.items())
                and all(current[type_] == found["metadata"]["generation"] for type_ in wanted_of)
                and all(state.get(field) == value for field, value in (status or {}).items())
                and (not message or any(message in text for text in texts))
            )
            return found if fits else None

        return until(
            look,
            seconds=seconds or self.patience,
            what=lambda: f"{kind} {name}: {wanted_of} {status or ''} {message}\nseen: {seen}\n{self.report()}",
        )

    def ready(self, name: str = NAME, *, seconds: float | None = None, **status: Any) -> Object:
        """Until the Endpoint is in service with what its spec asks for."""
        return self.expect(
            name,
            seconds=seconds,
            status={"endpointStatus": "InService", **status},
            Ready="True InService",
            Reconciling="False Settled",
            Stalled="False NothingStalled",
            Serving="True InService",
        )

    def deployed(self, image: str, name: str = NAME, *, seconds: float | None = None) -> Object:
        """Until the Endpoint is Ready and SageMaker runs this image."""

        self.wait(lambda: self.images(name) == {image}, f"SageMaker runs {image}", seconds=seconds)
        return self.ready(name, seconds=seconds)

    def hurry(self) -> None:
        """What was to be seen on the way was seen: simulated time flies."""
        self.simulator.pace(HURRY)

    def serving(self, *objects: Object) -> None:
        """These objects, in service and at rest; what comes next is looked at alone."""
        self.apply(*objects)
        self.ready()
        self.steady(1)
        self.mark()

    def stalled(self, reason: str, name: str = NAME, *, seconds: float | None = None, message: str = "") -> Object:
        """Until a person must act, for this reason."""
        return self.expect(
            name,
            seconds=seconds,
            message=message,
            Ready=f"False {reason}",
            Stalled=f"True {reason}",
            Reconciling="False Settled",
        )

    def gone(self, name: str = NAME, *, seconds: float | None = None) -> None:
        """Until the Endpoint is deleted."""
        self.wait(
            lambda: self.kube.get("Endpoint", self.namespace, name) is None, f"Endpoint {name} gone", seconds=seconds
        )

    def steady(self, sweeps: int = 2) -> None:
        """Until the operator has listed all endpoints this often again: whatever it wanted to do, it has done.
        Without any Endpoint there is nothing to list for."""
        if not self.kube.list("Endpoint", self.namespace):
            return
        before = self.simulator.counts().get("ListEndpoints", 0)
        self.wait(
            lambda: self.simulator.counts().get("ListEndpoints", 0) >= before + sweeps, "sweeps of a quiet operator"
        )

    # AWS --------------------------------------------------------------------------------------------------------

    def boto(self, service: str = "sagemaker") -> Any:
        """A boto3 client, as somebody who is not the operator."""
        if service not in self._clients:
            self._clients[service] = client(service, self.simulator.url)
        return self._clients[service]

    def described(self, name: str = NAME) -> Object:
        """DescribeEndpoint."""
        found: Object = self.boto().describe_endpoint(EndpointName=name)
        return found

    def images(self, name: str = NAME) -> set[str]:
        """The images that serve, as they were specified; nothing where there is no endpoint or none serves."""
        try:
            variants = self.described(name).get("ProductionVariants", ())
        except ClientError:
            return set()
        return {i["SpecifiedImage"] for v in variants for i in v.get("DeployedImages", ())}

    def mark(self) -> None:
        """Forget the operator's calls so far."""
        self._ignored = len(self._requests())

    def writes(self) -> list[str]:
        """Mutating calls of the operator that succeeded (or whose answer was lost) since the mark, in order."""
        return [r["operation"] for r in self._requests()[self._ignored :] if _mutates(r) and _effective(r)]

    def refused_writes(self) -> list[tuple[str, str]]:
        """(operation, code) of the operator's mutating calls since the mark that SageMaker refused."""
        return [
            (r["operation"], r["code"]) for r in self._requests()[self._ignored :] if _mutates(r) and not _effective(r)
        ]

    def calls(self) -> list[str]:
        """All calls of the operator since the mark, in order."""
        return [r["operation"] for r in self._requests()[self._ignored :]]

    def standing(self) -> Object:
        """What exists in SageMaker, in all accounts and regions: names of endpoints, configs and models."""
        found: Object = {"endpoints": [], "endpointConfigs": [], "models": []}
        for region in self.simulator.state()["regions"]:
            for kind, names in found.items():
                names.extend(sorted(region[kind]))
        return found

    @property
    def cloudwatch(self) -> Any:
        """A boto3 client of the CloudWatch that all scenarios share."""
        if "cloudwatch" not in self._clients:
            self._clients["cloudwatch"] = client("cloudwatch", self.surroundings.cloudwatch_url)
        return self._clients["cloudwatch"]

    def alarm(self, name: str, state: str = "OK", *, metrics: str = "AWS/SageMaker") -> str:
        """Make a CloudWatch alarm of this state on a metric of that namespace; returns its full name, unique in this
        run."""
        full = f"{self.namespace}-{name}"
        self.cloudwatch.put_metric_alarm(
            AlarmName=full,
            Namespace=metrics,
            MetricName="Invocation5XXErrors",
            Statistic="Sum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1.0,
            ComparisonOperator="GreaterThanThreshold",
        )
        self.set_alarm(full, state)
        return full

    def set_alarm(self, full_name: str, state: str) -> None:
        """Change an alarm's state."""
        self.cloudwatch.set_alarm_state(AlarmName=full_name, StateValue=state, StateReason="scenario")

    # Reports ----------------------------------------------------------------------------------------------------

    def report(self) -> str:
        """What an engineer wants to see when a scenario fails."""
        parts = []
        for item in self.kube.list("Endpoint", self.namespace):
            parts.append(json.dumps({"annotations": item["metadata"].get("annotations"), "status": item.get("status")}))
        last = [f"{r['operation']} {r['target']} {r['code']}" for r in self._requests()[-25:]]
        return "\n".join([*parts, "last calls: " + ", ".join(last), "operator's log:", self.operator.tail()])

    def _requests(self) -> list[Object]:
        return [r for r in self.simulator.requests() if r["role"] != "person"]


MakeWorld = Callable[..., World]
"""Makes a world with settings of its own; its operator is not started."""


_session = boto3.Session(aws_access_key_id="person", aws_secret_access_key="secret", region_name=REGION)
_session_lock = threading.Lock()


def client(service: str, url: str) -> Any:
    """A boto3 client; all of a run share one session, which reads the service models once."""
    create: Any = _session.client  # boto3-stubs knows clients by literal service names only
    with _session_lock:
        return create(service, endpoint_url=url, config=Config(proxies={}))


def _mutates(request: Object) -> bool:
    return request["service"] == "sagemaker" and not request["operation"].startswith(READS)


def _effective(request: Object) -> bool:
    return request["code"] in ("OK", "Lost")
