"""Resolve: the three kinds -> the revision an Endpoint asks for, or what is missing or wrong. Pure.

Apply order never matters: an absent referent is a finding that its arrival clears."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.api.status import ObservedReference
from sluice.core import guardrails
from sluice.core.classification import ignored_fields
from sluice.core.cluster import findings
from sluice.core.finding import Finding
from sluice.core.identity import Credentials, Owner, Place, Target
from sluice.core.requests import model_names
from sluice.core.revision import RawSpec, Revision, build_revision

Object = Mapping[str, Any]
Find = Callable[[str, str], Object | None]
"""(kind, name) -> the object in the Endpoint's namespace."""


@dataclass(frozen=True, slots=True)
class ResolveSettings:
    """What the installation adds to a spec."""

    installation_id: str
    default_region: str | None
    cache_directories: tuple[str, ...] = ()
    """Directories of the nodes in which Models of backend Cluster may keep downloads."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a spec resolves to."""

    owner: Owner
    revision: Revision | None = None
    finding: Finding | None = None
    target: Target | None = None
    references: tuple[ObservedReference, ...] = ()
    referenced: frozenset[tuple[str, str]] = frozenset()
    """(kind, name) of everything it depends on, present or not."""
    ignored_fields: tuple[str, ...] = ()
    execution_roles: tuple[str, ...] = ()
    cache_directories: tuple[str, ...] = ()
    """Directories of the nodes that revisions may name: see ResolveSettings."""


