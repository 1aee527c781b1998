"""What an Endpoint may do, where it lives for ever, and who owns a name."""

import json

import pytest
from tests.operator.harness.manifests import Manifest, config, endpoint, model
from tests.operator.harness.world import ALLOW_ALL, MakeWorld, World

ROLES = ["arn:aws:iam::111122223333:role/*"]
OTHER_ACCOUNT = "444455556666"


@pytest.mark.parametrize(
    ("rule", "fields", "message"),
    [
        ({"namespaces": ["elsewhere"]}, {}, "no rule of the permission policy names namespace"),
        ({"regions": ["eu-*"]}, {}, "region us-east-1 is not among ['eu-*']"),
        ({"executionRoles": []}, {}, "executionRoleArn arn:aws:iam::111122223333:role/churn is not among []"),
        ({"endpointNamePrefixes": ["{namespace}-"]}, {}, "endpoint name churn starts with none of ['scenario-"),
        (
            {"assumeRoles": ["arn:aws:iam::1:role/other"]},
            {"sagemaker": {"assumeRoleArn": "arn:aws:iam::111122223333:role/deployer"}},
            "spec.sagemaker.assumeRoleArn arn:aws:iam::111122223333:role/deployer is not among",
        ),
        ({}, {"annotations": {"sluice.dev/adopt": "true"}}, "adoption (annotation sluice.dev/adopt) is not allowed"),
    ],
)
def test_what_the_policy_does_not_allow_makes_no_call(
    make_world: MakeWorld, rule: Manifest, fields: Manifest, message: str
) -> None:
    world = make_world(policy={"rules": [{"namespaces": ["*"], "executionRoles": ROLES, **rule}]})
    world.operator.start()

    world.apply(model(), config(), endpoint(**fields))

    world.stalled("NotPermitted", message=message)
    assert world.calls() == []
    world.permit(ALLOW_ALL)
    if "sagemaker" not in fields:
        world.ready()


def test_the_account_is_judged_before_any_call_to_sagemaker(make_world: MakeWorld) -> None:
    world = make_world(policy={"rules": [{"namespaces": ["*"], "executionRoles": ROLES, "accounts": [OTHER_ACCOUNT]}]})
    world.operator.start()

    world.apply(model(), config(), endpoint())

    world.stalled("NotPermitted", message=f"account 111122223333 is not among ['{OTHER_ACCOUNT}']")
    assert set(world.calls()) == {"GetCallerIdentity"}


def test_without_a_policy_nothing_is_permitted(make_world: MakeWorld) -> None:
    world = make_world(policy=None)
    world.operator.start()

    world.apply(model(), config(), endpoint())

    world.stalled("NotPermitted")
    assert world.calls() == []


def test_a_permission_that_is_taken_away_stops_changes_and_not_the_endpoint(world: World) -> None:
    world.serving(model(), config(), endpoint())

    world.permit({"rules": []})

    world.stalled("NotPermitted")
    world.expect(Serving="True InService")
    assert world.writes() == []


def test_a_changed_default_region_moves_nothing(world: World) -> None:
    world.serving(model(), config(), endpoint())
    pin = json.loads(world.endpoint()["metadata"]["annotations"]["sluice.dev/external"])
    assert pin == {"accountId": "111122223333", "region": "us-east-1", "endpointName": "churn"}

    world.operator.restart(AWS_REGION="eu-west-1")
    world.apply(model("registry.example/churn:2"))

    world.deployed("registry.example/churn:2")
    assert {region["region"] for region in world.simulator.state()["regions"] if region["endpoints"]} == {"us-east-1"}


def test_credentials_of_another_account_are_refused(world: World) -> None:
    world.serving(model(), config(), endpoint())
    world.simulator.introduce("elsewhere", OTHER_ACCOUNT)

    world.operator.restart(AWS_ACCESS_KEY_ID="elsewhere")

    world.stalled(
        "PlacementChanged", message=f"lives in account 111122223333, but the credentials are of account {OTHER_ACCOUNT}"
    )
    assert world.writes() == []
    world.operator.restart(AWS_ACCESS_KEY_ID="operator")
    world.ready()
    assert world.writes() == []


def test_the_name_in_sagemaker_is_kept_in_its_case(world: World) -> None:
    world.apply(model(), config(), endpoint(endpointName="Churn-V2"))

    world.ready()

    assert world.standing()["endpoints"] == ["Churn-V2"]
    assert world.described("Churn-V2")["EndpointName"] == "Churn-V2"


def test_a_region_and_a_role_per_endpoint(world: World) -> None:
    role = f"arn:aws:iam::{OTHER_ACCOUNT}:role/deployer"
    world.simulator.require_external_id(role, f"test/{world.namespace}")

    world.apply(model(), config(), endpoint(sagemaker={"region": "eu-west-1", "assumeRoleArn": role}))

    made = world.ready()["status"]
    assert made["endpointArn"] == f"arn:aws:sagemaker:eu-west-1:{OTHER_ACCOUNT}:endpoint/churn"
    assert {r["role"] for r in world.simulator.requests("CreateEndpoint")} == {"deployer"}


def test_ownership_survives_new_uids(world: World) -> None:
    world.serving(model(), config(), endpoint())
    uid = world.endpoint()["metadata"]["uid"]
    world.operator.stop()
    world.kube.patch("Endpoint", world.namespace, "churn", {"metadata": {"finalizers": None}})
    world.delete()
    world.gone()

    world.apply(endpoint())
    world.operator.start()

    again = world.ready()
    assert again["metadata"]["uid"] != uid
    assert world.writes() == []
    assert again["status"]["revision"]["name"] == world.revisions()[0]["metadata"]["name"]


@pytest.mark.parametrize("name", ["churn", "CHURN"])
def test_two_namespaces_that_claim_one_name_one_owns_it(make_world: MakeWorld, name: str) -> None:
    first = make_world()
    second = make_world(namespace=f"{first.namespace}-b")
    first.operator.start(SLUICE_WATCH_NAMESPACES=f"{first.namespace},{second.namespace}")
    first.apply(model(), config(), endpoint())
    first.ready()
    first.mark()

    second.apply(model(), config(), endpoint(endpointName=name))

    second.stalled("NameConflict", message=f"{first.namespace}/churn already claims endpoint name {name}")
    first.ready()
    second.delete()
    second.gone()
    assert first.writes() == []
    assert first.described()["EndpointStatus"] == "InService"
