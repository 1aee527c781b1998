"""The kinds between the operator and the routers: what one version writes reaches another as it was written."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sluice.api.base import VALIDATIONS
from sluice.api.crds import INTERNAL_KINDS, InternalKind, crd, internal_object_schema
from sluice.api.names import ENDPOINT_ROUTE, ROUTER_REPORT
from sluice.api.routes import EndpointRouteSpec, RouteFleet, RouteReport, RouterReportSpec, RouteSample, RouteShadow

from .conftest import Admission
from .manifests import Manifest, manifest

by_kind = pytest.mark.parametrize("of", INTERNAL_KINDS, ids=lambda each: each.name)

FLEET = RouteFleet(name="churn-a-0123456789", variant_name="A", revision="churn-1", weight=1_000_000)
SPECS: dict[str, Manifest] = {
    ENDPOINT_ROUTE: EndpointRouteSpec(
        endpoint_name="Churn",
        fleets=(FLEET.model_copy(update={"sample": RouteSample(body="1,2"), "excluded_pods": ("p",)}),),
        shadows=(RouteShadow(fleet=FLEET, sampling=10),),
    ).to_manifest(),
    ROUTER_REPORT: RouterReportSpec(
        pod_uid="0-1", routes=(RouteReport(name="churn", uid="1", generation=3, draining=("old",)),)
    ).to_manifest(),
}
FROM_THE_FUTURE: dict[str, Manifest] = {
    ENDPOINT_ROUTE: {
        **SPECS[ENDPOINT_ROUTE],
        "schemaVersion": 99,
        "protocol": {"name": "grpc"},
        "timeoutSeconds": 999_999,
        "fleets": [{"name": "x", "balancing": "RING_HASH", "hashPolicy": {"header": "x-user"}}],
    },
    ROUTER_REPORT: {
        "podUID": "0-1",
        "routes": [{"name": "n" * 300, "generation": 1, "fleets": [{"name": "x", "ejected": 1}]}],
    },
}


def _nodes(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for child in schema.get("properties", {}).values():
        yield from _nodes(child)
    if "items" in schema:
        yield from _nodes(schema["items"])


@by_kind
def test_the_schema_states_no_limit_and_keeps_what_it_does_not_know(of: InternalKind) -> None:
    limits = {"enum", "pattern", "maxLength", "maxItems", "minimum", "maximum", "required", "default", VALIDATIONS}
    for node in _nodes(internal_object_schema(of)["properties"]["spec"]):
        assert not limits & set(node)
        assert ("properties" in node) == ("x-kubernetes-preserve-unknown-fields" in node)


@by_kind
def test_people_who_list_what_they_wrote_do_not_see_it(of: InternalKind) -> None:
    definition = crd(of)["spec"]
    assert not {"shortNames", "categories"} & set(definition["names"])
    assert "subresources" not in definition["versions"][0]


def test_fields_that_this_version_does_not_know_are_dropped_in_reading() -> None:
    known = {**SPECS[ENDPOINT_ROUTE], "protocol": {"name": "grpc"}}
    assert EndpointRouteSpec.from_manifest(known).to_manifest() == SPECS[ENDPOINT_ROUTE]
    report = {**SPECS[ROUTER_REPORT], "load": 1}
    assert RouterReportSpec.from_manifest(report).to_manifest() == SPECS[ROUTER_REPORT]


@pytest.mark.apiserver
@pytest.mark.parametrize("specs", [SPECS, FROM_THE_FUTURE], ids=["now", "future"])
@by_kind
def test_what_was_written_is_what_is_stored(
    admission: Admission, of: InternalKind, specs: Mapping[str, Manifest]
) -> None:
    written = manifest(of.name, specs[of.name], "internal")
    stored = admission.store(written)
    try:
        assert stored["spec"] == written["spec"]
        assert stored["metadata"]["generation"] == 1
    finally:
        admission.delete(written)
