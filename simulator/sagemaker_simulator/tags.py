"""Tags of models, endpoint configs and endpoints: upsert by key, at most 50, gone with their object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import invalid
from .state import Region, World

LIMIT = 50


def as_map(tags: Sequence[dict[str, str]]) -> dict[str, str]:
    """Tags of a request by key; refuses a key given twice, and AWS's own prefix."""
    result: dict[str, str] = {}
    for tag in tags:
        if tag["Key"] in result:
            raise invalid(f"Tag keys must be unique: '{tag['Key']}' is given more than once.")
        if tag["Key"].lower().startswith("aws:"):
            raise invalid(f"Tag key '{tag['Key']}' is not valid: the prefix aws: is reserved.")
        result[tag["Key"]] = tag["Value"]
    return result


def _of(region: Region, arn: str) -> dict[str, str]:
    tags = region.tags.get(arn)
    if tags is None:
        raise invalid(f'Could not find resource "{arn}".')
    return tags


def _as_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def add_tags(_world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """AddTags: sets new keys and overwrites known ones, all or nothing."""
    current = _of(region, request["ResourceArn"])
    merged = {**current, **as_map(request["Tags"])}
    if len(merged) > LIMIT:
        raise invalid(
            f'Cannot add tags to "{request["ResourceArn"]}": it would have {len(merged)} tags, the limit is {LIMIT}.'
        )
    region.tags[request["ResourceArn"]] = merged
    return {"Tags": _as_list(merged)}


def list_tags(_world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """ListTags: all of them; a page holds as many as an object may have."""
    return {"Tags": _as_list(_of(region, request["ResourceArn"]))}


def delete_tags(_world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteTags: a key that is not there is no error."""
    current = _of(region, request["ResourceArn"])
    region.tags[request["ResourceArn"]] = {
        key: value for key, value in current.items() if key not in request["TagKeys"]
    }
    return {}
