"""The rule of a composite CloudWatch alarm: which alarms it names, and what it can come to. Pure.

    ALARM("errors") AND NOT (ALARM(deploying) OR OK("arn:aws:cloudwatch:eu-west-1:111122223333:alarm:traffic"))
    AT_LEAST(50%, NOT OK, (a, b, "c d"))
    FALSE

Names and ARNs stand in double quotes, in which a quote is written \\", or bare where they hold no space, parenthesis or
comma (CloudWatch User Guide, "Composite alarms"). NOT binds before AND, AND before OR."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from sluice.alarms.subjects import ALARM, INSUFFICIENT_DATA, OK

STATES: Final = frozenset({ALARM, OK, INSUFFICIENT_DATA})
_DEEPEST: Final = 50
"""Levels of parentheses and NOT that are followed; a rule has at most 500 elements."""
_TOKEN: Final = re.compile(r'\s*(?:([(),])|"((?:[^"\\]|\\")*)"|([^\s(),"\\]+))')
_NUMBER: Final = re.compile(r"(\d{1,6})(%?)")


class NotUnderstood(ValueError):
    """The rule is written in a way that this module does not know."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """TRUE or FALSE."""

    value: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """True while the named alarm is in this state."""

    state: str
    reference: str
    """A name or an ARN."""


@dataclass(frozen=True, slots=True)
class Opposite:
    """NOT."""

    part: "Rule"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """True while so many of its parts are: all of them for AND, one for OR."""

    count: int
    parts: tuple["Rule", ...]


Rule = Fixed | Asked | Opposite | AtLeast


@lru_cache(maxsize=4096)
def parse(text: str) -> Rule:
    """Raises NotUnderstood."""
    tokens = _Tokens(text)
    rule = _any(tokens, 0)
    tokens.end()
    return rule


def references(rule: Rule) -> Iterator[str]:
    """The names and ARNs in it, in its order, each as often as it stands there."""
    match rule:
        case Asked(reference=reference):
            yield reference
        case Opposite(part=part):
            yield from references(part)
        case AtLeast(parts=parts):
            for part in parts:
                yield from references(part)


def outcomes(rule: Rule, states: Callable[[str], frozenset[str]]) -> frozenset[bool]:
    """What it can come to while the alarms can be in these states; none at all for one that is not there. Each place in
    which an alarm stands is taken by itself, so there may be more here than can happen, and never less."""
    match rule:
        case Fixed(value=value):
            return frozenset({value})
        case Asked(state=state, reference=reference):
            able = states(reference)
            return frozenset({state in able} if len(able) < 2 else {state in able, False})
        case Opposite(part=part):
            return frozenset(not value for value in outcomes(part, states))
        case AtLeast(count=count, parts=parts):
            each = [outcomes(part, states) for part in parts]
            most = sum(True in able for able in each)
            least = sum(False not in able for able in each)
            return frozenset({most >= count, least >= count})


class _Tokens:
    """What stands in a rule, one after another. What was quoted is no keyword."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, bool]] = []
        at, text = 0, text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise NotUnderstood(f"not understood from character {at + 1} on")
            mark, quoted, bare = found.groups()
            self._tokens.append((mark or bare, False) if quoted is None else (quoted.replace('\\"', '"'), True))
            at = found.end()
        self._at = 0

    def keyword(self) -> str:
        """The next one in capitals, without taking it; empty: there is none, or it is quoted."""
        if self._at == len(self._tokens):
            return ""
        word, is_quoted = self._tokens[self._at]
        return "" if is_quoted else word.upper()

    def take(self, *allowed: str) -> str:
        """The next keyword, which must be one of these."""
        word = self.keyword()
        if word not in allowed:
            raise NotUnderstood(f"{' or '.join(allowed)} is missing")
        self._at += 1
        return word

    def skip(self, word: str) -> bool:
        """Take the next one if it is this keyword."""
        if self.keyword() != word:
            return False
        self._at += 1
        return True

    def name(self) -> str:
        """The next one, which must be a name."""
        if self._at == len(self._tokens) or self.keyword() in {"(", ")", ","}:
            raise NotUnderstood("a name is missing")
        self._at += 1
        return self._tokens[self._at - 1][0]

    def end(self) -> None:
        """Nothing may be left."""
        if self._at < len(self._tokens):
            raise NotUnderstood(f"nothing is known to stand before {self._tokens[self._at][0]}")


def _any(tokens: _Tokens, depth: int) -> Rule:
    if depth > _DEEPEST:
        raise NotUnderstood(f"more than {_DEEPEST} levels")
    parts = [_all(tokens, depth)]
    while tokens.skip("OR"):
        parts.append(_all(tokens, depth))
    return parts[0] if len(parts) == 1 else AtLeast(1, tuple(parts))


def _all(tokens: _Tokens, depth: int) -> Rule:
    parts = [_one(tokens, depth)]
    while tokens.skip("AND"):
        parts.append(_one(tokens, depth))
    return parts[0] if len(parts) == 1 else AtLeast(len(parts), tuple(parts))


def _one(tokens: _Tokens, depth: int) -> Rule:
    if depth > _DEEPEST:
        raise NotUnderstood(f"more than {_DEEPEST} levels")
    word = tokens.take("(", "NOT", "TRUE", "FALSE", "AT_LEAST", *sorted(STATES))
    match word:
        case "(":
            rule = _any(tokens, depth + 1)
            tokens.take(")")
            return rule
        case "NOT":
            return Opposite(_one(tokens, depth + 1))
        case "TRUE" | "FALSE":
            return Fixed(word == "TRUE")
        case "AT_LEAST":
            return _at_least(tokens)
    tokens.take("(")
    asked = Asked(word, tokens.name())
    tokens.take(")")
    return asked


def _at_least(tokens: _Tokens) -> Rule:
    tokens.take("(")
    number = _NUMBER.fullmatch(tokens.name())
    if number is None:
        raise NotUnderstood("AT_LEAST needs a number or a percentage")
    tokens.take(",")
    is_negated = tokens.skip("NOT")
    state = tokens.take(*sorted(STATES))
    tokens.take(",")
    tokens.take("(")
    parts: list[Rule] = []
    while not parts or tokens.skip(","):
        asked = Asked(state, tokens.name())
        parts.append(Opposite(asked) if is_negated else asked)
    tokens.take(")")
    tokens.take(")")
    wanted, is_share = int(number[1]), bool(number[2])
    return AtLeast(math.ceil(len(parts) * wanted / 100) if is_share else wanted, tuple(parts))
