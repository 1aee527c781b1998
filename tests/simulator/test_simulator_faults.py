"""Every fault, the control endpoint, the request log, and the simulator as a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from tests.simulator.hosting import ONCE, Hosting, percent, rolling, variant

import sagemaker_simulator
from sagemaker_simulator.faults import FaultKind
from sagemaker_simulator.simulator import Simulator as Core
from sagemaker_simulator.testing import Control, Simulator


def rescale(hosting: Hosting, **change: Any) -> None:
    hosting.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="churn", DesiredWeightsAndCapacities=[{"VariantName": "a", **change}]
    )


def test_throttling_hits_the_operations_and_names_it_is_meant_for(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    simulator.fault("throttling", operation="Describe*", target="ch*", count=2)
    hosting.sagemaker.describe_model(ModelName="m1")
    for _ in range(2):
        assert hosting.refusal("describe_endpoint", EndpointName="churn") == ("ThrottlingException", "Rate exceeded")
    assert hosting.status() == "InService"
    assert simulator.codes()["ThrottlingException"] == 2


def test_boto3_retries_throttling_and_server_errors_by_itself(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    simulator.fault("throttling", operation="DescribeEndpoint", count=1)
    simulator.fault("server_error", operation="ListEndpoints", count=1, status=503)
    client = simulator.client("sagemaker")
    client.describe_endpoint(EndpointName="churn")
    client.list_endpoints()
    assert simulator.counts()["DescribeEndpoint"] == 2
    assert simulator.codes()["ServiceUnavailable"] == 1


def test_server_errors_have_a_status_and_a_code(hosting: Hosting, simulator: Simulator) -> None:
    simulator.fault("server_error", operation="ListModels", count=1)
    with pytest.raises(ClientError) as caught:
        hosting.sagemaker.list_models()
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert caught.value.response["Error"]["Code"] == "InternalFailure"


@pytest.mark.parametrize("mode", ["drop", "error"])
def test_a_lost_response_was_carried_out_all_the_same(hosting: Hosting, simulator: Simulator, mode: str) -> None:
    simulator.fault("lost_response", operation="CreateModel", count=1, mode=mode)
    with pytest.raises(ConnectionClosedError if mode == "drop" else ClientError):
        hosting.model("m1")
    hosting.sagemaker.describe_model(ModelName="m1")
    assert simulator.requests("CreateModel")[0]["code"] == "Lost"
    assert "already existing" in hosting.refusal("create_model", ModelName="m1", PrimaryContainer={"Image": "x"})[1]


def test_a_retrying_client_meets_its_own_creation_after_a_lost_response(simulator: Simulator) -> None:
    simulator.fault("lost_response", operation="CreateModel", count=1)
    client = simulator.client("sagemaker", config=Config(retries={"total_max_attempts": 3, "mode": "standard"}))
    with pytest.raises(ClientError, match="Cannot create already existing model"):
        client.create_model(ModelName="m1", PrimaryContainer={"Image": "x"})


def test_latency_is_real_time(hosting: Hosting, simulator: Simulator) -> None:
    simulator.fault("latency", operation="ListModels", count=1, seconds=0.3)
    begun = time.monotonic()
    hosting.sagemaker.list_models()
    assert time.monotonic() - begun >= 0.3
    hosting.sagemaker.list_models()
    assert simulator.faults()[0]["fired"] == 1


def test_access_denied_names_action_and_caller_and_strikes_one_role_only(
    hosting: Hosting, simulator: Simulator
) -> None:
    issued = simulator.client("sts").assume_role(
        RoleArn="arn:aws:iam::111122223333:role/team-a", RoleSessionName="sluice"
    )["Credentials"]["AccessKeyId"]
    team = simulator.client("sagemaker", access_key=issued)
    simulator.fault("access_denied", operation="CreateModel", role="team-a")
    with pytest.raises(ClientError) as caught:
        team.create_model(ModelName="m1", PrimaryContainer={"Image": "x"})
    error = caught.value.response["Error"]
    assert error["Code"] == "AccessDeniedException"
    assert error["Message"].startswith(
        "User: arn:aws:sts::111122223333:assumed-role/team-a/sluice is not authorized to perform: sagemaker:CreateModel"
    )
    hosting.model("m1")
    simulator.fault("access_denied", operation="AssumeRole", count=1)
    with pytest.raises(ClientError, match="AccessDenied"):
        simulator.client("sts").assume_role(RoleArn="arn:aws:iam::111122223333:role/x", RoleSessionName="sluice")


def test_a_quota_can_be_exhausted_without_setting_one(hosting: Hosting, simulator: Simulator) -> None:
    simulator.fault("quota", operation="CreateModel", count=1)
    assert (
        hosting.refusal("create_model", ModelName="m1", PrimaryContainer={"Image": "x"})[0] == "ResourceLimitExceeded"
    )
    hosting.model("m1")


@pytest.mark.parametrize(
    "kind",
    [
        "failed_creation",
        "health_failure",
        "download_failure",
        "capacity_failure",
        "zone_failure",
        "internal_failure",
    ],
)
def test_a_creation_that_fails_can_only_be_deleted(hosting: Hosting, simulator: Simulator, kind: str) -> None:
    hosting.model()
    hosting.config("c1")
    simulator.fault(kind, target="churn", count=1)
    hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")
    simulator.advance(20)
    shown = hosting.describe()
    assert shown["EndpointStatus"] == "Failed"
    assert shown["FailureReason"]
    assert "PendingDeploymentSummary" not in shown
    with pytest.raises(hosting.runtime.exceptions.ValidationError):
        hosting.runtime.invoke_endpoint(EndpointName="churn", Body=b"")
    hosting.sagemaker.delete_endpoint(EndpointName="churn")
    simulator.advance(5)
    hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")
    simulator.advance(20)
    assert hosting.status() == "InService"


def test_a_fault_may_bring_its_own_reason(hosting: Hosting, simulator: Simulator) -> None:
    hosting.model()
    hosting.config("c1")
    simulator.fault("health_failure", reason="no luck today")
    hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")
    simulator.advance(20)
    assert hosting.describe()["FailureReason"] == "no luck today"


def test_a_stuck_creation_cannot_even_be_deleted(hosting: Hosting, simulator: Simulator) -> None:
    hosting.model()
    hosting.config("c1")
    simulator.fault("stuck_creating", target="churn", seconds=7200)
    hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")
    simulator.advance(7200)
    assert hosting.status() == "Creating"
    assert "in-progress" in hosting.refusal("delete_endpoint", EndpointName="churn")[1]
    simulator.advance(20)
    assert hosting.status() == "Failed"


def test_a_failed_weight_change_rolls_back(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    simulator.fault("weight_update_failure", target="churn", count=1)
    rescale(hosting, DesiredInstanceCount=9)
    simulator.advance(10)
    assert hosting.status() == "RollingBack"
    assert hosting.live()["a"]["DesiredInstanceCount"] == 4
    simulator.advance(2)
    assert hosting.status() == "InService"
    assert hosting.live()["a"]["CurrentInstanceCount"] == 4
    rescale(hosting, DesiredWeight=3.0)
    simulator.advance(2)
    assert hosting.live()["a"]["CurrentWeight"] == 3.0
    assert "FailureReason" not in hosting.describe()


def test_maintenance_is_system_updating_for_a_while(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    before = hosting.describe()
    simulator.fault("maintenance", target="churn", after=100, seconds=40)
    simulator.advance(100)
    assert hosting.status() == "SystemUpdating"
    hosting.runtime.invoke_endpoint(EndpointName="churn", Body=b"")
    simulator.advance(40)
    after = hosting.describe()
    for moved in ("LastModifiedTime", "ResponseMetadata"):
        assert before.pop(moved) != after.pop(moved) or moved == "ResponseMetadata"
    assert before == after


def test_somebody_else_changes_things(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    before = hosting.describe()["LastModifiedTime"]
    simulator.change_endpoint("churn", weights={"a": 0.5}, counts={"a": 7}, immediate=True)
    live = hosting.live()["a"]
    assert (live["CurrentWeight"], live["DesiredInstanceCount"], hosting.status()) == (0.5, 7, "InService")
    assert hosting.describe()["LastModifiedTime"] > before
    simulator.change_endpoint("churn", counts={"a": 8})
    assert hosting.status() == "Updating"
    simulator.advance(10)
    assert hosting.live()["a"]["CurrentInstanceCount"] == 8
    simulator.change_endpoint("churn", endpointConfigName="c2")
    simulator.advance(20)
    assert hosting.describe()["EndpointConfigName"] == "c2"
    simulator.change_endpoint("churn", endpointConfigName="c1", immediate=True)
    assert hosting.describe()["EndpointConfigName"] == "c1"
    simulator.change_endpoint("churn", tags={"owner": "somebody"})
    arn = hosting.describe()["EndpointArn"]
    assert hosting.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "owner", "Value": "somebody"}]
    simulator.fault("external_change", target="churn", after=30, weights={"a": 4})
    simulator.advance(32)
    assert hosting.live()["a"]["CurrentWeight"] == 4.0
    simulator.delete_endpoint("churn")
    assert hosting.status() == "Deleting"
    simulator.advance(5)
    assert hosting.refusal("describe_endpoint", EndpointName="churn")[1].startswith("Could not find")
    hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")
    simulator.delete_endpoint("churn", now=True)
    assert hosting.sagemaker.list_endpoints()["Endpoints"] == []
    simulator.advance(100)


def test_probabilities_come_from_a_seed(hosting: Hosting, simulator: Simulator) -> None:
    def outcomes() -> list[bool]:
        simulator.clear_faults()
        simulator.fault("throttling", operation="ListModels", probability=0.3)
        result = []
        for _ in range(100):
            try:
                hosting.sagemaker.list_models()
                result.append(True)
            except ClientError:
                result.append(False)
        return result

    first = outcomes()
    assert outcomes() == first
    assert 15 <= first.count(False) <= 45


def test_faults_can_be_looked_at_and_taken_away(hosting: Hosting, simulator: Simulator) -> None:
    one = simulator.fault("throttling", operation="ListModels", skip=1)
    hosting.sagemaker.list_models()
    assert hosting.refusal("list_models")[0] == "ThrottlingException"
    (shown,) = simulator.faults()
    assert (shown["id"], shown["kind"], shown["fired"]) == (one, "throttling", 1)
    simulator.clear_faults(one)
    hosting.sagemaker.list_models()
    with pytest.raises(RuntimeError, match="404"):
        simulator.clear_faults(one)
    with pytest.raises(RuntimeError, match="known are throttling, server_error"):
        simulator.fault("bad_luck")
    with pytest.raises(RuntimeError, match="known are OK, ALARM"):
        simulator.set_alarm("x", "RED")
    with pytest.raises(RuntimeError, match="'create_secs' is unknown"):
        simulator.settings(create_secs=1)
    with pytest.raises(RuntimeError, match="takes a float"):
        simulator.settings(create_seconds="soon")
    hosting.endpoint()
    with pytest.raises(RuntimeError, match="unknown keys"):
        simulator.change_endpoint("churn", colour="red")


def test_every_fault_kind_is_tested_here() -> None:
    tests = Path(__file__).parent
    text = "".join(path.read_text() for path in tests.glob("test_*.py"))
    assert [kind for kind in FaultKind if f'"{kind}"' not in text] == []


def test_the_log_says_who_asked_what_with_which_outcome(hosting: Hosting, simulator: Simulator) -> None:
    hosting.model()
    hosting.refusal("describe_endpoint", EndpointName="nothing")
    first, second = simulator.requests()
    assert first["operation"] == "CreateModel"
    assert (first["role"], first["account"], first["region"]) == ("test", "111122223333", "us-east-1")
    assert (second["target"], second["code"]) == ("nothing", "ValidationException")
    assert simulator.counts("test") == {"CreateModel": 1, "DescribeEndpoint": 1}
    simulator.clear_requests()
    assert simulator.counts() == {}


def test_a_reset_forgets_everything_but_the_time(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    simulator.set_alarm("x", "ALARM")
    simulator.settings(create_seconds=1)
    before = simulator.now()
    simulator.reset()
    state = simulator.state()
    assert (state["regions"], state["alarms"]) == ([], {})
    assert state["settings"]["create_seconds"] == 20
    assert simulator.now() >= before


def test_target_variants_and_weights_of_zero(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint(variant("a"), variant("b", "m2", 1, InitialVariantWeight=0))

    def answered(**more: str) -> str:
        return str(hosting.runtime.invoke_endpoint(EndpointName="churn", Body=b"", **more)["InvokedProductionVariant"])

    assert {answered() for _ in range(30)} == {"a"}
    assert answered(TargetVariant="b") == "b"
    with pytest.raises(hosting.runtime.exceptions.ValidationError, match="Variant x"):
        answered(TargetVariant="x")
    rescale(hosting, DesiredWeight=0.0)
    simulator.advance(2)
    with pytest.raises(hosting.runtime.exceptions.ValidationError, match="weight above 0"):
        answered()
    simulator.fault("throttling", operation="InvokeEndpoint", count=1)
    with pytest.raises(ClientError, match="ThrottlingException"):
        answered(TargetVariant="a")


def test_rollback_failures_do_not_touch_blue_green(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    simulator.fault("update_rollback_failed")
    hosting.update()
    simulator.advance(30)
    assert hosting.describe()["EndpointConfigName"] == "c2"
    hosting.sagemaker.update_endpoint(
        EndpointName="churn", EndpointConfigName="c1", DeploymentConfig=rolling(percent(50), wait=10)
    )
    simulator.advance(100)
    assert hosting.status() == "UpdateRollbackFailed"


def test_a_thousand_endpoints_and_hundreds_of_calls() -> None:
    """In processor time, which other programs on a busy machine disturb least; HTTP adds about 0.1 ms a call."""
    core = Core(speed=0)
    caller = core.callers.caller("test")

    def call(operation: str, **request: Any) -> dict[str, Any]:
        return core.call("sagemaker", operation, caller, "us-east-1", request)

    call("CreateModel", ModelName="m1", PrimaryContainer={"Image": "x"})
    call("CreateEndpointConfig", EndpointConfigName="c1", ProductionVariants=[variant()])
    begun = time.process_time()
    for number in range(1000):
        call("CreateEndpoint", EndpointName=f"e{number}", EndpointConfigName="c1")
    core.clock.advance(20)
    statuses = {call("DescribeEndpoint", EndpointName=f"e{number}")["EndpointStatus"] for number in range(1000)}
    names: set[str] = set()
    page: dict[str, Any] = {"NextToken": None}
    while "NextToken" in page:
        page = call("ListEndpoints", MaxResults=100, NextToken=page["NextToken"])
        names |= {one["EndpointName"] for one in page["Endpoints"]}
    assert (statuses, len(names), core.broken_responses) == ({"InService"}, 1000, [])
    assert time.process_time() - begun < 2010 / 500


def test_a_running_clock_changes_its_speed_and_never_jumps() -> None:
    with Simulator(speed=1.0) as running:
        began, before = time.monotonic(), running.now()
        running.pace(100_000.0)
        after = running.now()
        assert after - before < 100_000 * (time.monotonic() - began), "no time but what has passed counts"
        deadline = time.monotonic() + 60
        while running.now() < before + 1000:
            assert time.monotonic() < deadline, "it does not run"
        running.pace(1.0)
        later = running.now()
        assert later >= before + 1000
        assert running.now() - later < 60
        with pytest.raises(RuntimeError, match="more than 0"):
            running.pace(0.0)
    with Simulator() as stepped, pytest.raises(RuntimeError, match="only `advance` moves it"):
        stepped.pace(2.0)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Control]:
    port = free_port()
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps([{"kind": "throttling", "operation": "ListModels", "count": 1}]))
    package = Path(sagemaker_simulator.__file__).parent.parent
    command = [sys.executable, "-m", "sagemaker_simulator", "--port", str(port), "--speed", "30"]
    started = subprocess.Popen(  # noqa: S603 - our own module with our own arguments
        [*command, "--set", "create_seconds=3", "--set", 'quotas={"models": 1}', "--faults", str(faults)],
        env={**os.environ, "PYTHONPATH": str(package)},
    )
    control = Control(f"http://127.0.0.1:{port}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while True:
        try:
            opener.open(f"{control.url}/_simulator/clock", timeout=10).close()
            break
        except OSError:
            assert time.monotonic() < deadline, "the simulator's process does not answer"
            assert started.poll() is None, "the simulator's process ended"
            time.sleep(0.05)
    yield control
    started.terminate()
    assert started.wait(30) == 0


def test_the_simulator_as_a_process(process: Control) -> None:
    client = process.client("sagemaker", config=ONCE)
    with pytest.raises(ClientError, match="Throttling"):
        client.list_models()
    client.create_model(ModelName="m1", PrimaryContainer={"Image": "x"})
    with pytest.raises(ClientError, match="ResourceLimitExceeded"):
        client.create_model(ModelName="m2", PrimaryContainer={"Image": "x"})
    client.create_endpoint_config(EndpointConfigName="c1", ProductionVariants=[variant()])
    client.create_endpoint(EndpointName="e", EndpointConfigName="c1")
    client.get_waiter("endpoint_in_service").wait(EndpointName="e", WaiterConfig={"Delay": 0.05, "MaxAttempts": 200})
    assert process.counts()["CreateEndpoint"] == 1
