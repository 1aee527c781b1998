"""What examples/quickstart declares: the demo edits those objects, so it asks them for their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from demo.surroundings import CHECKOUT, DemoError

QUICKSTART = CHECKOUT / "examples" / "quickstart"


@dataclass(frozen=True, slots=True)
class Example:
    """One Endpoint with its EndpointConfig and the Model whose image the demo edits."""

    directory: Path
    endpoint: str
    endpoint_name: str
    """Its name in SageMaker."""
    config: str
    model: str
    image: str
    alarms: tuple[str, ...]
    region: str | None

    def next_image(self, tag: str) -> str:
        """The Model's image with another tag."""
        return f"{self.image.partition('@')[0].rsplit(':', 1)[0]}:{tag}"


def read_example(directory: Path = QUICKSTART) -> Example:
    """Read the manifests. Raises DemoError if they are not what the demo can tell its story with."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(directory.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document and str(document.get("apiVersion", "")).startswith("sluice.dev/"):
                found.setdefault(document["kind"], document)
    missing = [kind for kind in ("Model", "EndpointConfig", "Endpoint") if kind not in found]
    if missing:
        raise DemoError(f"{directory}: no {', '.join(missing)} in its *.yaml; the demo needs one of each")
    endpoint, spec = found["Endpoint"], found["Endpoint"]["spec"]
    rollback = (spec.get("deploymentConfig") or {}).get("autoRollbackConfiguration") or {}
    alarms = tuple(alarm["alarmName"] for alarm in rollback.get("alarms") or ())
    container = found["Model"]["spec"].get("primaryContainer")
    if not alarms or container is None:
        raise DemoError(
            f"{directory}: the demo needs deploymentConfig.autoRollbackConfiguration.alarms in the Endpoint "
            f"(found {list(alarms)}) and a primaryContainer in the Model"
        )
    name = endpoint["metadata"]["name"]
    return Example(
        directory=directory,
        endpoint=name,
        endpoint_name=spec.get("endpointName", name),
        config=spec["endpointConfigName"],
        model=found["Model"]["metadata"]["name"],
        image=container["image"],
        alarms=alarms,
        region=(spec.get("sagemaker") or {}).get("region"),
    )