def pinned_place(endpoint: Object) -> Place | None:
    """The pin in annotation sluice.dev/external; None if there is none. Raises ValueError if it is broken."""
    text = (endpoint["metadata"].get("annotations") or {}).get(names.EXTERNAL)
    if not text:
        return None
    try:
        pin = json.loads(text)
        return Place(str(pin["accountId"]), str(pin["region"]), str(pin["endpointName"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # also brackets in thousands of brackets
        raise ValueError(
            f"metadata.annotations[{names.EXTERNAL}]: found {text!r:.200}, allowed is what the operator wrote there: "
            '{"accountId": ..., "region": ..., "endpointName": ...}; restore it'
        ) from error


def pin(place: Place) -> str:
    """The annotation's value."""
    return json.dumps(
        {"accountId": place.account_id, "region": place.region, "endpointName": place.endpoint_name}, sort_keys=True
    )


def resolve(endpoint: Object, find: Find, settings: ResolveSettings) -> Resolution:
    """Resolve one Endpoint."""
    metadata, spec = endpoint["metadata"], endpoint["spec"]
    owner = Owner(settings.installation_id, metadata["namespace"], metadata["name"])
    config_name = spec["endpointConfigName"]
    config = find(names.ENDPOINT_CONFIG, config_name)
    wanted_models = model_names(config["spec"]) if config else ()
    referenced = frozenset({(names.ENDPOINT_CONFIG, config_name), *((names.MODEL, name) for name in wanted_models)})

    in_cluster = spec["backend"] == names.BACKEND_CLUSTER
    target, finding = (None, None) if in_cluster else _target(endpoint, owner, settings)
    base = Resolution(
        owner=owner,
        target=target,
        referenced=referenced,
        finding=finding,
        cache_directories=settings.cache_directories,
    )
    if config is None:
        missing = _missing(names.ENDPOINT_CONFIG, config_name, "spec.endpointConfigName", metadata["namespace"])
        return _with(base, finding=finding or missing)
    models = {name: find(names.MODEL, name) for name in wanted_models}
    present = {name: model for name, model in models.items() if model is not None}
    references = (_reference(config), *(_reference(model) for model in present.values()))
    base = _with(base, references=references)
    absent = [name for name in wanted_models if models[name] is None]
    if absent:
        missing = _missing(
            names.MODEL, ", ".join(absent), f"EndpointConfig/{config_name} productionVariants[].modelName",
            metadata["namespace"],
        )  # fmt: skip
        return _with(base, finding=finding or missing)

    model_specs: dict[str, RawSpec] = {name: model["spec"] for name, model in present.items()}
    redeploy = (metadata.get("annotations") or {}).get(names.REDEPLOY, "")
    backend = spec["backend"]
    ignored = [f"Endpoint.spec.{path}" for path in ignored_fields(names.ENDPOINT, backend, dict(spec))]
    unused = ignored_fields(names.ENDPOINT_CONFIG, backend, dict(config["spec"]))
    ignored += [f"EndpointConfig/{config_name}.spec.{path}" for path in unused]
    for name, model_spec in model_specs.items():
        ignored += [f"Model/{name}.spec.{path}" for path in ignored_fields(names.MODEL, backend, dict(model_spec))]
    if in_cluster:
        ignored += [f"EndpointConfig/{config_name}.spec.{path}" for path in findings.unhonoured_values(config["spec"])]
        unsupported = findings.check(config_name, config["spec"], model_specs, settings.cache_directories)
    else:
        unsupported = findings.claims_on_sagemaker(model_specs)
    revision = build_revision(owner, backend, config["spec"], model_specs, redeploy)
    return _with(
        base,
        finding=finding or unsupported or _unfit(spec, config["spec"]),
        revision=revision,
        ignored_fields=tuple(ignored),
        execution_roles=revision.execution_roles(),
    )


def _unfit(spec: RawSpec, endpoint_config: RawSpec) -> Finding | None:
    """A deploymentConfig that does not fit the spec's counts. Where live ones are kept nothing is known here that it
    could be held against: it is judged when a deployment starts."""
    return None if keeps_counts(spec) else guardrails.check(spec.get("deploymentConfig"), spec_counts(endpoint_config))


def keeps_counts(endpoint_spec: RawSpec, *, retains: bool | None = None) -> bool:
    """Whether a deployment takes live instance counts in place of the spec's: it retains the variants' properties
    (`retains`: what was found where the spec does not say) and DesiredInstanceCount is not excluded."""
    excluded = {item["variantPropertyType"] for item in endpoint_spec.get("excludeRetainedVariantProperties") or ()}
    retained = bool(endpoint_spec.get("retainAllVariantProperties")) if retains is None else retains
    return retained and "DesiredInstanceCount" not in excluded


def spec_counts(endpoint_config: RawSpec) -> dict[str, int]:
    """initialInstanceCount by variant, of the instance-based ones."""
    return {
        variant["variantName"]: int(variant["initialInstanceCount"])
        for variant in endpoint_config.get("productionVariants") or ()
        if variant.get("initialInstanceCount") is not None
    }


def spec_weights(endpoint_config: RawSpec) -> dict[str, float]:
    """initialVariantWeight by variant; absent is 1."""
    return {
        variant["variantName"]: float(variant.get("initialVariantWeight", 1.0))
        for variant in endpoint_config.get("productionVariants") or ()
    }


def _target(endpoint: Object, owner: Owner, settings: ResolveSettings) -> tuple[Target | None, Finding | None]:
    spec = endpoint["spec"]
    try:
        place = pinned_place(endpoint)
    except ValueError as error:
        return None, Finding(Reason.PLACEMENT_CHANGED, str(error))
    placement = spec.get("sagemaker") or {}
    name = spec.get("endpointName") or endpoint["metadata"]["name"]
    region = placement.get("region") or (place.region if place else settings.default_region)
    if place is not None and (place.endpoint_name, place.region) != (name, region):
        # Both are immutable in the spec, so the annotation was edited: following it could reach another's endpoint.
        return None, Finding(
            Reason.PLACEMENT_CHANGED,
            f"found endpoint {place.endpoint_name} in {place.region}, the spec says {name} in {region}; restore what "
            f"the operator wrote there: {pin(Place(place.account_id, str(region), name))}",
            f"metadata.annotations[{names.EXTERNAL}]",
        )
    if not region:
        return None, Finding(
            Reason.INVALID_SPEC,
            "found no region; set it here, or the operator's default (chart value aws.region)",
            "spec.sagemaker.region",
        )
    role = placement.get("assumeRoleArn")
    credentials = Credentials(region, role, owner.external_id if role else None)
    return Target(owner, credentials, name), None


def _missing(kind: str, name: str, field: str, namespace: str) -> Finding:
    return Finding(
        Reason.MISSING_REFERENCE,
        f"found no {kind} {name} in namespace {namespace}; create it, or name another (what serves goes on serving)",
        field,
    )


def _reference(obj: Object) -> ObservedReference:
    metadata = obj["metadata"]
    return ObservedReference(
        kind=obj["kind"], name=metadata["name"], uid=metadata["uid"], generation=int(metadata["generation"])
    )


def _with(resolution: Resolution, **changes: Any) -> Resolution:
    return replace(resolution, **changes)
