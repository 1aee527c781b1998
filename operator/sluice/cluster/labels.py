"""Which objects in the cluster belong to an Endpoint or to a router: labels to select by, and whose an object says that
it is.

Labels hold at most 63 characters and names of Endpoints may be longer, so a label only narrows a listing down; the
annotation with the owner decides."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sluice.api import names
from sluice.core.cluster.names import ANNOTATION_OWNER, LABEL_FLEET, LABEL_ROUTER, MAX_LABEL, ROUTER
from sluice.core.identity import Owner
from sluice.core.revision import LABEL_ENDPOINT, LABEL_MANAGED_BY, MANAGED_BY

MANAGED: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
ROUTERS: Final = f"{MANAGED},{LABEL_ROUTER}={ROUTER}"
"""Selects everything of the routers."""


def endpoint_labels(endpoint: str) -> dict[str, str]:
    """The labels of every object of an Endpoint."""
    return {LABEL_MANAGED_BY: MANAGED_BY, LABEL_ENDPOINT: endpoint_label(endpoint)}


def endpoint_label(endpoint: str) -> str:
    """An Endpoint's name as far as a label holds it."""
    return endpoint[:MAX_LABEL].rstrip("-.")


def endpoint_selector(endpoint: str) -> str:
    """Selects the objects of an Endpoint (and of those whose long names begin alike)."""
    return ",".join(f"{key}={value}" for key, value in endpoint_labels(endpoint).items())


def endpoints_selector(labels: Sequence[str]) -> str:
    """Selects the objects of the Endpoints with these labels."""
    wanted = f"={labels[0]}" if len(labels) == 1 else f" in ({','.join(labels)})"
    return f"{MANAGED},{LABEL_ENDPOINT}{wanted}"


def is_ours(item: Mapping[str, Any], owner: Owner) -> bool:
    """Whether an object says that it belongs to this Endpoint. The installation is not asked: what a backup brought
    back into another cluster is still this Endpoint's."""
    return owner_of(item) == (owner.namespace, owner.name)


def fleet_of(item: Mapping[str, Any]) -> str:
    """The fleet that an object says it belongs to; empty: none."""
    return str((item["metadata"].get("labels") or {}).get(LABEL_FLEET) or "")


def is_fleet(deployment: Mapping[str, Any]) -> bool:
    """Whether a Deployment is the fleet that its label names, not a copy of one under another name."""
    return bool(deployment["metadata"]["name"] == fleet_of(deployment))


def is_of_fleet(item: Mapping[str, Any], owner: Owner, fleet: str) -> bool:
    """Whether an object bears all the marks of a fleet of this Endpoint: a name is what anybody can give."""
    marks = {**endpoint_labels(owner.name), LABEL_FLEET: fleet}
    return is_ours(item, owner) and marks.items() <= (item["metadata"].get("labels") or {}).items()


def owner_of(item: Mapping[str, Any]) -> tuple[str, str] | None:
    """(namespace, name) of the Endpoint that an object says it belongs to; None: it says nothing, or something else
    than the namespace that it is in."""
    metadata = item["metadata"]
    parts = str((metadata.get("annotations") or {}).get(ANNOTATION_OWNER) or "").split("/")
    if len(parts) == 3 and parts[1] == metadata.get("namespace"):
        return parts[1], parts[2]
    return None


def is_retained(route: Mapping[str, Any]) -> bool:
    """Whether an EndpointRoute serves on without its Endpoint."""
    return bool((route["metadata"].get("annotations") or {}).get(names.RETAINED) == "true")


def installation_of(item: Mapping[str, Any]) -> str:
    """The installation that made an object."""
    return str((item["metadata"].get("annotations") or {}).get(ANNOTATION_OWNER) or "").partition("/")[0]
