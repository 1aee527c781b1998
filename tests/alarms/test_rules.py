"""The rules of composite CloudWatch alarms: what is read in them, and what they can come to."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.alarms.rules import (
    STATES,
    Asked,
    AtLeast,
    Fixed,
    NotUnderstood,
    Opposite,
    Rule,
    outcomes,
    parse,
    references,
)

A, B, C = (Asked("ALARM", name) for name in "abc")
ARN = "arn:aws:cloudwatch:eu-west-1:111122223333:alarm:too many (errors)"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ALARM(a)", A),
        ('ALARM("a")', A),
        (" alarm ( a )\n", A),
        ("OK(a)", Asked("OK", "a")),
        ("INSUFFICIENT_DATA(a)", Asked("INSUFFICIENT_DATA", "a")),
        (f'ALARM("{ARN}")', Asked("ALARM", ARN)),
        (r'ALARM("he said \"no\", once")', Asked("ALARM", 'he said "no", once')),
        ('ALARM("TRUE") OR ALARM(FALSE)', AtLeast(1, (Asked("ALARM", "TRUE"), Asked("ALARM", "FALSE")))),
        ("TRUE", Fixed(True)),
        ("false", Fixed(False)),
        ("NOT ALARM(a)", Opposite(A)),
        ("NOT NOT ALARM(a)", Opposite(Opposite(A))),
        ("ALARM(a) AND ALARM(b) AND ALARM(c)", AtLeast(3, (A, B, C))),
        ("ALARM(a) OR ALARM(b) AND NOT ALARM(c)", AtLeast(1, (A, AtLeast(2, (B, Opposite(C)))))),
        ("(ALARM(a) OR ALARM(b)) AND ALARM(c)", AtLeast(2, (AtLeast(1, (A, B)), C))),
        ("((ALARM(a)))", A),
        ("AT_LEAST(2, ALARM, (a, b, c))", AtLeast(2, (A, B, C))),
        ("AT_LEAST(50%, ALARM, (a, b, c))", AtLeast(2, (A, B, C))),
        ("AT_LEAST(1, NOT ALARM, (a, b))", AtLeast(1, (Opposite(A), Opposite(B)))),
    ],
)
def test_what_a_rule_says(text: str, rule: Rule) -> None:
    assert parse(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ALARM",
        "ALARM(",
        "ALARM()",
        "ALARM(a",
        "ALARM(a) ALARM(b)",
        "ALARM(a) AND",
        "ALARM(a, b)",
        "AND ALARM(a)",
        '"ALARM"(a)',
        'ALARM("a)',
        r"ALARM(a\b)",
        r'ALARM("a\b")',
        "BROKEN(a)",
        "AT_LEAST(x, ALARM, (a))",
        "AT_LEAST(1, ALARM, ())",
        "AT_LEAST(1, ALARM, a)",
        "(" * 200 + "TRUE" + ")" * 200,
        "NOT " * 5000 + "TRUE",
    ],
)
def test_what_is_not_known_is_not_guessed(text: str) -> None:
    with pytest.raises(NotUnderstood):
        parse(text)


def test_the_alarms_of_a_rule() -> None:
    text = 'ALARM(a) AND (OK("b c") OR NOT AT_LEAST(1, OK, (d, a))) AND TRUE'
    assert list(references(parse(text))) == ["a", "b c", "d", "a"]


FREE, NEVER, ALWAYS, GONE = STATES, frozenset({"OK", "INSUFFICIENT_DATA"}), frozenset({"ALARM"}), frozenset[str]()


@pytest.mark.parametrize(
    ("text", "able"),
    [
        ("ALARM(free)", {True, False}),
        ("ALARM(never)", {False}),
        ("ALARM(always)", {True}),
        ("ALARM(gone)", {False}),
        ("NOT ALARM(gone)", {True}),
        ("OK(never)", {True, False}),
        ("ALARM(free) AND ALARM(never)", {False}),
        ("ALARM(free) OR ALARM(never)", {True, False}),
        ("ALARM(free) AND NOT ALARM(never)", {True, False}),
        ("ALARM(free) OR NOT ALARM(never)", {True}),
        ("ALARM(free) AND FALSE", {False}),
        ("ALARM(free) OR TRUE", {True}),
        ("ALARM(free) AND TRUE", {True, False}),
        ("AT_LEAST(2, ALARM, (free, never, always))", {True, False}),
        ("AT_LEAST(3, ALARM, (free, never, always))", {False}),
        ("AT_LEAST(1, ALARM, (free, never, always))", {True}),
        ("AT_LEAST(1%, ALARM, (never, gone))", {False}),
        ("AT_LEAST(0, ALARM, (never))", {True}),
    ],
)
def test_what_a_rule_can_come_to(text: str, able: set[bool]) -> None:
    states = {"free": FREE, "never": NEVER, "always": ALWAYS, "gone": GONE}
    assert outcomes(parse(text), states.__getitem__) == able


Meant = tuple[str, Callable[[dict[str, str]], bool]]
"""A rule, and what it is while the alarms are in these states."""


def grown(parts: st.SearchStrategy[Meant]) -> st.SearchStrategy[Meant]:
    several = st.lists(parts, min_size=2, max_size=4)
    return st.one_of(
        parts.map(lambda part: (f"NOT {part[0]}", lambda now: not part[1](now))),
        several.map(
            lambda some: (f"({' AND '.join(t for t, _ in some)})", lambda now: all(is_(now) for _, is_ in some))
        ),
        several.map(
            lambda some: (f"({' OR '.join(t for t, _ in some)})", lambda now: any(is_(now) for _, is_ in some))
        ),
    )


def atom(state: str, name: str) -> Meant:
    return f"{state}({name})", lambda now: now[name] == state


A_STATE = st.sampled_from(sorted(STATES))
FIXED = st.booleans().map(lambda value: (str(value).upper(), lambda now: value))


@given(
    st.recursive(st.one_of(FIXED, st.builds(atom, A_STATE, st.sampled_from("abc"))), grown, max_leaves=12),
    st.fixed_dictionaries(dict.fromkeys("abc", A_STATE)),
)
def test_what_happens_is_always_among_what_can_happen(meant: Meant, now: dict[str, str]) -> None:
    """For alarms whose states are known, and for some of which one is known and the others can be in any."""
    text, happens = meant[0], meant[1](now)
    assert outcomes(parse(text), lambda name: frozenset({now[name]})) == {happens}
    assert happens in outcomes(parse(text), lambda name: frozenset({now[name]}) if name == "a" else STATES)
