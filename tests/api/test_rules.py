"""Every CEL rule keeps and refuses what it should, on a real API server."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sluice.api.base import VALIDATIONS
from sluice.api.crds import KINDS, object_schema

from .conftest import Admission
from .rulecases import Broken, RuleCases
from .rules import RULES


def _rules(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for rule in schema.get(VALIDATIONS, ()):
        yield path, rule["message"]
    for name, child in schema.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


def _id(cases: RuleCases) -> str:
    return f"{cases.kind} {cases.path or '(object)'}: {cases.rule}"


def test_every_rule_has_cases_and_every_case_a_rule() -> None:
    stated = {(kind.name, path, message) for kind in KINDS for path, message in _rules(object_schema(kind))}
    matched = {
        rule: [each for each in RULES if (each.kind, each.path) == rule[:2] and rule[2].startswith(each.rule)]
        for rule in stated
    }
    assert [rule for rule, cases in matched.items() if len(cases) != 1] == []
    assert len(RULES) == len(stated)


@pytest.mark.parametrize("cases", RULES, ids=_id)
def test_every_rule_is_tried_both_ways(cases: RuleCases) -> None:
    assert cases.kept
    assert cases.broken


@pytest.mark.apiserver
@pytest.mark.parametrize("cases", RULES, ids=_id)
def test_what_keeps_the_rule_is_accepted(admission: Admission, cases: RuleCases) -> None:
    for kept in cases.kept:
        refused = admission.update(*kept) if isinstance(kept, tuple) else admission.create(kept)
        assert refused == (), kept


@pytest.mark.apiserver
@pytest.mark.parametrize(
    "broken", [pytest.param(each, id=f"{_id(cases)} #{n}") for cases in RULES for n, each in enumerate(cases.broken)]
)
def test_what_breaks_the_rule_is_refused_by_field_and_in_words(admission: Admission, broken: Broken) -> None:
    causes = admission.update(broken.old, broken.manifest) if broken.old else admission.create(broken.manifest)
    named = [cause for cause in causes if cause.field == broken.field and broken.message in cause.message]
    assert len(named) == len(causes) == 1, causes
