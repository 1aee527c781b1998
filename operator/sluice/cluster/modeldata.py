"""The model data of a fleet's pods: where it comes from, and how the loader is told. Pure.

One volume holds all of it. The loader fills a directory for each source, and each container sees its own directories
where SageMaker puts them, read-only: /opt/ml/model and /opt/ml/additional-model-data-sources/<channel>."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sluice.cluster.records import RECORD_KEY
from sluice.core.cluster.names import record_name

Object = dict[str, Any]

FORMAT_VERSION: Final = 1
MODEL_PATH: Final = "/opt/ml/model"
ADDITIONAL_PATH: Final = "/opt/ml/additional-model-data-sources"

_DATA, _RECORD, _CACHE, _SCRATCH = "model-data", "record", "cache", "scratch"
_DATA_PATH: Final = "/mnt/sluice/data"
_CLAIMS_PATH: Final = "/mnt/sluice/claims"
_CACHE_PATH: Final = "/mnt/sluice/cache"
_RECORD_PATH: Final = "/var/run/sluice/record"
_CREDENTIALS: Final = (("AWS_ACCESS_KEY_ID", False), ("AWS_SECRET_ACCESS_KEY", False), ("AWS_SESSION_TOKEN", True))


@dataclass(frozen=True, slots=True)
class Source:
    """One piece of model data of one container."""

    name: str
    """Unique in the pod; the fleet's record holds versions by it."""
    container: int
    """The container's index."""
    directory: str
    """Within the volume."""
    mount_path: str
    uri: str
    """s3://, https:// or file:// (in a claim)."""
    kind: str
    compression: str
    claim: str | None = None
    e_tag: str | None = None
    manifest_uri: str | None = None
    manifest_e_tag: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the network is needed."""
        return self.claim is None

    def request(self) -> Object:
        """As the loader reads it."""
        made: Object = {
            "name": self.name,
            "uri": self.uri,
            "kind": self.kind,
            "compression": self.compression,
            "target": f"{_DATA_PATH}/{self.directory}",
        }
        optional = {"eTag": self.e_tag, "manifestUri": self.manifest_uri, "manifestEtag": self.manifest_e_tag}
        return made | {key: value for key, value in optional.items() if value}


def sources(index: int, container: Mapping[str, Any], prefix: str) -> tuple[Source, ...]:
    """The model data of one container. `prefix`: goes before the names where the pod has several containers."""
    named = f"{prefix}/" if prefix else ""
    found = []
    url, data = container.get("modelDataUrl"), (container.get("modelDataSource") or {}).get("s3DataSource")
    if url:
        found.append(_from_url(str(url), f"{named}model", index))
    elif data:
        found.append(_from_s3(data, f"{named}model", index, f"{index}/model", MODEL_PATH))
    for more in sorted(container.get("additionalModelDataSources") or (), key=lambda each: str(each["channelName"])):
        channel = str(more["channelName"])
        place = (f"{index}/channels/{channel}", f"{ADDITIONAL_PATH}/{channel}")
        found.append(_from_s3(more["s3DataSource"], f"{named}additional/{channel}", index, *place))
    return tuple(found)


def _from_url(url: str, name: str, index: int) -> Source:
    """modelDataUrl: an archive; in a claim, with a final slash or without a path, a directory."""
    place = (index, f"{index}/model", MODEL_PATH)
    if not url.startswith("pvc://"):
        return Source(name, *place, uri=url, kind="Archive", compression="Gzip")
    claim, _, path = url.removeprefix("pvc://").partition("/")
    uri = f"file://{_CLAIMS_PATH}/{claim}/{path}"
    if not path or path.endswith("/"):
        return Source(name, *place, uri=uri, kind="Prefix", compression="None", claim=claim)
    return Source(name, *place, uri=uri, kind="Archive", compression="Gzip", claim=claim)


def _from_s3(data: Mapping[str, Any], name: str, index: int, directory: str, mount_path: str) -> Source:
    return Source(
        name,
        index,
        directory,
        mount_path,
        uri=str(data["s3Uri"]),
        kind="Prefix" if data["s3DataType"] == "S3Prefix" else "Object",
        compression=str(data["compressionType"]),
        e_tag=data.get("eTag"),
        manifest_uri=data.get("manifestS3Uri"),
        manifest_e_tag=data.get("manifestEtag"),
    )


def request(
    found: Sequence[Source],
    variant: Mapping[str, Any],
    access: Mapping[str, Any],
    *,
    timeout_seconds: int,
    region: str | None,
    role: str | None,
    external_id: str,
) -> str:
    """SLUICE_LOADER: the whole order, as JSON."""
    made: Object = {
        "formatVersion": FORMAT_VERSION,
        "sources": [source.request() for source in found],
        "timeoutSeconds": timeout_seconds,
        "recordFile": f"{_RECORD_PATH}/{RECORD_KEY}",
    }
    if variant.get("volumeSizeInGB"):
        made["sizeLimitBytes"] = int(variant["volumeSizeInGB"]) * 1024**3
    if region:
        made["region"] = region
    if access.get("s3EndpointUrl"):
        made["endpointUrl"] = access["s3EndpointUrl"]
    if role:
        made |= {"assumeRoleArn": role, "externalId": external_id}
    if access.get("cacheHostPath"):
        made["cacheDirectory"] = _CACHE_PATH
    return json.dumps(made, sort_keys=True)


def credentials(access: Mapping[str, Any]) -> list[Object]:
    """The Secret's keys as the loader's environment. No other container gets them."""
    secret = access.get("credentialsSecretName")
    if not secret:
        return []
    references = [
        (key, {"name": secret, "key": key, **({"optional": True} if optional else {})})
        for key, optional in _CREDENTIALS
    ]
    return [{"name": key, "valueFrom": {"secretKeyRef": reference}} for key, reference in references]


def volumes(fleet: str, found: Sequence[Source], variant: Mapping[str, Any], access: Mapping[str, Any]) -> list[Object]:
    """What the loader reads and writes. The volume has room for an archive beside its content: the loader itself keeps
    each below volumeSizeInGB, with a message that says so; this limit only stops what escapes it."""
    size = variant.get("volumeSizeInGB")
    made: list[Object] = [
        {"name": _DATA, "emptyDir": {"sizeLimit": f"{2 * int(size)}Gi"} if size else {}},
        {"name": _SCRATCH, "emptyDir": {}},
        # Absent while the first pods of a fleet start; kubelet does not wait for it.
        {"name": _RECORD, "configMap": {"name": record_name(fleet), "optional": True}},
    ]
    made += [
        {"name": _claim_volume(index), "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for index, claim in enumerate(_claims(found))
    ]
    if access.get("cacheHostPath"):
        # Kubelet would create a directory that only root can write; the loader is not root.
        made.append({"name": _CACHE, "hostPath": {"path": access["cacheHostPath"], "type": "Directory"}})
    return made


def loader_mounts(found: Sequence[Source], access: Mapping[str, Any]) -> list[Object]:
    """Where the loader sees them."""
    made: list[Object] = [
        {"name": _DATA, "mountPath": _DATA_PATH},
        {"name": _SCRATCH, "mountPath": "/tmp"},  # noqa: S108 - a volume of the container
        {"name": _RECORD, "mountPath": _RECORD_PATH, "readOnly": True},
    ]
    made += [
        {"name": _claim_volume(index), "mountPath": f"{_CLAIMS_PATH}/{claim}", "readOnly": True}
        for index, claim in enumerate(_claims(found))
    ]
    if access.get("cacheHostPath"):
        made.append({"name": _CACHE, "mountPath": _CACHE_PATH})
    return made


def model_mounts(index: int, found: Sequence[Source]) -> list[Object]:
    """Where one of the model's containers sees its own data."""
    return [
        {"name": _DATA, "mountPath": source.mount_path, "subPath": source.directory, "readOnly": True}
        for source in found
        if source.container == index
    ]


def _claims(found: Sequence[Source]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source.claim for source in found if source.claim is not None))


def _claim_volume(index: int) -> str:
    return f"claim-{index + 1}"
