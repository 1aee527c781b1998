"""An endpoint's life: created, described, updated without a policy, deleted; what each status refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import WaiterError
from tests.simulator.hosting import ROLE, Hosting, blue_green, serverless, variant

from sagemaker_simulator.testing import Simulator

ARN = "arn:aws:sagemaker:us-east-1:111122223333"


def test_creation_is_pending_then_in_service(hosting: Hosting, simulator: Simulator) -> None:
    hosting.model()
    hosting.config("c1")
    answer = hosting.sagemaker.create_endpoint(EndpointName="Churn", EndpointConfigName="c1")
    assert answer["EndpointArn"] == f"{ARN}:endpoint/churn"

    creating = hosting.describe("Churn")
    assert creating["EndpointStatus"] == "Creating"
    assert creating["EndpointName"] == "Churn"
    assert "ProductionVariants" not in creating
    pending = hosting.pending("Churn")["a"]
    assert pending["CurrentInstanceCount"] == 0
    assert pending["VariantStatus"][0]["Status"] == "Creating"
    assert pending["VariantStatus"][0]["StatusMessage"] == "Launching 4 instance(s)."

    simulator.advance(19.9)
    assert hosting.status("Churn") == "Creating"
    simulator.advance(0.1)
    serving = hosting.describe("Churn")
    assert serving["EndpointStatus"] == "InService"
    assert "PendingDeploymentSummary" not in serving
    assert "FailureReason" not in serving
    assert serving["ProductionVariants"][0]["CurrentInstanceCount"] == 4
    assert serving["ProductionVariants"][0]["CurrentWeight"] == 1.0
    assert serving["LastModifiedTime"] > creating["LastModifiedTime"] == serving["CreationTime"]


def test_images_are_resolved_when_the_fleet_is_launched(hosting: Hosting, simulator: Simulator) -> None:
    simulator.set_image("registry.example/team/m1:1", "a" * 64)
    hosting.endpoint()
    (image,) = hosting.live()["a"]["DeployedImages"]
    assert image["SpecifiedImage"] == "registry.example/team/m1:1"
    assert image["ResolvedImage"] == "registry.example/team/m1@sha256:" + "a" * 64
    simulator.set_image("registry.example/team/m1:1", "b" * 64)
    assert hosting.live()["a"]["DeployedImages"] == [image]
    hosting.next_config(variant(model="m1"))
    hosting.update()
    simulator.advance(60)
    assert hosting.live()["a"]["DeployedImages"][0]["ResolvedImage"].endswith("b" * 64)


def test_update_without_a_policy_flips_all_traffic_at_once(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config(variant("b", "m2", 2), variant("c", "m1", 1))
    hosting.update()
    assert hosting.status() == "Updating"
    assert hosting.describe()["EndpointConfigName"] == "c1"
    assert hosting.describe()["PendingDeploymentSummary"]["EndpointConfigName"] == "c2"
    assert set(hosting.live()) == {"a"}
    assert set(hosting.pending()) == {"b", "c"}
    simulator.advance(10)
    assert hosting.pending()["b"]["VariantStatus"][0] | {"StartTime": None} == {
        "Status": "ActivatingTraffic",
        "StatusMessage": "Activating traffic on full capacity of 2 instance(s).",
        "StartTime": None,
    }
    simulator.advance(2)
    assert hosting.live()["a"]["VariantStatus"][0]["StatusMessage"] == "Terminating 4 instance(s)."
    assert hosting.describe()["EndpointConfigName"] == "c1"
    simulator.advance(5)
    assert hosting.status() == "InService"
    assert hosting.describe()["EndpointConfigName"] == "c2"
    assert set(hosting.live()) == {"b", "c"}


def test_every_status_change_moves_last_modified_time(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.next_config()
    seen: dict[str, Any] = {}
    hosting.update()
    for _ in range(40):
        shown = hosting.describe()
        seen.setdefault(shown["EndpointStatus"], shown["LastModifiedTime"])
        simulator.advance(1)
    hosting.sagemaker.delete_endpoint(EndpointName="churn")
    seen["Deleting"] = hosting.describe()["LastModifiedTime"]
    times = [seen["Updating"], seen["InService"], seen["Deleting"]]
    assert times == sorted(set(times))


def test_deletion_takes_a_moment_and_leaves_config_and_model(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.sagemaker.delete_endpoint(EndpointName="churn")
    assert hosting.status() == "Deleting"
    simulator.advance(5)
    assert hosting.refusal("describe_endpoint", EndpointName="churn") == (
        "ValidationException",
        f'Could not find endpoint "{ARN}:endpoint/churn".',
    )
    hosting.sagemaker.describe_endpoint_config(EndpointConfigName="c1")
    hosting.sagemaker.describe_model(ModelName="m1")
    hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")


def test_endpoint_names_are_unique_in_any_case_but_found_in_their_own_only(hosting: Hosting) -> None:
    hosting.endpoint(name="Churn")
    code, message = hosting.refusal("create_endpoint", EndpointName="cHURN", EndpointConfigName="c1")
    assert (code, message) == (
        "ValidationException",
        f'Cannot create already existing endpoint "{ARN}:endpoint/churn".',
    )
    assert hosting.refusal("describe_endpoint", EndpointName="churn")[1].startswith("Could not find endpoint")
    with pytest.raises(hosting.runtime.exceptions.ValidationError, match="not found"):
        hosting.runtime.invoke_endpoint(EndpointName="churn", Body=b"")


@pytest.mark.parametrize(
    ("status", "update", "rescale", "delete"),
    [
        ("InService", True, True, True),
        ("UpdateRollbackFailed", True, False, True),
        ("Failed", False, False, True),
        ("OutOfService", False, False, True),
        ("Creating", False, False, False),
        ("Updating", False, False, False),
        ("SystemUpdating", False, False, False),
        ("RollingBack", False, False, False),
        ("Deleting", False, False, False),
    ],
)
def test_what_each_status_accepts(
    hosting: Hosting, simulator: Simulator, status: str, update: bool, rescale: bool, delete: bool
) -> None:
    calls: dict[str, tuple[dict[str, Any], bool]] = {
        "update_endpoint": ({"EndpointConfigName": "c2"}, update),
        "update_endpoint_weights_and_capacities": (
            {"DesiredWeightsAndCapacities": [{"VariantName": "a", "DesiredWeight": 2.0}]},
            rescale,
        ),
        "delete_endpoint": ({}, delete),
    }
    hosting.endpoint()
    hosting.next_config()
    for number, (operation, (request, accepted)) in enumerate(calls.items()):
        name = f"e{number}"
        hosting.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="c1")
        simulator.advance(20)
        simulator.change_endpoint(name, status=status)
        assert hosting.status(name) == status
        if accepted:
            getattr(hosting.sagemaker, operation)(EndpointName=name, **request)
            continue
        code, message = hosting.refusal(operation, EndpointName=name, **request)
        assert code == "ValidationException"
        steady = {"Failed", "OutOfService", "UpdateRollbackFailed"}
        assert message.startswith(
            f'Cannot update endpoint "{ARN}:endpoint/{name}"'
            if status in steady
            else f'Cannot update in-progress endpoint "{ARN}:endpoint/{name}".'
        )
        assert hosting.status(name) == status


def test_update_needs_the_old_config_and_the_new_ones_models(hosting: Hosting) -> None:
    hosting.endpoint()
    hosting.next_config()
    hosting.sagemaker.delete_model(ModelName="m2")
    request = {"EndpointName": "churn", "EndpointConfigName": "c2"}
    assert hosting.refusal("update_endpoint", **request)[1] == f'Could not find model "{ARN}:model/m2".'
    hosting.model("m2")
    hosting.sagemaker.delete_endpoint_config(EndpointConfigName="c1")
    assert hosting.refusal("update_endpoint", **request) == (
        "ValidationException",
        f'Could not find endpoint configuration "{ARN}:endpoint-config/c1".',
    )
    assert hosting.status() == "InService"


def test_a_config_created_again_under_its_name_is_not_noticed(hosting: Hosting) -> None:
    hosting.endpoint()
    hosting.sagemaker.delete_endpoint_config(EndpointConfigName="c1")
    hosting.config("c1", variant("other", "m2", 1))
    assert set(hosting.live()) == {"a"}


def test_retained_properties_win_over_the_new_config(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint(variant("a"), variant("b", "m2", 2, InitialVariantWeight=3))
    hosting.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="churn",
        DesiredWeightsAndCapacities=[{"VariantName": "a", "DesiredWeight": 7.0, "DesiredInstanceCount": 6}],
    )
    simulator.advance(10)
    hosting.next_config(variant("a", "m2", 1, InitialVariantWeight=5), variant("new", "m2", 1))
    hosting.update(RetainAllVariantProperties=True)
    simulator.advance(30)
    live = hosting.live()
    assert (live["a"]["DesiredInstanceCount"], live["a"]["CurrentWeight"]) == (6, 7.0)
    assert (live["new"]["DesiredInstanceCount"], live["new"]["CurrentWeight"]) == (1, 1.0)


def test_excluded_properties_are_not_retained(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    hosting.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="churn",
        DesiredWeightsAndCapacities=[{"VariantName": "a", "DesiredWeight": 7.0, "DesiredInstanceCount": 6}],
    )
    simulator.advance(10)
    hosting.next_config(variant("a", "m2", 2, InitialVariantWeight=5))
    excluded = [{"VariantPropertyType": "DesiredInstanceCount"}]
    assert (
        "RetainAllVariantProperties"
        in (
            hosting.refusal(
                "update_endpoint",
                EndpointName="churn",
                EndpointConfigName="c2",
                ExcludeRetainedVariantProperties=excluded,
            )[1]
        )
    )
    hosting.update(RetainAllVariantProperties=True, ExcludeRetainedVariantProperties=excluded)
    simulator.advance(30)
    assert hosting.live()["a"]["CurrentInstanceCount"] == 2
    assert hosting.live()["a"]["CurrentWeight"] == 7.0


def test_the_last_deployment_config_can_be_retained(hosting: Hosting, simulator: Simulator) -> None:
    given = blue_green(bake=100)
    hosting.endpoint(DeploymentConfig=given)
    assert hosting.describe()["LastDeploymentConfig"] == given
    hosting.next_config()
    assert (
        "RetainDeploymentConfig"
        in (
            hosting.refusal(
                "update_endpoint",
                EndpointName="churn",
                EndpointConfigName="c2",
                RetainDeploymentConfig=True,
                DeploymentConfig=given,
            )[1]
        )
    )
    hosting.update(RetainDeploymentConfig=True)
    simulator.advance(12)
    assert hosting.pending()["a"]["VariantStatus"][0]["Status"] == "Baking"
    simulator.advance(105)
    assert hosting.status() == "InService"
    assert hosting.describe()["LastDeploymentConfig"] == given


def test_weights_and_counts_converge_and_keep_what_was_not_named(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint(variant("a", InitialVariantWeight=3), variant("b", "m2", 2, InitialVariantWeight=0))
    assert hosting.live()["b"]["CurrentWeight"] == 0.0
    change = hosting.sagemaker.update_endpoint_weights_and_capacities
    change(
        EndpointName="churn",
        DesiredWeightsAndCapacities=[
            {"VariantName": "a", "DesiredInstanceCount": 6},
            {"VariantName": "b", "DesiredWeight": 0.5},
        ],
    )
    shown = hosting.describe()
    assert shown["EndpointStatus"] == "Updating"
    assert "PendingDeploymentSummary" not in shown
    live = hosting.live()
    assert (live["a"]["CurrentInstanceCount"], live["a"]["DesiredInstanceCount"]) == (4, 6)
    assert live["a"]["VariantStatus"][0]["StatusMessage"] == "Scaling out desired instance count to 6."
    assert (live["b"]["CurrentWeight"], live["b"]["DesiredWeight"]) == (0.0, 0.5)
    simulator.advance(10)
    live = hosting.live()
    assert hosting.status() == "InService"
    assert (live["a"]["CurrentInstanceCount"], live["a"]["CurrentWeight"]) == (6, 3.0)
    assert (live["b"]["CurrentInstanceCount"], live["b"]["CurrentWeight"]) == (2, 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([{"VariantName": "x", "DesiredWeight": 1.0}], 'Could not find variant "x"'),
        ([{"VariantName": "a", "DesiredWeight": 1.0}, {"VariantName": "a", "DesiredWeight": 2.0}], "given twice"),
        ([{"VariantName": "a", "DesiredInstanceCount": 0}], "at least 1"),
        (
            [{"VariantName": "a", "DesiredInstanceCount": 2}, {"VariantName": "b", "DesiredInstanceCount": 2}],
            "more than one variant",
        ),
    ],
)
def test_refused_weights_and_counts(hosting: Hosting, changes: list[dict[str, object]], words: str) -> None:
    hosting.endpoint(variant("a"), variant("b", "m2", 1))
    code, message = hosting.refusal(
        "update_endpoint_weights_and_capacities", EndpointName="churn", DesiredWeightsAndCapacities=changes
    )
    assert code == "ValidationException"
    assert words in message
    assert hosting.status() == "InService"


def test_instances_cannot_become_serverless_but_serverless_can_become_instances(
    hosting: Hosting, simulator: Simulator
) -> None:
    hosting.endpoint(serverless())
    live = hosting.live()["a"]
    assert live["CurrentServerlessConfig"]["MemorySizeInMB"] == 2048
    assert "CurrentInstanceCount" not in live
    hosting.next_config()
    hosting.update()
    simulator.advance(30)
    assert hosting.live()["a"]["CurrentInstanceCount"] == 4
    code, message = hosting.refusal("update_endpoint", EndpointName="churn", EndpointConfigName="c1")
    assert (code, "serverless" in message) == ("ValidationException", True)


def test_a_scalable_target_protects_its_variant(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint(variant("a"), variant("b", "m2", 1))
    resource = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/churn/variant/a",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    hosting.autoscaling.register_scalable_target(**resource, MinCapacity=1, MaxCapacity=9)
    (target,) = hosting.autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 9)
    hosting.next_config(variant("a", InstanceType="ml.m5.xlarge"), variant("b", "m2", 1))
    hosting.config("c3", variant("b", "m2", 1))
    hosting.config("c4", variant("a", "m2"))
    for config, words in (("c2", "instance type"), ("c3", "remove")):
        message = hosting.refusal("update_endpoint", EndpointName="churn", EndpointConfigName=config)[1]
        assert words in message
        assert "scalable target" in message
    hosting.sagemaker.update_endpoint(EndpointName="churn", EndpointConfigName="c4")
    simulator.advance(60)
    hosting.autoscaling.deregister_scalable_target(**resource)
    hosting.update()
    simulator.advance(60)
    hosting.autoscaling.register_scalable_target(**resource, MinCapacity=1, MaxCapacity=9)
    hosting.sagemaker.delete_endpoint(EndpointName="churn")
    simulator.advance(5)
    assert hosting.autoscaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    with pytest.raises(hosting.autoscaling.exceptions.ObjectNotFoundException):
        hosting.autoscaling.deregister_scalable_target(**resource)


def test_what_a_config_says_is_shown_at_the_endpoint(hosting: Hosting, simulator: Simulator) -> None:
    hosting.model()
    hosting.model("m2")
    hosting.config(
        "c1",
        variant(),
        ShadowProductionVariants=[variant("shadow", "m2", 1)],
        DataCaptureConfig={
            "InitialSamplingPercentage": 20,
            "DestinationS3Uri": "s3://capture/x",
            "CaptureOptions": [{"CaptureMode": "Input"}],
        },
    )
    hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")
    simulator.advance(20)
    shown = hosting.describe()
    assert shown["DataCaptureConfig"]["CurrentSamplingPercentage"] == 20
    assert shown["DataCaptureConfig"]["CaptureStatus"] == "Started"
    assert [one["VariantName"] for one in shown["ShadowProductionVariants"]] == ["shadow"]
    assert [one["VariantName"] for one in shown["ProductionVariants"]] == ["a"]


@contextmanager
def passing_time(simulator: Simulator) -> Iterator[None]:
    """A simulated second passes every 10 ms, for at most 20 s."""
    done = threading.Event()

    def pass_time() -> None:
        for _ in range(2000):
            if done.wait(0.01):
                return
            simulator.advance(1)

    thread = threading.Thread(target=pass_time)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


QUICK = {"Delay": 0.02, "MaxAttempts": 1000}


def test_botocores_waiters_see_a_creation_and_a_deletion(hosting: Hosting, simulator: Simulator) -> None:
    hosting.model()
    hosting.config("c1")
    hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")
    with passing_time(simulator):
        hosting.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="churn", WaiterConfig=QUICK)
        hosting.sagemaker.delete_endpoint(EndpointName="churn")
        hosting.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="churn", WaiterConfig=QUICK)


def test_botocores_waiter_sees_a_failed_creation(hosting: Hosting, simulator: Simulator) -> None:
    hosting.model()
    hosting.config("c1")
    simulator.fault("health_failure", target="churn")
    hosting.sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="c1")
    with passing_time(simulator), pytest.raises(WaiterError, match="Failed"):
        hosting.sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="churn", WaiterConfig=QUICK)


def test_models_with_every_kind_of_source_are_echoed(hosting: Hosting) -> None:
    container = {
        "Image": "registry.example/a:1",
        "ContainerHostname": "first",
        "ModelDataSource": {
            "S3DataSource": {"S3Uri": "s3://models/a/", "S3DataType": "S3Prefix", "CompressionType": "None"}
        },
        "Environment": {"LOG_LEVEL": "info"},
    }
    hosting.sagemaker.create_model(
        ModelName="serial",
        Containers=[container, {"Image": "registry.example/b:1", "ContainerHostname": "second"}],
        InferenceExecutionConfig={"Mode": "Direct"},
        ExecutionRoleArn=ROLE,
        EnableNetworkIsolation=True,
    )
    shown = hosting.sagemaker.describe_model(ModelName="serial")
    assert shown["Containers"][0] == {**container, "Mode": "SingleModel"}
    assert shown["InferenceExecutionConfig"] == {"Mode": "Direct"}
    assert shown["EnableNetworkIsolation"] is True
    assert "PrimaryContainer" not in shown
    assert "VpcConfig" not in shown


@pytest.mark.parametrize(
    ("status", "serves"),
    [
        ("InService", True),
        ("Updating", True),
        ("SystemUpdating", True),
        ("RollingBack", True),
        ("UpdateRollbackFailed", True),
        ("Failed", False),
        ("OutOfService", False),
        ("Deleting", False),
    ],
)
def test_which_statuses_answer_invocations(hosting: Hosting, simulator: Simulator, status: str, serves: bool) -> None:
    hosting.endpoint()
    simulator.change_endpoint("churn", status=status)
    if serves:
        hosting.runtime.invoke_endpoint(EndpointName="churn", Body=b"")
        return
    with pytest.raises(hosting.runtime.exceptions.ValidationError, match=r"Endpoint churn of account .* not found"):
        hosting.runtime.invoke_endpoint(EndpointName="churn", Body=b"")
