"""Writes the reference documentation of the API from its schemas: fields, limits, rules, status."""

from collections.abc import Iterator, Mapping
from typing import Any

from sluice.api.base import VALIDATIONS
from sluice.api.crds import INTERNAL_KINDS, KINDS, Kind, object_schema
from sluice.api.names import API_VERSION, BACKEND_CLUSTER, BACKEND_SAGEMAKER, CATEGORY, GROUP
from sluice.api.schema import Node, walk
from sluice.core.classification import classify

HEADER = "<!-- Generated from operator/sluice/api by `python -m sluice.cli.crds`. Do not edit. -->\n"

_ON_CHANGE = """\
The last two columns say what a change of the field means for an Endpoint that is in service, on each backend:
*fleet* is a deployment under `deploymentConfig`; *live* is a change of the serving fleet without a deployment;
*metadata* never deploys; *ignored* is a field that the backend cannot honour (condition `FieldsIgnored`).
"""


def index_page() -> str:
    """docs/reference/README.md: the kinds and how they are called."""
    lines = [
        HEADER,
        "# API reference\n",
        f"`{API_VERSION}`. Field names are SageMaker's with a lower-case first letter, with the same nesting and "
        "limits; what SageMaker has no word for stands under `kubernetes`.\n",
        "| Kind | Resource | Short name | What it is |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| [{kind.name}]({kind.name.lower()}.md) | `{kind.crd_name}` | `{kind.short_name}` | {kind.description} |"
        for kind in KINDS
    ]
    lines += [
        f"\n`kubectl get {CATEGORY}` lists all of them. Plain `endpoints` is also a kind of Kubernetes itself: write "
        f"`endpoints.{GROUP}` or `sep`.\n",
        "## Internal kinds\n",
        "The operator and the routers of backend Cluster talk through these. People do not write them, and their "
        "fields may change with any version; reading them helps to see which router has applied what.\n",
        "| Kind | Resource | What it is |",
        "|---|---|---|",
    ]
    lines += [f"| {kind.name} | `{kind.crd_name}` | {kind.description} |" for kind in INTERNAL_KINDS]
    lines.append("")
    return "\n".join(lines)


def kind_page(kind: Kind) -> str:
    """The page of one kind."""
    schema = object_schema(kind)
    spec, status = schema["properties"]["spec"], schema["properties"]["status"]
    sagemaker, cluster = (classify(kind.name, backend) for backend in (BACKEND_SAGEMAKER, BACKEND_CLUSTER))
    lines = [
        HEADER,
        f"# {kind.name}\n",
        f"{kind.description}\n",
        f"`{API_VERSION}`, resource `{kind.crd_name}`, short name `{kind.short_name}`, category `{CATEGORY}`.\n",
        "## spec\n",
        f"{spec['description']}\n",
        _ON_CHANGE,
        "| Field | Type | What it is | SageMaker | Cluster |",
        "|---|---|---|---|---|",
    ]
    for node in walk(spec):
        required = ", required" if node.required else ""
        meaning = f"{sagemaker[node.path]} | {cluster[node.path]}" if node.is_leaf else " | "
        lines.append(f"| `{node.path}` | {_type(node)}{required} | {_text(node.schema)} | {meaning} |")
    lines += [
        "\n## Rules\n",
        "Beyond types and limits, the API server refuses an object that breaks one of these.\n",
        "| Where | Rule |",
        "|---|---|",
    ]
    lines += [
        f"| {f'`{path}`' if path else 'the whole object'} | {_escape(message)} |" for path, message in _rules(schema)
    ]
    lines += [
        "\n## Columns of `kubectl get`\n",
        "| Column | Source | What it shows |",
        "|---|---|---|",
    ]
    for column in kind.columns:
        wide = " With `-o wide`." if column.priority else ""
        lines.append(f"| {column.name} | `{_escape(column.json_path)}` | {column.description}{wide} |")
    lines += [
        "\n## status\n",
        f"{status['description']}\n",
        "| Field | Type | What it is |",
        "|---|---|---|",
    ]
    lines += [f"| `{node.path}` | {_type(node)} | {_text(node.schema)} |" for node in walk(status)]
    return "\n".join(lines) + "\n"


def _rules(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for rule in schema.get(VALIDATIONS, ()):
        yield path, rule["message"]
    for name, child in schema.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}" if path else name)
    if "items" in schema:
        yield from _rules(schema["items"], f"{path}[]")


def _type(node: Node) -> str:
    schema = node.schema
    if "items" in schema:
        bounds = _bounds(schema, "minItems", "maxItems", "items")
        return f"list of {_scalar(schema['items'])}{bounds}"
    if "additionalProperties" in schema:
        bounds = _bounds(schema, "minProperties", "maxProperties", "entries")
        return f"map of {_scalar(schema['additionalProperties'])}{bounds}"
    return _scalar(schema)


def _scalar(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(f"`{value}`" for value in schema["enum"])
    if "properties" in schema:
        return "object"
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    name = "time" if schema.get("format") == "date-time" else schema["type"]
    text = name + _bounds(schema, "minimum", "maximum", "") + _bounds(schema, "minLength", "maxLength", "characters")
    return text + (f", `{_escape(schema['pattern'])}`" if "pattern" in schema else "")


def _bounds(schema: Mapping[str, Any], lowest: str, highest: str, unit: str) -> str:
    low, high, unit = schema.get(lowest), schema.get(highest), f" {unit}" if unit else ""
    match low, high:
        case None, None:
            return ""
        case None, _:
            return f", at most {high}{unit}"
        case _, None:
            return f", at least {low}{unit}"
        case _:
            return f", {low} to {high}{unit}"


def _text(schema: Mapping[str, Any]) -> str:
    return _escape(schema.get("description", ""))


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
