"""Trouble on the way to SageMaker: what is outlived in silence, what people must mend, and that nothing crashes."""

import pytest
from tests.operator.harness.manifests import config, endpoint, model
from tests.operator.harness.world import MakeWorld, World

NEW = "registry.example/churn:2"
NOWHERE = "http://127.0.0.1:9"
SOME_TLS = "https://..."
"""Stands for a TLS server whose certificate no public authority issued: the API server."""


def test_throttling_never_flips_ready(world: World) -> None:
    world.serving(model(), config(), endpoint())
    since = {c["type"]: c["lastTransitionTime"] for c in world.status()["conditions"]}

    world.simulator.fault("throttling")
    world.steady(4)
    world.simulator.change_endpoint("churn", counts={"a": 2}, immediate=True)
    world.steady(2)
    world.simulator.clear_faults()

    world.wait(
        lambda: world.status()["productionVariants"][0]["currentInstanceCount"] == 2, "it looks again", seconds=200
    )
    conditions = {c["type"]: c for c in world.status()["conditions"]}
    assert conditions["Ready"]["status"] == "True"
    assert conditions["Ready"]["lastTransitionTime"] == since["Ready"]
    assert world.writes() == []


def test_a_throttled_update_goes_through_once(world: World) -> None:
    world.serving(model(), config(), endpoint())
    world.simulator.fault("throttling", operation="UpdateEndpoint", count=3)

    world.apply(model(NEW))

    world.deployed(NEW, seconds=200)
    assert world.writes() == ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint"]


@pytest.mark.parametrize("operation", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint", "UpdateEndpoint"])
@pytest.mark.parametrize("kind", ["lost_response", "server_error"])
def test_a_lost_answer_or_a_server_error_is_no_second_effect(world: World, operation: str, kind: str) -> None:
    world.simulator.fault(kind, operation=operation, count=1)
    world.apply(model(), config(), endpoint())
    world.ready(seconds=200)

    world.apply(model(NEW))

    world.deployed(NEW, seconds=200)
    assert sorted(world.writes()) == [
        "CreateEndpoint", *["CreateEndpointConfig"] * 2, *["CreateModel"] * 2, "UpdateEndpoint",
    ]  # fmt: skip


def test_a_quota_stalls_and_goes_on_by_itself(world: World) -> None:
    world.simulator.fault("quota", operation="CreateEndpoint", count=1)
    world.apply(model(), config(), endpoint())

    world.stalled("QuotaExceeded", message="account-level service limit")
    assert world.writes() == ["CreateModel", "CreateEndpointConfig"]
    world.annotate(retry="the limit was raised")
    world.ready()


def test_access_denied_names_the_action_and_whose_it_is(world: World) -> None:
    world.simulator.fault("access_denied", operation="CreateEndpoint", count=1)
    world.apply(model(), config(), endpoint())

    world.stalled("AccessDenied", message="sagemaker:CreateEndpoint is denied for the operator's own identity")
    world.annotate(retry="allowed now")
    world.ready()


def test_a_role_that_cannot_be_assumed_is_named(world: World) -> None:
    role = "arn:aws:iam::444455556666:role/deployer"
    world.simulator.require_external_id(role, "somebody-else")

    world.apply(model(), config(), endpoint(sagemaker={"assumeRoleArn": role}))

    world.stalled("AccessDenied", message=f"sts:AssumeRole of the role {role} is denied")
    assert world.writes() == []


def test_reads_that_lag_behind_our_own_creates(world: World) -> None:
    world.simulator.settings(read_after_create_seconds=40.0, use_after_create_seconds=20.0)

    world.apply(model(), config(), endpoint())

    world.ready(seconds=200)
    assert world.writes() == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]


