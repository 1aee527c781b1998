"""Cases at the edge of every limit, made from the schemas and the full manifests.

For each limit of each field: a value at the limit that must be accepted, and a value just beyond it that must be
refused by the field's path.
"""

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from sluice.api.schema import walk

from .manifests import FULL, Manifest

# Text that a pattern refuses, tried in this order.
_ODD_TEXTS = ("", "\n", "!", " ", "/", "-", "(", "ä!")

# Patterns that no text breaks, or only the empty one, which minLength refuses.
UNBREAKABLE_PATTERNS = frozenset({r"^[\S\s]*$", r"^[\s\S]+$"})


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in a manifest: keys and indexes from `spec` on."""

    keys: tuple[str | int, ...]

    def __str__(self) -> str:
        return "spec" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.keys)

    def value(self, manifest: Manifest) -> Any:
        """What stands there."""
        value: Any = manifest["spec"]
        for key in self.keys:
            value = value[key]
        return value

    def replaced(self, manifest: Manifest, value: Any) -> Manifest:
        """A copy of the manifest with that value there; `...` removes it."""
        copy = deepcopy(manifest)
        parent: Any = copy["spec"]
        for key in self.keys[:-1]:
            parent = parent[key]
        if value is ...:
            del parent[self.keys[-1]]
        else:
            parent[self.keys[-1]] = value
        return copy


@dataclass(frozen=True, slots=True)
class LimitCase:
    """One limit of one field."""

    kind: str
    path: str
    limit: str
    inside: tuple[Manifest, ...]
    """At least one must be accepted. Empty where the full manifests already stand at the limit."""
    beyond: Manifest
    field: str
    """The field that the refusal must name."""


def fields(kind: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Every field, and every item of a list and value of a map of scalars, as (path, schema, required)."""
    for node in walk(schema):
        yield node.path, node.schema, node.required
        below, path = node.schema, node.path
        while "items" in below or "additionalProperties" in below:
            below, path = (
                (below["items"], path + "[]") if "items" in below else (below["additionalProperties"], path + "{}")
            )
            if "properties" not in below:
                yield path, below, False


def spots(manifest: Manifest, path: str) -> Iterator[Spot]:
    """Where the manifest has a value at that path of the schema."""
    steps = re.findall(r"\[\]|\{\}|[^.\[\]{}]+", path)

    def down(value: Any, left: list[str], keys: tuple[str | int, ...]) -> Iterator[Spot]:
        if not left:
            yield Spot(keys)
        elif left[0] == "[]":
            for index, item in enumerate(value):
                yield from down(item, left[1:], (*keys, index))
        elif left[0] == "{}":
            for key, item in value.items():
                yield from down(item, left[1:], (*keys, key))
        elif isinstance(value, dict) and left[0] in value:
            yield from down(value[left[0]], left[1:], (*keys, left[0]))

    yield from down(manifest["spec"], steps, ())


@dataclass(frozen=True, slots=True)
class _Edge:
    """Makes the cases of one field from the places in the full manifests that have it."""

    kind: str
    path: str
    places: tuple[tuple[Manifest, Spot], ...]

    @property
    def sample(self) -> Any:
        """A valid value of the field."""
        manifest, spot = self.places[0]
        return spot.value(manifest)

    def __call__(self, limit: str, inside: list[Any], beyond: Any) -> LimitCase:
        manifest, spot = self.places[0]
        return LimitCase(
            self.kind,
            self.path,
            limit,
            tuple(spot.replaced(manifest, value) for manifest, spot in self.places for value in inside),
            spot.replaced(manifest, beyond),
            str(spot),
        )


