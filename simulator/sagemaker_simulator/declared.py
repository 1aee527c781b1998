"""What Models and EndpointConfigs have in common: unique names, no update, deletion even while in use, staleness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import invalid, limit_exceeded
from .names import Kind, already_exists, arn, not_found
from .state import Declared, Region, World
from .tags import as_map


def _objects(region: Region, kind: Kind) -> dict[str, Declared]:
    return region.models if kind is Kind.MODEL else region.configs


def create(world: World, region: Region, kind: Kind, name: str, request: Mapping[str, Any]) -> Declared:
    """Stores the object as asked for; refuses a taken name, also one whose reads are still stale."""
    objects = _objects(region, kind)
    object_arn = arn(kind, region.account, region.name, name)
    if name in objects:
        raise already_exists(kind, object_arn)
    quota = f"{kind}s"
    limit = world.settings.quotas.get(quota)
    if limit is not None and len(objects) >= limit:
        raise limit_exceeded(quota, limit, len(objects), 1, "objects")
    tags = as_map(request.get("Tags", []))
    fields = {key: value for key, value in request.items() if key != "Tags"}
    record = Declared(name, object_arn, round(world.now, 3), fields)
    objects[name] = record
    region.tags[object_arn] = tags
    return record


def read(world: World, region: Region, kind: Kind, name: str) -> Declared:
    """The object as Describe sees it: not before reads have caught up with its creation."""
    record = _objects(region, kind).get(name)
    if record is None or world.now - record.created < world.settings.read_after_create_seconds:
        raise not_found(kind, arn(kind, region.account, region.name, name))
    return record


def use(world: World, region: Region, kind: Kind, name: str) -> Declared:
    """The object as an operation sees it that references it by name."""
    record = _objects(region, kind).get(name)
    if record is None or world.now - record.created < world.settings.use_after_create_seconds:
        raise not_found(kind, arn(kind, region.account, region.name, name))
    return record


def delete(region: Region, kind: Kind, name: str) -> None:
    """Removes the entry only; whatever serves from it goes on serving."""
    record = _objects(region, kind).pop(name, None)
    if record is None:
        raise not_found(kind, arn(kind, region.account, region.name, name))
    region.tags.pop(record.arn, None)


def require_one(container: Mapping[str, Any], *names: str, what: str) -> None:
    """Refuses unless exactly one of the fields is there."""
    given = [name for name in names if container.get(name) is not None]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise invalid(f"{what} must have exactly one of {', '.join(names)}; found {found}.")
