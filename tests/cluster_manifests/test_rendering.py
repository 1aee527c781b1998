"""What this operator would render now, against what stands."""

from sluice.cluster.rendering import Installation, Rendering
from sluice.cluster.router import RouterSettings
from sluice.cluster.template import FleetDefaults
from sluice.core.cluster.actions import EnsureFleet
from sluice.core.cluster.names import ANNOTATION_TEMPLATE, fleet_name
from sluice.core.identity import Owner
from sluice.core.instance_types import parse
from sluice.core.revision import Revision, build_revision

MODELS = {"churn": {"primaryContainer": {"image": "churn:1", "modelDataUrl": "s3://models/churn.tar.gz"}}}
CONFIG = {"productionVariants": [{"variantName": "a", "modelName": "churn", "instanceType": "ml.m5.large"}]}


def rendering() -> Rendering:
    types = parse(None)
    installation = Installation("prod-1", FleetDefaults("operator:1"), RouterSettings("router:1"))
    return Rendering(installation, lambda: types, lambda _namespace: 60)


def stands(made: Rendering, owner: Owner, revision: Revision) -> str:
    """The digest that the fleet's Deployment bears when it is made."""
    name = fleet_name(owner.name, "a", revision.fleet_hash)
    action = EnsureFleet(name, "a", revision.name, revision.fleet_hash, revision.endpoint_config, revision.models, 1)
    (deployment,) = (item for item in made.fleet(owner, action) if item["kind"] == "Deployment")
    return str(deployment["metadata"]["annotations"][ANNOTATION_TEMPLATE])


def test_the_same_manifests_in_two_namespaces_are_outdated_in_neither() -> None:
    """Staging and production apply the same files: their fleets have the same names, and not the same pods."""
    made = rendering()
    for namespace in ("staging", "production", "staging"):
        owner = Owner("prod-1", namespace, "churn")
        revision = build_revision(owner, "Cluster", CONFIG, MODELS)
        assert set(made.templates(owner, revision, ()).values()) == {stands(made, owner, revision)}, namespace
