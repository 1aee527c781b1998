"""What every generated CRD must be, before an API server sees it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from sluice.api.base import VALIDATIONS, ApiModel, ListAtomic, Rule, field_name
from sluice.api.crds import KINDS, Kind, crd, object_schema
from sluice.api.schema import NotStructuralError, spec_schema, walk
from sluice.cli.crds import CHART_TEMPLATES, CRDS, differences, generated, main, write

ROOT = Path(__file__).parents[2]
LAST_APPLIED_LIMIT_BYTES = 262144
"""`kubectl apply` stores the object in an annotation, and annotations have 256 KiB together."""

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def _nodes(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from _nodes(schema["additionalProperties"], f"{path}{{}}")


@by_kind
def test_no_field_has_a_default(kind: Kind) -> None:
    """A default would be written into stored objects, and change hashes when it changes."""
    assert [path for path, node in _nodes(object_schema(kind)) if "default" in node] == []


@by_kind
def test_everything_in_a_spec_is_bounded(kind: Kind) -> None:
    """Unbounded strings, lists and maps make CEL rules too expensive to be accepted."""
    unbounded = [
        path
        for path, node in _nodes(spec_schema(kind.spec))
        if (node.get("type") == "string" and "maxLength" not in node and "enum" not in node)
        or (node.get("type") == "array" and "maxItems" not in node)
        or ("additionalProperties" in node and "maxProperties" not in node)
    ]
    assert unbounded == []


@by_kind
def test_every_list_says_how_it_merges(kind: Kind) -> None:
    lists = [(path, node) for path, node in _nodes(object_schema(kind)) if node.get("type") == "array"]
    assert [path for path, node in lists if "x-kubernetes-list-type" not in node] == []
    for path, node in lists:
        if node["x-kubernetes-list-type"] == "map":
            assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"]), path


@by_kind
def test_every_field_of_a_spec_is_described_once_and_well(kind: Kind) -> None:
    for node in walk(spec_schema(kind.spec)):
        text = node.schema.get("description", "")
        assert text.endswith("."), node.path
        assert "\n" not in text, node.path


@by_kind
def test_every_node_is_structural(kind: Kind) -> None:
    forbidden = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "title", "default", "uniqueItems"}
    for path, node in _nodes(object_schema(kind)):
        assert not forbidden & set(node), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert not isinstance(node.get("additionalProperties"), bool), path


@by_kind
def test_a_status_states_no_limit_that_a_newer_operator_could_break(kind: Kind) -> None:
    """Operators are upgraded before CRDs at times; their status must still be accepted."""
    limits = {"enum", "pattern", "maxLength", "minLength", "maxItems", "minItems", "minimum", "maximum", VALIDATIONS}
    for path, node in _nodes(object_schema(kind)["properties"]["status"]):
        assert not limits & set(node), path
        assert "required" not in node or path == "conditions[]", path


@by_kind
def test_conditions_merge_by_type(kind: Kind) -> None:
    conditions = object_schema(kind)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@by_kind
def test_messages_of_rules_are_whole_without_their_expression(kind: Kind) -> None:
    """Old API servers and failed expressions fall back to the message; it must name a field."""
    for path, node in _nodes(object_schema(kind)):
        for rule in node.get(VALIDATIONS, ()):
            assert len(rule["message"]) > 30, (path, rule)
            assert "+ string(" not in rule.get("messageExpression", ""), (path, "the cost estimator refuses it")


@by_kind
def test_kubectl_apply_takes_the_crd(kind: Kind) -> None:
    assert len(json.dumps(crd(kind))) < LAST_APPLIED_LIMIT_BYTES / 2


def test_names_do_not_collide() -> None:
    words = [word for kind in KINDS for word in (kind.plural, kind.name.lower(), kind.short_name)]
    assert len(set(words)) == len(words)
    assert [kind.short_name for kind in KINDS] == ["smodel", "sepc", "sep"]
    assert {crd(kind)["spec"]["names"]["categories"][0] for kind in KINDS} == {"sluice"}


def test_columns_of_an_endpoint() -> None:
    (endpoint,) = (kind for kind in KINDS if kind.name == "Endpoint")
    assert [column.name for column in endpoint.columns if not column.priority] == [
        "STATUS",
        "READY",
        "CONFIG",
        "STAGE",
        "STEP",
        "TRAFFIC",
        "ALARMS",
        "AGE",
    ]
    assert [column.name for column in endpoint.columns if column.priority] == ["BACKEND", "REVISION", "MESSAGE"]


@by_kind
def test_columns_show_fields_that_exist(kind: Kind) -> None:
    paths = {path.replace("[]", "") for path, _ in _nodes(object_schema(kind))}
    for column in kind.columns:
        assert "[*]" not in column.json_path, "an API server prints the first match alone"
        source = column.json_path.removeprefix(".").replace("[0]", "")
        source = source.partition("[?")[0] + source.partition(")]")[2]
        assert source in paths or source.startswith("metadata."), column


@pytest.mark.parametrize(
    ("attribute", "name"),
    [("s3_output_path", "s3OutputPath"), ("e_tag", "eTag"), ("tags", "tags"), ("prefix_length", "prefixLength")],
)
def test_field_names(attribute: str, name: str) -> None:
    assert field_name(attribute) == name


class _Recursive(ApiModel):
    again: "_Recursive | None" = None


class _Choice(ApiModel):
    value: list[int] | str


class _Small(ApiModel):
    """A small type."""

    rules = (Rule("self.size > 0", "size must be greater than zero"),)

    size: Annotated[int | None, Field(ge=1)] = None
    """How large."""
    kind: Literal["A", "B"]
    """Which."""


class _Outer(ApiModel):
    """A type that has it."""

    items: Annotated[tuple[_Small, ...], ListAtomic(), Field(max_length=2)]
    """Small ones."""


def test_references_are_inlined_with_their_rules_and_optional_means_absent() -> None:
    assert spec_schema(_Outer) == {
        "type": "object",
        "description": "A type that has it.",
        "required": ["items"],
        "properties": {
            "items": {
                "type": "array",
                "description": "Small ones.",
                "maxItems": 2,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "description": "A small type.",
                    "required": ["kind"],
                    "properties": {
                        "size": {"type": "integer", "minimum": 1, "description": "How large."},
                        "kind": {"type": "string", "enum": ["A", "B"], "description": "Which."},
                    },
                    VALIDATIONS: [{"rule": "self.size > 0", "message": "size must be greater than zero"}],
                },
            }
        },
    }


@pytest.mark.parametrize("model", [_Recursive, _Choice])
def test_what_has_no_structural_form_is_refused(model: type[ApiModel]) -> None:
    with pytest.raises(NotStructuralError):
        spec_schema(model)


def test_generated_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """As CI runs it: `python -m sluice.cli.crds --check` in the checkout."""
    assert (main(["--check", "--root", str(ROOT)]), capsys.readouterr().err) == (0, "")


def test_the_check_names_what_is_stale_missing_and_left_over(tmp_path: Path) -> None:
    write(tmp_path)
    assert differences(tmp_path) == []
    assert write(tmp_path) == []
    stale, missing = CRDS / "models.sluice.dev.yaml", CHART_TEMPLATES / "endpoints.sluice.dev.yaml"
    (tmp_path / stale).write_text("# Generated from nothing\n")
    (tmp_path / missing).unlink()
    (tmp_path / CRDS / "old.yaml").write_text("# Generated from an older version\n")
    assert differences(tmp_path) == [
        f"{stale} is stale",
        f"{missing} is missing",
        f"{CRDS}/old.yaml is generated no more",
    ]
    assert main(["--check", "--root", str(tmp_path)]) == 1


def test_the_chart_ships_the_same_definitions_and_helm_leaves_them_alone() -> None:
    files = generated()
    for kind in KINDS:
        text = files[CRDS / f"{kind.crd_name}.yaml"]
        assert files[CHART_TEMPLATES / f"{kind.crd_name}.yaml"] == text
        assert "{{" not in text
        assert yaml.safe_load(text) == crd(kind)
