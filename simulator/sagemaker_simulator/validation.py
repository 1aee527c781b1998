"""Checks requests and the simulator's own responses against botocore's shapes, in the service's words.

botocore itself checks only required members, types and minimums before it sends; pattern, enum, length and maximum
are the service's to refuse, with messages of the form
``1 validation error detected: Value 'x' at 'endpointName' failed to satisfy constraint: Member must ...``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from . import service_model
from .errors import ServiceError, invalid

_INTEGRAL = frozenset({"integer", "long"})
_FRACTIONAL = frozenset({"float", "double", "timestamp"})
_SEPARATORS = "\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


@dataclass(slots=True)
class Rule:
    """What one shape allows, compiled once from botocore's model."""

    type: str
    name: str
    required: frozenset[str] = frozenset()
    members: dict[str, Rule] = field(default_factory=dict)
    item: Rule | None = None
    key: Rule | None = None
    enum: tuple[str, ...] = ()
    pattern: str | None = None
    regex: re.Pattern[str] | None = None
    minimum: float | None = None
    maximum: float | None = None


_SURROGATES = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")


def _one_character(pair: re.Match[str]) -> str:
    high, low = (int(half, 16) for half in pair.groups())
    return f"\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08x}"


def java_regex(pattern: str) -> re.Pattern[str]:
    """The Python form of a pattern of the service model, which is written for Java's engine.

    Java's ``\\w \\d \\s`` are ASCII unless asked otherwise; ``\\p{..}`` classes are Unicode, and in the patterns we
    meet they stand beside ``_``, so ``\\w`` (letters, numbers and underscore) is exactly their union. Characters
    beyond the first 65,536 are written as surrogate pairs.
    """
    unicode_classes = r"\p{" in pattern
    text = (
        _SURROGATES.sub(_one_character, pattern)
        .replace(r"\p{L}", r"\w")
        .replace(r"\p{N}", r"\w")
        .replace(r"\p{Z}", _SEPARATORS)
    )
    return re.compile(text, re.UNICODE if unicode_classes else re.ASCII)


@cache
def _rules(service_name: str) -> dict[str, Rule]:
    return {}


def rule_for(service_name: str, shape: Shape) -> Rule:
    """The compiled rule of a shape; shapes may contain themselves, hence the registry by name."""
    known = _rules(service_name)
    if shape.name in known:
        return known[shape.name]
    traits = shape.metadata
    rule = Rule(type=shape.type_name, name=shape.name, minimum=traits.get("min"), maximum=traits.get("max"))
    known[shape.name] = rule
    if isinstance(shape, StructureShape):
        rule.required = frozenset(traits.get("required", ()))
        rule.members = {name: rule_for(service_name, member) for name, member in shape.members.items()}
    elif isinstance(shape, ListShape):
        rule.item = rule_for(service_name, shape.member)
    elif isinstance(shape, MapShape):
        rule.key = rule_for(service_name, shape.key)
        rule.item = rule_for(service_name, shape.value)
    elif shape.type_name == "string":
        rule.enum = tuple(traits.get("enum", ()))
        rule.pattern = traits.get("pattern")
        rule.regex = java_regex(rule.pattern) if rule.pattern else None
    return rule


def _lower_camel(name: str) -> str:
    return name[:1].lower() + name[1:]


