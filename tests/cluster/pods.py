"""The operator's pod, as the tests look for it, and namespaces in which they make pods of their own."""

import json
from typing import Any

from tests.operator.harness.kube import Kube, until

from demo.install import OPERATOR_NAMESPACE
from demo.steps import Stage

SELECTOR = "app.kubernetes.io/component=operator"
_ACCOUNT_SECONDS = 120.0


def operator_pods(stage: Stage) -> list[dict[str, Any]]:
    """The operator's pods; one, but for the moments of a replacement."""
    said = stage.surroundings.run_kubectl("-n", OPERATOR_NAMESPACE, "get", "pods", "-l", SELECTOR, "-o", "json")
    return list(json.loads(said)["items"])


def names(stage: Stage) -> list[str]:
    """Their names."""
    return [pod["metadata"]["name"] for pod in operator_pods(stage)]


def namespace_for_pods(kube: Kube, name: str) -> None:
    """Make a namespace, and wait until a pod may be made in it: a controller gives it the account that pods run as."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    until(
        lambda: kube.get("ServiceAccount", name, "default"),
        seconds=_ACCOUNT_SECONDS,
        what=lambda: f"namespace {name} has no service account",
    )
