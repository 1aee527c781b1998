"""Deployments through the API: the stages a client sees, and every way a deployment goes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer
from tests.simulator.hosting import Hosting, blue_green, instances, percent, rolling, variant

from sagemaker_simulator.testing import Simulator

# moto's server waits without end for a start that failed; a stuck test shall say where it is stuck.
pytestmark = pytest.mark.timeout(90)

CANARY = blue_green("CANARY", wait=300, bake=60, CanarySize=percent(25), alarms=("churn-5xx",))


def timeline(hosting: Hosting, simulator: Simulator, step: float = 2.0, limit: int = 1000) -> list[tuple[Any, ...]]:
    """Each different view of the deployment in order: VariantStatus and its text, old count, new count."""
    seen: list[tuple[Any, ...]] = []
    for _ in range(limit):
        shown = hosting.describe()
        if shown["EndpointStatus"] != "Updating":
            return seen
        (old,) = shown["ProductionVariants"]
        (new,) = shown["PendingDeploymentSummary"]["ProductionVariants"]
        statuses: list[dict[str, Any]] = [*old.get("VariantStatus", []), *new.get("VariantStatus", [])]
        (status,) = statuses
        view = (
            status["Status"],
            status["StatusMessage"],
            old["CurrentInstanceCount"],
            new["CurrentInstanceCount"],
        )
        if not seen or seen[-1] != view:
            seen.append(view)
        simulator.advance(10 if status["Status"] == "Baking" else step)
    raise AssertionError(f"still updating after {limit} steps; saw {seen}")


def served(hosting: Hosting, calls: int = 100) -> dict[str, float]:
    """Share of invocations answered by each EndpointConfig."""
    configs = [
        hosting.runtime.invoke_endpoint(EndpointName="churn", Body=b"{}")["Body"].read().decode() for _ in range(calls)
    ]
    return {name: sum(f'"{name}"' in one for one in configs) / calls for name in ("c1", "c2")}


def test_a_canary_is_seen_stage_by_stage(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    hosting.update(CANARY)
    assert hosting.describe()["LastDeploymentConfig"] == CANARY
    begun = simulator.now()
    assert timeline(hosting, simulator) == [
        ("Creating", "Launching 4 instance(s).", 4, 0),
        ("ActivatingTraffic", "Activating traffic on canary capacity of 1 instance(s).", 4, 1),
        (
            "Baking",
            "Baking for 300 seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s).",
            4,
            1,
        ),
        ("ActivatingTraffic", "Activating traffic on full capacity of 4 instance(s).", 4, 4),
        (
            "Baking",
            "Baking for 60 seconds (TerminationWaitInSeconds) with traffic enabled on full capacity of 4 instance(s).",
            4,
            4,
        ),
        ("Deleting", "Terminating 4 instance(s).", 4, 4),
    ]
    assert simulator.now() - begun == pytest.approx(10 + 2 + 300 + 2 + 60 + 5, abs=2)
    assert hosting.describe()["EndpointConfigName"] == "c2"
    assert "FailureReason" not in hosting.describe()


def test_a_linear_shift_is_seen_step_by_step(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    hosting.update(blue_green("LINEAR", wait=60, bake=30, LinearStepSize=instances(2)))
    kinds = [(row[0], row[3]) for row in timeline(hosting, simulator)]
    assert kinds == [
        ("Creating", 0),
        ("ActivatingTraffic", 2),
        ("Baking", 2),
        ("ActivatingTraffic", 4),
        ("Baking", 4),
        ("Deleting", 4),
    ]


def test_a_rolling_deployment_replaces_batch_by_batch(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    hosting.update(rolling(percent(50), wait=60))
    assert [(row[0], row[2], row[3]) for row in timeline(hosting, simulator)] == [
        ("Creating", 4, 0),
        ("ActivatingTraffic", 4, 2),
        ("Baking", 4, 2),
        ("Deleting", 4, 2),
        ("Creating", 2, 2),
        ("ActivatingTraffic", 2, 4),
        ("Baking", 2, 4),
        ("Deleting", 2, 4),
    ]
    assert hosting.describe()["EndpointConfigName"] == "c2"


def test_traffic_follows_the_active_instances(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    hosting.update(CANARY)
    assert served(hosting) == {"c1": 1.0, "c2": 0.0}
    simulator.advance(30)
    assert served(hosting, 250)["c2"] == pytest.approx(0.25, abs=0.09)
    simulator.advance(300)
    assert served(hosting) == {"c1": 0.0, "c2": 1.0}


def test_an_alarm_in_a_bake_rolls_back_in_one_step(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    hosting.update(CANARY)
    simulator.advance(100)
    simulator.set_alarm("another", "ALARM")
    simulator.set_alarm("churn-5xx", "INSUFFICIENT_DATA")
    assert hosting.pending()["a"]["VariantStatus"][0]["Status"] == "Baking"
    simulator.set_alarm("churn-5xx", "ALARM")
    assert hosting.status() == "Updating"
    assert served(hosting, 20)["c1"] == 1.0
    assert [row[0] for row in timeline(hosting, simulator)] == ["ActivatingTraffic", "Deleting"]
    shown = hosting.describe()
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "c1")
    assert "churn-5xx" in shown["FailureReason"]
    assert hosting.live()["a"]["CurrentInstanceCount"] == 4
    assert shown["LastDeploymentConfig"] == CANARY

    simulator.set_alarm("churn-5xx", "OK")
    hosting.update(RetainDeploymentConfig=True)
    assert "FailureReason" not in hosting.describe()
    simulator.advance(400)
    assert hosting.describe()["EndpointConfigName"] == "c2"


def test_an_alarm_counts_from_the_first_traffic_to_the_end_of_the_final_bake(
    hosting: Hosting, simulator: Simulator
) -> None:
    hosting.endpoint()
    hosting.next_config()
    simulator.set_alarm("churn-5xx", "ALARM")
    hosting.update(CANARY)
    simulator.advance(9)
    assert hosting.pending()["a"]["VariantStatus"][0]["StatusMessage"] == "Launching 4 instance(s)."
    simulator.set_alarm("churn-5xx", "OK")
    simulator.advance(366)
    assert hosting.live()["a"]["VariantStatus"][0]["Status"] == "Deleting"
    simulator.set_alarm("churn-5xx", "ALARM")
    simulator.advance(10)
    assert hosting.describe()["EndpointConfigName"] == "c2"


@pytest.mark.parametrize(("ignored", "config"), [(False, "c1"), (True, "c2")])
def test_an_alarm_that_fires_all_along(hosting: Hosting, simulator: Simulator, ignored: bool, config: str) -> None:
    simulator.settings(ignore_alarms_firing_at_start=ignored)
    simulator.set_alarm("churn-5xx", "ALARM")
    hosting.endpoint()
    hosting.next_config()
    hosting.update(CANARY)
    simulator.advance(1000)
    assert hosting.describe()["EndpointConfigName"] == config


def test_an_ignored_alarm_counts_again_once_it_has_been_ok(hosting: Hosting, simulator: Simulator) -> None:
    simulator.settings(ignore_alarms_firing_at_start=True)
    simulator.set_alarm("churn-5xx", "ALARM")
    hosting.endpoint()
    hosting.next_config()
    hosting.update(CANARY)
    simulator.advance(50)
    simulator.set_alarm("churn-5xx", "OK")
    simulator.set_alarm("churn-5xx", "ALARM")
    simulator.advance(20)
    assert hosting.describe()["EndpointConfigName"] == "c1"
    assert hosting.status() == "InService"


def test_all_at_once_without_a_final_bake_leaves_alarms_no_window(hosting: Hosting, simulator: Simulator) -> None:
    simulator.set_alarm("churn-5xx", "ALARM")
    hosting.endpoint()
    hosting.next_config()
    hosting.update(blue_green(alarms=("churn-5xx",)))
    simulator.advance(20)
    assert hosting.describe()["EndpointConfigName"] == "c2"


def test_rolling_goes_back_in_batches(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    hosting.update(rolling(instances(1), wait=60, alarms=("churn-5xx",), RollbackMaximumBatchSize=instances(2)))
    simulator.advance(3 * 77 + 20)
    assert (hosting.live()["a"]["CurrentInstanceCount"], hosting.pending()["a"]["CurrentInstanceCount"]) == (1, 4)
    simulator.set_alarm("churn-5xx", "ALARM")
    rows = timeline(hosting, simulator)
    assert [row[0] for row in rows] == [
        "ActivatingTraffic",
        "Deleting",
        "Creating",
        "ActivatingTraffic",
        "Deleting",
        "Creating",
        "ActivatingTraffic",
        "Deleting",
    ]
    assert [row[3] for row in rows if row[0] == "ActivatingTraffic"] == [3, 1, 0]
    shown = hosting.describe()
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "c1")
    assert hosting.live()["a"]["CurrentInstanceCount"] == 4
    assert "churn-5xx" in shown["FailureReason"]


def test_rolling_goes_back_at_once_by_default(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    hosting.update(rolling(instances(1), wait=60, alarms=("churn-5xx",)))
    simulator.advance(2 * 77 + 5)
    simulator.set_alarm("churn-5xx", "ALARM")
    assert [(row[0], row[1]) for row in timeline(hosting, simulator)] == [
        ("Creating", "Launching 2 instance(s)."),
        ("ActivatingTraffic", "Activating traffic on full capacity of 2 instance(s)."),
        ("Deleting", "Terminating 3 instance(s)."),
    ]


@pytest.mark.parametrize("policy", [CANARY, rolling(percent(25), wait=60)], ids=["canary", "rolling"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("health_failure", "production variant a did not pass the ping health check"),
        ("download_failure", "Failed to download model data"),
        ("capacity_failure", "InsufficientInstanceCapacity"),
        ("zone_failure", "at least 2 availability zone(s)"),
        ("internal_failure", "Request to service failed"),
        ("silent_rollback", None),
    ],
)
def test_a_fleet_that_does_not_come_up_leaves_the_old_one(
    hosting: Hosting, simulator: Simulator, policy: dict[str, Any], kind: str, words: str | None
) -> None:
    hosting.endpoint()
    hosting.next_config()
    simulator.fault(kind, target="churn", count=1)
    hosting.update(policy)
    simulator.advance(10)
    assert hosting.status() == "Updating"
    assert served(hosting, 10)["c1"] == 1.0
    simulator.advance(60)
    shown = hosting.describe()
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "c1")
    assert "PendingDeploymentSummary" not in shown
    assert hosting.live()["a"]["CurrentInstanceCount"] == 4
    if words is None:
        assert "FailureReason" not in shown
    else:
        assert words in shown["FailureReason"]


def test_a_later_batch_that_does_not_come_up_takes_the_earlier_ones_back(
    hosting: Hosting, simulator: Simulator
) -> None:
    hosting.endpoint()
    hosting.next_config()
    simulator.fault("health_failure", target="churn", count=1, skip=2)
    hosting.update(rolling(percent(25), wait=60))
    simulator.advance(2 * 77 + 10)
    assert hosting.live()["a"]["CurrentInstanceCount"] == 2
    simulator.advance(60)
    assert hosting.describe()["EndpointConfigName"] == "c1"
    assert hosting.live()["a"]["CurrentInstanceCount"] == 4


def test_the_deadline_rolls_back(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    hosting.update(
        blue_green("LINEAR", wait=400, LinearStepSize=percent(25), MaximumExecutionTimeoutInSeconds=600),
    )
    simulator.advance(599)
    assert hosting.pending()["a"]["CurrentInstanceCount"] == 2
    simulator.advance(20)
    shown = hosting.describe()
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "c1")
    assert "MaximumExecutionTimeoutInSeconds" in shown["FailureReason"]


def test_a_deadline_can_be_brought_to_now(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    with pytest.raises(RuntimeError, match="no deployment is under way"):
        simulator.change_endpoint("churn", overdue=True)
    hosting.next_config()
    hosting.update(
        blue_green("LINEAR", wait=400, LinearStepSize=percent(25), MaximumExecutionTimeoutInSeconds=1800),
    )
    simulator.advance(100)
    simulator.change_endpoint("churn", overdue=True)
    simulator.advance(20)
    shown = hosting.describe()
    assert (shown["EndpointStatus"], shown["EndpointConfigName"]) == ("InService", "c1")
    assert "MaximumExecutionTimeoutInSeconds" in shown["FailureReason"]


def test_a_failed_rollback_serves_both_and_another_update_mends_it(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    simulator.fault("update_rollback_failed", target="churn", count=1)
    hosting.update(rolling(percent(50), wait=60))
    simulator.advance(200)
    shown = hosting.describe()
    assert shown["EndpointStatus"] == "UpdateRollbackFailed"
    assert shown["EndpointConfigName"] == "c1"
    assert shown["FailureReason"]
    shares = served(hosting)
    assert 0.2 < shares["c1"] < 0.8
    assert 0.2 < shares["c2"] < 0.8
    assert hosting.refusal(
        "update_endpoint_weights_and_capacities",
        EndpointName="churn",
        DesiredWeightsAndCapacities=[{"VariantName": "a", "DesiredWeight": 2.0}],
    )[1].startswith("Cannot update endpoint")
    hosting.update(rolling(percent(50), wait=60))
    simulator.advance(300)
    assert hosting.describe()["EndpointConfigName"] == "c2"
    assert hosting.status() == "InService"
    assert served(hosting, 20) == {"c1": 0.0, "c2": 1.0}


def test_variants_move_in_lock_step(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint(variant("a", count=2), variant("b", count=10))
    hosting.next_config(variant("a", "m2", count=2), variant("b", "m2", count=10))
    hosting.update(blue_green("LINEAR", wait=60, bake=60, LinearStepSize=percent(20)))
    simulator.advance(10 + 2 + 60 + 2)
    counts = {name: one["CurrentInstanceCount"] for name, one in hosting.pending().items()}
    assert counts == {"a": 2, "b": 4}
    simulator.advance(1000)
    assert hosting.describe()["EndpointConfigName"] == "c2"


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def cloudwatch(moto: str) -> Any:
    return boto3.client(
        "cloudwatch",
        endpoint_url=moto,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(proxies={}, connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 1}),
    )


def metric_alarm(cloudwatch: Any, name: str) -> None:
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Statistic="Average",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue="OK", StateReason="test")


def test_alarms_are_read_from_cloudwatch(moto: str, cloudwatch: Any) -> None:
    metric_alarm(cloudwatch, "churn-5xx")
    with Simulator(cloudwatch_endpoint=moto) as simulator:
        hosting = Hosting(simulator)
        hosting.endpoint()
        hosting.next_config()
        hosting.update(CANARY)
        simulator.advance(100)
        assert hosting.pending()["a"]["VariantStatus"][0]["Status"] == "Baking"
        cloudwatch.set_alarm_state(AlarmName="churn-5xx", StateValue="ALARM", StateReason="test")
        simulator.advance(20)
        assert hosting.status() == "InService"
        assert "churn-5xx" in hosting.describe()["FailureReason"]
        assert hosting.describe()["EndpointConfigName"] == "c1"


def until(simulator: Simulator, wanted: Any, seconds: float = 60.0) -> None:
    """Waits for a condition, in real time: these simulators run."""
    deadline = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < deadline, simulator.state()["regions"]
        time.sleep(0.02)


def test_a_running_clock_polls_cloudwatch_and_never_bakes_past_an_alarm(moto: str, cloudwatch: Any) -> None:
    metric_alarm(cloudwatch, "running")
    deployment = blue_green("CANARY", wait=300, bake=1, CanarySize=percent(25), alarms=("running",))
    with Simulator(speed=600, cloudwatch_endpoint=moto) as simulator:
        hosting = Hosting(simulator)
        hosting.model()
        hosting.model("m2")
        hosting.config("c1")
        hosting.next_config()
        hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")
        until(simulator, lambda: hosting.status() == "InService")
        hosting.update(deployment)
        until(simulator, lambda: hosting.status() == "InService")
        assert hosting.describe()["EndpointConfigName"] == "c2"
        cloudwatch.set_alarm_state(AlarmName="running", StateValue="ALARM", StateReason="test")
        hosting.sagemaker.update_endpoint(EndpointName="churn", EndpointConfigName="c1", DeploymentConfig=deployment)
        until(simulator, lambda: hosting.status() == "InService")
        assert hosting.describe()["EndpointConfigName"] == "c2"
        assert "running" in hosting.describe()["FailureReason"]


def test_a_bake_waits_for_alarms_that_cannot_be_read() -> None:
    with Simulator(
        speed=600, cloudwatch_endpoint="http://127.0.0.1:9", default_execution_timeout_seconds=900
    ) as simulator:
        hosting = Hosting(simulator)
        hosting.model()
        hosting.model("m2")
        hosting.config("c1")
        hosting.next_config()
        hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")
        until(simulator, lambda: hosting.status() == "InService")
        hosting.update(blue_green("CANARY", wait=30, bake=0, CanarySize=percent(25), alarms=("unreadable",)))
        until(simulator, lambda: hosting.status() == "InService")
        shown = hosting.describe()
        assert shown["EndpointConfigName"] == "c1"
        assert "MaximumExecutionTimeoutInSeconds" in shown["FailureReason"]
