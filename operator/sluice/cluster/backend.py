"""The Cluster backend: joins the looks and the acts behind ports.backend.ClusterBackend."""

from collections.abc import Mapping
from typing import Any

from sluice.cluster.act import Actor
from sluice.cluster.observe import Neighbours, Observer, Shifting
from sluice.cluster.rendering import Rendering
from sluice.cluster.turns import RouterTurns
from sluice.core.cluster.actions import ClusterAction
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.identity import Owner
from sluice.core.resolve import Resolution
from sluice.core.revision import StoredRevision
from sluice.ports.backend import ClusterSight
from sluice.ports.clock import Clock
from sluice.ports.kube import Kube


class KubernetesBackend:
    """Implements ClusterBackend."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        rendering: Rendering,
        neighbours: Neighbours,
        shifting: Shifting,
        namespaces: tuple[str, ...],
    ) -> None:
        turns = RouterTurns()
        self._observer = Observer(
            kube, clock, rendering, neighbours, shifting=shifting, namespaces=namespaces, turns=turns
        )
        self._actor = Actor(kube, rendering, turns)

    async def observe(
        self, endpoint: Mapping[str, Any], resolution: Resolution, stored: tuple[StoredRevision, ...]
    ) -> ClusterSight:
        """See ClusterBackend."""
        return await self._observer.observe(endpoint, resolution, stored)

    async def act(self, owner: Owner, action: ClusterAction, seen: ClusterObservation) -> None:
        """See ClusterBackend."""
        await self._actor.act(owner, action, seen)