def _join(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part


def _problem(value: object, path: str, constraint: str) -> str:
    shown = "null" if value is None else f"'{value}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: {constraint}"


def _wrong_type(path: str, wanted: str, value: object) -> ServiceError:
    found = type(value).__name__
    return ServiceError("SerializationException", f"Expected {wanted} at '{path or 'body'}', found {found}")


def _bounds(rule: Rule, measured: float, what: str) -> list[str]:
    found = []
    if rule.minimum is not None and measured < rule.minimum:
        found.append(f"Member must have {what} greater than or equal to {rule.minimum}")
    if rule.maximum is not None and measured > rule.maximum:
        found.append(f"Member must have {what} less than or equal to {rule.maximum}")
    return found


def _scalar(rule: Rule, value: Any, path: str, problems: list[str]) -> Any:
    if rule.type == "string":
        if not isinstance(value, str):
            raise _wrong_type(path, "a string", value)
        constraints = _bounds(rule, len(value), "length")
        if rule.regex is not None and rule.regex.fullmatch(value) is None:
            constraints.append(f"Member must satisfy regular expression pattern: {rule.pattern}")
        if rule.enum and value not in rule.enum:
            constraints.append(f"Member must satisfy enum value set: [{', '.join(rule.enum)}]")
    elif rule.type == "boolean":
        if not isinstance(value, bool):
            raise _wrong_type(path, "a boolean", value)
        constraints = []
    elif rule.type in _INTEGRAL or rule.type in _FRACTIONAL:
        whole = rule.type in _INTEGRAL
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise _wrong_type(path, "an integer" if whole else "a number", value)
        constraints = _bounds(rule, value, "value")
    else:  # blob: text on the JSON wire
        if not isinstance(value, str):
            raise _wrong_type(path, "base64 text", value)
        constraints = []
    problems.extend(_problem(value, path, constraint) for constraint in constraints)
    return value


def _walk(rule: Rule, value: Any, path: str, problems: list[str], unknown: list[str]) -> Any:
    if rule.type == "structure":
        if not isinstance(value, dict):
            raise _wrong_type(path, "a structure", value)
        result = {}
        for name, member in value.items():
            if member is None:
                continue
            inner = rule.members.get(name)
            if inner is None:
                unknown.append(_join(path, name))
                continue
            result[name] = _walk(inner, member, _join(path, _lower_camel(name)), problems, unknown)
        problems.extend(
            _problem(None, _join(path, _lower_camel(name)), "Member must not be null")
            for name in sorted(rule.required - result.keys())
        )
        return result
    if rule.type == "list":
        if not isinstance(value, list):
            raise _wrong_type(path, "a list", value)
        problems.extend(_problem(value, path, constraint) for constraint in _bounds(rule, len(value), "length"))
        assert rule.item is not None  # noqa: S101 - rule_for gives every list its item
        item = rule.item
        return [_walk(item, one, f"{path}.{i}.member", problems, unknown) for i, one in enumerate(value, 1)]
    if rule.type == "map":
        if not isinstance(value, dict):
            raise _wrong_type(path, "a map", value)
        problems.extend(_problem(value, path, constraint) for constraint in _bounds(rule, len(value), "length"))
        assert rule.item is not None  # noqa: S101 - rule_for gives every map its key and value
        assert rule.key is not None  # noqa: S101 - as above
        for key in value:
            _scalar(rule.key, key, f"{path}.key", problems)
        return {key: _walk(rule.item, one, f"{path}.{key}.member", problems, unknown) for key, one in value.items()}
    return _scalar(rule, value, path, problems)


def check_request(service_name: str, operation_name: str, body: Any) -> dict[str, Any]:
    """The request's known members, or the service's ValidationException with every violated constraint."""
    shape = service_model.operation(service_name, operation_name).input_shape
    if shape is None:
        return {}
    problems: list[str] = []
    result: dict[str, Any] = _walk(rule_for(service_name, shape), body, "", problems, [])
    if problems:
        noun = "error" if len(problems) == 1 else "errors"
        raise invalid(f"{len(problems)} validation {noun} detected: {'; '.join(problems)}")
    return result


class ResponseDoesNotFitError(Exception):
    """The simulator built an answer that AWS's model does not allow: a bug of the simulator, never of its caller."""


def check_response(service_name: str, operation_name: str, body: dict[str, Any]) -> None:
    """Raises ResponseDoesNotFitError when a response has a missing, unknown, mistyped or out-of-range member."""
    shape = service_model.operation(service_name, operation_name).output_shape
    problems: list[str] = []
    unknown: list[str] = []
    if shape is None:
        unknown.extend(body)
    else:
        try:
            _walk(rule_for(service_name, shape), body, "", problems, unknown)
        except ServiceError as error:
            problems.append(error.message)
    problems.extend(f"member '{path}' is not in the model" for path in unknown)
    if problems:
        raise ResponseDoesNotFitError(f"{operation_name}: {'; '.join(problems)}")
