"""What the Cluster backend calls its objects. A fleet is one variant of one revision."""

from typing import Final

from sluice.api.names import GROUP
from sluice.core.hashing import short

LABEL_FLEET: Final = f"{GROUP}/fleet"
"""On a fleet's Deployment, Service, PodDisruptionBudget, NetworkPolicy, record and pods: the fleet's name."""
LABEL_ROUTER: Final = f"{GROUP}/router"
"""On everything of a namespace's router; the value is ROUTER."""
ANNOTATION_VARIANT: Final = f"{GROUP}/variant"
"""The variant's name, case and all (labels of Kubernetes could hold it too; one place suffices)."""
ANNOTATION_FLEET_HASH: Final = f"{GROUP}/fleet-hash"
ANNOTATION_OWNER: Final = f"{GROUP}/owner"
"""installation/namespace/name of the Endpoint, as the AWS tag of the same name."""
ANNOTATION_TEMPLATE: Final = f"{GROUP}/template"
"""Digest of the pod template as it was rendered: tells whether a newer operator or an edited instance type would render
it differently (TemplateOutdated)."""
ANNOTATION_REPLICAS: Final = f"{GROUP}/replicas"
"""On a router's Deployment: how many pods the installation asked for when it was last written. Where it has another
count, that is a person's or a scaler's, and stays until the installation asks for something else."""

ROUTER: Final = "sluice-router"
"""The name of a namespace's router Deployment, Service, ServiceAccount, RoleBinding, PDB and NetworkPolicy."""
ROUTER_PORT: Final = 8080
ROUTER_METRICS_PORT: Final = 9902
ROUTER_HEALTH_PORT: Final = 9903
"""The agent's own probes."""
CONTAINER_PORT: Final = 8080

MAX_LABEL: Final = 63


def fleet_name(endpoint: str, variant: str, fleet_hash: str) -> str:
    """`<endpoint>-<variant>-<hash>`, a DNS label of at most 63 characters that begins with a letter.

    Variants that differ in case only get different names: the exact tuple is in the hash."""
    prefix = f"{endpoint}-{variant}".lower().replace(".", "-")
    if not prefix[:1].isalpha():
        prefix = f"f-{prefix}"
    return f"{prefix[: MAX_LABEL - 11].rstrip('-')}-{short(endpoint, variant, fleet_hash)}"


def counted_revision(name: str) -> str:
    """A revision's name in routes and in the routers' metrics: without the part for weights and counts, so that one
    fleet has one."""
    return name.rsplit("-", 1)[0]


def record_name(fleet: str) -> str:
    """The ConfigMap that holds what a fleet's first ready pod ran: image digests and versions of the model data."""
    return f"{fleet}-record"
