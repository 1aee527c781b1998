"""CEL rules that several kinds need, and the pieces of message expressions.

A message names the field, what was found (where CEL can say it) and what is allowed, in SageMaker's terms.
"""

from collections.abc import Sequence

from sluice.api.base import Rule

NAME_RULE = Rule(
    rule="size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
    message="metadata.name is also the name in SageMaker: at most 63 characters, letters, digits and hyphens, no dots",
    message_expression=(
        "'metadata.name: found \"' + self.metadata.name + '\" with ' + string(size(self.metadata.name)) + "
        "' characters, allowed are at most 63 characters, lower-case letters, digits and hyphens, no dots, "
        "because it is also the name in SageMaker'"
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
        message_expression=(
            f"'found ' + string({_count(fields)}) + ' of {_words(fields)}, exactly one must be set: {why}'"
        ),
    )


def percent(field: str, lowest: int, highest: int) -> Rule:
    """Bounds of a CapacitySize of type CAPACITY_PERCENT. INSTANCE_COUNT needs the variant's count: checked later."""
    return Rule(
        rule=f"self.type != 'CAPACITY_PERCENT' || (self.value >= {lowest} && self.value <= {highest})",
        message=f"{field} of type CAPACITY_PERCENT is {lowest} to {highest}",
        message_expression=(
            f"'{field}.value: found ' + string(self.value) + ', allowed for type CAPACITY_PERCENT is "
            f"{lowest} to {highest}'"
        ),
        field_path=".value",
    )


def immutable(field: str, remedy: str) -> Rule:
    """A required scalar that never changes after creation."""
    return Rule(
        rule="self == oldSelf",
        message=f"{field} is immutable: {remedy}",
        message_expression=(
            f"'{field}: found \"' + self + '\", allowed is \"' + oldSelf + '\", because it is immutable: {remedy}'"
        ),
    )


def _count(fields: Sequence[str]) -> str:
    return "(" + " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in fields) + ")"


def _words(fields: Sequence[str]) -> str:
    return ", ".join(fields[:-1]) + " and " + fields[-1]
