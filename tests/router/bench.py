"""A ledger without an Envoy: each step is given what Envoy would say."""

from dataclasses import replace

from tests.router.specs import fleet, route

from sluice.router.ledger import Ledger, Step
from sluice.router.objects import Pod, Route
from sluice.router.view import Activity, View
from sluice.router.wanted import resolve


class Bench:
    """A ledger, its routes, and an Envoy that has in force what the test says."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.routes: dict[str, Route] = {}
        self.view = View("empty", "empty")
        self.activity = Activity({}, {})
        self.all_pods: dict[str, tuple[Pod, ...]] = {}
        self.now = 100.0

    def put(self, name: str, generation: int, *fleets: str, weight: int = 1_000_000) -> None:
        spec = route(name, *(fleet(item, weight=weight) for item in fleets))
        self.routes[name] = Route(f"u-{name}", name, generation, f"2026-01-01T00:00:{len(self.routes):02}Z", spec)

    def step(self) -> Step:
        wanted = resolve(self.routes.values(), self.ledger.bad)
        return self.ledger.step(wanted, self.pods, self.view, self.activity, self.now)

    def pods(self, name: str) -> tuple[Pod, ...]:
        return self.all_pods.setdefault(name, (Pod("p", "10.0.0.1", ready=True, lingering=False),))

    def takes(self, step: Step, *, warming: frozenset[str] = frozenset()) -> None:
        """Envoy takes what it was sent."""
        if step.clusters:
            self.view = replace(self.view, clusters=step.clusters.version, clusters_refused=None, warming=warming)
        if step.scopes:
            self.view = replace(self.view, scopes=step.scopes.version, scopes_refused=None)

    def settle(self) -> None:
        for _ in range(10):
            step = self.step()
            if step == Step():
                return
            self.takes(step)
        raise AssertionError("never settled")

    def confirmed(self) -> dict[str, int]:
        wanted = resolve(self.routes.values(), self.ledger.bad)
        reports, _ = self.ledger.report(wanted, self.routes.values(), self.view, self.activity)
        return {report.name: report.generation for report in reports}

    def draining(self) -> list[str]:
        wanted = resolve(self.routes.values(), self.ledger.bad)
        reports, _ = self.ledger.report(wanted, self.routes.values(), self.view, self.activity)
        return [name for report in reports for name in report.draining]
