"""What observing and acting need of the manifest builders."""

from collections.abc import Mapping
from typing import Any, Protocol

from sluice.core.cluster.actions import EnsureFleet
from sluice.core.identity import Owner
from sluice.core.revision import Revision, StoredRevision

Manifest = dict[str, Any]


class Rendering(Protocol):
    """Manifests as this operator would create them now."""

    def fleet(self, owner: Owner, action: EnsureFleet) -> tuple[Manifest, ...]:
        """A fleet's objects in the order of their creation: Service, NetworkPolicy (if any), PodDisruptionBudget,
        Deployment. Raises KeyError for an instance type that nobody knows."""
        ...

    def templates(
        self, owner: Owner, revision: Revision | None, stored: tuple[StoredRevision, ...]
    ) -> Mapping[str, str]:
        """Fleet name -> ANNOTATION_TEMPLATE, of the revision asked for and of the stored ones."""
        ...

    def unknown_instance_types(self, revision: Revision | None) -> tuple[str, ...]:
        """Instance types of a revision that are not known."""
        ...

    def router(self, namespace: str) -> tuple[Manifest, ...]:
        """A namespace's router in the order of its creation: ServiceAccount, RoleBinding, Service,
        PodDisruptionBudget, NetworkPolicy, Deployment. All are named names.ROUTER."""
        ...

    def router_template(self, namespace: str) -> str:
        """ANNOTATION_TEMPLATE of the router's Deployment."""
        ...
