"""The two hashes and the names made of them: golden values that no upgrade may change, and what may not matter."""

import copy
from typing import Any

import pytest

from sluice.core.hashing import digest
from sluice.core.identity import Owner
from sluice.core.requests import runs_fleet
from sluice.core.revision import Revision, build_revision

OWNER = Owner("prod-1", "team-a", "churn")
CONFIG: dict[str, Any] = {
    "productionVariants": [
        {"variantName": "a", "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 4},
        {
            "variantName": "b", "modelName": "next", "instanceType": "ml.g5.xlarge", "initialInstanceCount": 2,
            "initialVariantWeight": 0.5,
        },
    ],
    "dataCaptureConfig": {
        "initialSamplingPercentage": 10, "destinationS3Uri": "s3://b/c", "captureOptions": [{"captureMode": "Input"}],
    },
    "tags": [{"key": "team", "value": "a"}],
}  # fmt: skip
MODELS: dict[str, Any] = {
    "churn": {"primaryContainer": {"image": "r/churn@sha256:00", "environment": {"LOG_LEVEL": "info", "EMPTY": ""}}},
    "next": {"containers": [{"image": "r/one:1"}, {"image": "r/two:1"}], "executionRoleArn": "arn:aws:iam::1:role/x"},
}


def build(**changes: Any) -> Revision:
    """The golden revision with changes: config=callable, models=callable, redeploy, owner."""
    config, models = copy.deepcopy(CONFIG), copy.deepcopy(MODELS)
    changes.get("config", lambda _: None)(config)
    changes.get("models", lambda _: None)(models)
    return build_revision(changes.get("owner", OWNER), "SageMaker", config, models, changes.get("redeploy", ""))


def test_golden_hashes() -> None:
    """If this fails, an operator upgrade would redeploy every endpoint: bump the version prefix, never the value."""
    revision = build()
    assert revision.fleet_hash == "v1:face21e09c80f7b4388f60ea092dbb0021b4de8dd529572e9c87947cf399d707"
    assert revision.content_hash == "v1:2e0c839b7da42ef3cbdc6f4b66916f2c9efe5ad3ff69875afbb221d79a69623f"
    assert revision.name == "churn-0f5237f76b-038ed54b"
    assert revision.requests.endpoint_config_name == "team-a-churn-17a9dd4687-1405270b8e"
    assert list(revision.requests.model_names) == ["team-a-churn-churn-59d01ead86", "team-a-churn-next-d531aa5f20"]


def test_golden_canonical_json() -> None:
    assert digest({"b": 1.0, "a": [None, {}, "x"], "c": {}, "d": None}) == digest({"a": [None, {}, "x"], "b": 1})
    assert digest({"a": ""}) != digest({})


@pytest.mark.parametrize(
    "changes",
    [
        {"config": lambda c: c["productionVariants"][0].update(initialInstanceCount=9)},
        {"config": lambda c: c["productionVariants"][1].update(initialVariantWeight=2)},
        {"config": lambda c: c.update(tags=[])},
        {"config": lambda c: c["productionVariants"].reverse()},
        {"models": lambda m: m["churn"].update(tags=[{"key": "k", "value": "v"}])},
        {"models": lambda m: m["churn"].update(kubernetes={"serviceAccountName": "x"})},
        {
            "config": lambda c: c["productionVariants"][0].update(modelName="renamed"),
            "models": lambda m: m.update(renamed=m.pop("churn")),
        },
    ],
    ids=["count", "weight", "tags", "variant order", "model tags", "kubernetes", "model name"],
)
def test_what_does_not_need_a_fleet(changes: Any) -> None:
    assert build(**changes).fleet_hash == build().fleet_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"models": lambda m: m["churn"]["primaryContainer"].update(image="r/churn:2")},
        {"models": lambda m: m["churn"]["primaryContainer"]["environment"].update(LOG_LEVEL="debug")},
        {"models": lambda m: m["churn"]["primaryContainer"]["environment"].pop("EMPTY")},
        {"models": lambda m: m["next"]["containers"].reverse()},
        {"config": lambda c: c["productionVariants"][0].update(instanceType="ml.m5.xlarge")},
        {"config": lambda c: c["productionVariants"].pop()},
        {"config": lambda c: c["dataCaptureConfig"].update(initialSamplingPercentage=20)},
        {"config": lambda c: c.update(asyncInferenceConfig={"outputConfig": {}})},
        {"redeploy": "again"},
    ],
    ids=[
        *("image", "environment", "empty value", "container order", "instance type", "variant", "capture"),
        *("asynchronous by defaults", "redeploy"),
    ],
)
def test_what_needs_a_fleet(changes: Any) -> None:
    changed = build(**changes)
    assert changed.fleet_hash != build().fleet_hash
    assert changed.requests.endpoint_config_name != build().requests.endpoint_config_name


def test_counts_name_another_config_of_the_same_fleet() -> None:
    counted = build(config=lambda c: c["productionVariants"][0].update(initialInstanceCount=9))
    assert counted.requests.endpoint_config_name != build().requests.endpoint_config_name
    assert runs_fleet(OWNER, build().fleet_hash, counted.requests.endpoint_config_name)


def test_two_owners_share_no_name() -> None:
    other = build(owner=Owner("prod-1", "team-b", "churn"))
    assert other.fleet_hash == build().fleet_hash
    assert set(other.requests.model_names).isdisjoint(build().requests.model_names)
    assert not runs_fleet(Owner("prod-1", "team-b", "churn"), build().fleet_hash, build().requests.endpoint_config_name)


def test_names_fit_whatever_they_are_made_of() -> None:
    long = build(owner=Owner("prod-1", "n" * 63, "e" * 63))
    for name in (long.requests.endpoint_config_name, *long.requests.model_names):
        assert len(name) <= 63
        assert name[0].isalnum()
        assert "--" not in name


def test_requests_are_sagemakers_words() -> None:
    request = build().requests.endpoint_config
    assert request["DataCaptureConfig"]["DestinationS3Uri"] == "s3://b/c"
    model = build().requests.models[0]
    assert model["PrimaryContainer"]["Environment"] == {"LOG_LEVEL": "info", "EMPTY": ""}
    assert {"Key": "sluice.dev/owner", "Value": "prod-1/team-a/churn"} in model["Tags"]
