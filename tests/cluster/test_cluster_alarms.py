"""Deployments behind alarms, under load on the real cluster: bad answers through the real router, a real Prometheus,
moto's CloudWatch; what is turned back is turned back for everybody, and nothing is lost but what the bad model said."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.cluster.chance import is_too_much
from tests.cluster.hosting import UNSPEAKABLE, Hosting, Loads, parrot
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
TRAFFIC = {
    "name": "answers",
    "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.5, "windowSeconds": 3, "minimumRequests": 3},
}
# As a person would take it from the examples.
ALERT = next(
    one["spec"]["kubernetes"]["alarms"][0]
    for one in yaml.safe_load_all((CHECKOUT / "examples/cluster-policies/canary.yaml").read_text())
)
CLOUDWATCH = "guard-revenue"


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


def behind(hosting: Hosting, *alarms: Object, cloudwatch: str = "", bake: int = LONG_BAKE) -> None:
    """The Endpoint with these alarms and with so long a bake of its canary; what serves goes on serving."""
    policy: dict[str, Any] = {
        "blueGreenUpdatePolicy": {
            "trafficRoutingConfiguration": {
                "type": "CANARY",
                "canarySize": {"type": "CAPACITY_PERCENT", "value": CANARY_PERCENT},
                "waitIntervalInSeconds": bake,
            },
            "terminationWaitInSeconds": 30,
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


def errors(loads: Loads) -> int:
    return loads.lost().get(MODEL_ERROR, 0)


def bad_model_is_turned_back(hosting: Hosting, name: str, source: str) -> None:
    """Ship a model that answers every request with a 500, under load, and see that its alarm takes it back."""
    first = hosting.status(ENDPOINT)
    before = first["revision"]["name"]
    with hosting.load(ENDPOINT) as loads:
        ship(hosting, name, UNSPEAKABLE)

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
        seen, total = errors(loads), loads.total - began[0]
        loads.more(200)

    assert errors(loads) == seen, "after the confirmed rollback the bad model was asked again"
    assert loads.lost() == {MODEL_ERROR: seen}, loads.samples()
    assert seen > 0
    # The load never stops and each router draws by itself, so what the canary had is binomial, and at most its share.
    assert not is_too_much(seen, total, CANARY_PERCENT / 100, under_way=CALLERS), f"{seen} of {total}"
    assert status["endpointStatus"] == "InService"
    assert status["lastDeployment"]["cause"] == "Alarm"
    assert source in status["lastDeployment"]["message"]


def test_a_bad_model_is_turned_back_by_what_the_routers_count(hosting: Hosting) -> None:
    bad_model_is_turned_back(hosting, "bad-for-routers", "traffic alarm answers")


def test_a_bad_model_is_turned_back_by_a_real_alert(hosting: Hosting) -> None:
    behind(hosting, ALERT)
    bad_model_is_turned_back(hosting, "bad-for-prometheus", f"Prometheus alert {ALERT['name']}")


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
        loads.more(50)
        last = answers(loads, "sentry")
        loads.more(100)

    loads.assert_none_lost()
    assert answers(loads, "sentry") == last
    assert status["lastDeployment"]["outcome"] == "Succeeded"
    done = {one["command"]: one["result"] for one in status["commands"]}
    assert (done["pause"], done["promote"]) == ("Done", "Done")


def answers(loads: Loads, name: str) -> int:
    """The answers that one model gave."""
    return loads.answers().get(json.dumps({"predictions": [name]}), 0)
