"""Renders the charts as `helm install` would, for the tests of this folder.

`PYTHONPATH=operator:local:. python -m tests.chart.helm` writes the golden files anew; look at the difference before you
commit it."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from localcluster import tools

HERE = Path(__file__).parent
CHARTS = HERE.parents[1] / "charts"
NAMESPACE = "sluice-system"

GOLDEN = {
    "default": ("sluice", "sluice", None),
    "namespaced": ("sluice", "sluice", "namespaced.yaml"),
    "secret": ("sluice", "sluice", "secret.yaml"),
    "all-on": ("sluice", "sluice", "all-on.yaml"),
    "simulator": ("sagemaker-simulator", "sagemaker-simulator", None),
}
"""Golden file -> chart, release, values file."""

Object = dict[str, Any]


class RefusedError(Exception):
    """helm refused to render; the message is helm's."""


def template(chart: str, release: str, values: Mapping[str, Any] | None = None) -> str:
    """The manifests of a release in NAMESPACE. Raises RefusedError."""
    helm = tools.build(["helm"])["helm"]
    with TemporaryDirectory() as directory:
        file = Path(directory) / "values.yaml"
        file.write_text(yaml.safe_dump(dict(values or {})))
        argv: list[str | Path] = [helm, "template", release, CHARTS / chart, "--namespace", NAMESPACE, "--values", file]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=240)  # noqa: S603  our own helm
    if done.returncode != 0:
        raise RefusedError(done.stderr)
    return done.stdout


def lint(chart: str) -> None:
    """helm lint. Raises RefusedError."""
    argv: list[str | Path] = [tools.build(["helm"])["helm"], "lint", "--strict", "--quiet", CHARTS / chart]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=240)  # noqa: S603  our own helm
    if done.returncode != 0:
        raise RefusedError(done.stdout + done.stderr)


def objects(chart: str = "sluice", release: str = "sluice", values: Mapping[str, Any] | None = None) -> list[Object]:
    """The rendered objects."""
    return [item for item in yaml.safe_load_all(template(chart, release, values)) if item]


def case(name: str) -> dict[str, Any]:
    """The values of a golden case."""
    file = GOLDEN[name][2]
    return dict(yaml.safe_load((HERE / "values" / file).read_text())) if file else {}


def golden(name: str) -> str:
    """A golden case, rendered now."""
    chart, release, _ = GOLDEN[name]
    return template(chart, release, case(name))


def only(found: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of this kind (and name)."""
    hits = [item for item in found if item["kind"] == kind and name in (None, item["metadata"]["name"])]
    if len(hits) != 1:
        raise LookupError(f"found {len(hits)} objects of kind {kind} and name {name}, expected one")
    return hits[0]


def environment(found: list[Object]) -> dict[str, str]:
    """The plain environment variables of the operator's container."""
    container = only(found, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return {item["name"]: item["value"] for item in container["env"] if "value" in item}


if __name__ == "__main__":
    for golden_name in GOLDEN:
        (HERE / "golden" / f"{golden_name}.yaml").write_text(golden(golden_name))
