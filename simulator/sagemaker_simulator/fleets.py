"""The variants of an EndpointConfig as a fleet: their models' images at this moment, their counts and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import declared
from .errors import limit_exceeded
from .names import Kind
from .state import Declared, DeployedImage, Region, Variant, World


def specs(config: Declared) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Each variant's entry in a config, and whether it is a shadow."""
    for spec in config.fields["ProductionVariants"]:
        yield spec, False
    for spec in config.fields.get("ShadowProductionVariants", []):
        yield spec, True


def by_name(config: Declared) -> dict[str, Mapping[str, Any]]:
    """Each variant's entry in a config by VariantName."""
    return {spec["VariantName"]: spec for spec, _ in specs(config)}


def containers(model: Declared) -> list[Mapping[str, Any]]:
    """A model's containers in order."""
    return list(model.fields.get("Containers") or [model.fields["PrimaryContainer"]])


def launch(world: World, region: Region, config: Declared) -> dict[str, Variant]:
    """The config's variants as they would be launched now; refuses when a Model of it is gone."""
    fleet: dict[str, Variant] = {}
    for spec, shadow in specs(config):
        images: tuple[DeployedImage, ...] = ()
        if "ModelName" in spec:
            model = declared.use(world, region, Kind.MODEL, spec["ModelName"])
            images = tuple(world.resolve_image(one["Image"]) for one in containers(model) if "Image" in one)
        count = spec.get("InitialInstanceCount", 1)
        weight = float(spec.get("InitialVariantWeight", 1.0))
        fleet[spec["VariantName"]] = Variant(spec["VariantName"], spec, images, weight, count, weight, 0, shadow)
    return fleet


def _instances(fleet: Mapping[str, Variant]) -> Iterator[tuple[str, int]]:
    for variant in fleet.values():
        if "InstanceType" in variant.spec:
            yield variant.spec["InstanceType"], variant.desired_count


def check_quota(world: World, region: Region, wanted: Mapping[str, int]) -> None:
    """Refuses instances beyond a type's quota; ``wanted`` is additional instances by type."""
    for instance_type, delta in wanted.items():
        limit = world.settings.quotas.get(instance_type)
        if limit is None or delta <= 0:
            continue
        used = sum(
            count
            for endpoint in region.endpoints.values()
            for fleet in (endpoint.variants, endpoint.leftover, getattr(endpoint.activity, "variants", {}))
            for one, count in _instances(fleet)
            if one == instance_type
        )
        if used + delta > limit:
            raise limit_exceeded(f"{instance_type} for endpoint usage", limit, used, delta, "Instances")


def instances_by_type(fleet: Mapping[str, Variant]) -> dict[str, int]:
    """Instances a whole fleet needs, by instance type."""
    needed: dict[str, int] = {}
    for instance_type, count in _instances(fleet):
        needed[instance_type] = needed.get(instance_type, 0) + count
    return needed
