"""Every example is accepted as it stands, and names only what is there."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from sluice.api.names import API_VERSION, BACKEND_CLUSTER
from sluice.core import guardrails
from sluice.core.cluster import findings, plans, replacing
from sluice.core.resolve import spec_counts

from .conftest import Admission

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# Objects of Kubernetes alone, which tests/local/test_prometheus_example.py applies.
SURROUNDINGS = {"prometheus"}
FILES = sorted(file for file in EXAMPLES.glob("*/*.yaml") if file.parent.name not in SURROUNDINGS)
DOCUMENTS = sorted((ROOT / "README.md", *ROOT.glob("docs/**/*.md")))
YAML_BLOCK = re.compile(r"^( *)```yaml\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# What images and models are built from; no manifests.
SOURCES = {"models"}
# Manifests that use objects of another directory say so in a comment.
BORROWS = {"policies": "quickstart", "cluster-policies": "cluster"}


def _documents(*files: Path) -> list[dict[str, Any]]:
    return [document for file in files for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))]


def _whole_manifests(text: str) -> list[dict[str, Any]]:
    """Those in a document's YAML that stand there as they would be applied."""
    blocks = (textwrap.dedent(block[2]) for block in YAML_BLOCK.finditer(text))
    read = [each for block in blocks for each in yaml.safe_load_all(block)]
    return [each for each in read if isinstance(each, dict) and each.get("apiVersion") == API_VERSION]


def test_every_directory_is_in_the_list_of_examples() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    directories = {file.parent.name for file in FILES} | SOURCES | SURROUNDINGS
    assert {name for name in directories if f"[{name}]({name})" not in listed} == set()
    assert directories == {path.name for path in EXAMPLES.iterdir() if path.is_dir()}


@pytest.mark.apiserver
@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_example_is_accepted(admission: Admission, file: Path) -> None:
    documents = _documents(file)
    assert documents
    for document in documents:
        assert document["apiVersion"] == API_VERSION
        assert admission.create(document) == (), document["metadata"]["name"]


@pytest.mark.apiserver
def test_manifests_in_documents_are_accepted(admission: Admission) -> None:
    found = [(file.name, each) for file in DOCUMENTS for each in _whole_manifests(file.read_text(encoding="utf-8"))]
    assert {each["kind"] for _, each in found} == {"Model", "EndpointConfig", "Endpoint"}
    for file, manifest in found:
        del manifest["metadata"]["namespace"]  # the stage has one of its own
        assert admission.create(manifest) == (), (file, manifest["metadata"]["name"])


@pytest.mark.parametrize("directory", sorted({file.parent for file in FILES}), ids=lambda directory: directory.name)
def test_references_of_an_example_exist(directory: Path) -> None:
    files = [*directory.glob("*.yaml"), *(EXAMPLES / BORROWS.get(directory.name, "none")).glob("*.yaml")]
    documents = _documents(*files)
    names = {(each["kind"], each["metadata"]["name"]) for each in documents}
    assert len(names) == len(documents), "two objects of one name"
    for each in documents:
        if each["kind"] == "Endpoint":
            assert ("EndpointConfig", each["spec"]["endpointConfigName"]) in names
        if each["kind"] == "EndpointConfig":
            variants = each["spec"]["productionVariants"] + each["spec"].get("shadowProductionVariants", [])
            assert {("Model", variant["modelName"]) for variant in variants} <= names


@pytest.mark.parametrize("directory", sorted({file.parent for file in FILES}), ids=lambda directory: directory.name)
def test_the_cluster_refuses_nothing_of_an_example(directory: Path) -> None:
    files = [*directory.glob("*.yaml"), *(EXAMPLES / BORROWS.get(directory.name, "none")).glob("*.yaml")]
    specs = {(each["kind"], each["metadata"]["name"]): each["spec"] for each in _documents(*files)}
    for (kind, _), endpoint in specs.items():
        if kind != "Endpoint" or endpoint["backend"] != BACKEND_CLUSTER:
            continue
        name, policy = endpoint["endpointConfigName"], endpoint.get("deploymentConfig")
        config = specs["EndpointConfig", name]
        models = {name: spec for (kind, name), spec in specs.items() if kind == "Model"}
        assert findings.check(name, config, models) is None
        assert guardrails.check(policy, spec_counts(config)) is None
        if plans.replaces(endpoint, policy):
            assert replacing.refused(spec_counts(config)) is None
