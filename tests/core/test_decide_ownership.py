"""Whose an endpoint is, as decisions: another owner's, adopted, or under a pin that somebody edited."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.core.stage import EPOCH, Stage, canary, model

from sluice.api.reasons import Reason
from sluice.core.endpoint.questions import questions
from sluice.core.observation import Described, HostingContent, Listed, Presence


def test_an_endpoint_of_another_owner_is_never_touched() -> None:
    stage = Stage()
    stage.step()
    stage.step(stage.described("InService", "foreign"), owner="test/team-b/churn")
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.NAME_CONFLICT)
    stage.step(stage.described("InService", "foreign"), owner=None)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.NOT_OWNED)
    stage.step(Presence.OTHER_CASE)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.NAME_CONFLICT)


def _content(stage: Stage, image: str = "repo/churn:1") -> HostingContent:
    variant = {
        "VariantName": "a", "ModelName": "theirs", "InstanceType": "ml.m5.large", "InitialInstanceCount": 4,
        "InitialVariantWeight": 1.0,
    }  # fmt: skip
    return HostingContent(
        {"EndpointConfigName": "their-config", "ProductionVariants": [variant], "EnableNetworkIsolation": False},
        {"theirs": {"ModelName": "theirs", "PrimaryContainer": {"Image": image, "Mode": "SingleModel"}}},
    )


def test_adoption_compares_content_and_writes_only_the_tag() -> None:
    stage = Stage()
    stage.annotate(adopt="true")
    stage.step(stage.described("InService", "their-config"), owner=None, content=_content(stage))
    seen = stage.described("InService", "their-config")
    stage.step(seen, owner=None, content=_content(stage))
    assert stage.called() == ["SyncTags"]
    stage.settle_down(seen)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.status.revision is not None
    assert stage.status.revision.adopted


def test_adoption_of_something_else_waits_for_a_person_with_the_difference() -> None:
    stage = Stage(deploymentConfig=canary())
    stage.annotate(adopt="true")
    content = _content(stage, image="repo/churn:0")
    seen = stage.described("InService", "their-config")
    stage.step(seen, owner=None, content=content)
    stage.step(seen, owner=None, content=content)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.ADOPTION_DIFFERS)
    message = next(c.message for c in stage.status.conditions if c.type == "Stalled")
    assert "Image: found repo/churn:0, the spec has repo/churn:1" in message
    stage.annotate(retry="1")
    stage.step(seen, owner=None, content=content)
    stage.step(seen, seconds=6)
    assert "UpdateEndpoint" in stage.called()


def _container(**environment: str) -> dict[str, Any]:
    return {"Image": "repo/churn:1", "Environment": environment}


_OURS = {"image": "repo/churn:1", "environment": {"TOKEN": "ours-secret", "NEW": "new-secret", "ModelName": "m-secret"}}
_SAME = {"TOKEN": "ours-secret", "NEW": "new-secret", "ModelName": "m-secret"}


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        pytest.param(
            {"PrimaryContainer": _container(TOKEN="their-secret", OLD="old-secret", ModelName="other-secret")},
            {"primaryContainer": _OURS},
            [
                "PrimaryContainer.Environment.ModelName: differs", "PrimaryContainer.Environment.NEW: only in the spec",
                "PrimaryContainer.Environment.OLD: only in SageMaker", "PrimaryContainer.Environment.TOKEN: differs",
            ],
            id="keys",
        ),
        pytest.param(
            {"PrimaryContainer": _container()},
            {"primaryContainer": _OURS},
            ["PrimaryContainer.Environment.TOKEN: only in the spec"],
            id="no environment in SageMaker",
        ),
        pytest.param(
            {"Containers": [_container(**_SAME), _container(TOKEN="their-secret")]},
            {"primaryContainer": None, "containers": [_OURS, _OURS]},
            ["Containers[1].Environment.TOKEN: differs"],
            id="in a list",
        ),
        pytest.param(
            {"Containers": [_container(**_SAME), _container(TOKEN="their-secret")]},
            {"primaryContainer": None, "containers": [_OURS]},
            ["Containers: found a list of 2, the spec has a list of 1"],
            id="a container more",
        ),
        pytest.param(
            {"Containers": [_container(TOKEN="their-secret")]},
            {"primaryContainer": _OURS},
            [
                "Model.Containers: found a list of 1, the spec has nothing",
                "Model.PrimaryContainer: found nothing, the spec has something",
            ],
            id="another kind of container",
        ),
        pytest.param({}, {"primaryContainer": _OURS}, ["Model: found nothing, the spec has something"], id="no Model"),
    ],
)  # fmt: skip
def test_adoption_never_tells_what_an_environment_holds(
    theirs: dict[str, Any], ours: dict[str, Any], told: list[str]
) -> None:
    stage = Stage()
    stage.annotate(adopt="true")
    stage.edit("Model", **ours)
    content = replace(_content(stage), models={"theirs": theirs})
    seen = stage.described("InService", "their-config")
    stage.step(seen, owner=None, content=content)
    decision = stage.step(seen, owner=None, content=content)
    assert stage.condition("Stalled") == ("True", Reason.ADOPTION_DIFFERS)
    message = next(c.message for c in stage.status.conditions if c.type == "Stalled")
    assert [text for text in told if text not in message] == []
    assert "secret" not in repr((decision.status, decision.events))


@pytest.mark.parametrize("image", ["repo/churn:gpu", "repo/churn:other"])
def test_adoption_compares_the_models_of_instance_pools_too(image: str) -> None:
    stage = Stage()
    stage.annotate(adopt="true")
    stage.objects["Model", "gpu"] = model("gpu", "repo/churn:gpu")
    pools = [{"instanceType": "ml.m5.large"}, {"instanceType": "ml.g5.xlarge", "modelNameOverride": "gpu"}]
    spec = stage.objects["EndpointConfig", "churn"]["spec"]
    spec["productionVariants"] = [
        {"variantName": "a", "modelName": "churn", "initialInstanceCount": 4, "instancePools": pools}
    ]
    variant = {
        "VariantName": "a", "ModelName": "theirs", "InitialInstanceCount": 4, "InitialVariantWeight": 1.0,
        "InstancePools": [
            {"InstanceType": "ml.m5.large"}, {"InstanceType": "ml.g5.xlarge", "ModelNameOverride": "their-gpu"}
        ],
    }  # fmt: skip
    models = {
        name: {"PrimaryContainer": {"Image": found}}
        for name, found in (("theirs", "repo/churn:1"), ("their-gpu", image))
    }
    content = HostingContent({"ProductionVariants": [variant]}, models)
    seen = stage.described("InService", "their-config")
    stage.step(seen, owner=None, content=content)
    stage.step(seen, owner=None, content=content)
    if image == "repo/churn:gpu":
        assert stage.called() == ["SyncTags"]
        return
    message = next(c.message for c in stage.status.conditions if c.type == "Stalled")
    assert (
        "InstancePools[1].Model.PrimaryContainer.Image: found repo/churn:other, the spec has repo/churn:gpu" in message
    )


@pytest.mark.parametrize("deleting", [False, True])
@pytest.mark.parametrize(
    "forged",
    [
        '{"accountId": "111122223333", "region": "eu-west-1", "endpointName": "theirs"}',
        '{"accountId": "111122223333", "region": "us-east-1", "endpointName": "churn"}',
        '{"accountId": "999988887777", "region": "eu-west-1", "endpointName": "churn"}',
        '{"accountId": 1}',
        "churn",
        pytest.param("[" * 100_000, id="brackets in brackets"),
        pytest.param('{"accountId": ' * 5000, id="objects in objects"),
    ],
)
def test_an_edited_pin_reaches_nobody_elses_endpoint(forged: str, deleting: bool) -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.annotate(external=forged)
    if deleting:
        stage.delete()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    for _ in range(4):
        stage.step(stage.described(moved=2), seconds=10)
        assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.PLACEMENT_CHANGED)


def test_a_default_region_that_is_forged_meets_the_arn() -> None:
    stage = Stage()
    stage.endpoint["spec"].pop("sagemaker")
    stage.bring_into_service()
    stage.annotate(external='{"accountId": "111122223333", "region": "us-east-1", "endpointName": "churn"}')
    stage.step(stage.described(moved=2), seconds=10)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.PLACEMENT_CHANGED)


def test_placement_never_moves() -> None:
    stage = Stage()
    stage.bring_into_service()
    stage.endpoint["spec"].pop("sagemaker")
    target = stage.resolution().target
    assert target is not None
    assert target.credentials.region == "eu-west-1"
    assert replace(target, endpoint_name="churn") == target


@pytest.mark.parametrize("owner", [None, "test/team-b/churn"])
@pytest.mark.parametrize("deleting", [False, True])
def test_an_endpoint_made_anew_by_somebody_else_is_theirs(deleting: bool, owner: str | None) -> None:
    stage = Stage(driftPolicy="Correct")
    stage.bring_into_service()
    theirs = stage.described("InService", "their-config", moved=900)
    theirs = replace(theirs, creation=EPOCH + timedelta(seconds=800))
    if deleting:
        stage.delete()
    else:
        stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    stage.step(theirs, seconds=1000, tags_read=False)
    touched = stage.called()
    for _ in range(4):
        asked = questions(stage.endpoint, stage.status, stage.resolution(), _listed(theirs), None, stage.now)
        stage.step(theirs, seconds=10, owner=owner, tags_read=asked.owner)
        touched += stage.called()
    assert not {"UpdateEndpoint", "DeleteEndpoint", "UpdateWeightsAndCapacities", "SyncTags"} & set(touched)
    if deleting:
        assert stage.endpoint["metadata"]["finalizers"] == []
        assert "DeleteEndpointConfig" in touched, "what is ours is not left behind"
    else:
        reason = Reason.NOT_OWNED if owner is None else Reason.NAME_CONFLICT
        assert stage.condition("Stalled") == ("True", reason)


def test_an_endpoint_of_ours_whose_status_is_older_is_recovered() -> None:
    stage = Stage()
    stage.bring_into_service()
    made = replace(stage.described(moved=900), creation=EPOCH + timedelta(seconds=800))
    stage.step(made, seconds=1000, tags_read=False)
    assert stage.actions == []
    stage.settle_down(made)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


def _listed(seen: Described) -> Listed:
    return Listed(seen.name, seen.status, seen.last_modified)
