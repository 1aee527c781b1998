"""Deployments in the cluster, many at once: the operator's process and an API server are real, CloudWatch is moto's
server behind AWS' quota, the routers of a few endpoints are real Envoys with their agents; where there are many, hands
report for them.

Hands make the pods, which are ready at once, so what is measured is the operator's own part."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import yaml
from tests.alarms.quota import Quota, behind_quota
from tests.bench.cloudwatch import moto, said
from tests.bench.cluster import READY_SECONDS, Operator, fleets_of, hands_at, start_routers
from tests.bench.figures import Figure
from tests.bench.rollouts import reachable
from tests.bench.router import percentile
from tests.bench.routes import ROUTE_BACK, ROUTERS_BACK
from tests.bench.routing import NAMESPACE, Routing, until
from tests.bench.world import POLICY
from tests.cluster_backend.hands import Hands
from tests.conformance.recorder import Recorder

WAIT_SECONDS, FINAL_SECONDS = 2, 2
"""Of every canary: its bake and the final one."""
ALARM = "bench"
REGION = "us-east-1"
LONG_SECONDS = 600
"""A bake that only the alarm ends."""


def many(directory: Path, *, quick: bool) -> list[Figure]:
    """All endpoints are edited at once, again and again, under an alarm that stays OK."""
    endpoints, rounds = (20, 2) if quick else (200, 5)
    with crowd(directory, endpoints, reporting=True) as stage:
        return _rounds(stage, endpoints, rounds)


def one(directory: Path, *, quick: bool) -> list[Figure]:
    """One endpoint after the other, with real routers: what a step takes beyond its bake, and how soon an alarm is
    obeyed."""
    times = 5 if quick else 30
    with crowd(directory, 1, reporting=False) as stage:
        figures = _rounds(stage, 1, times)
        return [*figures, _obeyed(stage, 3 if quick else times)]


def _rounds(stage: Crowd, endpoints: int, rounds: int) -> list[Figure]:
    world, operator, before = stage.world, stage.operator, stage.quota.counted
    walls, outcomes = [], Counter[str]()
    recorder = Recorder(world.kube, NAMESPACE)
    used, largest = operator.process.used(), 0.0
    for number in range(1, rounds + 1):
        began, since = time.monotonic(), time.time()
        edit(world, endpoints, f"{number}-{endpoints}", WAIT_SECONDS)
        until(f"round {number} of deployments has ended", lambda t=since: ended(world, endpoints, t), READY_SECONDS)  # type: ignore[misc]
        walls.append(time.monotonic() - began)
        lasts = [status_of(endpoint)["lastDeployment"] for endpoint in world.kube.list("Endpoint", NAMESPACE)]
        outcomes.update(last["outcome"] for last in lasts)
        largest = max(largest, operator.process.used().resident_megabytes)
    cpu = operator.process.used().cpu_seconds - used.cpu_seconds
    waits, deployments = WAIT_SECONDS + FINAL_SECONDS, endpoints * rounds
    beyond = [1000 * value for number in range(endpoints) for value in _beyond(recorder.seen(name_of(number)))]
    recorder.close()
    calls = stage.quota.counted.since(before)
    wrong = deployments - outcomes["Succeeded"]
    routers = "2 real routers" if endpoints == 1 else "routers reported by hands"
    return [
        Figure(
            f"canary updates of {endpoints} endpoints at once, {rounds} times ({routers})",
            f"wall {max(walls):.1f} s at most, for {waits} s of their own waits; "
            f"a step beyond its bake p50 {percentile(beyond, 0.5):.0f} ms, p99 {percentile(beyond, 0.99):.0f} ms",
            "a step < 1 s beyond its bake" if endpoints == 1 else "",
            {"wallSeconds": [round(wall, 2) for wall in walls], "deployments": deployments},
        ),
        Figure(
            f"the operator with {endpoints} deployments at once",
            f"{1000 * cpu / deployments:.0f} ms of CPU a deployment, {largest:.0f} MB resident",
            "",
            {"cpuSeconds": round(cpu, 2), "deployments": deployments},
        ),
        Figure(
            f"false rollbacks in {deployments} deployments without requests under a CloudWatch alarm that is OK",
            f"{wrong}; {said(calls)}",
            "0",
            {"outcomes": dict(outcomes), "calls": asdict(calls)},
            {"false rollbacks": wrong},
        ),
    ]


def _beyond(seen: list[dict[str, Any]]) -> Iterator[float]:
    """What each step took beyond its bake, in seconds: traffic moved and confirmed, and from the bake's end on until
    the next stage."""
    stages: list[dict[str, Any]] = []
    for one in seen:
        deployment = status_of(one).get("deployment")
        if deployment is not None and (not stages or stages[-1]["stageSince"] != deployment["stageSince"]):
            stages.append(deployment)
    for shift, bake, following in zip(stages, stages[1:], stages[2:], strict=False):
        if bake["stage"] in ("Baking", "FinalBaking"):
            moved = _seconds(bake["stageSince"]) - _seconds(shift["stageSince"])
            yield moved + _seconds(following["stageSince"]) - _seconds(bake["bakeUntil"])


def _obeyed(stage: Crowd, times: int) -> Figure:
    """From the alarm's state to both routers' word that no request goes to the new revision any more."""
    world, seconds, written, before = stage.world, [], [], stage.quota.counted
    for number in range(times):
        edit(world, 1, f"alarm-{number}", LONG_SECONDS)
        until("the canary bakes", lambda: _stage(world) == "Baking", READY_SECONDS)
        generation, began = world.routes.specs[name_of(0)][-1][1], time.time()
        stage.set_alarm("ALARM")
        until("the route goes back", lambda g=generation: world.routes.specs[name_of(0)][-1][1] > g, 60)  # type: ignore[misc]
        at, generation, spec = world.routes.specs[name_of(0)][-1]
        assert sum(fleet["weight"] > 0 for fleet in spec["fleets"]) == 1, spec
        world.confirmed(name_of(0), generation, within=60)
        seconds.append(max(world.routes.confirmations(name_of(0), generation).values()) - began)
        written.append(at - began)
        stage.set_alarm("OK")
        until("the rollback has ended", lambda t=began: ended(world, 1, t), READY_SECONDS)  # type: ignore[misc]
    calls = stage.quota.counted.since(before)
    return Figure(
        f"SetAlarmState called -> {ROUTERS_BACK}: one endpoint, a CloudWatch alarm",
        f"p50 {percentile(seconds, 0.5):.2f} s, p99 {percentile(seconds, 0.99):.2f} s ({times} rollbacks); "
        f"-> {ROUTE_BACK} p50 {percentile(written, 0.5):.2f} s; {said(calls)}",
        "as the quota allows: alarms are read every second",
        {"seconds": sorted(round(value, 3) for value in seconds), "calls": asdict(calls)},
    )


# The world ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crowd:
    """Endpoints `name_of(0)`, ... of one instance in service, and one CloudWatch alarm for all of them."""

    world: Routing
    operator: Operator
    hands: Hands
    """Who makes the pods."""
    quota: Quota
    """What the operator reaches CloudWatch through."""
    _cloudwatch: Any
    """A client that goes around it."""

    def set_alarm(self, state: str) -> None:
        """Returns when the alarm has that state."""
        self._cloudwatch.set_alarm_state(AlarmName=ALARM, StateValue=state, StateReason="bench")

    @contextmanager
    def hands_rest(self) -> Iterator[None]:
        """They and who makes the slices list all that stands, ten times a second: the more there is, the more of the
        cores is theirs."""
        self.hands.resting = True
        yield
        self.hands.resting = False


@contextmanager
def crowd(
    directory: Path, endpoints: int, *, reporting: bool, pod_of_new: Callable[[], int] = lambda: 1, **settings: str
) -> Iterator[Crowd]:
    """So many Endpoints, whose CloudWatch has AWS' quota. Not `reporting`: behind two routers, where a fleet that comes
    has the pod of the number that `pod_of_new` gives; the first pod runs."""
    with ExitStack() as stack:
        upstream = stack.enter_context(moto())
        quota = stack.enter_context(behind_quota(upstream))
        cloudwatch = _client(upstream)
        _make_alarm(cloudwatch)
        world = stack.enter_context(Routing(directory, routers=0))
        _permit(world)
        world.pod(1)
        operator = Operator(world, **(_environment(quota) | settings))
        stack.callback(operator.process.stop)
        try:
            hands = stack.enter_context(hands_at(world, reporting=reporting))
            made = Crowd(world, operator, hands, quota, cloudwatch)
            made.set_alarm("OK")
            for number in range(endpoints):
                _create(world, number)
            if not reporting:
                start_routers(world)
                stack.enter_context(reachable(world))
                stack.enter_context(_slices(made, pod_of_new))
            until("all are in service", lambda: ended(world, endpoints), READY_SECONDS)
            yield made
        except (RuntimeError, AssertionError) as error:
            raise RuntimeError(f"{error}\n{operator.process.tail()}") from error


def _environment(quota: Quota) -> dict[str, str]:
    return {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL_CLOUDWATCH": quota.url,
        "AWS_ENDPOINT_URL_STS": quota.url,
        "SLUICE_SETTLE_SECONDS": "0",
        "SLUICE_MAX_ROLLBACKS_OF_ONE_IMAGE": "0",
        "SLUICE_MAX_CONCURRENT_DEPLOYMENTS": "0",
        "SLUICE_MAX_CONCURRENT_DEPLOYMENTS_PER_NAMESPACE": "0",
    }


def _client(upstream: str) -> Any:
    return boto3.client(
        "cloudwatch",
        endpoint_url=upstream,
        region_name=REGION,
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
    )


def _permit(world: Routing) -> None:
    """CloudWatch alarms are read only where the policy lets."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sluice-permissions"}}
    world.kube.create({**body, "data": {"policy.yaml": yaml.safe_dump(POLICY)}}, NAMESPACE)


