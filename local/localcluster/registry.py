"""A container registry with a password inside the cluster, for tests of pulling: Debian's docker-registry as a pod.

It listens on the node's loopback: containerd speaks plain HTTP there without being told, with every provider.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localcluster.cluster import Cluster
from localcluster.images import product
from localcluster.images.dockerfile import Target
from localcluster.waiting import until

IMAGE = Target("registry", (), dockerfile="local/localcluster/images/registry.Dockerfile")
ADDRESS = "127.0.0.1:5000"
USER, PASSWORD = "puller", "open-sesame"
# What bcrypt makes of the password, the one form that docker-registry reads.
_HTPASSWD = f"{USER}:$2b$05$nunWMoZ5rbujsJkzMiZ6B.tHLcRNhzk3U5tUNeeV1K4WsjrCuqlj2\n"
_NAME = "sluice-registry"
_START_SECONDS = 240


@dataclass(frozen=True)
class Registry:
    """A running registry; empty at first, and gone with what it holds when its block ends."""

    cluster: Cluster

    def push(self, name: str, reference: str) -> str:
        """Push an image on the nodes as `repository:tag`; returns what to pull: `ADDRESS/repository@sha256:...`."""
        digest = self.cluster.push_image(name, f"{ADDRESS}/{reference}", user=USER, password=PASSWORD)
        return f"{ADDRESS}/{reference.rpartition(':')[0]}@{digest}"

    def pull_secret(self, name: str) -> dict[str, object]:
        """The manifest of a Secret for imagePullSecrets."""
        return docker_config_secret(name, USER, PASSWORD)


def docker_config_secret(name: str, user: str, password: str) -> dict[str, object]:
    """The manifest of a Secret for imagePullSecrets with any credentials, right or wrong."""
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    config = {"auths": {ADDRESS: {"username": user, "password": password, "auth": auth}}}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps(config)},
    }


@contextmanager
def registry(cluster: Cluster) -> Iterator[Registry]:
    """Run a registry as long as the block lasts, in a namespace of its own.

    Raises LocalClusterError if it does not start; one cluster has one at a time.
    """
    built = product.build(IMAGE)
    cluster.load_image(built.archive, built.name)
    apply: list[str | Path] = [cluster.kubectl, "apply", "--filename=-"]
    remove: list[str | Path] = [cluster.kubectl, "delete", "namespace", _NAME, "--ignore-not-found", "--timeout=240s"]
    cluster.run(remove)
    namespace, secret, pod = _objects(built.name)
    try:
        cluster.run(apply, input_text=json.dumps(namespace))
        account: list[str | Path] = [cluster.kubectl, "--namespace", _NAME, "get", "serviceaccount", "default"]
        until(  # a controller makes the account that the pod runs as
            lambda: cluster.run(account, check=False).returncode == 0,
            seconds=_START_SECONDS,
            what="the registry's namespace to have a service account",
        )
        cluster.run(apply, input_text=json.dumps({"apiVersion": "v1", "kind": "List", "items": [secret, pod]}))
        ready = "{.status.conditions[?(@.type=='Ready')].status}"
        pods: list[str | Path] = [cluster.kubectl, "--namespace", _NAME]
        look = [*pods, "get", "pod", _NAME, f"--output=jsonpath={ready}"]
        until(
            lambda: cluster.run(look, check=False).stdout == "True",
            seconds=_START_SECONDS,
            what="the registry's pod to be ready",
            why=lambda: cluster.run([*pods, "describe", "pod", _NAME]).stdout[-2000:],
        )
        yield Registry(cluster)
    finally:
        cluster.run(remove)


def _objects(image: str) -> list[dict[str, object]]:
    metadata = {"name": _NAME, "namespace": _NAME}
    settings = {
        "REGISTRY_HTTP_ADDR": ADDRESS,
        "REGISTRY_AUTH_HTPASSWD_REALM": "sluice",
        "REGISTRY_AUTH_HTPASSWD_PATH": "/password/htpasswd",
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/storage",
        "REGISTRY_LOG_LEVEL": "warn",
    }
    host, _, port = ADDRESS.partition(":")
    container = {
        "name": "registry",
        "image": image,
        "imagePullPolicy": "Never",
        "env": [{"name": name, "value": value} for name, value in settings.items()],
        # kubelet asks on the node's own loopback.
        "readinessProbe": {"httpGet": {"host": host, "port": int(port), "path": "/"}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "password", "mountPath": "/password"},
            {"name": "storage", "mountPath": "/storage"},
        ],
    }
    pod = {
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [
            {"name": "password", "secret": {"secretName": _NAME}},
            {"name": "storage", "emptyDir": {}},
        ],
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAME}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"htpasswd": _HTPASSWD}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
    ]
