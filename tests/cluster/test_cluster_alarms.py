"""Deployments behind alarms, under load on the real cluster: bad and slow answers through the real router, a real
Prometheus, moto's CloudWatch with a publisher of what the routers counted; what is turned back is turned back for
everybody, and nothing is lost but what the bad model said."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
import yaml
from tests.cluster.chance import is_too_much
from tests.cluster.counters import Publisher, sent, sent_to
from tests.cluster.hosting import BODY, UNSPEAKABLE, Hosting, Loads, ask, asked, parrot
from tests.operator.harness.kube import Object

from demo.surroundings import CHECKOUT
from localcluster import Cluster, prometheus

pytestmark = pytest.mark.cluster

ENDPOINT = "guard"
MONITORING = "monitoring"
CANARY_PERCENT = 10
CALLERS = 6
"""Of a load."""
LONG_BAKE = 60
"""An alarm ends it long before; on a slow machine Prometheus takes its time."""
READY_SECONDS = 240.0
MODEL_ERROR = "424"
"""What the router makes of a model's 5xx, as SageMaker does."""
ROLLBACK_OVERHEAD = timedelta(seconds=15)
"""What a person's rollback may take more than its pod takes to start: some 5 s, on two busy cores and by timestamps of
whole seconds."""
SLOW_SECONDS = 3
"""What a slow model takes for an answer: more than the alarms of the examples allow."""
TRAFFIC: Object = {
    "name": "answers",
    "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.5, "windowSeconds": 3, "minimumRequests": 3},
}
TRAFFIC_SLOW: Object = {
    "name": "latency",
    "traffic": {
        "metric": "ModelLatency",
        "percentile": 50,
        "threshold": 1_000_000,
        "windowSeconds": 10,
        "minimumRequests": 3,
    },
}
# As a person would take them from the examples and the page about alarms.
ALERT: Object = next(
    one["spec"]["kubernetes"]["alarms"][0]
    for one in yaml.safe_load_all((CHECKOUT / "examples/cluster-policies/canary.yaml").read_text())
)
ALERT_SLOW: Object = {"name": "slow", "prometheusAlert": ALERT["prometheusAlert"] | {"alertName": "ModelIsSlow"}}
PAGE: dict[str, Object] = {
    alarm["name"]: alarm
    for block in re.findall(
        r"```yaml\n(kubernetes:.*?)```", (CHECKOUT / "docs/howto/alarms-in-the-cluster.md").read_text(), re.DOTALL
    )
    for alarm in yaml.safe_load(block)["kubernetes"]["alarms"]
}
PROMQL, PROMQL_SLOW = PAGE["share-of-5xx"], PAGE["latency"]
CLOUDWATCH = "guard-revenue"
Trouble = Literal["500", "slow"]


@dataclass(frozen=True, slots=True)
class Guarded:
    """An alarm, and what a new model does that it must see."""

    trouble: Trouble
    told: str
    """The alarm in status' words."""
    alarm: Object | None = None
    """None: CloudWatch's."""

    @property
    def name(self) -> str:
        """For pytest, and for the model."""
        return f"{self.told.split()[0]}-{self.trouble}".lower()


GUARDED = (
    Guarded("500", "traffic alarm answers", TRAFFIC),
    Guarded("500", "Prometheus alert errors", ALERT),
    Guarded("500", "PromQL alarm share-of-5xx", PROMQL),
    Guarded("500", f"CloudWatch alarm {CLOUDWATCH}"),
    Guarded("slow", "traffic alarm latency", TRAFFIC_SLOW),
    Guarded("slow", "Prometheus alert slow", ALERT_SLOW),
    Guarded("slow", "PromQL alarm latency", PROMQL_SLOW),
)


@pytest.fixture(scope="module", autouse=True)
def guard(hosting: Hosting, watched: None) -> Iterator[None]:
    """One variant in service, whose model is going to be replaced by worse and better ones."""
    hosting.model(ENDPOINT, hosting.upload("sentry", parrot("sentry")))
    behind(hosting, TRAFFIC)
    hosting.ready(ENDPOINT)
    yield
    hosting.delete(ENDPOINT)
    hosting.gone(ENDPOINT)


@pytest.fixture(scope="module")
def watched(hosting: Hosting, cluster: Cluster) -> Iterator[None]:
    """The Prometheus of the examples, which reads this namespace's routers too; afterwards the demo's alone."""
    prometheus.image(cluster)
    folder = CHECKOUT / "examples" / "prometheus"
    whole, service = (folder / "prometheus.yaml").read_text(), (folder / "routers.yaml").read_text()
    name = "- sluice-router-metrics.sluice-demo.svc.cluster.local\n"
    assert name in whole
    both = whole.replace(name, f"{name}        {name.replace('sluice-demo', hosting.namespace)}")
    run = hosting.stage.surroundings.run_kubectl
    run("apply", "-n", hosting.namespace, "-f", "-", stdin=service)
    for manifest in (both, whole):
        run("apply", "-f", "-", stdin=manifest)
        run("rollout", "restart", "-n", MONITORING, "deployment/prometheus")
        run("rollout", "status", "-n", MONITORING, "deployment/prometheus", f"--timeout={READY_SECONDS:.0f}s")
        if manifest is both:
            yield


