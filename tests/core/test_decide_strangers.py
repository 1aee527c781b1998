"""What others write into the namespace: forged revisions, rollbacks out of season, two Endpoints of one name."""

import copy
import re
from typing import Any

import pytest
from tests.core.stage import Stage, config, model, two_revisions

from sluice.api.reasons import Reason
from sluice.api.status import EndpointStatus
from sluice.core.identity import Owner
from sluice.core.observation import Presence
from sluice.core.permission import Policy, Rule
from sluice.core.revision import build_revision, controller_revision, stored_revision


@pytest.mark.parametrize("deleting", [False, True])
def test_a_forged_revision_deletes_nobody_elses_objects(deleting: bool) -> None:
    stage = Stage()
    stage.bring_into_service()
    seen = stage.described(moved=2)
    forged = copy.deepcopy(next(iter(stage.revisions.values())))
    forged["metadata"]["name"] = "forged"
    forged["data"]["sagemaker"] = {"endpointConfigName": "team-b-production", "modelNames": ["team-b-model"]}
    stage.revisions["forged"] = forged
    if deleting:
        stage.delete()
    for seen_now in (seen, seen, Presence.MISSING) if deleting else (seen, seen):
        stage.step(seen_now, seconds=100)
        assert "team-b" not in repr(stage.actions)
    assert "forged" not in stage.revisions


def nested(levels: int) -> Any:
    """An object in an object, as deep as the API server takes it and json reads it."""
    made: dict[str, Any] = {}
    for _ in range(levels):
        made = {"a": made}
    return made


@pytest.mark.parametrize(
    "data",
    [None, "text", {}, {"spec": {"template": {}}}, {"fleetHash": 5}, {"endpointConfig": {"productionVariants": [5]}},
     {"models": {}}, {"sagemaker": {"endpointConfigName": "x" * 64, "modelNames": []}}, {"fleetHash": "x" * 500},
     {"sagemaker": {"endpointConfigName": "x", "modelNames": 7}},
     {"endpointConfig": {"productionVariants": [{"variantName": "a"}], "metricsConfig": nested(900)}}],
)  # fmt: skip
def test_what_is_no_revision_is_left_alone(data: Any) -> None:
    stage = Stage()
    stage.bring_into_service()
    body = copy.deepcopy(next(iter(stage.revisions.values())))
    body["data"] = {**body["data"], **data} if isinstance(data, dict) and data and "spec" not in data else data
    with pytest.raises(ValueError, match="left alone"):
        stored_revision(body)


def test_a_rollback_asks_the_policy_as_it_is_now() -> None:
    stage = Stage()
    seen = two_revisions(stage, executionRoleArn="arn:aws:iam::111122223333:role/admin")
    assert stage.status.previous_revision is not None
    back = stage.status.previous_revision.name
    stage.policy = Policy((Rule(namespaces=("*",), execution_roles=("arn:aws:iam::111122223333:role/small",)),))
    stage.annotate(rollback=back)
    stage.step(seen, seconds=1)
    assert stage.actions == []
    assert [(ack.result, ack.reason) for ack in stage.status.commands] == [("Refused", Reason.NOT_PERMITTED)]
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


def test_a_rollback_without_an_endpoint_is_refused_not_done() -> None:
    stage = Stage()
    two_revisions(stage)
    assert stage.status.previous_revision is not None
    stage.annotate(rollback=stage.status.previous_revision.name)
    stage.step(Presence.MISSING, seconds=1)
    assert stage.actions == []
    assert [ack.result for ack in stage.status.commands] == ["Refused"]
    assert stage.status.latch is None


def test_labels_and_names_of_revisions_are_valid_for_every_endpoint_name() -> None:
    pattern = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
    for name in ("a" * 62 + "-" + "b" * 20, "a" * 62 + "." + "b" * 20, "a" * 199 + "." + "b" * 30, "a" * 199 + "-b"):
        endpoint = {"metadata": {"name": name, "namespace": "team-a"}}
        label = controller_revision(endpoint, "x", {}, 1)["metadata"]["labels"]["sluice.dev/endpoint"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", label)
        revision = build_revision(Owner("i", "team-a", name), "SageMaker", config()["spec"], {"churn": model()["spec"]})
        assert pattern.fullmatch(revision.name)
        assert len(revision.name) <= 253


def test_an_endpoint_with_many_models_has_a_status_that_fits() -> None:
    stage = Stage()
    variants = []
    for index in range(10):
        names = [f"m-{index}-{pool}" for pool in range(5)]
        for name in names:
            stage.objects["Model", name] = model(name)
        pools = [
            {"instanceType": f"ml.m5.{pool}xlarge", "priority": pool + 1, "modelNameOverride": name}
            for pool, name in enumerate(names)
        ]
        variants.append({"variantName": f"v{index}", "modelName": "churn", "initialInstanceCount": 1, "instancePools": pools})  # fmt: skip # noqa: E501 - one variant
    stage.objects["EndpointConfig", "churn"]["spec"]["productionVariants"] = variants
    stage.bring_into_service()
    assert len(stage.status.observed_references) == 52
    assert len(stage.status.applied_tags) == 53


# One name, two Endpoints ----------------------------------------------------------------------------------------


def _rival(stage: Stage, *, created: str = "2025-01-01T00:00:00Z", **spec: Any) -> dict[str, Any]:
    """Another Endpoint with a pin on the same place, and older."""
    rival = copy.deepcopy(stage.endpoint)
    rival["metadata"] |= {"namespace": "team-b", "name": "other", "creationTimestamp": created}
    rival["spec"] |= {"endpointName": "churn", **spec}
    return rival


def test_the_elder_claim_keeps_the_name() -> None:
    stage = Stage()
    stage.step()
    stage.step(rivals=(_rival(stage),), tags_read=False)
    assert stage.actions == []
    assert stage.condition("Stalled") == ("True", Reason.NAME_CONFLICT)


@pytest.mark.parametrize(
    "spec", [{"backend": "Cluster"}, {"endpointName": "another"}, {"sagemaker": {"region": "us-east-1"}}]
)
def test_a_forged_claim_takes_no_name(spec: dict[str, Any]) -> None:
    stage = Stage()
    stage.step()
    stage.step(rivals=(_rival(stage, **spec),), tags_read=False)
    assert stage.called()[-1] == "CreateEndpoint"


def test_a_claim_that_is_not_permitted_takes_no_name() -> None:
    stage = Stage()
    stage.policy = Policy((Rule(namespaces=("team-a",)), Rule(namespaces=("*",), endpoint_name_prefixes=("x-",))))
    stage.step()
    stage.step(rivals=(_rival(stage),), tags_read=False)
    assert stage.called()[-1] == "CreateEndpoint"


def test_who_began_to_create_goes_on_though_an_elder_claims_the_name_now() -> None:
    stage = Stage()
    stage.step()
    stage.step()
    assert stage.status.intent is not None
    created = stage.described("Creating", stage.status.intent.endpoint_config_name, moved=1)
    stage.step(created, seconds=1, rivals=(_rival(stage),))
    assert stage.condition("Reconciling") == ("True", Reason.CREATING)


def test_whose_tag_the_endpoint_carries_keeps_it_after_a_rebuild() -> None:
    stage = Stage()
    stage.bring_into_service()
    seen = stage.described(moved=2)
    stage.status = EndpointStatus()
    stage.step(seen, rivals=(_rival(stage),))
    assert stage.condition("Stalled")[0] == "False"
    assert stage.status.revision is not None
