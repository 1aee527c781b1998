"""The documents keep up with the code: every reason has its remedy, links lead somewhere, names exist, JSON parses."""

import ast
import json
import re
from pathlib import Path

import botocore.session
import pytest
from tests.chart import argocd_cm

from sluice.api import names
from sluice.api.reasons import CommandResult, ConditionType, Reason
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
    steady = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    explained = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert {reason.value for reason in Reason} == steady | explained
    assert steady & explained == set()


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
    for name in re.findall(rf"(?<![\w.]){re.escape(names.GROUP)}/[\w-]+", text):
        assert name in known, f"{path.relative_to(ROOT)}: {name}"
    for reason in re.findall(r"reason[= ]`?([A-Z]\w+)", text):
        assert reason in {*(r.value for r in Reason), *(r.value for r in CommandResult)}, f"{path}: {reason}"
    for condition in re.findall(r"`([A-Z]\w+)=(?:True|False|Unknown)", text):
        assert condition in {c.value for c in ConditionType}, f"{path}: {condition}"


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