def _make_alarm(cloudwatch: Any) -> None:
    cloudwatch.put_metric_alarm(
        AlarmName=ALARM,
        Namespace="Bench",
        MetricName="Errors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1.0,
        ComparisonOperator="GreaterThanThreshold",
    )


@contextmanager
def _slices(stage: Crowd, pod_of_new: Callable[[], int]) -> Iterator[None]:
    """Every fleet that comes has its pod in an EndpointSlice, as the controllers would see to it."""
    ended, known = threading.Event(), set[str]()

    def work() -> None:
        while not ended.wait(0.1):
            if stage.hands.resting:
                continue
            for fleet in fleets_of(stage.world) - known:
                stage.world.routes.put_pods(fleet, pod_of_new())
                known.add(fleet)

    thread = threading.Thread(target=work, name="slices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)


def _create(world: Routing, number: int) -> None:
    _make(world, "Model", number, {"primaryContainer": {"image": "registry.example/churn:0"}})
    variant = {
        "variantName": "a",
        "modelName": name_of(number),
        "instanceType": "ml.m5.large",
        "initialInstanceCount": 1,
    }
    _make(world, "EndpointConfig", number, {"productionVariants": [variant]})
    _make(world, "Endpoint", number, {"backend": "Cluster", "endpointConfigName": name_of(number)})


def _make(world: Routing, kind: str, number: int, spec: dict[str, Any]) -> None:
    body = {"apiVersion": "sluice.dev/v1alpha1", "kind": kind, "metadata": {"name": name_of(number)}, "spec": spec}
    world.kube.create(body, NAMESPACE)


def edit(world: Routing, endpoints: int, tag: str, wait: int, guards: Mapping[str, Any] | None = None) -> None:
    """The Models get another image; the policy is a canary behind the alarm, or behind `guards`: what else the
    Endpoint's spec has."""
    policy: dict[str, Any] = {
        "blueGreenUpdatePolicy": {
            "trafficRoutingConfiguration": {
                "type": "CANARY",
                "canarySize": {"type": "CAPACITY_PERCENT", "value": 10},
                "waitIntervalInSeconds": wait,
            },
            "terminationWaitInSeconds": FINAL_SECONDS,
        },
    }
    if guards is None:
        policy["autoRollbackConfiguration"] = {"alarms": [{"alarmName": ALARM}]}
    for number in range(endpoints):
        world.kube.patch(
            "Endpoint", NAMESPACE, name_of(number), {"spec": {"deploymentConfig": policy, **(guards or {})}}
        )
    image = {"primaryContainer": {"image": f"registry.example/churn:{tag}"}}
    for number in range(endpoints):
        world.kube.patch("Model", NAMESPACE, name_of(number), {"spec": image})


def ended(world: Routing, endpoints: int, since: float | None = None) -> bool:
    """Whether all Endpoints are at rest, after a deployment that has ended since then."""
    found = world.kube.list("Endpoint", NAMESPACE)
    return len(found) == endpoints and all(_rests(status_of(one), since) for one in found)


def _rests(status: dict[str, Any], since: float | None) -> bool:
    last = status.get("lastDeployment")
    late = since is None or (last is not None and _seconds(last["endTime"]) > since)
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
    return late and status.get("deployment") is None and (ready or since is not None)


def _stage(world: Routing) -> str:
    found = world.kube.get("Endpoint", NAMESPACE, name_of(0))
    return str((status_of(found or {}).get("deployment") or {}).get("stage", ""))


def status_of(endpoint: dict[str, Any]) -> dict[str, Any]:
    return dict(endpoint.get("status") or {})


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def name_of(number: int) -> str:
    return f"e{number:03d}"


PARTS: dict[str, Callable[..., list[Figure]]] = {
    "deployments-one": one,
    "deployments-many": many,
}
"""Each takes a directory of its own and `quick`."""
