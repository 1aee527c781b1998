"""A fleet's record: what its first ready pod ran, as the ConfigMap that the loaders of later pods read.

It is written once and never changed. The loader finds the versions of the model data under one key, mounted as a file:
source name -> JSON of the version, as the first loader told it."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sluice.cluster.labels import endpoint_labels
from sluice.core.cluster.names import ANNOTATION_OWNER, LABEL_FLEET, record_name
from sluice.core.cluster.observation import FleetRecord, ImageSeen
from sluice.core.identity import Owner

RECORD_KEY: Final = "versions.json"
_IMAGES_KEY: Final = "images.json"
_TIME_KEY: Final = "recordedAt"
_IDENTIFYING: Final = ("eTag", "versionId", "digest")
"""Fields of a version that say which content it is; a file that has none of them is known by its times."""


def config_map(owner: Owner, fleet: str, record: FleetRecord) -> dict[str, Any]:
    """The ConfigMap to create."""
    images = [{"specified": image.specified, "resolved": image.resolved} for image in record.images]
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
        "data": {
            RECORD_KEY: json.dumps(dict(record.versions), sort_keys=True),
            _IMAGES_KEY: json.dumps(images),
            _TIME_KEY: record.at.isoformat() if record.at else "",
        },
    }


def read(item: Mapping[str, Any]) -> FleetRecord | None:
    """The record in a ConfigMap; None if it holds none that this version understands."""
    data = item.get("data") or {}
    try:
        return FleetRecord(
            images=tuple(
                ImageSeen(str(image["specified"]), str(image["resolved"])) for image in json.loads(data[_IMAGES_KEY])
            ),
            versions={str(name): version_text(version) for name, version in json.loads(data[RECORD_KEY]).items()},
            at=datetime.fromisoformat(data[_TIME_KEY]) if data.get(_TIME_KEY) else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None


def version_text(version: Any) -> str:
    """A version as text, the same for the same fields."""
    return version if isinstance(version, str) else json.dumps(version, sort_keys=True, separators=(",", ":"))


def same_version(one: str, other: str) -> bool:
    """Whether two versions are the same content, judged by what both tell: the same bytes may have been put there
    again, at another time."""
    first, second = _fields(one), _fields(other)
    if first is None or second is None:
        return one == other
    shared = [field for field in _IDENTIFYING if field in first and field in second]
    return all(first[field] == second[field] for field in shared) if shared else first == second


def _fields(version: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(version)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, Mapping) else None
