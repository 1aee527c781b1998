"""The three List operations: filter, sort, page. A page's token is a position: changes between pages do no harm."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .errors import invalid
from .state import Declared, Endpoint, Region, World

DEFAULT_PAGE = 10

T = TypeVar("T", Declared, Endpoint)


def _position(token: str) -> tuple[Any, str]:
    try:
        value, name = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, UnicodeDecodeError) as error:
        raise invalid("Invalid pagination token.") from error
    return value, name


def _token(position: tuple[Any, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def _page(found: Iterable[T], key: Callable[[T], Any], request: dict[str, Any]) -> tuple[list[T], str | None]:
    descending = request.get("SortOrder", "Descending") == "Descending"
    ordered = sorted(((key(one), one.name, one) for one in found), key=lambda row: row[:2], reverse=descending)
    if "NextToken" in request:
        after = _position(request["NextToken"])
        ordered = [row for row in ordered if (row[:2] < after if descending else row[:2] > after)]
    size = request.get("MaxResults", DEFAULT_PAGE)
    token = _token(ordered[size - 1][:2]) if len(ordered) > size else None
    return [row[2] for row in ordered[:size]], token


def _within(moment: float, request: dict[str, Any], what: str) -> bool:
    after: float = request.get(f"{what}After", float("-inf"))
    before: float = request.get(f"{what}Before", float("inf"))
    return after < moment < before


def _visible(world: World, objects: Iterable[T], request: dict[str, Any]) -> Iterable[T]:
    fresh_since = world.now - world.settings.read_after_create_seconds
    part = request.get("NameContains", "").lower()
    return (
        one
        for one in objects
        if one.created <= fresh_since and part in one.name.lower() and _within(one.created, request, "CreationTime")
    )


def _answer(field: str, rows: list[dict[str, Any]], token: str | None) -> dict[str, Any]:
    return {field: rows, "NextToken": token} if token else {field: rows}


def _declared(world: World, objects: Iterable[Declared], word: str, request: dict[str, Any]) -> dict[str, Any]:
    by_name = request.get("SortBy", "CreationTime") == "Name"
    page, token = _page(
        _visible(world, objects, request), lambda one: one.name.lower() if by_name else one.created, request
    )
    rows = [{f"{word}Name": one.name, f"{word}Arn": one.arn, "CreationTime": one.created} for one in page]
    return _answer(f"{word}s", rows, token)


def list_models(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """ListModels."""
    return _declared(world, region.models.values(), "Model", request)


def list_endpoint_configs(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """ListEndpointConfigs."""
    return _declared(world, region.configs.values(), "EndpointConfig", request)


def list_endpoints(world: World, region: Region, request: dict[str, Any]) -> dict[str, Any]:
    """ListEndpoints, which can also filter by status and by time of the last change."""
    sort = request.get("SortBy", "CreationTime")
    status = request.get("StatusEquals")
    found = (
        one
        for one in _visible(world, region.endpoints.values(), request)
        if status in (None, one.status) and _within(one.modified, request, "LastModifiedTime")
    )
    keys: dict[str, Callable[[Endpoint], Any]] = {
        "Name": lambda one: one.name.lower(),
        "Status": lambda one: one.status,
        "CreationTime": lambda one: one.created,
    }
    page, token = _page(found, keys[sort], request)
    rows = [
        {
            "EndpointName": one.name,
            "EndpointArn": one.arn,
            "CreationTime": one.created,
            "LastModifiedTime": round(one.modified, 3),
            "EndpointStatus": one.status,
        }
        for one in page
    ]
    return _answer("Endpoints", rows, token)
