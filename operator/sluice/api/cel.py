"""CEL rules that several kinds need, and the pieces of message expressions.

A message names the field, what was found (where CEL can say it) and what is allowed, in SageMaker's terms.
"""

from collections.abc import Sequence

from sluice.api.base import Rule


def found(text: str, *values: str) -> str:
    """CEL for `text` with each `%s` replaced by the value of a CEL expression of type string.

    `format` as the whole expression is what the API server's cost estimator takes: it does not know how long
    `string(...)` gets, and a concatenation with it would count as without bound.
    """
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'.format([{', '.join(values)}])"


NAME_RULE = Rule(
    rule="size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
    message="metadata.name is also the name in SageMaker: at most 63 characters, letters, digits and hyphens, no dots",
    message_expression=found(
        'metadata.name: found "%s" with %s characters, allowed are at most 63 characters, lower-case letters, digits '
        "and hyphens, no dots, because it is also the name in SageMaker",
        "self.metadata.name",
        "string(size(self.metadata.name))",
    ),
)


def both_or_neither(field: str, when: str, condition: str) -> Rule:
    """`field` is required when the CEL `condition` holds and forbidden when it does not; `when` says it in words."""
    return Rule(
        rule=f"has(self.{field}) == ({condition})",
        message=f"{field} is required when {when}, and forbidden otherwise",
        message_expression=(
            f"has(self.{field}) ? '{field}: is set, allowed only when {when}' "
            f": '{field}: is missing, required when {when}'"
        ),
    )


def at_most_one(fields: Sequence[str], why: str) -> Rule:
    """At most one of the optional `fields` may be set."""
    return Rule(
        rule=f"{_count(fields)} <= 1",
        message=f"at most one of {_words(fields)} may be set: {why}",
        reason="FieldValueForbidden",
    )


def exactly_one(fields: Sequence[str], why: str) -> Rule:
    """Exactly one of the optional `fields` must be set."""
    return Rule(
        rule=f"{_count(fields)} == 1",
        message=f"exactly one of {_words(fields)} must be set: {why}",
        message_expression=found(
            f"{', '.join(fields)}: found %s of them, allowed is exactly one: {why}", f"string({_count(fields)})"
        ),
    )


def percent(field: str, lowest: int, highest: int) -> Rule:
    """Bounds of a CapacitySize of type CAPACITY_PERCENT. INSTANCE_COUNT needs the variant's count: checked later."""
    return Rule(
        rule=f"self.type != 'CAPACITY_PERCENT' || (self.value >= {lowest} && self.value <= {highest})",
        message=f"{field} of type CAPACITY_PERCENT is {lowest} to {highest}",
        message_expression=found(
            f"{field}.value: found %s, allowed for type CAPACITY_PERCENT is {lowest} to {highest}", "string(self.value)"
        ),
        field_path=".value",
    )


def immutable(field: str, remedy: str) -> Rule:
    """A required scalar that never changes after creation."""
    return Rule(
        rule="self == oldSelf",
        message=f"{field} is immutable: {remedy}",
        message_expression=found(
            f'{field}: found "%s", allowed is "%s", because it is immutable: {remedy}', "self", "oldSelf"
        ),
    )


def _count(fields: Sequence[str]) -> str:
    return "(" + " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in fields) + ")"


def _words(fields: Sequence[str]) -> str:
    return ", ".join(fields[:-1]) + " and " + fields[-1]
