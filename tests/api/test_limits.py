"""Every limit of every field at its edge, on a real API server."""

from collections.abc import Mapping
from typing import Any

import pytest

from sluice.api.crds import KINDS
from sluice.api.schema import spec_schema

from .conftest import Admission
from .limits import UNBREAKABLE_PATTERNS, LimitCase, cases, fields, spots
from .manifests import FULL, Manifest, blue_green, config, container, endpoint, model, variant

CASES = [case for kind in KINDS for case in cases(kind.name, spec_schema(kind.spec))]

# Limits at whose edge a CEL rule refuses every manifest; the rule's own cases are in rules.py.
REFUSED_BY_A_RULE = {
    (
        "EndpointConfig",
        "shadowProductionVariants",
        "maxItems",
    ): "10 shadow and 1 production variants, allowed is one of each",
}


def _limits_of(field: Mapping[str, Any], required: bool) -> set[str]:
    stated = {keyword for keyword in ("enum", "pattern", "minLength", "minimum", "maximum") if keyword in field}
    stated |= {keyword for keyword in ("maxItems", "maxProperties") if keyword in field}
    stated |= {"minItems"} if field.get("minItems") else set()
    if "maxLength" in field:
        stated.add("maxLength")
    if field.get("pattern") in UNBREAKABLE_PATTERNS:
        stated.discard("pattern")
    return stated | ({"required"} if required else set())


def test_every_limit_has_a_case() -> None:
    made = {(case.kind, case.path, case.limit) for case in CASES}
    stated = {
        (kind.name, path, limit)
        for kind in KINDS
        for path, field, required in fields(kind.name, spec_schema(kind.spec))
        for limit in _limits_of(field, required)
    }
    assert stated - made == set()


def test_the_full_manifests_set_every_field() -> None:
    missing = [
        (kind.name, path)
        for kind in KINDS
        for path, _, _ in fields(kind.name, spec_schema(kind.spec))
        if not any(True for manifest in FULL[kind.name] for _ in spots(manifest, path))
    ]
    assert missing == []


@pytest.mark.apiserver
@pytest.mark.parametrize(
    "manifest", [pytest.param(each, id=f"{kind}-{n}") for kind, all in FULL.items() for n, each in enumerate(all)]
)
def test_full_manifests_are_accepted_and_stored_as_written(admission: Admission, manifest: Manifest) -> None:
    assert admission.create(manifest) == ()
    assert admission.stored(manifest)["spec"] == manifest["spec"]


@pytest.mark.apiserver
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}.{case.path}-{case.limit}")
def test_the_edge_of_a_limit(admission: Admission, case: LimitCase) -> None:
    refusal = admission.create(case.beyond)
    assert any(cause.field.startswith(case.field) for cause in refusal), (case.field, refusal)
    if not case.inside:
        return
    rule = REFUSED_BY_A_RULE.get((case.kind, case.path, case.limit))
    answers = []
    for manifest in case.inside:
        answers.append(admission.create(manifest))
        if answers[-1] == () or (rule and all(rule in cause.message for cause in answers[-1])):
            return
    raise AssertionError(f"every manifest at the limit was refused: {answers}")


@pytest.mark.apiserver
@pytest.mark.parametrize("manifest", [model(), config(), endpoint()], ids=lambda manifest: manifest["kind"])
def test_an_unknown_field_is_refused_under_strict_validation(admission: Admission, manifest: Manifest) -> None:
    manifest["spec"]["unheardOf"] = 1
    (cause,) = admission.create(manifest)
    assert 'unknown field "spec.unheardOf"' in cause.message


def _largest_model() -> Manifest:
    """Fifteen containers with a hundred variables each, 32 KiB in all, and fifty references."""
    environment = {f"VARIABLE_{n:04d}": "x" * 8 for n in range(100)}
    containers = [container(containerHostname=f"c{n}" + "x" * 60, environment=environment) for n in range(15)]
    references = [
        {"name": f"REFERENCE_{n:03d}" + "X" * 900, "valueFrom": {"secretKeyRef": {"name": "s" * 253, "key": "k" * 253}}}
        for n in range(50)
    ]
    tags = [{"key": f"{n:03d}" + "k" * 125, "value": "v" * 256} for n in range(49)]
    return model(containers=containers, kubernetes={"env": references}, tags=tags)


def _largest_config() -> Manifest:
    variants = [variant(variantName=f"v{n}" + "x" * 60, modelName="m" * 63) for n in range(10)]
    return config(*variants, tags=[{"key": f"k{n}", "value": "v"} for n in range(49)])


def _largest_endpoint() -> Manifest:
    labels = {f"label_{n}" + "x" * 200: "v" * 256 for n in range(16)}
    alarms = [
        {"name": f"a{n}" + "x" * 60, "prometheusAlert": {"alertName": "A" * 255, "matchLabels": labels}}
        for n in range(10)
    ]
    rollback = {"alarms": [{"alarmName": f"{n}" + "x" * 250} for n in range(10)]}
    deployment = {**blue_green(), "autoRollbackConfiguration": rollback}
    return endpoint(deploymentConfig=deployment, kubernetes={"alarms": alarms})


@pytest.mark.apiserver
@pytest.mark.parametrize(
    "manifest", [_largest_model(), _largest_config(), _largest_endpoint()], ids=lambda m: m["kind"]
)
def test_the_largest_objects_are_within_the_cost_budget_of_rules(admission: Admission, manifest: Manifest) -> None:
    assert admission.create(manifest) == ()
