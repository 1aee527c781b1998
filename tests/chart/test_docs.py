"""The documents keep up with the code: every reason has its remedy, links lead somewhere, names exist, JSON parses."""

import ast
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import botocore.session
import pytest
import yaml
from tests.chart import argocd_cm, helm

from sluice.api import names
from sluice.api.deployment import DeploymentConfig
from sluice.api.endpoint import EndpointKubernetes, EndpointSpec
from sluice.api.model import ModelKubernetes
from sluice.api.reasons import Cause, CommandResult, ConditionType, Outcome, Reason
from sluice.api.status import EndpointStatusWord
from sluice.core.cluster import names as cluster_names
from sluice.router.bootstrap import BootstrapSettings, bootstrap

ROOT = Path(__file__).parents[2]
OURS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
    if not path.is_relative_to(ROOT / "docs" / "reference")
)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def _headings(text: str) -> set[str]:
    return {_anchor(line.lstrip("#")) for line in FENCE.sub("", text).splitlines() if line.startswith("#")}


def test_troubleshooting_has_every_reason_and_no_other() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    steady = _first_cells(_section(text, "Nothing is wrong"))
    explained = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert {reason.value for reason in Reason} == steady | explained
    assert steady & explained == set()


def _section(text: str, heading: str) -> str:
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def _first_cells(table: str) -> set[str]:
    """The words in backticks of a table's first column."""
    return {word for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for word in re.findall(r"`(\w+)`", cell)}


def _events() -> set[str]:
    """The reasons of the operator's Events: those that `core.endpoint.draft` composes, and those that are written out.
    A Stalled condition's reason is one as well."""
    composed = {f"Deployment{outcome}" for outcome in Outcome}
    composed |= {f"Endpoint{word}" for word in (*get_args(EndpointStatusWord), "Gone")}
    composed |= {f"Command{result}" for result in CommandResult}
    written = {
        call.args[1].value
        for path in (ROOT / "operator" / "sluice").rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "EventNote"
        if isinstance(call.args[1], ast.Constant)
    }
    assert len(written) > 3
    return composed | {str(reason) for reason in written}


def test_troubleshooting_has_every_event_and_no_other() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    assert _first_cells(_section(text, "Events")) == _events()


def test_troubleshooting_has_every_alert_and_no_other() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    rules = (helm.CHARTS / "sluice" / "templates" / "prometheusrule.yaml").read_text()
    alerts = set(re.findall(r"- alert: (\w+)", rules))
    assert len(alerts) > 5
    assert _first_cells(_section(text, "Alerts of the chart")) == alerts


def test_every_cause_of_a_rollback_is_explained() -> None:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("deployments.md", "troubleshooting.md"))
    assert [cause.value for cause in Cause if cause is not Cause.NONE and f"`{cause.value}`" not in text] == []


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = FENCE.sub("", path.read_text())
    for target, anchor in LINK.findall(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), f"{path.relative_to(ROOT)}: no {target}"
        if anchor and found.suffix == ".md":
            assert anchor[1:] in _headings(found.read_text()), f"{path.relative_to(ROOT)}: no {target}{anchor}"


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_annotations_and_conditions_exist(path: Path) -> None:
    text = path.read_text()
    words = (*vars(names).values(), *vars(cluster_names).values())
    known = {value for value in words if isinstance(value, str) and value.startswith(names.GROUP)}
    known |= {f"{names.GROUP}/managed-by", f"{names.API_VERSION}"}
    known |= {f"{names.GROUP}/{names.ENDPOINT}"}  # group and kind, as Argo CD has them
    for name in re.findall(rf"(?<![\w.]){re.escape(names.GROUP)}/[\w-]+", text):
        taken_away = name.removesuffix("-")  # as kubectl annotate has it
        assert taken_away in known, f"{path.relative_to(ROOT)}: {name}"
    for reason in re.findall(r"reason[= ]`?([A-Z]\w+)", text):
        assert reason in {*(r.value for r in Reason), *(r.value for r in CommandResult), *_events()}, (
            f"{path}: {reason}"
        )
    for condition in re.findall(r"`([A-Z]\w+)=(?:True|False|Unknown)", text):
        assert condition in {c.value for c in ConditionType}, f"{path}: {condition}"


