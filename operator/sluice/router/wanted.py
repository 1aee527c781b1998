"""What the routes of the namespace ask for together: one endpoint name belongs to one route. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sluice.api.routes import EndpointRouteSpec
from sluice.router.objects import Route
from sluice.router.routes import RouteProblem, check


@dataclass(frozen=True, slots=True)
class Wanted:
    """The routes to put in force, and those that cannot be."""

    routes: Mapping[str, Route]
    """By endpoint name; the spec is there and has fleets."""
    retired: tuple[Route, ...]
    """Routes without fleets: in force when their endpoint is gone from the router."""
    rejected: tuple[tuple[Route, str], ...]
    """With the reason. What was in force of the same route before stays."""


def resolve(routes: Iterable[Route], bad: Mapping[tuple[str, int], str]) -> Wanted:
    """Decide for every route. `bad` are generations that Envoy refused, with its reason."""
    chosen: dict[str, Route] = {}
    retired: list[Route] = []
    rejected: list[tuple[Route, str]] = []
    for route in sorted(routes, key=lambda route: (route.created, route.uid)):
        spec = route.spec
        if spec is None:
            rejected.append((route, route.problem))
        elif route.key in bad:
            rejected.append((route, bad[route.key]))
        elif not spec.fleets:
            retired.append(route)
        elif spec.endpoint_name in chosen:
            owner = chosen[spec.endpoint_name]
            rejected.append(
                (route, f"endpointName {spec.endpoint_name} belongs to the older EndpointRoute {owner.name}")
            )
        elif problem := _problem(spec):
            rejected.append((route, problem))
        else:
            chosen[spec.endpoint_name] = route
    return Wanted(chosen, tuple(retired), tuple(rejected))


def _problem(spec: EndpointRouteSpec) -> str:
    try:
        check(spec)
    except RouteProblem as problem:
        return str(problem)
    return ""