def behind(hosting: Hosting, *alarms: Object, cloudwatch: str = "", bake: int = LONG_BAKE, final: int = 30) -> None:
    """The Endpoint with these alarms and with so long a bake of its canary and of the rest; what serves goes on."""
    policy: dict[str, Any] = {
        "blueGreenUpdatePolicy": {
            "trafficRoutingConfiguration": {
                "type": "CANARY",
                "canarySize": {"type": "CAPACITY_PERCENT", "value": CANARY_PERCENT},
                "waitIntervalInSeconds": bake,
            },
            "terminationWaitInSeconds": final,
        }
    }
    if cloudwatch:
        policy["autoRollbackConfiguration"] = {"alarms": [{"alarmName": cloudwatch}]}
    kubernetes = {"alarms": list(alarms)}
    hosting.endpoint(ENDPOINT, [{"variantName": "main", "modelName": ENDPOINT}], deploymentConfig=policy,
                     kubernetes=kubernetes)  # fmt: skip


def ship(hosting: Hosting, name: str, answer: str = "") -> None:
    """A new model, good or bad."""
    hosting.model(ENDPOINT, hosting.upload(name, parrot(name, answer)))


def stage_of(status: Object) -> str:
    return str((status.get("deployment") or {}).get("stage", ""))


def reaches(hosting: Hosting, stage: str) -> Object:
    """Wait for a stage of the deployment; its status then."""

    def look() -> Object | None:
        status = hosting.status(ENDPOINT)
        return status if stage_of(status) == stage else None

    return hosting.until(ENDPOINT, look)


def turned_back(hosting: Hosting, revision: str) -> Object:
    """Wait until a deployment is rolled back to a revision; the status then."""

    def look() -> Object | None:
        status = hosting.status(ENDPOINT)
        assert status["revision"]["name"] == revision, f"nothing turned {status['revision']['name']} back: {status}"
        last = status.get("lastDeployment") or {}
        ended = status.get("deployment") is None and last.get("outcome") == "RolledBack"
        return status if ended and last["revision"] != revision and status["revision"]["name"] == revision else None

    return hosting.until(ENDPOINT, look)


def says(hosting: Hosting, reason: str, words: str = "") -> Object:
    """Wait until a condition gives a reason, in a message with these words."""

    def look() -> Object | None:
        conditions = hosting.status(ENDPOINT)["conditions"]
        return next((one for one in conditions if one["reason"] == reason and words in one["message"]), None)

    return hosting.until(ENDPOINT, look)


def annotate(hosting: Hosting, *words: str) -> None:
    hosting.stage.surroundings.run_kubectl("annotate", "sep", ENDPOINT, "-n", hosting.namespace, "--overwrite", *words)


def publisher(hosting: Hosting) -> Publisher:
    """An alarm of CloudWatch, OK, and who tells it of this Endpoint's answers."""
    cloudwatch = hosting.stage.aws.alarms
    cloudwatch.create([CLOUDWATCH], endpoint_name=ENDPOINT, namespace="Shop")
    return Publisher(hosting, ENDPOINT, cloudwatch, CLOUDWATCH)


def routed(hosting: Hosting) -> set[str]:
    """Wait until all routers report the same; the fleets that get requests then."""
    return hosting.until(ENDPOINT, lambda: sent_to(hosting, ENDPOINT))


def only_old_is_asked(old: set[str], confirmed: Counter[str], after: Counter[str], answers: int) -> None:
    """By what the routers had sent when the rollback was confirmed, and after so many answers more."""
    again = {fleet for fleet in after.keys() - old if after[fleet] > confirmed[fleet]}
    assert not again, f"after the confirmed rollback the routers asked {again}: {confirmed}, then {after}"
    assert sum(after[fleet] - confirmed[fleet] for fleet in old) >= answers, f"{confirmed}, then {after}"


def badly(loads: Loads, model: str, trouble: Trouble) -> int:
    """The answers of a bad model."""
    return loads.lost().get(MODEL_ERROR, 0) if trouble == "500" else answers(loads, model)