def _fields(part: int) -> set[str]:
    """Every path that docs/reference has of the three kinds, without [] for lists: part 0 of the specs, 1 of the
    statuses."""
    found: set[str] = set()
    for kind in ("endpoint", "endpointconfig", "model"):
        text = (ROOT / "docs" / "reference" / f"{kind}.md").read_text()
        found |= set(re.findall(r"^\| `([\w.\[\]]+)` \|", text.split("\n## status\n")[part], re.MULTILINE))
    return {path.replace("[]", "") for path in found}


def _values(schema: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Every path of the chart's values."""
    for name, child in schema.get("properties", {}).items():
        yield f"{before}{name}"
        yield from _values(child, f"{before}{name}.")


SCHEMA = json.loads((helm.CHARTS / "sluice" / "values.schema.json").read_text())


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_fields_and_chart_values_that_are_named_exist(path: Path) -> None:
    text, spec, status, values = path.read_text(), _fields(0), _fields(1), set(_values(SCHEMA))
    for name in re.findall(r"\bstatus\.([a-z][\w.]*\w)", text):
        assert name in status, f"{path.relative_to(ROOT)}: status.{name}"
    for name in re.findall(r"\b(kubernetes\.(?!io\b)[a-z][\w.]*\w)", text):
        assert any(f".{known}".endswith(f".{name}") for known in spec), f"{path.relative_to(ROOT)}: {name}"
    tops = {value.partition(".")[0] for value in values}
    for name in re.findall(r"`(?:--set )?([a-zA-Z]+(?:\.[a-zA-Z]+)+)(?:[=:][^`]*)?`", text):
        if name.partition(".")[0] in tops:
            assert name in values | spec, f"{path.relative_to(ROOT)}: {name}"


def _unknown(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What a values file names that the chart does not have."""
    if isinstance(value, list):
        for item in value:
            yield from _unknown(item, schema.get("items") or {}, f"{path}[]")
    elif isinstance(value, dict) and "properties" in schema:
        for key, item in value.items():
            if key in schema["properties"]:
                yield from _unknown(item, schema["properties"][key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"


def _is_part_of_a_kind(part: Mapping[str, Any]) -> bool:
    """Whether it is what may stand in a manifest: all of a spec, or one field of it. Raises ValidationError."""
    if "spec" in part:
        EndpointSpec.model_validate({"backend": "SageMaker", "endpointConfigName": "churn", **part["spec"]})
    elif "deploymentConfig" in part:
        policy = {
            "blueGreenUpdatePolicy": {
                "trafficRoutingConfiguration": {"type": "ALL_AT_ONCE", "waitIntervalInSeconds": 0}
            }
        }
        DeploymentConfig.model_validate({**policy, **part["deploymentConfig"]})
    elif "kubernetes" in part:
        of_an_endpoint = set(part["kubernetes"]) <= {field.alias for field in EndpointKubernetes.model_fields.values()}
        (EndpointKubernetes if of_an_endpoint else ModelKubernetes).model_validate(part["kubernetes"])
    else:
        return False
    return True


def test_parts_of_manifests_and_of_values_have_no_other_fields() -> None:
    """Whole manifests meet the API server (test_apiserver.py)."""
    parts = 0
    for path in OURS:
        for indent, block in re.findall(r"^( *)```yaml\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL):
            for part in yaml.safe_load_all(textwrap.dedent(indent + block.removeprefix(indent))):
                if "apiVersion" in part or "scrape_configs" in part:
                    continue
                if _is_part_of_a_kind(part):
                    parts += 1
                elif "productionVariants" not in part:
                    assert list(_unknown(part, SCHEMA)) == [], path.relative_to(ROOT)
    assert parts > 8


def test_the_iam_policies_parse_and_the_operators_names_every_call() -> None:
    text = (ROOT / "docs" / "aws-iam.md").read_text()
    policies = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    allowed = {
        action
        for statement in policies[0]["Statement"]
        for action in statement["Action"]
        if statement["Effect"] == "Allow"
    }
    assert not [action for action in allowed if "*" in action]
    # PassRole is checked by SageMaker at creation; GetCallerIdentity needs no permission.
    assert allowed - {"iam:PassRole"} == (_calls() | {"sts:AssumeRole"}) - {"sts:GetCallerIdentity"}


def _calls() -> set[str]:
    """Every operation of AWS that the rooms which call AWS name, as IAM actions."""
    session = botocore.session.get_session()
    actions = {
        operation: f"{service}:{operation}"
        for service in ("sagemaker", "sts", "cloudwatch", "application-autoscaling")
        for operation in session.get_service_model(service).operation_names
    }
    named = {
        node.value
        for room in ("sagemaker", "alarms")
        for path in (ROOT / "operator" / "sluice" / room).glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {actions[word] for word in named & set(actions)}


def test_argocd_cm_is_made_from_the_files_beside_it() -> None:
    assert argocd_cm.TARGET.read_text() == argocd_cm.render()


def test_argocd_scripts_use_what_argo_cd_has() -> None:
    """Argo CD's Lua has no goto and loads no standard library; reasons that the scripts name must exist."""
    scripts = {**argocd_cm.health_scripts(), **argocd_cm.action_scripts()}
    assert set(argocd_cm.health_scripts()) == {names.MODEL, names.ENDPOINT_CONFIG, names.ENDPOINT}
    for name, text in scripts.items():
        code = re.sub(r"--.*", "", text)
        assert not re.search(r"\b(goto|require|os|io|string|table|math)\b[.(\s]", code), name
        for reason in re.findall(r'reason == "(\w+)"', code):
            assert reason in {r.value for r in Reason}, f"{name}: {reason}"
        for annotation in re.findall(r'"(sluice\.dev/[\w-]+)"', code):
            assert annotation in vars(names).values(), f"{name}: {annotation}"


def test_routers_let_out_the_metrics_that_documents_name() -> None:
    text = (ROOT / "docs" / "howto" / "watch-the-router.md").read_text()
    stats = bootstrap(BootstrapSettings(directory=Path("/run")))["stats_config"]
    let_out = [each["safe_regex"]["regex"] for each in stats["stats_matcher"]["inclusion_list"]["patterns"]]
    named = set(re.findall(r"\benvoy_(cluster_(?!external_)\w+|server_\w+)", text))
    assert len(named) > 10
    for name in named:
        assert any(re.fullmatch(pattern, _as_envoy_has_it(name)) for pattern in let_out), name
    labels = set(re.findall(r"\bsluice_(?:endpoint|variant|revision|fleet|container)\b", text))
    assert labels == {tag["tag_name"] for tag in stats["stats_tags"] if tag["tag_name"].startswith("sluice_")}


def _as_envoy_has_it(name: str) -> str:
    """A metric's name before Envoy writes it for Prometheus: with dots, and the class of an answer at its end."""
    name = re.sub(r"^cluster_manager_cds_", "cluster_manager.cds.", name)
    name = re.sub(r"^cluster_(?!manager\.)", "cluster.fleet.", name)
    name = re.sub(r"^server_", "server.", name.removesuffix("_bucket"))
    name = re.sub(r"\.(outlier_detection|health_check)_", r".\1.", name)
    return f"{name}_2xx" if name.endswith(".upstream_rq") else name


def test_nothing_names_a_machine() -> None:
    words = re.compile(r"/(root|work|tmp|home)/")
    for path in (*OURS, *ROOT.glob("charts/**/*.*"), *ROOT.glob("docs/argocd/**/*.*")):
        if path.is_file():
            assert words.search(re.sub(r"mountPath: /tmp", "", path.read_text())) is None, path
