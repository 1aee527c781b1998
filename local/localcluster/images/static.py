"""An image around one static binary, written as an OCI layout tar without any builder."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_static_image(archive: Path, *, name: str, binary: Path, arguments: tuple[str, ...] = ()) -> None:
    """Write an image `name` whose only file is `binary`, started with `arguments`; same input, same bytes."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        _add(tar, binary.name, binary.read_bytes(), mode=0o755)
    blobs: dict[str, bytes] = {}

    def blob(content: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    layer_descriptor = blob(layer.getvalue(), "application/vnd.oci.image.layer.v1.tar")
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [f"/{binary.name}", *arguments]},
        "rootfs": {"type": "layers", "diff_ids": [layer_descriptor["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(_json(config), "application/vnd.oci.image.config.v1+json"),
        "layers": [layer_descriptor],
    }
    top = blob(_json(manifest), "application/vnd.oci.image.manifest.v1+json")
    # containerd reads the name from the first annotation, other tools from the second.
    top["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    partial = archive.with_name(f"{archive.name}.partial")
    with tarfile.open(partial, mode="w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": [top]}))
        for digest, content in blobs.items():
            _add(tar, f"blobs/sha256/{digest}", content)
    partial.rename(archive)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(content))


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