def test_without_credentials_the_condition_says_what_is_missing(make_world: MakeWorld) -> None:
    world = make_world()
    world.operator.start(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)

    world.apply(model(), config(), endpoint())

    world.expect(
        Ready="False NoCredentials",
        Stalled="True NoCredentials",
        message="no usable AWS credentials for the operator's own identity",
    )
    assert world.operator.running
    assert world.calls() == []
    world.operator.restart(AWS_ACCESS_KEY_ID="operator", AWS_SECRET_ACCESS_KEY="secret")
    world.ready()


@pytest.mark.parametrize(
    ("environment", "reason", "message"),
    [
        pytest.param(
            {"AWS_ENDPOINT_URL_SAGEMAKER": SOME_TLS, "AWS_CA_BUNDLE": "/no/such/bundle.pem"},
            "Unreachable",
            "AWS_CA_BUNDLE",
            id="a CA bundle that is not there",
        ),
        pytest.param(
            {"AWS_ENDPOINT_URL_SAGEMAKER": SOME_TLS}, "Unreachable", "AWS_CA_BUNDLE", id="an issuer nobody knows"
        ),
        pytest.param({"HTTP_PROXY": NOWHERE, "NO_PROXY": ""}, "Unreachable", "HTTP_PROXY", id="a proxy to nowhere"),
        pytest.param({"AWS_ENDPOINT_URL_SAGEMAKER": NOWHERE}, "Unreachable", "no answer to", id="nobody there"),
        pytest.param(
            {
                "AWS_ACCESS_KEY_ID": None,
                "AWS_SECRET_ACCESS_KEY": None,
                "AWS_EC2_METADATA_DISABLED": None,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": NOWHERE,
                "AWS_METADATA_SERVICE_TIMEOUT": "1",
            },
            "NoCredentials",
            "instance profile",
            id="no metadata service",
        ),
        pytest.param(
            {"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such/token", "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/pod",
             "AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "NoCredentials",
            "/no/such/token",
            id="a token file that is not there",
        ),
    ],
)  # fmt: skip
def test_odd_environments_are_a_condition_and_not_a_crash(
    make_world: MakeWorld, environment: dict[str, str | None], reason: str, message: str
) -> None:
    world = make_world()
    world.operator.start(**{k: world.kube.server if v == SOME_TLS else v for k, v in environment.items()})

    world.apply(model(), config(), endpoint())

    verdict = "Stalled" if reason == "NoCredentials" else "Reconciling"
    conditions = {"Ready": f"False {reason}", verdict: f"True {reason}"}
    world.expect(message=message, conditions=conditions)
    assert world.operator.running


def test_unreachable_leaves_ready_as_it_was(world: World) -> None:
    world.serving(model(), config(), endpoint())

    world.operator.restart(AWS_ENDPOINT_URL_SAGEMAKER=NOWHERE)
    world.annotate(retry="look")

    world.expect(Ready="True InService", Reconciling="True Unreachable")
    world.operator.restart(AWS_ENDPOINT_URL_SAGEMAKER=world.simulator.url)
    world.ready()
    assert world.writes() == []


def test_references_may_arrive_in_any_order(world: World) -> None:
    world.apply(endpoint())
    world.stalled("MissingReference", message="spec.endpointConfigName: found no EndpointConfig churn")
    world.apply(config())
    world.stalled(
        "MissingReference", message="EndpointConfig/churn productionVariants[].modelName: found no Model churn"
    )
    assert world.writes() == []

    world.apply(model())

    world.ready()
    assert world.writes() == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]


def test_what_sagemaker_refuses_for_good_is_latched(world: World) -> None:
    world.serving(model(), config(), endpoint())
    world.simulator.fault(
        "server_error", operation="CreateEndpointConfig", status=400, code="ValidationException", count=1
    )

    world.apply(model(NEW))

    world.stalled("RejectedBySageMaker", message="CreateEndpointConfig")
    world.expect(Serving="True InService")
    world.steady()
    assert "UpdateEndpoint" not in world.writes()
    world.annotate(retry="1")
    world.deployed(NEW)
