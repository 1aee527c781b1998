"""What a request must look like, how objects are listed and tagged, and how the service words its refusals."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from tests.simulator.hosting import ROLE, Hosting, blue_green, instances, percent, rolling, serverless, variant

from sagemaker_simulator import operations, service_model, validation
from sagemaker_simulator.errors import ServiceError
from sagemaker_simulator.testing import Simulator

ARN = "arn:aws:sagemaker:us-east-1:111122223333"
IMAGE = {"Image": "registry.example/x:1"}


@pytest.mark.parametrize(
    ("operation", "request_", "path", "constraint"),
    [
        ("describe_endpoint", {"EndpointName": "a_b"}, "endpointName", "regular expression pattern: [a-zA-Z0-9](-*"),
        ("describe_endpoint", {"EndpointName": "a-" * 40 + "a"}, "endpointName", "length less than or equal to 63"),
        ("describe_model", {"ModelName": "-m"}, "modelName", "regular expression pattern"),
        ("list_endpoints", {"MaxResults": 101}, "maxResults", "value less than or equal to 100"),
        ("list_endpoints", {"StatusEquals": "Busy"}, "statusEquals", "enum value set: [OutOfService, Creating"),
        (
            "create_endpoint_config",
            {"EndpointConfigName": "c", "ProductionVariants": [variant(), variant("b", InstanceType="ml.x9.huge")]},
            "productionVariants.2.member.instanceType",
            "enum value set: [",
        ),
        (
            "create_endpoint",
            {
                "EndpointName": "e",
                "EndpointConfigName": "c",
                "DeploymentConfig": blue_green(MaximumExecutionTimeoutInSeconds=28801),
            },
            "deploymentConfig.blueGreenUpdatePolicy.maximumExecutionTimeoutInSeconds",
            "value less than or equal to 28800",
        ),
        (
            "create_endpoint",
            {"EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": blue_green(wait=3601)},
            "deploymentConfig.blueGreenUpdatePolicy.trafficRoutingConfiguration.waitIntervalInSeconds",
            "value less than or equal to 3600",
        ),
        (
            "create_endpoint",
            {
                "EndpointName": "e",
                "EndpointConfigName": "c",
                "DeploymentConfig": blue_green(alarms=tuple("abcdefghijk")),
            },
            "deploymentConfig.autoRollbackConfiguration.alarms",
            "length less than or equal to 10",
        ),
        (
            "create_endpoint",
            {"EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": blue_green(alarms=(" ",))},
            "deploymentConfig.autoRollbackConfiguration.alarms.1.member.alarmName",
            "regular expression pattern",
        ),
        (
            "create_model",
            {"ModelName": "m", "PrimaryContainer": {**IMAGE, "Environment": {"1BAD": "x"}}},
            "primaryContainer.environment.key",
            "regular expression pattern",
        ),
        (
            "add_tags",
            {"ResourceArn": f"{ARN}:endpoint/e", "Tags": [{"Key": "a\n", "Value": "x"}]},
            "tags.1.member.key",
            "regular expression pattern",
        ),
    ],
)
def test_the_model_is_enforced_where_boto3_is_silent(
    hosting: Hosting, operation: str, request_: dict[str, Any], path: str, constraint: str
) -> None:
    code, message = hosting.refusal(operation, **request_)
    assert code == "ValidationException"
    assert message.startswith("1 validation error detected: Value '")
    assert f"at '{path}' failed to satisfy constraint: Member must " in message
    assert constraint in message


def test_several_problems_are_counted(hosting: Hosting) -> None:
    message = hosting.refusal("list_endpoints", MaxResults=500, SortBy="Size")[1]
    assert message.startswith("2 validation errors detected: Value ")
    assert message.count("; Value ") == 1


def test_required_members_and_types_are_checked_for_clients_that_do_not() -> None:
    with pytest.raises(ServiceError, match=r"Value null at 'endpointConfigName' failed .*: Member must not be null"):
        validation.check_request("sagemaker", "CreateEndpoint", {"EndpointName": "e"})
    with pytest.raises(ServiceError, match="SerializationException: Expected a string at 'endpointName', found int"):
        validation.check_request("sagemaker", "DescribeEndpoint", {"EndpointName": 1})


def test_a_response_that_does_not_fit_the_model_is_found() -> None:
    for body in ({}, {"EndpointArn": "arn"}, {"EndpointArn": f"{ARN}:endpoint/x", "Surprise": 1}):
        with pytest.raises(validation.ResponseDoesNotFitError, match="CreateEndpoint: "):
            validation.check_response("sagemaker", "CreateEndpoint", body)
    validation.check_response("sagemaker", "CreateEndpoint", {"EndpointArn": f"{ARN}:endpoint/x"})


def test_every_pattern_of_the_simulated_operations_can_be_compiled() -> None:
    for service, handlers in (("sagemaker", operations.SAGEMAKER), ("application-autoscaling", operations.AUTOSCALING)):
        for name in handlers:
            model = service_model.operation(service, name)
            for shape in (model.input_shape, model.output_shape):
                if shape is not None:
                    validation.rule_for(service, shape)
    assert re.fullmatch(validation.java_regex(r"[\uD800\uDC00-\uDBFF\uDFFF]"), "\U0001f600")


def test_operations_that_are_not_simulated_are_refused(hosting: Hosting) -> None:
    assert hosting.refusal("list_training_jobs")[0] == "UnknownOperationException"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "PrimaryContainer"),
        ({"PrimaryContainer": {}}, "exactly one of Image, ModelPackageName"),
        ({"PrimaryContainer": IMAGE, "Containers": [IMAGE]}, "exactly one of PrimaryContainer, Containers"),
        (
            {
                "PrimaryContainer": {
                    **IMAGE,
                    "ModelDataUrl": "s3://b/m.tar.gz",
                    "ModelDataSource": {
                        "S3DataSource": {
                            "S3Uri": "s3://b/m",
                            "S3DataType": "S3Object",
                            "CompressionType": "Gzip",
                        }
                    },
                }
            },
            "both ModelDataUrl and ModelDataSource",
        ),
        (
            {
                "PrimaryContainer": {
                    **IMAGE,
                    "ModelDataSource": {
                        "S3DataSource": {"S3Uri": "s3://b/m", "S3DataType": "S3Prefix", "CompressionType": "None"}
                    },
                }
            },
            "must end with a slash",
        ),
        ({"Containers": [IMAGE, IMAGE], "InferenceExecutionConfig": {"Mode": "Direct"}}, "ContainerHostname"),
        ({"Containers": [{**IMAGE, "ContainerHostname": "x"}, IMAGE]}, "ContainerHostname"),
        ({"Containers": [{**IMAGE, "ContainerHostname": "x"}] * 2}, "unique"),
        ({"PrimaryContainer": {**IMAGE, "Environment": {f"K{n}": "v" * 1000 for n in range(33)}}}, "bytes"),
    ],
)
def test_models_the_service_refuses(hosting: Hosting, request_: dict[str, Any], words: str) -> None:
    code, message = hosting.refusal("create_model", ModelName="m", ExecutionRoleArn=ROLE, **request_)
    assert code == "ValidationException"
    assert words in message


@pytest.mark.parametrize(
    ("variants", "more", "words"),
    [
        ([variant(model="gone")], {}, f'Could not find model "{ARN}:model/gone".'),
        ([variant(), variant()], {}, "'a' is given twice"),
        ([variant()], {"ShadowProductionVariants": [variant("b"), variant("c")]}, "exactly one"),
        ([variant()], {"ShadowProductionVariants": [variant()]}, "'a' is given twice"),
        ([{"VariantName": "a", "ModelName": "m1"}], {}, "exactly one of InstanceType, ServerlessConfig"),
        ([{"VariantName": "a", "ModelName": "m1", "InstanceType": "ml.m5.large"}], {}, "InitialInstanceCount"),
        ([{**serverless(), "InstanceType": "ml.m5.large"}], {}, "found InstanceType, ServerlessConfig"),
        ([serverless(MemorySizeInMB=1500)], {}, "multiple of 1024"),
        ([serverless(ProvisionedConcurrency=6)], {}, "must not exceed MaxConcurrency"),
        ([serverless(), serverless("b")], {}, "single production variant"),
        ([{"VariantName": "a", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}], {}, "ExecutionRoleArn"),
        ([variant(AcceleratorType="ml.eia1.medium")], {}, "no longer supported"),
        (
            [variant(ManagedInstanceScaling={"Status": "ENABLED", "MinInstanceCount": 3, "MaxInstanceCount": 2})],
            {},
            "MinInstanceCount",
        ),
        ([variant(RoutingConfig={"RoutingStrategy": "PREFIX_AWARE"})], {}, "PrefixLength"),
    ],
)
def test_configs_the_service_refuses(
    hosting: Hosting, variants: list[dict[str, Any]], more: dict[str, Any], words: str
) -> None:
    hosting.model()
    code, message = hosting.refusal(
        "create_endpoint_config", EndpointConfigName="c", ProductionVariants=variants, **more
    )
    assert code == "ValidationException"
    assert words in message


def test_duplicates_are_refused_and_keep_the_first(hosting: Hosting) -> None:
    hosting.endpoint()
    for operation, request, words in (
        ("create_model", {"ModelName": "m1", "PrimaryContainer": IMAGE}, f'model "{ARN}:model/m1".'),
        (
            "create_endpoint_config",
            {"EndpointConfigName": "c1", "ProductionVariants": [variant(count=9)]},
            f'endpoint configuration "{ARN}:endpoint-config/c1".',
        ),
        (
            "create_endpoint",
            {"EndpointName": "churn", "EndpointConfigName": "c1"},
            f'endpoint "{ARN}:endpoint/churn".',
        ),
    ):
        assert hosting.refusal(operation, **request) == (
            "ValidationException",
            f"Cannot create already existing {words}",
        )
    shown = hosting.sagemaker.describe_endpoint_config(EndpointConfigName="c1")
    assert shown["ProductionVariants"][0]["InitialInstanceCount"] == 4
    assert shown["EnableNetworkIsolation"] is False
    assert "DataCaptureConfig" not in shown


@pytest.mark.parametrize(
    ("operation", "name", "message"),
    [
        ("describe_model", "ModelName", "Could not find model"),
        ("delete_model", "ModelName", "Could not find model"),
        ("describe_endpoint_config", "EndpointConfigName", "Could not find endpoint configuration"),
        ("delete_endpoint_config", "EndpointConfigName", "Could not find endpoint configuration"),
        ("describe_endpoint", "EndpointName", "Could not find endpoint"),
        ("delete_endpoint", "EndpointName", "Could not find endpoint"),
    ],
)
def test_what_does_not_exist_is_a_validation_exception(
    hosting: Hosting, operation: str, name: str, message: str
) -> None:
    code, found = hosting.refusal(operation, **{name: "nothing"})
    assert code == "ValidationException"
    assert found.startswith(f'{message} "{ARN}:')


GUARDRAILS: list[tuple[dict[str, Any], str]] = [
    ({**blue_green(), **rolling(percent(10))}, "only one of"),
    (blue_green("CANARY", CanarySize=percent(51)), "CanarySize of 51 CAPACITY_PERCENT"),
    (blue_green("CANARY", CanarySize=instances(3)), "CanarySize of 3 INSTANCE_COUNT"),
    (blue_green("CANARY"), "CanarySize is required"),
    (blue_green("CANARY", CanarySize=percent(10), LinearStepSize=percent(10)), "LinearStepSize is not allowed"),
    (blue_green("LINEAR", LinearStepSize=percent(9)), "LinearStepSize of 9"),
    (blue_green("LINEAR", LinearStepSize=percent(51)), "LinearStepSize of 51"),
    (blue_green("LINEAR", LinearStepSize=instances(3)), "LinearStepSize of 3"),
    (blue_green(CanarySize=percent(10)), "CanarySize is not allowed"),
    (rolling(percent(4)), "MaximumBatchSize of 4"),
    (rolling(percent(51)), "MaximumBatchSize of 51"),
    (rolling(instances(3)), "MaximumBatchSize of 3"),
    (rolling(percent(50), RollbackMaximumBatchSize=percent(101)), "RollbackMaximumBatchSize of 101"),
]


@pytest.mark.parametrize(("deployment", "words"), GUARDRAILS, ids=[words for _, words in GUARDRAILS])
def test_deployment_configs_the_service_refuses(hosting: Hosting, deployment: dict[str, Any], words: str) -> None:
    hosting.endpoint()
    hosting.next_config()
    for operation, request in (
        ("create_endpoint", {"EndpointName": "other", "EndpointConfigName": "c1"}),
        ("update_endpoint", {"EndpointName": "churn", "EndpointConfigName": "c2"}),
    ):
        code, message = hosting.refusal(operation, **request, DeploymentConfig=deployment)
        assert code == "ValidationException"
        assert words in message
    assert hosting.status() == "InService"


def test_guardrails_keep_variant_names_and_rolling_takes_one_variant(hosting: Hosting) -> None:
    hosting.endpoint()
    hosting.next_config(variant("renamed"))
    hosting.config("two", variant("a"), variant("b"))
    request = {"EndpointName": "churn", "EndpointConfigName": "c2"}
    for deployment in (blue_green(), rolling(percent(50))):
        message = hosting.refusal("update_endpoint", **request, DeploymentConfig=deployment)[1]
        assert "same variant names" in message
    hosting.update()
    hosting.sagemaker.create_endpoint(EndpointName="two", EndpointConfigName="two")
    hosting.simulator.advance(60)
    message = hosting.refusal(
        "update_endpoint", EndpointName="two", EndpointConfigName="two", DeploymentConfig=rolling(percent(50))
    )[1]
    assert "multiple variants" in message
    hosting.config("less", serverless())
    hosting.sagemaker.create_endpoint(EndpointName="less", EndpointConfigName="less")
    hosting.simulator.advance(60)
    message = hosting.refusal(
        "update_endpoint", EndpointName="less", EndpointConfigName="less", DeploymentConfig=rolling(percent(50))
    )[1]
    assert "serverless" in message


def test_lists_filter_sort_and_page(hosting: Hosting, simulator: Simulator) -> None:
    hosting.model()
    hosting.config("c1")
    for number in range(12):
        hosting.sagemaker.create_endpoint(EndpointName=f"e{number:02}", EndpointConfigName="c1")
        simulator.advance(2)
    sagemaker = hosting.sagemaker
    first = sagemaker.list_endpoints()
    assert [one["EndpointName"] for one in first["Endpoints"]] == [f"e{n:02}" for n in range(11, 1, -1)]
    simulator.advance(0)
    hosting.sagemaker.create_endpoint(EndpointName="between-the-pages", EndpointConfigName="c1")
    rest = sagemaker.list_endpoints(NextToken=first["NextToken"])
    assert [one["EndpointName"] for one in rest["Endpoints"]] == ["e01", "e00"]
    assert "NextToken" not in rest

    def names(**query: Any) -> list[str]:
        pages = sagemaker.get_paginator("list_endpoints").paginate(PaginationConfig={"PageSize": 5}, **query)
        return [one["EndpointName"] for page in pages for one in page["Endpoints"]]

    assert names(NameContains="E0", SortBy="Name", SortOrder="Ascending") == [f"e{n:02}" for n in range(10)]
    assert names(StatusEquals="InService", SortBy="Name", SortOrder="Ascending") == ["e00", "e01", "e02"]
    assert names(SortBy="Status", SortOrder="Ascending")[-3:] == ["e00", "e01", "e02"]
    created = {one["EndpointName"]: one["CreationTime"] for one in first["Endpoints"]}
    assert set(names(CreationTimeAfter=created["e09"])) >= {"e10", "e11", "between-the-pages"}
    assert "e08" not in names(CreationTimeAfter=created["e09"])
    assert set(names(CreationTimeBefore=created["e03"])) == {"e00", "e01", "e02"}
    with pytest.raises(ClientError, match="Invalid pagination token"):
        sagemaker.list_endpoints(NextToken="nonsense")


def test_a_sweep_by_last_modified_time_returns_what_changed(hosting: Hosting, simulator: Simulator) -> None:
    hosting.model()
    hosting.config("c1")
    for name in ("still", "moves"):
        hosting.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="c1")
    simulator.advance(100)
    since = simulator.now()
    simulator.advance(2)
    hosting.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="moves", DesiredWeightsAndCapacities=[{"VariantName": "a", "DesiredWeight": 2.0}]
    )
    found = hosting.sagemaker.list_endpoints(LastModifiedTimeAfter=since)["Endpoints"]
    assert [one["EndpointName"] for one in found] == ["moves"]
    before = hosting.sagemaker.list_endpoints(LastModifiedTimeBefore=since)["Endpoints"]
    assert [one["EndpointName"] for one in before] == ["still"]


def test_models_and_configs_are_listed_too(hosting: Hosting, simulator: Simulator) -> None:
    for name in ("alpha", "beta", "gamma"):
        hosting.model(name)
        hosting.config(f"{name}-config", variant(model=name))
        simulator.advance(1)
    sagemaker = hosting.sagemaker
    assert [one["ModelName"] for one in sagemaker.list_models(MaxResults=2)["Models"]] == ["gamma", "beta"]
    assert [one["ModelName"] for one in sagemaker.list_models(NameContains="ET")["Models"]] == ["beta"]
    configs = sagemaker.list_endpoint_configs(SortBy="Name", SortOrder="Ascending")["EndpointConfigs"]
    assert [one["EndpointConfigName"] for one in configs] == ["alpha-config", "beta-config", "gamma-config"]


def test_tags_are_set_overwritten_and_deleted(hosting: Hosting) -> None:
    hosting.endpoint(Tags=[{"Key": "team", "Value": "a"}])
    arn, sagemaker = f"{ARN}:endpoint/churn", hosting.sagemaker
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "b"}, {"Key": "größe", "Value": ""}])
    assert sagemaker.list_tags(ResourceArn=arn)["Tags"] == [
        {"Key": "team", "Value": "b"},
        {"Key": "größe", "Value": ""},
    ]
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["team", "unknown"])
    assert [tag["Key"] for tag in sagemaker.list_tags(ResourceArn=arn)["Tags"]] == ["größe"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": f"k{n}", "Value": ""} for n in range(49)])
    for tags, words in (
        ([{"Key": "one-more", "Value": ""}], "the limit is 50"),
        ([{"Key": "x", "Value": "1"}, {"Key": "x", "Value": "2"}], "unique"),
        ([{"Key": "aws:x", "Value": "1"}], "reserved"),
    ):
        assert words in hosting.refusal("add_tags", ResourceArn=arn, Tags=tags)[1]
    assert hosting.refusal("list_tags", ResourceArn=f"{ARN}:endpoint/none")[0] == "ValidationException"
    assert sagemaker.list_tags(ResourceArn=f"{ARN}:model/m1")["Tags"] == []


def test_reads_and_references_may_lag_behind_a_creation(hosting: Hosting, simulator: Simulator) -> None:
    simulator.settings(read_after_create_seconds=3, use_after_create_seconds=5)
    hosting.model()
    assert hosting.refusal("describe_model", ModelName="m1")[1].startswith("Could not find model")
    assert hosting.sagemaker.list_models()["Models"] == []
    assert "already existing" in hosting.refusal("create_model", ModelName="m1", PrimaryContainer=IMAGE)[1]
    simulator.advance(3)
    hosting.sagemaker.describe_model(ModelName="m1")
    config = {"EndpointConfigName": "c1", "ProductionVariants": [variant()]}
    assert hosting.refusal("create_endpoint_config", **config)[1].startswith("Could not find model")
    simulator.advance(2)
    hosting.sagemaker.create_endpoint_config(**config)
    request = {"EndpointName": "churn", "EndpointConfigName": "c1"}
    assert hosting.refusal("create_endpoint", **request)[1].startswith("Could not find endpoint configuration")
    simulator.advance(5)
    hosting.sagemaker.create_endpoint(**request)
    assert hosting.refusal("describe_endpoint", EndpointName="churn")[1].startswith("Could not find endpoint")
    simulator.advance(3)
    assert hosting.status() == "Creating"


def test_quotas_name_limit_use_and_delta(hosting: Hosting, simulator: Simulator) -> None:
    simulator.settings(quotas={"ml.m5.large": 10, "endpoints": 2, "models": 2})
    hosting.endpoint()
    assert hosting.refusal("create_model", ModelName="m3", PrimaryContainer=IMAGE)[0] == "ResourceLimitExceeded"
    hosting.next_config(variant(count=7))
    code, message = hosting.refusal("create_endpoint", EndpointName="two", EndpointConfigName="c2")
    assert code == "ResourceLimitExceeded"
    assert "'ml.m5.large for endpoint usage' is 10 Instances" in message
    assert "current utilization of 4 Instances and a request delta of 7 Instances" in message
    assert hosting.refusal("update_endpoint", EndpointName="churn", EndpointConfigName="c2")[0] == code
    changes = [{"VariantName": "a", "DesiredInstanceCount": 11}]
    assert (
        hosting.refusal(
            "update_endpoint_weights_and_capacities", EndpointName="churn", DesiredWeightsAndCapacities=changes
        )[0]
        == code
    )
    hosting.config("small", variant(count=1))
    hosting.sagemaker.create_endpoint(EndpointName="two", EndpointConfigName="small")
    message = hosting.refusal("create_endpoint", EndpointName="three", EndpointConfigName="small")[1]
    assert "'Number of endpoints' is 2 endpoints" in message


def test_accounts_and_regions_are_apart(hosting: Hosting, simulator: Simulator) -> None:
    hosting.endpoint()
    elsewhere = simulator.client("sagemaker", region="eu-west-1")
    assert elsewhere.list_endpoints()["Endpoints"] == []
    issued = simulator.client("sts").assume_role(
        RoleArn="arn:aws:iam::444455556666:role/path/team-b", RoleSessionName="test"
    )["Credentials"]["AccessKeyId"]
    other = simulator.client("sagemaker", access_key=issued)
    other.create_model(ModelName="m1", PrimaryContainer=IMAGE)
    assert other.describe_model(ModelName="m1")["ModelArn"] == "arn:aws:sagemaker:us-east-1:444455556666:model/m1"
    identity = simulator.client("sts", access_key=issued).get_caller_identity()
    assert identity["Account"] == "444455556666"
    assert identity["Arn"] == "arn:aws:sts::444455556666:assumed-role/team-b/test"
    assert simulator.counts("team-b") == {"CreateModel": 1, "DescribeModel": 1, "GetCallerIdentity": 1}
    simulator.introduce("AKIAKNOWN", "777788889999", "reader")
    known = simulator.client("sagemaker", access_key="AKIAKNOWN")
    known.create_model(ModelName="m1", PrimaryContainer=IMAGE)
    assert ":777788889999:" in known.describe_model(ModelName="m1")["ModelArn"]


def test_a_role_may_ask_for_an_external_id(simulator: Simulator) -> None:
    role = "arn:aws:iam::444455556666:role/guarded"
    simulator.require_external_id(role, "install/team")
    sts = simulator.client("sts")
    with pytest.raises(ClientError, match="AccessDenied"):
        sts.assume_role(RoleArn=role, RoleSessionName="test")
    sts.assume_role(RoleArn=role, RoleSessionName="test", ExternalId="install/team")
    simulator.require_external_id(role, None)
    sts.assume_role(RoleArn=role, RoleSessionName="test")


def test_the_simulated_operations_exist_in_the_service_model() -> None:
    session = botocore.session.Session()
    for service, handlers in (("sagemaker", operations.SAGEMAKER), ("application-autoscaling", operations.AUTOSCALING)):
        assert set(handlers) <= set(session.get_service_model(service).operation_names)


def test_the_simulator_shares_no_code_with_the_operator() -> None:
    package = Path(service_model.__file__).parent
    imported = {
        name.split(".")[0]
        for path in package.glob("**/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([one.name for one in node.names] if isinstance(node, ast.Import) else [node.module or "."])
    }
    assert "sluice" not in imported
