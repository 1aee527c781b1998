"""The model servers of examples/models: images and model archives, made when a test or the demo first asks for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from localcluster.cluster import Cluster
from localcluster.images import product
from localcluster.images.dockerfile import Target

_SOURCES = "examples/models"


def _server(name: str) -> Target:
    folder = name.removeprefix("example-")
    sources = (f"locks/{name}.lock", f"{_SOURCES}/{folder}", f"{_SOURCES}/pack.py")
    return Target(name, sources, dockerfile=f"{_SOURCES}/{folder}/Dockerfile")


def _archives(server: Target) -> Target:
    return Target(f"{server.name}-models", server.sources, server.dockerfile, stage_name="archives")


MLFLOW = _server("example-mlflow")
"""MLflow's scoring server: honest."""
MMS = _server("example-mms")
"""Amazon's inference toolkit with multi-model-server: needs root, and its /ping says Healthy whatever is the case."""


def image(cluster: Cluster, server: Target) -> str:
    """The name of a model server's image, put on the cluster's nodes first: `localhost/sluice-example-...:1`.

    A user's own, named in the server's variable (SLUICE_EXAMPLE_MLFLOW_IMAGE), is returned as it is.
    """
    named = os.environ.get(server.variable)
    if named:
        return named
    built = product.build(server)
    cluster.load_image(built.archive, built.name)
    # The manifests of examples/ name this one, whatever its content is today.
    steady = f"localhost/sluice-{server.name}:1"
    cluster.tag_image(built.name, steady)
    return steady


def archives(server: Target) -> Mapping[str, Path]:
    """The model.tar.gz files for a server under the models' names, for example `tree` -> .../tree.tar.gz."""
    directory = product.export(_archives(server))
    return {file.name.removesuffix(".tar.gz"): file for file in sorted(directory.glob("*.tar.gz"))}


TARGETS = {target.name: target for server in (MLFLOW, MMS) for target in (server, _archives(server))}
