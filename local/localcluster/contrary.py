"""The image of a model server that misbehaves on order, for tests of what must then be said and done."""

from __future__ import annotations

import os

from localcluster.cluster import Cluster
from localcluster.images import product
from localcluster.images.dockerfile import Target

IMAGE = Target(
    "contrary",
    ("local/localcluster/images/contrary_server.py",),
    dockerfile="local/localcluster/images/contrary.Dockerfile",
)


def image(cluster: Cluster) -> str:
    """The name of the image, put on the cluster's nodes first.

    A user's own, named in SLUICE_CONTRARY_IMAGE, is returned as it is.
    """
    named = os.environ.get(IMAGE.variable)
    if named:
        return named
    built = product.build(IMAGE)
    cluster.load_image(built.archive, built.name)
    return built.name
