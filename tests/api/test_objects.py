"""Objects of the three kinds as people and controllers see them: status, columns, names, merging."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest

from sluice.api.crds import KINDS, Kind, object_schema

from .conftest import Admission
from .manifests import Manifest, config, endpoint, model, variant

pytestmark = pytest.mark.apiserver

SMALL = {"Model": model, "EndpointConfig": config, "Endpoint": endpoint}
by_kind = pytest.mark.parametrize("of", KINDS, ids=lambda each: each.name)


def _sample(schema: Mapping[str, Any]) -> Any:
    """A value that sets everything the schema has."""
    if "properties" in schema:
        return {name: _sample(child) for name, child in schema["properties"].items()}
    if "items" in schema:
        return [_sample(schema["items"])]
    if "additionalProperties" in schema:
        return {"key": _sample(schema["additionalProperties"])}
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return {"any": {"key": ["value"]}}
    if schema.get("format") == "date-time":
        return "2026-01-02T03:04:05.006Z"
    return {"string": "text", "integer": 1, "number": 0.5, "boolean": True}[schema["type"]]


@pytest.fixture
def stored(admission: Admission) -> Iterator[Any]:
    """Creates objects that the test leaves behind no trace of."""
    made: list[Manifest] = []

    def create(manifest: Manifest) -> Manifest:
        made.append(manifest)
        return admission.store(manifest)

    yield create
    for manifest in made:
        admission.delete(manifest)


@by_kind
def test_a_whole_status_is_stored_as_written(admission: Admission, stored: Any, of: Kind) -> None:
    current = stored(SMALL[of.name](name="status"))
    status = _sample(object_schema(of)["properties"]["status"])
    status["conditions"] = [{**status["conditions"][0], "type": name} for name in ("Ready", "Stalled")]
    assert admission.write_status({**current, "status": status})["status"] == status


@by_kind
def test_a_status_write_leaves_the_spec_alone_and_a_spec_write_the_status(
    admission: Admission, stored: Any, of: Kind
) -> None:
    current = stored(SMALL[of.name](name="apart"))
    assert "status" not in admission.stored({**SMALL[of.name](name="other"), "status": {"observedGeneration": 1}})
    changed = deepcopy(current)
    changed["spec"]["tags"] = [{"key": "a", "value": "b"}]
    changed["status"] = {"observedGeneration": 7}
    answer = admission.write_status(changed)
    assert "tags" not in answer["spec"]
    assert answer["status"] == {"observedGeneration": 7}
    assert answer["metadata"]["generation"] == 1


def test_columns_of_an_endpoint_that_is_deploying(admission: Admission, stored: Any) -> None:
    current = stored(endpoint(name="columns", endpointConfigName="churn"))
    current["status"] = {
        "endpointStatus": "Updating",
        "conditions": [
            {"type": "Serving", "status": "True"},
            {"type": "Ready", "status": "False", "message": "canary is baking"},
        ],
        "deployment": {"stage": "Baking", "stepText": "1/2", "trafficText": "25%"},
        "alarmsText": "1 OK",
        "revision": {"name": "columns-5d"},
    }
    admission.write_status(current)
    table = admission.table("endpoints", "columns")
    row = dict(zip((each["name"] for each in table["columnDefinitions"]), table["rows"][0]["cells"], strict=True))
    assert row.pop("AGE")
    assert row == {
        "Name": "columns",
        "STATUS": "Updating",
        "READY": "False",
        "CONFIG": "churn",
        "STAGE": "Baking",
        "STEP": "1/2",
        "TRAFFIC": "25%",
        "ALARMS": "1 OK",
        "BACKEND": "SageMaker",
        "REVISION": "columns-5d",
        "MESSAGE": "canary is baking",
    }


def test_kubectl_finds_the_kinds_by_short_name_and_category(admission: Admission) -> None:
    resources = {each["name"]: each for each in admission.discover()["resources"]}
    for of in KINDS:
        assert resources[of.plural]["shortNames"] == [of.short_name]
        assert resources[of.plural]["categories"] == ["sluice"]
        assert f"{of.plural}/status" in resources


def test_two_owners_of_one_list_do_not_take_each_others_items(admission: Admission, stored: Any) -> None:
    """Argo CD and a person, each by server-side apply: items are merged by their key."""
    stored(config(variant(), name="merge"))
    mine = config(variant(), name="merge", tags=[{"key": "team", "value": "growth"}])
    theirs = deepcopy(config(name="merge", tags=[{"key": "cost", "value": "42"}]))
    del theirs["spec"]["productionVariants"]
    admission.apply(mine, "argocd")
    merged = admission.apply(theirs, "finance")
    assert {each["key"] for each in merged["spec"]["tags"]} == {"team", "cost"}
    mine["spec"]["tags"] = []
    assert [each["key"] for each in admission.apply(mine, "argocd")["spec"]["tags"]] == ["cost"]


def test_a_policy_is_exchanged_for_another_in_one_apply(admission: Admission, stored: Any) -> None:
    before = endpoint(
        name="policy",
        deploymentConfig={
            "blueGreenUpdatePolicy": {
                "trafficRoutingConfiguration": {"type": "ALL_AT_ONCE", "waitIntervalInSeconds": 0}
            }
        },
    )
    admission.apply(before, "argocd")
    after = deepcopy(before)
    size = {"type": "CAPACITY_PERCENT", "value": 25}
    after["spec"]["deploymentConfig"] = {"rollingUpdatePolicy": {"maximumBatchSize": size, "waitIntervalInSeconds": 60}}
    try:
        assert admission.apply(after, "argocd")["spec"]["deploymentConfig"] == after["spec"]["deploymentConfig"]
    finally:
        admission.delete(before)


def test_variants_of_one_name_are_refused(admission: Admission) -> None:
    (cause,) = admission.create(config(variant(), variant()))
    assert (cause.field, cause.reason) == ("spec.productionVariants[1]", "FieldValueDuplicate")
