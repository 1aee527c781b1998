"""What a router tells of its routes. A route of which nothing changed is told by the same value as before, so that the
report of many costs little more than the report of one. Pure."""

from collections.abc import Callable, Iterable, Mapping

from sluice.api.routes import EndpointRouteSpec, FleetReport, RejectedRoute, RouteFleet, RouteReport
from sluice.router.objects import Route
from sluice.router.routes import fleets_of

Hosts = tuple[int, int, str | None]
"""Pods of a fleet, those that get requests, and what one of the others answered."""
HostsOf = Callable[[RouteFleet], Hosts]
_Told = tuple[str, int, tuple[tuple[str, Hosts], ...], tuple[str, ...]]


class Reports:
    """Remembers what it made last."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[_Told, RouteReport]] = {}

    def tell(
        self,
        routes: Iterable[Route],
        confirms: Mapping[str, int],
        served: Mapping[str, EndpointRouteSpec],
        draining: Mapping[str, tuple[str, ...]],
        hosts: HostsOf,
    ) -> tuple[RouteReport, ...]:
        """The existing routes that are in force. `confirms` (uid -> generation) and `served` (uid -> spec) are what
        Envoy has, `draining` fleets by endpoint, `hosts` their pods."""
        made: dict[str, tuple[_Told, RouteReport]] = {}
        for route in sorted(routes, key=lambda route: route.name):
            generation = confirms.get(route.uid)
            if generation is None:
                continue
            spec = served.get(route.uid)
            named = spec or route.spec
            fleets = tuple((fleet.name, hosts(fleet)) for fleet in fleets_of(spec)) if spec else ()
            told = (route.name, generation, fleets, draining.get(named.endpoint_name, ()) if named else ())
            before = self._made.get(route.uid)
            made[route.uid] = before if before is not None and before[0] == told else (told, _report(route.uid, told))
        self._made = made
        return tuple(report for _, report in made.values())


def rejections(rejected: Iterable[tuple[Route, str]]) -> tuple[RejectedRoute, ...]:
    """The routes that cannot be applied, with the reason."""
    return tuple(
        RejectedRoute(name=route.name, uid=route.uid, generation=route.generation, message=reason[:1024])
        for route, reason in sorted(rejected, key=lambda item: item[0].name)
    )


def _report(uid: str, told: _Told) -> RouteReport:
    name, generation, fleets, draining = told
    return RouteReport(
        name=name,
        uid=uid,
        generation=generation,
        fleets=tuple(
            FleetReport(name=fleet, hosts=hosts, healthy=healthy, sample_answer=answer)
            for fleet, (hosts, healthy, answer) in fleets
        ),
        draining=draining,
    )