@pytest.mark.parametrize("guarded", GUARDED, ids=lambda guarded: guarded.name)
def test_a_bad_model_is_turned_back(guarded: Guarded, hosting: Hosting) -> None:
    """One that answers every request with a 500, or each of them late; the alarm that takes it back is the only one."""
    model, trouble = f"bad-for-{guarded.name}", guarded.trouble
    behind(hosting, *filter(None, [guarded.alarm]), cloudwatch="" if guarded.alarm else CLOUDWATCH)
    published = nullcontext() if guarded.alarm else publisher(hosting).running()
    first, old = hosting.status(ENDPOINT), routed(hosting)
    before = first["revision"]["name"]
    with published, hosting.load(ENDPOINT, CALLERS) as loads:
        ship(hosting, model, UNSPEAKABLE if trouble == "500" else f"time.sleep({SLOW_SECONDS}) or {[model]!r}")

        began = [loads.total]

        def arrives() -> bool | None:
            """Its traffic, or what came of it: an alarm may be quicker than two looks."""
            answered, status = loads.total, hosting.status(ENDPOINT)
            stage = stage_of(status)
            assert stage in ("", "Provisioning", "Shifting", "Baking", "RollingBack"), stage
            if stage not in ("", "Provisioning") or status.get("lastDeployment") != first.get("lastDeployment"):
                return True
            began[0] = answered
            return None

        hosting.until(ENDPOINT, arrives)
        status = turned_back(hosting, before)
        confirmed = sent(hosting, ENDPOINT)
        seen, total = badly(loads, model, trouble), loads.total - began[0]
        assert routed(hosting) == old, "the routers send to other fleets than before"
        last = badly(loads, model, trouble)
        loads.more(200)
        after = sent(hosting, ENDPOINT)

    only_old_is_asked(old, confirmed, after, 200)
    # A slow answer to what was asked before may come later, one to each caller.
    assert seen <= last <= seen + CALLERS * (trouble == "slow")
    assert badly(loads, model, trouble) == last, "after the confirmed rollback the bad model was asked again"
    assert loads.lost() == ({MODEL_ERROR: last} if trouble == "500" else {}), loads.samples()
    assert seen > 0
    # The load never stops and each router draws by itself, so what the canary had is binomial, and at most its share.
    assert not is_too_much(seen, total, CANARY_PERCENT / 100, under_way=CALLERS), f"{seen} of {total}"
    assert status["endpointStatus"] == "InService"
    assert status["lastDeployment"]["cause"] == "Alarm"
    assert guarded.told in status["lastDeployment"]["message"]


def test_without_prometheus_the_bake_is_held_and_a_cloudwatch_alarm_turns_back_from_the_final_one(
    hosting: Hosting,
) -> None:
    cloudwatch = hosting.stage.aws.alarms
    cloudwatch.create([CLOUDWATCH], endpoint_name=ENDPOINT, namespace="Shop")
    behind(hosting, ALERT, cloudwatch=CLOUDWATCH, bake=30)  # Prometheus is gone before it is over
    before = hosting.status(ENDPOINT)["revision"]["name"]
    scale = ("scale", "-n", MONITORING, "deployment/prometheus")
    with hosting.load(ENDPOINT) as loads:
        ship(hosting, "recruit")
        baking = reaches(hosting, "Baking")
        hosting.stage.surroundings.run_kubectl(*scale, "--replicas=0")
        says(hosting, "AlarmsUnreadable", f"Prometheus alert {ALERT['name']} is Unreadable")
        status = hosting.status(ENDPOINT)
        assert (stage_of(status), status["deployment"]["step"]) == ("Baking", baking["deployment"]["step"])
        assert status["deployment"]["trafficPercent"] == CANARY_PERCENT

        hosting.stage.surroundings.run_kubectl(*scale, "--replicas=1")
        reaches(hosting, "FinalBaking")
        cloudwatch.set(CLOUDWATCH, "ALARM", "revenue is down")
        status = turned_back(hosting, before)
        loads.more(100)
        last = answers(loads, "recruit")
        loads.more(200)

    assert answers(loads, "recruit") == last > 0
    loads.assert_none_lost()
    assert status["lastDeployment"]["cause"] == "Alarm"
    assert f"CloudWatch alarm {CLOUDWATCH}" in status["lastDeployment"]["message"]
    cloudwatch.set(CLOUDWATCH, "OK", "revenue is up")


def test_a_person_pauses_a_bake_and_promotes_it(hosting: Hosting) -> None:
    behind(hosting, TRAFFIC, ALERT, bake=5)
    with hosting.load(ENDPOINT) as loads:
        ship(hosting, "veteran")
        started = hosting.until(ENDPOINT, lambda: hosting.status(ENDPOINT).get("deployment"))
        annotate(hosting, f"sluice.dev/pause={started['revision']}")
        says(hosting, "Paused")
        annotate(hosting, f"sluice.dev/promote={started['revision']}")
        status = hosting.ready(ENDPOINT, lambda status: status["revision"]["name"] == started["revision"])
        annotate(hosting, "sluice.dev/pause-", "sluice.dev/promote-")  # or it holds that revision's next way back too
        loads.more(50)
        last = answers(loads, "sentry")
        loads.more(100)

    loads.assert_none_lost()
    assert answers(loads, "sentry") == last
    assert status["lastDeployment"]["outcome"] == "Succeeded"
    done = {one["command"]: one["result"] for one in status["commands"]}
    assert (done["pause"], done["promote"]) == ("Done", "Done")


