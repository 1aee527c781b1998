"""A fleet's record: what its first ready pod ran, as the ConfigMap that the loaders of later pods read.

It is written once and never changed. The loader finds the whole record under one key, mounted as a file."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sluice.cluster.labels import endpoint_labels
from sluice.core.cluster.names import ANNOTATION_OWNER, LABEL_FLEET, record_name
from sluice.core.cluster.observation import FleetRecord, ImageSeen
from sluice.core.identity import Owner

RECORD_KEY: Final = "record.json"
FORMAT_VERSION: Final = 1


def config_map(owner: Owner, fleet: str, record: FleetRecord) -> dict[str, Any]:
    """The ConfigMap to create."""
    content = {
        "formatVersion": FORMAT_VERSION,
        "images": [{"specified": image.specified, "resolved": image.resolved} for image in record.images],
        "versions": {name: _structure(text) for name, text in sorted(record.versions.items())},
        "at": record.at.isoformat() if record.at else None,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": record_name(fleet),
            "namespace": owner.namespace,
            "labels": {**endpoint_labels(owner.name), LABEL_FLEET: fleet},
            "annotations": {ANNOTATION_OWNER: str(owner)},
        },
        "immutable": True,
        "data": {RECORD_KEY: json.dumps(content, sort_keys=True)},
    }


def read(item: Mapping[str, Any]) -> FleetRecord | None:
    """The record in a ConfigMap; None if it holds none that this version understands."""
    try:
        content = json.loads((item.get("data") or {})[RECORD_KEY])
        return FleetRecord(
            images=tuple(ImageSeen(str(image["specified"]), str(image["resolved"])) for image in content["images"]),
            versions={str(name): version_text(version) for name, version in content["versions"].items()},
            at=datetime.fromisoformat(content["at"]) if content.get("at") else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def version_text(version: Any) -> str:
    """A version as text that is equal where the version is."""
    return version if isinstance(version, str) else json.dumps(version, sort_keys=True, separators=(",", ":"))


def _structure(text: str) -> Any:
    """The version as the loader told it."""
    try:
        return json.loads(text)
    except ValueError:
        return text