def cases(kind: str, schema: Mapping[str, Any]) -> Iterator[LimitCase]:
    """The cases of every limit in a spec's schema."""
    for path, field, required in fields(kind, schema):
        places = [(manifest, spot) for manifest in FULL[kind] for spot in spots(manifest, path)]
        if not places:
            raise AssertionError(f"{kind}.{path}: add it to the full manifests")
        case = _Edge(kind, path, tuple(places))
        sample = case.sample
        if required:
            yield case("required", [], ...)
        if "enum" in field:
            yield case("enum", [], 7777 if field["type"] == "integer" else "NotOneOfThem")
        elif "x-kubernetes-int-or-string" in field:
            yield case("type", ["1"], True)
            yield case("pattern", ["250m", "1.5Gi", "1e3"], "lots")
            yield case("maxLength", ["1" * 32], "1" * 33)
        else:
            yield case("type", [], 5 if field["type"] in ("string", "object", "array") else "text")
        if field.get("type") == "string" and "enum" not in field:
            yield from _texts(case, field, sample)
        if field.get("type") in ("integer", "number") and "enum" not in field:
            yield from _numbers(case, field)
        if "maxItems" in field:
            yield from _lists(case, field, sample)
        if "maxProperties" in field:
            full = _entries(sample, field["maxProperties"])
            yield case("maxProperties", [full], _entries(sample, field["maxProperties"] + 1))


def _texts(case: _Edge, field: Mapping[str, Any], sample: str) -> Iterator[LimitCase]:
    pattern = field.get("pattern")
    if pattern and pattern not in UNBREAKABLE_PATTERNS:
        yield case("pattern", [], _odd(pattern, sample))
    if "minLength" in field:
        yield case("minLength", [], sample[: field["minLength"] - 1])
    longest = field["maxLength"]
    fitting = _long(pattern, sample, longest)
    # Where a pattern bounds the length below maxLength, the longest text that it takes is the edge.
    yield case("maxLength", [fitting] if fitting else [], _long(pattern, sample, longest + 1) or "a" * (longest + 1))


def _matches(pattern: str | None, text: str) -> bool:
    """As the API server would say. Python has no \\p{..}; letters and digits stand for these classes."""
    if pattern is None:
        return True
    plain = pattern.replace(r"\p{L}", "a-zA-Z").replace(r"\p{Z}", " ").replace(r"\p{N}", "0-9")
    return re.fullmatch(plain.removeprefix("^").removesuffix("$"), text) is not None


def _odd(pattern: str, sample: str) -> str:
    for odd in _ODD_TEXTS:
        for text in (sample + odd, odd + sample):
            if odd and not _matches(pattern, text):
                return text
    raise AssertionError(f"no text that {pattern} refuses")


def _long(pattern: str | None, sample: str, length: int) -> str | None:
    for filler in "a1":
        for position in range(len(sample), -1, -1):
            text = sample[:position] + filler * (length - len(sample)) + sample[position:]
            if len(text) == length and _matches(pattern, text):
                return text
    return None


def _numbers(case: _Edge, field: Mapping[str, Any]) -> Iterator[LimitCase]:
    if "minimum" in field:
        yield case("minimum", [field["minimum"]], field["minimum"] - 1)
    if "maximum" in field:
        yield case("maximum", [field["maximum"]], field["maximum"] + 1)


def _lists(case: _Edge, field: Mapping[str, Any], sample: list[Any]) -> Iterator[LimitCase]:
    if field.get("minItems"):
        yield case("minItems", [], [])
    most = field["maxItems"]
    yield case("maxItems", [_items(field, sample, most)], _items(field, sample, most + 1))
    if field["x-kubernetes-list-type"] in ("map", "set"):
        yield case("items", [], [sample[0], sample[0]])


def _items(field: Mapping[str, Any], sample: list[Any], count: int) -> list[Any]:
    """`count` items that differ in the key, if the list has one."""
    keys = field.get("x-kubernetes-list-map-keys")
    if field["x-kubernetes-list-type"] == "set":
        words = field["items"].get("enum") or [f"{sample[0]}{index}" for index in range(count)]
        return [words[index % len(words)] for index in range(count)]
    items = [deepcopy(sample[0]) for _ in range(count)]
    if keys:
        (key,) = keys
        words = field["items"]["properties"][key].get("enum") or [f"{sample[0][key]}{n}" for n in range(count)]
        for index, item in enumerate(items):
            item[key] = words[index % len(words)]
    return items


def _entries(sample: Mapping[str, Any], count: int) -> dict[str, Any]:
    value = next(iter(sample.values()))
    return {f"key{index}": value for index in range(count)}