def test_what_turns_bad_once_it_serves_is_taken_back_by_a_person_for_good(hosting: Hosting) -> None:
    """Good answers pass every kind of alarm; after the end none of them turns back, nor keeps a person from it; and a
    Git that goes on asking for the bad one does not bring it back."""
    longer = TRAFFIC | {"traffic": TRAFFIC["traffic"] | {"windowSeconds": 10}}
    proof = [one | {"onInsufficientData": "Hold"} for one in (longer, TRAFFIC_SLOW, ALERT, PROMQL)]
    behind(hosting, *proof, cloudwatch=CLOUDWATCH, bake=5, final=5)  # no bake ends before all of them were OK
    before, old = hosting.status(ENDPOINT)["revision"]["name"], routed(hosting)
    # The load leaves room, as a pod's start is waited for twice.
    with publisher(hosting).running() as published, hosting.load(ENDPOINT, CALLERS, pause=0.05) as loads:
        ship(hosting, "turncoat")
        status = hosting.ready(ENDPOINT, lambda status: status["revision"]["name"] != before)
        assert status["lastDeployment"]["outcome"] == "Succeeded"
        loads.assert_none_lost()

        [pod] = [one for one in hosting.fleet(ENDPOINT, "main") if ask(one, BODY)["predictions"] == ["turncoat"]]
        ask(pod, asked("spoil"))
        hosting.until(ENDPOINT, lambda: published.is_firing or None)
        began = datetime.now(UTC)
        annotate(hosting, f"sluice.dev/rollback={before}")
        status = hosting.until(ENDPOINT, lambda: is_back(hosting.status(ENDPOINT), before))
        took, start = datetime.now(UTC) - began, started(hosting.fleet(ENDPOINT, "main"))
        confirmed, last = sent(hosting, ENDPOINT), badly(loads, "turncoat", "500")
        assert routed(hosting) == old
        loads.more(100)

        sync(hosting)
        annotate(hosting, "sluice.dev/rollback-")
        hosting.until(ENDPOINT, lambda: "rollback" not in commands(hosting) or None)
        sync(hosting)
        annotate(hosting, f"sluice.dev/rollback={before}")
        hosting.until(ENDPOINT, lambda: "rollback" in commands(hosting) or None)
        says(hosting, "HeldByRollback")
        loads.more(100)
        after, still = sent(hosting, ENDPOINT), hosting.status(ENDPOINT)

    assert took - start <= ROLLBACK_OVERHEAD, f"{took}, of which the pod's start {start}"
    assert (still["revision"], still.get("deployment")) == (status["revision"], None)
    assert still["lastDeployment"] == status["lastDeployment"]
    assert routed(hosting) == old
    only_old_is_asked(old, confirmed, after, 200)
    assert loads.lost() == {MODEL_ERROR: last}, loads.samples()


def is_back(status: Object, revision: str) -> Object | None:
    """The status, once the revision serves and nothing is under way."""
    return status if status.get("deployment") is None and status["revision"]["name"] == revision else None


def started(pods: list[Object]) -> timedelta:
    """How long the start of the only pod took."""
    [pod] = pods
    ready = next(one for one in pod["status"]["conditions"] if one["type"] == "Ready")
    return datetime.fromisoformat(ready["lastTransitionTime"]) - datetime.fromisoformat(
        pod["metadata"]["creationTimestamp"]
    )


def commands(hosting: Hosting) -> dict[str, str]:
    """What became of the commands that are known."""
    return {one["command"]: one["result"] for one in hosting.status(ENDPOINT).get("commands", ())}


def sync(hosting: Hosting) -> None:
    """What Git asks for is applied, as it stands, by a tool that puts its mark on it."""
    whole = []
    for kind in ("Model", "EndpointConfig", "Endpoint"):
        found = hosting.kube.get(kind, hosting.namespace, ENDPOINT)
        assert found is not None
        metadata = {"name": ENDPOINT, "namespace": hosting.namespace, "labels": {"app.kubernetes.io/instance": "git"}}
        whole.append({"apiVersion": found["apiVersion"], "kind": kind, "metadata": metadata, "spec": found["spec"]})
    hosting.stage.surroundings.run_kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=git", "-f", "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": whole}),
    )  # fmt: skip


def answers(loads: Loads, name: str) -> int:
    """The answers that one model gave."""
    return loads.answers().get(json.dumps({"predictions": [name]}), 0)
