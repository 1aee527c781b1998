"""The operator's pod, as the tests look for it."""

import json
from typing import Any

from demo.install import OPERATOR_NAMESPACE
from demo.steps import Stage

SELECTOR = "app.kubernetes.io/component=operator"


def operator_pods(stage: Stage) -> list[dict[str, Any]]:
    """The operator's pods; one, but for the moments of a replacement."""
    said = stage.surroundings.run_kubectl("-n", OPERATOR_NAMESPACE, "get", "pods", "-l", SELECTOR, "-o", "json")
    return list(json.loads(said)["items"])


def names(stage: Stage) -> list[str]:
    """Their names."""
    return [pod["metadata"]["name"] for pod in operator_pods(stage)]
