"""Credentials that the local clusters make for themselves: bearer tokens, a signing key, and kubeconfig files."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# RFC 5915 ECPrivateKey for P-256 without the optional public key, which readers derive: version 1, 32 octets, curve.
_EC_PREFIX = bytes.fromhex("303102010104 20".replace(" ", ""))
_EC_SUFFIX = bytes.fromhex("a00a06082a8648ce3d030107")
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class User:
    """A Kubernetes user of the API server's static token file."""

    name: str
    groups: tuple[str, ...] = ()


ADMIN = User("admin", ("system:masters",))


def write_tokens(file: Path, users: Mapping[str, User]) -> dict[str, str]:
    """Write an API server token file with a fresh token for each user; returns them under the same keys."""
    tokens = {key: secrets.token_hex(16) for key in users}
    lines = [f'{tokens[key]},{user.name},{user.name},"{",".join(user.groups)}"' for key, user in users.items()]
    write_secret(file, "\n".join(lines) + "\n")
    return tokens


def write_signing_key(file: Path) -> None:
    """Write a fresh P-256 private key (PEM) with which service account tokens are signed."""
    scalar = secrets.randbelow(_P256_ORDER - 1) + 1
    body = base64.b64encode(_EC_PREFIX + scalar.to_bytes(32, "big") + _EC_SUFFIX).decode()
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    write_secret(file, "\n".join(["-----BEGIN EC PRIVATE KEY-----", *lines, "-----END EC PRIVATE KEY-----", ""]))


def write_kubeconfig(file: Path, *, server: str, ca: Path, token: str) -> None:
    """Write a kubeconfig with one context; JSON is YAML, so every reader takes it."""
    authority = base64.b64encode(ca.read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sluice", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": "sluice", "user": {"token": token}}],
        "contexts": [{"name": "sluice", "context": {"cluster": "sluice", "user": "sluice", "namespace": "default"}}],
        "current-context": "sluice",
    }
    write_secret(file, json.dumps(content, indent=1))


def write_secret(file: Path, content: str) -> None:
    """Write a file that only its owner reads, in one step."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_text(content)
    fresh.rename(file)
