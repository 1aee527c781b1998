"""Turns pydantic's JSON schema into the structural OpenAPI v3 schema that the API server takes.

References are inlined, optional fields lose their null, nothing has a default (defaults would be written into stored
objects and change hashes), constants become enums, unknown fields are left to the API server's pruning and strict
validation. What has no structural form is an error here, not a surprise in the cluster.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

from sluice.api.base import VALIDATIONS, ApiModel

_KEPT = frozenset(
    {
        "description",
        "enum",
        "format",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "pattern",
        "type",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
    }
)
_DROPPED = frozenset({"title", "default", "$defs", "examples"})
_INT_OR_STRING = {"integer", "string"}

Json = dict[str, Any]


class NotStructuralError(Exception):
    """A type of the API has no form in a structural schema."""


def spec_schema(model: type[ApiModel]) -> Json:
    """The structural schema of a spec."""
    return _structural(model)


def status_schema(model: type[ApiModel]) -> Json:
    """The structural schema of a status.

    It states shapes and no rules: a newer operator must be able to write its status under older CRDs.
    """
    return _relaxed(_structural(model))


def internal_schema(model: type[ApiModel]) -> Json:
    """The structural schema of a spec that only Sluice's own processes write and read.

    It states shapes and no rules, and keeps fields that it does not know: operator, routers and CRDs are upgraded one
    after another, and what one of them wrote must reach the others as it was written.
    """
    return _open(_relaxed(_structural(model)))


def _structural(model: type[ApiModel]) -> Json:
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(raw, raw.get("$defs", {}), model.__name__, ())


def _convert(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str, above: tuple[str, ...]) -> Json:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name in above:
            raise NotStructuralError(f"{path}: {name} contains itself; a structural schema has no recursion")
        target = _convert(definitions[name], definitions, path, (*above, name))
        rest = _convert({k: v for k, v in schema.items() if k != "$ref"}, definitions, path, above)
        return _merged(target, rest)
    result: Json = {}
    for keyword, value in schema.items():
        if keyword in _KEPT:
            result[keyword] = value
        elif keyword == "properties":
            result["properties"] = {
                name: _convert(child, definitions, f"{path}.{name}", above) for name, child in value.items()
            }
        elif keyword == "items":
            result["items"] = _convert(value, definitions, f"{path}[]", above)
        elif keyword == "additionalProperties":
            if isinstance(value, Mapping):
                result["additionalProperties"] = _convert(value, definitions, f"{path}{{}}", above)
        elif keyword == "required":
            result["required"] = list(value)
        elif keyword == "const":
            result["enum"] = [value]
        elif keyword == VALIDATIONS:
            result[VALIDATIONS] = list(value)
        elif keyword == "anyOf":
            result = _merged(_alternative(value, definitions, path, above), result)
        elif keyword not in _DROPPED:
            raise NotStructuralError(f"{path}: the keyword {keyword} has no structural form")
    if result.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    if "description" in result:
        result["description"] = cleandoc(result["description"]).replace("\n", " ")
    if "enum" in result and "type" not in result:
        result["type"] = "integer" if all(isinstance(value, int) for value in result["enum"]) else "string"
    return result


def _alternative(
    options: list[Mapping[str, Any]], definitions: Mapping[str, Any], path: str, above: tuple[str, ...]
) -> Json:
    present = [option for option in options if option.get("type") != "null"]
    if len(present) == 1:
        return _convert(present[0], definitions, path, above)
    if {option.get("type") for option in present} == _INT_OR_STRING:
        return {"x-kubernetes-int-or-string": True}
    raise NotStructuralError(f"{path}: a choice between types; use one object with optional members and a rule")


def _merged(base: Json, over: Json) -> Json:
    merged = {**base, **over}
    if VALIDATIONS in base and VALIDATIONS in over:
        merged[VALIDATIONS] = [*base[VALIDATIONS], *over[VALIDATIONS]]
    return merged


_LIMITS = (
    "pattern",
    "minLength",
    "minItems",
    "minimum",
    "maximum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "required",
)


def _relaxed(schema: Json) -> Json:
    result = {keyword: value for keyword, value in schema.items() if keyword not in (*_LIMITS, "enum")}
    if "enum" in schema:
        words = ", ".join(str(value) for value in schema["enum"])
        result["description"] = f"{schema.get('description', '')} One of: {words}.".strip()
    if "properties" in schema:
        result["properties"] = {name: _relaxed(child) for name, child in schema["properties"].items()}
        conditions = result["properties"].get("conditions")
        if conditions is not None:
            conditions["x-kubernetes-list-type"] = "map"
            conditions["x-kubernetes-list-map-keys"] = ["type"]
            conditions["items"]["required"] = ["type", "status"]
    if "items" in schema:
        result["items"] = _relaxed(schema["items"])
        result.setdefault("x-kubernetes-list-type", "atomic")
    if "additionalProperties" in schema:
        result["additionalProperties"] = _relaxed(schema["additionalProperties"])
    return result


def _open(schema: Json) -> Json:
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: _open(child) for name, child in schema["properties"].items()}
        result["x-kubernetes-preserve-unknown-fields"] = True
    if "items" in schema:
        result["items"] = _open(schema["items"])
    return result


@dataclass(frozen=True, slots=True)
class Node:
    """One place in a schema. `path` is written `productionVariants[].initialVariantWeight`, map values as `{}`."""

    path: str
    schema: Mapping[str, Any]
    required: bool

    @property
    def is_leaf(self) -> bool:
        """Whether nothing named stands below: a scalar, or a list or map of scalars."""
        inner = self.schema
        while "items" in inner or "additionalProperties" in inner:
            inner = inner["items"] if "items" in inner else inner["additionalProperties"]
        return "properties" not in inner


def walk(schema: Mapping[str, Any], path: str = "") -> Iterator[Node]:
    """Every named field of a schema, depth first. Items of lists of scalars and values of maps are no fields."""
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield Node(here, child, name in schema.get("required", ()))
        below, suffix = child, ""
        while "items" in below or "additionalProperties" in below:
            below, suffix = (
                (below["items"], suffix + "[]") if "items" in below else (below["additionalProperties"], suffix + "{}")
            )
        yield from walk(below, here + suffix)
