"""EndpointRoutes for tests."""

from typing import Any

from sluice.api.routes import EndpointRouteSpec, RouteFleet


def fleet(name: str, variant: str = "a", weight: int = 1_000_000, port: int = 8080, **rest: Any) -> RouteFleet:
    """One fleet."""
    rest.setdefault("target_weight", 1_000_000)
    return RouteFleet(name=name, variant_name=variant, revision="churn-r1", port=port, weight=weight, **rest)


def route(endpoint: str, *fleets: RouteFleet, **rest: Any) -> EndpointRouteSpec:
    """One endpoint."""
    return EndpointRouteSpec(endpoint_name=endpoint, fleets=fleets, **rest)
