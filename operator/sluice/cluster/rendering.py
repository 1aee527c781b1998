"""Manifests as this operator renders them now: the builders with the installation's settings and the instance types
that were read last."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from sluice.cluster import fleet, router
from sluice.cluster.router import RouterSettings
from sluice.cluster.template import Fleet, FleetDefaults
from sluice.core import instance_types
from sluice.core.cluster.actions import EnsureFleet
from sluice.core.cluster.names import fleet_name
from sluice.core.identity import Owner
from sluice.core.instance_types import InstanceType, InstanceTypes
from sluice.core.revision import Revision, StoredRevision

Manifest = dict[str, Any]

INVOCATION_STEPS_SECONDS: Final = (60, 300, 900, 3600)
"""A router's grace period covers the longest invocation of its namespace, in steps: an Endpoint's new timeout does not
roll the routers each time."""
MOST_REMEMBERED: Final = 10_000


class UnknownInstanceType(ValueError):
    """A variant's instance type is not known; the message says what to add where."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What the installation says about everything that it renders."""

    installation_id: str
    fleets: FleetDefaults
    routers: RouterSettings


class Rendering:
    """The builders, for observing and acting."""

    def __init__(
        self,
        installation: Installation,
        types: Callable[[], InstanceTypes],
        longest_invocation_seconds: Callable[[str], int],
    ) -> None:
        self._installation = installation
        self._types = types
        self._longest = longest_invocation_seconds
        self._digests: dict[tuple[Owner, str], str] = {}
        """By the fleet's name, and by whose it is: fleets of one name, in several namespaces, say so in their pods."""
        self._digests_of: InstanceTypes | None = None
        self._router_templates: dict[int, str] = {}
        """By the longest invocation, which is all that namespaces differ in."""

    def fleet(self, owner: Owner, action: EnsureFleet) -> tuple[Manifest, ...]:
        """A fleet's objects in the order of their creation. Raises UnknownInstanceType."""
        made = fleet.fleet_of(owner, action)
        return fleet.objects(made, self._type_of(made.variant), self._installation.fleets, action.replicas)

    def templates(
        self, owner: Owner, revision: Revision | None, stored: tuple[StoredRevision, ...]
    ) -> Mapping[str, str]:
        """Fleet name -> ANNOTATION_TEMPLATE, of the revision asked for and of the stored ones. Fleets whose instance
        type is not known any more are left out: nobody could say how they would be rendered."""
        if self._digests_of is not self._types() or len(self._digests) > MOST_REMEMBERED:
            self._digests, self._digests_of = {}, self._types()
        revisions: list[Revision | StoredRevision] = [*stored, *([revision] if revision is not None else [])]
        found: dict[str, str] = {}
        for one in revisions:
            for made in _fleets(owner, one):
                digest = self._digests.get((owner, made.name)) or self._digest(made)
                if digest is not None:
                    found[made.name] = self._digests[owner, made.name] = digest
        return found

    def unknown_instance_types(self, revision: Revision | None) -> tuple[str, ...]:
        """Instance types of a revision that are not known."""
        if revision is None:
            return ()
        named = {str(variant["instanceType"]) for variant in _variants(revision) if variant.get("instanceType")}
        return tuple(sorted(name for name in named if self._types().find(name) is None))

    def router(self, namespace: str) -> tuple[Manifest, ...]:
        """A namespace's router in the order of its creation; its Deployment comes last."""
        return router.objects(self._installation.installation_id, namespace, self._routers(namespace))

    @property
    def router_replicas(self) -> str:
        """ANNOTATION_REPLICAS of every router's Deployment."""
        return str(self._installation.routers.replicas)

    def router_eviction_seconds(self, namespace: str) -> int:
        """What a router has to end when it is evicted because it does not follow: its invocations are let end, its
        streams are not, as everything else waits."""
        settings = self._routers(namespace)
        return settings.longest_invocation_seconds + settings.drain_seconds

    def router_template(self, namespace: str) -> str:
        """ANNOTATION_TEMPLATE of the router's Deployment. Every pass asks for it, and one installation has few."""
        settings = self._routers(namespace)
        longest = settings.longest_invocation_seconds
        if longest not in self._router_templates:
            self._router_templates[longest] = router.template_digest(settings)
        return self._router_templates[longest]

    def _routers(self, namespace: str) -> RouterSettings:
        longest = self._longest(namespace)
        step = next((step for step in INVOCATION_STEPS_SECONDS if step >= longest), longest)
        return replace(self._installation.routers, longest_invocation_seconds=step)

    def _digest(self, made: Fleet) -> str | None:
        try:
            return fleet.template_digest(made, self._type_of(made.variant), self._installation.fleets)
        except UnknownInstanceType:
            return None

    def _type_of(self, variant: Mapping[str, Any]) -> InstanceType:
        name = variant.get("instanceType")
        if not name:
            raise UnknownInstanceType(
                f"variant {variant['variantName']}: found no instanceType; backend Cluster needs one"
            )
        found = self._types().find(str(name))
        if found is None:
            raise UnknownInstanceType(f"variant {variant['variantName']}: {instance_types.unknown(str(name))}")
        return found


def _variants(revision: Revision | StoredRevision) -> Iterator[Mapping[str, Any]]:
    for field in ("productionVariants", "shadowProductionVariants"):
        yield from revision.endpoint_config.get(field) or ()


def _fleets(owner: Owner, revision: Revision | StoredRevision) -> Iterator[Fleet]:
    for variant in _variants(revision):
        model = revision.models.get(variant.get("modelName", ""))
        if model is not None:
            yield Fleet(
                owner=owner,
                name=fleet_name(owner.name, str(variant["variantName"]), revision.fleet_hash),
                fleet_hash=revision.fleet_hash,
                variant=variant,
                endpoint_config=revision.endpoint_config,
                model=model,
            )
