"""What every API type shares: frozen values, SageMaker's field names, and the Kubernetes marks a field can carry.

A type of the API is a pydantic model derived from `ApiModel`; unknown fields are refused. Attribute docstrings become
the descriptions in the CRD and in docs/reference. A field's Kubernetes marks stand in its `Annotated` metadata:

    production_variants: Annotated[tuple[ProductionVariant, ...], ListMap("variantName"), Field(max_length=10)]

An object's own CEL rules stand in the class variable `rules`; rules of one field stand in `Rules(...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

VALIDATIONS = "x-kubernetes-validations"

# FieldValueDuplicate is left out: the API server shows "Duplicate value" in place of the rule's message.
Reason = Literal["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired"]


def field_name(attribute: str) -> str:
    """The manifest's name of a Python attribute: `s3_output_path` -> `s3OutputPath`.

    SageMaker writes some acronyms in capitals (`EnableSSMAccess`, `VolumeSizeInGB`); those fields name their alias.
    """
    first, *rest = attribute.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL rule of the API server (`x-kubernetes-validations`).

    `message` is fixed text; `message_expression` is CEL that says what was found, and falls back to `message`.
    `field_path` is relative to the object that carries the rule, for example `.canarySize.value`.
    """

    rule: str
    message: str
    message_expression: str | None = None
    field_path: str | None = None
    reason: Reason | None = None

    def json_schema(self) -> dict[str, Any]:
        """The rule as it stands in a CRD."""
        schema: dict[str, Any] = {"rule": self.rule, "message": self.message}
        if self.message_expression is not None:
            schema["messageExpression"] = self.message_expression
        if self.reason is not None:
            schema["reason"] = self.reason
        if self.field_path is not None:
            schema["fieldPath"] = self.field_path
        return schema


class _SchemaMark:
    """`Annotated` metadata that adds keywords to a field's schema and changes nothing about parsing."""

    def keywords(self) -> Mapping[str, Any]:
        raise NotImplementedError

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        for keyword, value in self.keywords().items():
            schema[keyword] = [*schema[keyword], *value] if keyword == VALIDATIONS and keyword in schema else value
        return schema


class Rules(_SchemaMark):
    """CEL rules of one field; `self` is the field's value."""

    def __init__(self, *rules: Rule) -> None:
        self._rules = rules

    def keywords(self) -> Mapping[str, Any]:
        return {VALIDATIONS: [rule.json_schema() for rule in self._rules]}


class ListMap(_SchemaMark):
    """A list whose items are told apart by `keys` (manifest names): merged item by item in server-side apply."""

    def __init__(self, *keys: str) -> None:
        self._keys = keys

    def keywords(self) -> Mapping[str, Any]:
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(self._keys)}


class ListSet(_SchemaMark):
    """A list of distinct scalars: merged value by value in server-side apply."""

    def keywords(self) -> Mapping[str, Any]:
        return {"x-kubernetes-list-type": "set"}


class ListAtomic(_SchemaMark):
    """A list in which order or repetition matters: one owner writes it whole."""

    def keywords(self) -> Mapping[str, Any]:
        return {"x-kubernetes-list-type": "atomic"}


class IntOrString(_SchemaMark):
    """A Kubernetes quantity or port: an integer or a string."""

    def keywords(self) -> Mapping[str, Any]:
        return {"x-kubernetes-int-or-string": True}


class Schema(_SchemaMark):
    """Plain OpenAPI keywords that pydantic does not write, or that the API server takes in another form."""

    def __init__(self, **keywords: Any) -> None:
        self._keywords = keywords

    def keywords(self) -> Mapping[str, Any]:
        return self._keywords


class ApiModel(BaseModel):
    """A frozen value of the API. Attributes are snake_case, manifests carry SageMaker's names in lower camel case."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=field_name,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """CEL rules of this object; `self` is the object."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        if cls.rules:
            handler.resolve_ref_schema(schema)[VALIDATIONS] = [rule.json_schema() for rule in cls.rules]
        return schema

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        """Reads the JSON of a manifest or of the API server. Raises pydantic.ValidationError."""
        return cls.model_validate(manifest)

    def to_manifest(self) -> dict[str, Any]:
        """The value as JSON for the API server: manifest names, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
