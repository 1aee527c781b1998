"""The table that says what a change of each field means: complete, and its views keep what they say."""

from typing import Any

import pytest

from sluice.api.crds import KINDS, Kind
from sluice.api.schema import spec_schema, walk
from sluice.core.classification import UNORDERED, Class, classify, fleet_view, ignored_fields, live_view

from .limits import Spot, spots
from .manifests import FULL, Manifest

BACKENDS = ("SageMaker", "Cluster")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_leaf_of_the_schema_is_classified_and_nothing_else(kind: Kind, backend: str) -> None:
    leaves = {node.path for node in walk(spec_schema(kind.spec)) if node.is_leaf}
    classified = set(classify(kind.name, backend))
    assert leaves - classified == set(), "decide what a change of these fields means"
    assert classified - leaves == set(), "the schema has no such fields"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_lists_that_views_sort_are_those_without_order_in_the_schema(kind: Kind) -> None:
    unordered = {}
    for node in walk(spec_schema(kind.spec)):
        match node.schema.get("x-kubernetes-list-type"):
            case "map":
                (unordered[node.path],) = node.schema["x-kubernetes-list-map-keys"]
            case "set":
                unordered[node.path] = ""
    assert unordered == dict(UNORDERED[kind.name])


def test_weights_and_counts_are_live_and_tags_never_deploy() -> None:
    spec = {
        "productionVariants": [
            {
                "variantName": "b",
                "modelName": "m",
                "instanceType": "ml.m5.large",
                "initialInstanceCount": 2,
                "initialVariantWeight": 0,
            },
            {"variantName": "a", "modelName": "n", "instanceType": "ml.m5.large", "initialInstanceCount": 1},
        ],
        "tags": [{"key": "team", "value": "churn"}],
    }
    assert fleet_view("EndpointConfig", "SageMaker", spec) == {
        "productionVariants": [
            {"variantName": "a", "instanceType": "ml.m5.large"},
            {"variantName": "b", "instanceType": "ml.m5.large"},
        ]
    }
    assert live_view("EndpointConfig", "SageMaker", spec) == {
        "productionVariants": [
            {"variantName": "a", "initialInstanceCount": 1},
            {"variantName": "b", "initialInstanceCount": 2, "initialVariantWeight": 0},
        ]
    }


def test_a_weight_of_zero_and_false_are_kept() -> None:
    assert fleet_view("Model", "SageMaker", {"enableNetworkIsolation": False}) == {"enableNetworkIsolation": False}


def test_an_empty_object_counts_and_empty_lists_and_maps_do_not() -> None:
    async_config = {"asyncInferenceConfig": {"outputConfig": {}}, "vpcConfig": None}
    assert fleet_view("EndpointConfig", "SageMaker", async_config) == {"asyncInferenceConfig": {"outputConfig": {}}}
    model = {"primaryContainer": {"image": "i", "environment": {}}, "containers": [], "kubernetes": {}}
    assert fleet_view("Model", "SageMaker", model) == {"primaryContainer": {"image": "i"}}


def test_order_counts_only_where_it_means_something() -> None:
    def view(containers: list[str], subnets: list[str]) -> dict[str, object]:
        spec = {
            "containers": [{"image": image} for image in containers],
            "vpcConfig": {"securityGroupIds": ["sg"], "subnets": subnets},
        }
        return fleet_view("Model", "SageMaker", spec)

    assert view(["a", "b"], ["x", "y"]) == view(["a", "b"], ["y", "x"])
    assert view(["a", "b"], ["x", "y"]) != view(["b", "a"], ["x", "y"])


def test_views_do_not_change_what_they_are_given() -> None:
    spec = {"vpcConfig": {"securityGroupIds": ["b", "a"], "subnets": ["z", "y"]}}
    fleet_view("Model", "SageMaker", spec)
    assert spec == {"vpcConfig": {"securityGroupIds": ["b", "a"], "subnets": ["z", "y"]}}


def test_ignored_fields_are_named_once_and_unknown_fields_count() -> None:
    spec = {
        "productionVariants": [
            {"variantName": "a", "enableSSMAccess": True},
            {"variantName": "b", "enableSSMAccess": True, "fromTheFuture": {"x": [1]}},
        ],
        "kmsKeyId": "alias/x",
        "vpcConfig": {"subnets": []},
    }
    assert ignored_fields("EndpointConfig", "Cluster", spec) == (
        "kmsKeyId",
        "productionVariants[].enableSSMAccess",
        "productionVariants[].fromTheFuture.x",
    )
    assert ignored_fields("EndpointConfig", "SageMaker", spec) == ("productionVariants[].fromTheFuture.x",)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_the_cluster_has_no_use_for_is_named(kind: Kind) -> None:
    spec = {"tags": [{"key": "team", "value": "a"}]} | ({"driftPolicy": "Correct"} if kind.name == "Endpoint" else {})
    named = ("driftPolicy",) if kind.name == "Endpoint" else ()
    assert ignored_fields(kind.name, "Cluster", spec) == (*named, "tags[].key", "tags[].value")
    assert ignored_fields(kind.name, "SageMaker", spec) == ()


def test_endpoint_fields_never_deploy() -> None:
    assert set(classify("Endpoint", "SageMaker").values()) == {Class.METADATA, Class.IGNORED}
    assert set(classify("Endpoint", "Cluster").values()) == {Class.METADATA, Class.IGNORED}


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(KeyError, match="Lambda"):
        classify("Model", "Lambda")


def _changed(value: Any) -> Any:
    """A value of the same shape that is not the same."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case list():
            return [*value, "another"]
        case dict():
            return {**value, "ANOTHER": "1"}
    raise AssertionError(value)


LEAVES = [
    pytest.param(kind, backend, manifest, spot, node.path, id=f"{backend}-{kind.name}-{n}-{spot}")
    for kind in KINDS
    for backend in BACKENDS
    for n, manifest in enumerate(FULL[kind.name])
    for node in walk(spec_schema(kind.spec))
    if node.is_leaf
    for spot in spots(manifest, node.path)
]


@pytest.mark.parametrize(("kind", "backend", "manifest", "spot", "path"), LEAVES)
def test_a_change_of_a_leaf_shows_in_the_view_of_its_class_only(
    kind: Kind, backend: str, manifest: Manifest, spot: Spot, path: str
) -> None:
    before, after = manifest["spec"], spot.replaced(manifest, _changed(spot.value(manifest)))["spec"]
    meaning = classify(kind.name, backend)[path]
    is_key = path.rpartition("[].")[2] == UNORDERED[kind.name].get(path.rpartition("[].")[0], "")
    fleet_differs = fleet_view(kind.name, backend, before) != fleet_view(kind.name, backend, after)
    live_differs = live_view(kind.name, backend, before) != live_view(kind.name, backend, after)
    assert fleet_differs == (meaning is Class.FLEET)
    # A key names the item in every view, so that a live value can be told apart.
    assert live_differs == (meaning is Class.LIVE) or is_key
    assert (path in ignored_fields(kind.name, backend, after)) == (meaning is Class.IGNORED)
