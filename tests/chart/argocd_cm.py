"""Builds docs/argocd/argocd-cm.yaml from the Lua files beside it: `python -m tests.chart.argocd_cm` writes it anew."""

from pathlib import Path
from typing import Any

import yaml

ARGOCD = Path(__file__).parents[2] / "docs" / "argocd"
TARGET = ARGOCD / "argocd-cm.yaml"
HEADER = """\
# What Argo CD needs to know of Sluice's kinds. Merge it into the ConfigMap of your Argo CD, for example
#   kubectl -n argocd patch configmap argocd-cm --type merge --patch-file docs/argocd/argocd-cm.yaml
# Made from the Lua files beside it by `python -m tests.chart.argocd_cm`; a test compares them.
"""


class _Text(str):
    """A string that YAML shows as a block."""


def _block(dumper: yaml.SafeDumper, text: _Text) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Text, _block)


def _dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120)


def health_scripts() -> dict[str, str]:
    """Kind -> health.lua."""
    return {path.parent.name: path.read_text() for path in sorted(ARGOCD.glob("*/health.lua"))}


def action_scripts() -> dict[str, str]:
    """Action of an Endpoint -> action.lua."""
    return {path.parent.name: path.read_text() for path in sorted(ARGOCD.glob("Endpoint/actions/*/action.lua"))}


def render() -> str:
    """The file's text."""
    data: dict[str, Any] = {
        f"resource.customizations.health.sluice.dev_{kind}": _Text(text) for kind, text in health_scripts().items()
    }
    actions = {
        "discovery.lua": _Text((ARGOCD / "Endpoint/actions/discovery.lua").read_text()),
        "definitions": [{"name": name, "action.lua": _Text(text)} for name, text in action_scripts().items()],
    }
    data["resource.customizations.actions.sluice.dev_Endpoint"] = _Text(_dump(actions))
    return HEADER + _dump(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "argocd-cm", "namespace": "argocd"},
            "data": data,
        }
    )


if __name__ == "__main__":
    TARGET.write_text(render())
