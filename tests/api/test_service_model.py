"""The kinds against botocore's service model: no member without a place, no limit that differs unnoticed."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.session
import pytest
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from sluice.api.crds import kind
from sluice.api.model import ENVIRONMENT_KEY
from sluice.api.schema import spec_schema

SERVICE: ServiceModel = botocore.session.get_session().get_service_model("sagemaker")

# SageMaker's integers have 32 bits, and the API server does not hold numbers to `format: int32`: bounds are explicit.
INPUTS = {
    "Model": ("CreateModelInput",),
    "EndpointConfig": ("CreateEndpointConfigInput",),
    "Endpoint": ("CreateEndpointInput", "UpdateEndpointInput"),
}

# Members of the requests that are no field of a spec, and what stands for them.
REPRESENTED_OTHERWISE = {
    ("Model", "ModelName"): "metadata.name",
    ("EndpointConfig", "EndpointConfigName"): "metadata.name",
}

# Fields that no request has.
OWN_FIELDS = {
    "Model": {"kubernetes"},
    "EndpointConfig": set[str](),
    "Endpoint": {"backend", "sagemaker", "driftPolicy", "deletionPolicy", "kubernetes"},
}

OBJECT_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

# Where a limit differs from the service model on purpose: (shape, keyword) -> what stands in the schema.
ADAPTED: Mapping[tuple[str, str], Any] = {
    # Models and EndpointConfigs are named by metadata.name, which knows no upper case.
    ("ModelName", "pattern"): OBJECT_NAME,
    ("EndpointConfigName", "pattern"): OBJECT_NAME,
    # A new instance type needs no new operator: a pattern with a length instead of an enum.
    ("ProductionVariantInstanceType", "enum"): None,
    ("ProductionVariantInstanceType", "pattern"): r"^ml\.[a-z0-9\-]+\.[a-z0-9\-]+$",
    ("ProductionVariantInstanceType", "maxLength"): 63,
    # One of SageMaker's 50 tags says whose the object is.
    ("TagList", "maxItems"): 49,
    # An alarm without a name names nothing.
    ("Alarm", "required"): {"alarmName"},
    # The API server's engine (RE2) has no look-around; the tests below compare these patterns by examples.
    ("VersionedArnOrName", "pattern"): r"^(arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:[a-z\-]*\/)?"
    r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\/[0-9]{1,9})?$",
    ("MetricsEndpointPath", "pattern"): r"^/(\.|\.?[a-zA-Z0-9/_\-]+(\.[a-zA-Z0-9/_\-]+)*\.?)$",
    ("AlarmName", "pattern"): r"^.*\S.*$",
    # In the cluster model data may also stand in a PersistentVolumeClaim.
    ("Url", "pattern"): r"^((https|s3)://([^/]+)/?(.*)|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/[^/.?#][^/?#]*)*/?)$",
    # What SageMaker has no word for stands under kubernetes, here too.
    ("ProductionVariant", "members"): True,
    # The documentation lists the values, the service model does not.
    ("MetricPublishFrequencyInSeconds", "enum"): {10, 30, 60, 120, 180, 240, 300},
    # The cost of CEL and the size of an object need a bound; ETags are far shorter.
    ("String", "maxLength"): 1024,
}


def _field(member: str) -> str:
    return member[0].lower() + member[1:]


def _members(kind_name: str) -> Iterator[tuple[str, Shape, bool]]:
    shapes = [SERVICE.shape_for(name) for name in INPUTS[kind_name]]
    seen: dict[str, tuple[str, Shape, bool]] = {}
    for shape in shapes:
        assert isinstance(shape, StructureShape)
        for name, member in shape.members.items():
            if (kind_name, name) not in REPRESENTED_OTHERWISE:
                required = name in shape.required_members and name != "EndpointName"
                seen[name] = (name, member, required)
    yield from seen.values()


def _differences(shape: Shape, schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str, str, Any]]:
    """Yields (path, shape, keyword, what our schema has) wherever the two differ."""
    metadata = shape.metadata
    if isinstance(shape, StructureShape):
        theirs, ours = {_field(name): member for name, member in shape.members.items()}, schema["properties"]
        for name in theirs.keys() ^ ours.keys():
            yield f"{path}.{name}", shape.name, "members", name in ours
        for name in theirs.keys() & ours.keys():
            yield from _differences(theirs[name], ours[name], f"{path}.{name}")
        required = {_field(name) for name in shape.required_members}
        if required != set(schema.get("required", ())):
            yield path, shape.name, "required", set(schema.get("required", ()))
        return
    expected: dict[str, Any] = {}
    if isinstance(shape, ListShape):
        expected = {"type": "array", "minItems": metadata.get("min", 0), "maxItems": metadata.get("max")}
        yield from _differences(shape.member, schema["items"], f"{path}[]")
    elif isinstance(shape, MapShape):
        expected = {"type": "object", "minProperties": metadata.get("min", 0), "maxProperties": metadata.get("max")}
        yield from _differences(shape.value, schema["additionalProperties"], f"{path}{{}}")
    elif shape.type_name == "string":
        pattern = metadata.get("pattern")
        expected = {
            "type": "string",
            "minLength": metadata.get("min", 0) if not metadata.get("enum") else 0,
            "maxLength": metadata.get("max"),
            "pattern": f"^{pattern}$" if pattern else None,
            "enum": set(metadata["enum"]) if metadata.get("enum") else None,
        }
    elif shape.type_name in ("integer", "float"):
        whole = shape.type_name == "integer" and "enum" not in schema
        expected = {
            "type": "integer" if shape.type_name == "integer" else "number",
            "minimum": metadata.get("min", -(2**31) if whole else None),
            "maximum": metadata.get("max", 2**31 - 1 if whole else None),
            "enum": None,
        }
    elif shape.type_name == "boolean":
        expected = {"type": "boolean"}
    else:
        raise AssertionError(f"{path}: {shape.type_name} is new in the service model")
    for keyword, value in expected.items():
        found = schema.get(keyword, 0 if keyword.startswith("min") and keyword != "minimum" else None)
        found = set(found) if keyword == "enum" and found else found
        if found != value:
            yield path, shape.name, keyword, found


def _all_differences(kind_name: str) -> list[tuple[str, str, str, Any]]:
    schema = spec_schema(kind(kind_name).spec)
    return [
        difference
        for name, member, _ in _members(kind_name)
        for difference in _differences(member, schema["properties"][_field(name)], _field(name))
    ]


@pytest.mark.parametrize("kind_name", INPUTS)
def test_every_member_has_its_place_and_no_other_field_exists(kind_name: str) -> None:
    schema = spec_schema(kind(kind_name).spec)
    members = {_field(name) for name, _, _ in _members(kind_name)}
    assert set(schema["properties"]) == members | OWN_FIELDS[kind_name]
    required = {_field(name) for name, _, required in _members(kind_name) if required}
    assert set(schema.get("required", ())) == required | ({"backend"} if kind_name == "Endpoint" else set())


@pytest.mark.parametrize("kind_name", INPUTS)
def test_every_limit_is_the_services_or_adapted_on_purpose(kind_name: str) -> None:
    unexplained = [
        (path, shape, keyword, found)
        for path, shape, keyword, found in _all_differences(kind_name)
        if (shape, keyword) not in ADAPTED or ADAPTED[shape, keyword] != found
    ]
    assert unexplained == []


def test_every_adaptation_is_needed() -> None:
    used = {(shape, keyword) for kind_name in INPUTS for _, shape, keyword, _ in _all_differences(kind_name)}
    assert set(ADAPTED) == used


def test_every_instance_type_of_the_service_fits_the_pattern() -> None:
    names = SERVICE.shape_for("ProductionVariantInstanceType").metadata["enum"]
    pattern = ADAPTED["ProductionVariantInstanceType", "pattern"]
    assert [name for name in names if not re.fullmatch(pattern, name)] == []
    assert max(map(len, names)) <= ADAPTED["ProductionVariantInstanceType", "maxLength"]


def test_keys_of_the_environment_have_the_services_limits() -> None:
    """A structural schema has no place for limits of keys; a CEL rule states them."""
    environment = SERVICE.shape_for("EnvironmentMap")
    assert isinstance(environment, MapShape)
    limits = environment.key.metadata
    assert (f"^{limits['pattern']}$", limits["max"]) == (ENVIRONMENT_KEY, 1024)


# Texts on both sides of what each look-around says; the service's own pattern decides which side.
LOOK_AROUND = {
    "VersionedArnOrName": [
        "a",
        "a-",
        "-a",
        "a-b",
        "a--b",
        "a" * 63,
        "a" * 64,
        "a" * 62 + "-",
        "a/1",
        "a/123456789",
        "a/1234567890",
        "a-/1",
        "a/",
        "arn:aws:sagemaker:eu-west-1:111122223333:model-package/churn/3",
        "arn:aws:sagemaker:eu-west-1:111122223333:model-package/churn-/3",
        "arn:aws-cn:sagemaker::111122223333:/c",
        "arn:aws:sagemaker:eu-west-1:1111:model-package/churn",
    ],
    "MetricsEndpointPath": [
        "/",
        "/.",
        "/a",
        "/a.",
        "/.a",
        "/a.b",
        "/a..b",
        "/..",
        "/a/..",
        "/../a",
        "/a./b",
        "/.a.b.",
        "//",
        "metrics",
        "/a b",
        "/a.b.c/d-e_f",
    ],
    "AlarmName": ["a", " a", "a ", " ", "  \t", "", "a b", "a/b:c*"],
}


@pytest.mark.parametrize("shape", LOOK_AROUND)
def test_adapted_patterns_say_the_same_without_look_around(shape: str) -> None:
    ours = re.compile(ADAPTED[shape, "pattern"])
    theirs = re.compile(SERVICE.shape_for(shape).metadata["pattern"])
    for text in LOOK_AROUND[shape]:
        assert bool(ours.search(text)) == bool(theirs.fullmatch(text)), text
