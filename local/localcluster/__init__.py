"""A Kubernetes on this machine for the demo, the tests and the benchmark: tools, providers, images.

Everything here runs on the bare system's Python (3.11 or newer): only the standard library is imported.
"""

from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError
from localcluster.providers import down, up

__all__ = ["Cluster", "LocalClusterError", "down", "up"]
