"""The routes of an Endpoint in the cluster: which fleets there are, and each one's share of the requests. Pure.

At most two revisions share the traffic: the one in service, and the one that is being deployed, which gets so many
percent of it. All variants move in lock-step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from sluice.api.routes import (
    DEFAULT_MAX_PAYLOAD_BYTES,
    DEFAULT_TIMEOUT_SECONDS,
    LONGEST_STREAM_SECONDS,
    MAX_EXCLUDED,
    SCHEMA_VERSION,
    WEIGHT_TOTAL,
    EndpointRouteSpec,
    RouteContainer,
    RouteFleet,
    RouteSample,
    RouteShadow,
)
from sluice.core.cluster.names import CONTAINER_PORT, counted_revision, fleet_name
from sluice.core.cluster.weights import shares
from sluice.core.revision import RawSpec

_BALANCING = {"RANDOM": "RANDOM", "LEAST_OUTSTANDING_REQUESTS": "LEAST_REQUEST"}


@dataclass(frozen=True, slots=True)
class Side:
    """One revision as the routes need it."""

    revision: str
    fleet_hash: str
    endpoint_config: RawSpec
    models: Mapping[str, RawSpec]
    weights: Mapping[str, float]
    """By variant, as they are to be in force."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds of every request. Without arguments: SageMaker's."""

    timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS
    max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES

    def of(self, endpoint_spec: Mapping[str, Any]) -> "Limits":
        """Those of an Endpoint: what its spec.kubernetes says, else these."""
        kubernetes = endpoint_spec.get("kubernetes") or {}
        return Limits(
            timeout_seconds=int(kubernetes.get("invocationTimeoutSeconds") or self.timeout_seconds),
            max_payload_bytes=int(kubernetes.get("maxPayloadBytes") or self.max_payload_bytes),
        )

    @property
    def longest_seconds(self) -> int:
        """The longest that anything may run: a stream."""
        return max(LONGEST_STREAM_SECONDS, self.timeout_seconds)


@dataclass(frozen=True, slots=True)
class Split:
    """Who serves: `serving` alone, or with `deployed` at `percent` of the traffic."""

    serving: Side
    deployed: Side | None = None
    percent: float = 0.0
    excluded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fleet -> pods that get no requests."""


def production_variants(endpoint_config: RawSpec) -> tuple[Mapping[str, Any], ...]:
    """The production variants of a raw EndpointConfig spec, by name."""
    return tuple(sorted(endpoint_config.get("productionVariants") or (), key=lambda v: str(v["variantName"])))


def shadow_variants(endpoint_config: RawSpec) -> tuple[Mapping[str, Any], ...]:
    """The shadow variants, by name."""
    return tuple(sorted(endpoint_config.get("shadowProductionVariants") or (), key=lambda v: str(v["variantName"])))


def compile_route(
    endpoint: str,
    endpoint_name: str,
    split: Split,
    limits: Limits,
    before: EndpointRouteSpec | None,
    *,
    schema_version: int = SCHEMA_VERSION,
) -> EndpointRouteSpec:
    """The routes for a split. `endpoint`: metadata.name; `before`: what stands now, so that only fleets whose weight
    rises are marked requireReady. Routes that differ in nothing else come out as they stand."""
    sides = [(split.serving, Fraction(100) - Fraction(split.percent))]
    if split.deployed is not None:
        sides.append((split.deployed, Fraction(split.percent)))
    entries = [
        (side, variant, percent) for side, percent in sides for variant in production_variants(side.endpoint_config)
    ]
    weights = shares([_part(side, variant, percent) for side, variant, percent in entries])
    targets = _target_weights([(str(variant["variantName"]), percent) for _, variant, percent in entries])
    fleets = tuple(
        _fleet(endpoint, side, variant, split, weight=weight, target_weight=target)
        for (side, variant, _), weight, target in zip(entries, weights, targets, strict=True)
    )
    made = EndpointRouteSpec(
        schema_version=schema_version,
        endpoint_name=endpoint_name,
        timeout_seconds=limits.timeout_seconds,
        max_payload_bytes=limits.max_payload_bytes,
        fleets=fleets,
        shadows=tuple(shadow for side, percent in sides for shadow in _shadows(endpoint, side, split, percent)),
    )
    if before is not None and same_routes(before, made):
        return before
    had = {fleet.name: fleet.weight for fleet in before.fleets} if before is not None else {}
    # Where somebody deleted the routes in mid-deployment, old fleets get no more than they had.
    spared = split.serving if before is None and split.deployed is not None else None
    return made.model_copy(
        update={
            "fleets": tuple(
                fleet.model_copy(update={"require_ready": side is not spared and fleet.weight > had.get(fleet.name, 0)})
                for fleet, (side, _, _) in zip(fleets, entries, strict=True)
            )
        }
    )


def retired(endpoint_name: str) -> EndpointRouteSpec:
    """The routes of an Endpoint that serves no more."""
    return EndpointRouteSpec(endpoint_name=endpoint_name)


def same_routes(one: EndpointRouteSpec, other: EndpointRouteSpec) -> bool:
    """Whether two route specs send requests the same way."""
    return _plain(one) == _plain(other)


def fleets_of(spec: EndpointRouteSpec) -> frozenset[str]:
    """Every fleet that the routes name."""
    return frozenset(fleet.name for fleet in spec.fleets) | {shadow.fleet.name for shadow in spec.shadows}


def percent_on(spec: EndpointRouteSpec, revision_fleets: frozenset[str]) -> float:
    """Percent of the untargeted requests that reach these fleets."""
    weight = sum(fleet.weight for fleet in spec.fleets if fleet.name in revision_fleets)
    return round(100.0 * weight / WEIGHT_TOTAL, 4)


def _plain(spec: EndpointRouteSpec) -> EndpointRouteSpec:
    return spec.model_copy(
        update={"fleets": tuple(fleet.model_copy(update={"require_ready": False}) for fleet in spec.fleets)}
    )


def _part(side: Side, variant: Mapping[str, Any], percent: Fraction) -> Fraction:
    """A variant's share of all requests: its share within its revision times the revision's."""
    whole = sum(Fraction(side.weights.get(str(v["variantName"]), 1.0)) for v in side.endpoint_config[
        "productionVariants"
    ])  # fmt: skip
    mine = Fraction(side.weights.get(str(variant["variantName"]), 1.0))
    return mine / whole * percent if whole > 0 else Fraction(0)


def _target_weights(entries: list[tuple[str, Fraction]]) -> list[int]:
    """For requests that name a variant: its fleets by their revisions' shares, whatever the variant's own weight."""
    targets = [0] * len(entries)
    for name in {name for name, _ in entries}:
        places = [i for i, (other, _) in enumerate(entries) if other == name]
        for place, share in zip(places, shares([entries[i][1] for i in places]), strict=True):
            targets[place] = share
    return targets


def _fleet(
    endpoint: str, side: Side, variant: Mapping[str, Any], split: Split, *, weight: int, target_weight: int
) -> RouteFleet:
    name = fleet_name(endpoint, str(variant["variantName"]), side.fleet_hash)
    model = side.models[variant["modelName"]]
    routing = variant.get("routingConfig") or {}
    return RouteFleet(
        name=name,
        variant_name=variant["variantName"],
        revision=counted_revision(side.revision),
        port=CONTAINER_PORT,
        weight=weight,
        target_weight=target_weight,
        balancing=_BALANCING.get(str(routing.get("routingStrategy")), "LEAST_REQUEST"),
        max_requests_per_instance=(variant.get("kubernetes") or {}).get("maxConcurrentRequestsPerInstance"),
        containers=_containers(model),
        sample=_sample(model),
        excluded_pods=tuple(sorted(split.excluded.get(name, ()))[:MAX_EXCLUDED]),
    )


def _containers(model: RawSpec) -> tuple[RouteContainer, ...]:
    """The containers of a model that requests name one of, in the ports they are told to bind."""
    if (model.get("inferenceExecutionConfig") or {}).get("mode") != "Direct":
        return ()
    return tuple(
        RouteContainer(hostname=container["containerHostname"], port=CONTAINER_PORT + index)
        for index, container in enumerate(model.get("containers") or ())
    )


def _sample(model: RawSpec) -> RouteSample | None:
    sample = (model.get("kubernetes") or {}).get("sampleInvocation")
    if not sample:
        return None
    return RouteSample(
        body=sample["body"],
        content_type=sample.get("contentType") or "application/json",
        expected_status=sample.get("expectedStatus") or 200,
        timeout_seconds=sample.get("timeoutSeconds") or 5,
        period_seconds=sample.get("periodSeconds"),
    )


def _shadows(endpoint: str, side: Side, split: Split, percent: Fraction) -> list[RouteShadow]:
    """Shadow variants see a share of the production requests: shadow weight over production weight, at most all. Of
    two revisions the one that serves more has its shadow mirrored."""
    made = []
    other = Fraction(100) - percent
    production = sum(Fraction(weight) for name, weight in side.weights.items() if name in _names(side))
    for variant in shadow_variants(side.endpoint_config):
        weight = Fraction(variant.get("initialVariantWeight", 1.0))
        share = min(Fraction(1), weight / production) if production > 0 else Fraction(1)
        wins = percent > other or (percent == other and side is split.deployed)
        made.append(
            RouteShadow(
                fleet=_fleet(endpoint, side, variant, split, weight=0, target_weight=0),
                sampling=int(share * WEIGHT_TOTAL) if wins else 0,
            )
        )
    return made


def _names(side: Side) -> frozenset[str]:
    return frozenset(str(v["variantName"]) for v in side.endpoint_config["productionVariants"])
