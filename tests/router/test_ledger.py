"""The order of writes, without an Envoy: each step is given what Envoy would say."""

from dataclasses import replace

from tests.router.specs import fleet, route

from sluice.router.admin import UNKNOWN, UNKNOWN_ACTIVITY, Activity, View
from sluice.router.ledger import Ledger, Step
from sluice.router.objects import Pod, Route
from sluice.router.wanted import resolve


class Bench:
    """A ledger, its routes, and an Envoy that has in force what the test says."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.routes: dict[str, Route] = {}
        self.view = View("empty", "empty", counted=True)
        self.activity = Activity({}, {}, {})
        self.now = 100.0

    def put(self, name: str, generation: int, *fleets: str, weight: int = 1_000_000) -> None:
        spec = route(name, *(fleet(item, weight=weight) for item in fleets))
        self.routes[name] = Route(f"u-{name}", name, generation, f"2026-01-01T00:00:{len(self.routes):02}Z", spec)

    def step(self) -> Step:
        wanted = resolve(self.routes.values(), self.ledger.bad)
        return self.ledger.step(wanted, self.pods, self.view, self.activity, self.now)

    def pods(self, name: str) -> tuple[Pod, ...]:
        return (Pod("p", "10.0.0.1", ready=True, lingering=False),)

    def takes(self, step: Step, *, warming: frozenset[str] = frozenset()) -> None:
        """Envoy takes the file that was written."""
        if step.clusters:
            self.view = replace(self.view, clusters=step.clusters.version, warming=warming)
        if step.scopes:
            self.view = replace(self.view, scopes=step.scopes.version)

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


def test_clusters_first_then_routes_then_nothing() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    first = bench.step()
    assert first.clusters is not None
    assert first.scopes is None
    assert bench.step().scopes is not None, "the empty snapshot, without the route"
    assert bench.confirmed() == {}
    bench.takes(first)
    second = bench.step()
    assert second.scopes is not None
    assert '"a1"' in second.scopes.text
    assert bench.confirmed() == {}, "written is not in force"
    bench.takes(second)
    assert bench.step() == Step()
    assert bench.confirmed() == {"a": 1}


def test_an_endpoint_whose_cluster_warms_holds_up_no_other() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.put("b", 1, "b1")
    bench.takes(bench.step(), warming=frozenset({"a1"}))
    step = bench.step()
    assert step.scopes is not None
    assert '"b1"' in step.scopes.text
    assert '"a1"' not in step.scopes.text
    bench.takes(step)
    assert bench.confirmed() == {"b": 1}
    bench.view = replace(bench.view, warming=frozenset())
    bench.settle()
    assert bench.confirmed() == {"a": 1, "b": 1}


def test_a_cluster_stands_until_its_route_is_out_of_force_and_nothing_runs() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    bench.put("a", 2, "a2")
    bench.takes(bench.step())
    routes = bench.step()
    for _ in range(3):
        bench.now += 100
        assert bench.step() == Step(), "Envoy still has the old routes"
    bench.activity = Activity({}, {}, {"a1": 1})
    bench.takes(routes)
    assert bench.step() == Step()
    assert bench.draining() == ["a1"]
    bench.now += 30
    assert bench.step() == Step(), "a request runs"
    bench.activity = UNKNOWN_ACTIVITY
    assert bench.step() == Step(), "nobody knows whether one runs"
    bench.activity = Activity({}, {}, {})
    gone = bench.step()
    assert gone.clusters is not None
    assert '"a1"' not in gone.clusters.text
    assert bench.draining() == []


def test_a_drain_ends_at_its_deadline() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    bench.put("a", 2, "a2")
    bench.activity = Activity({}, {}, {"a1": 1})
    bench.settle()
    bench.now += 64
    assert bench.step() == Step()
    bench.now += 2
    assert bench.step().clusters is not None, "60 s and 5 more"


def test_a_fleet_that_is_wanted_again_stays() -> None:
    bench = Bench()
    bench.put("a", 1, "a1", "a2")
    bench.settle()
    bench.put("a", 2, "a2")
    bench.activity = Activity({}, {}, {"a1": 1})
    bench.settle()
    assert bench.draining() == ["a1"]
    bench.put("a", 3, "a1", "a2")
    bench.settle()
    assert bench.draining() == []
    bench.now += 100
    bench.activity = Activity({}, {}, {})
    assert bench.step() == Step()


def test_an_envoy_that_does_not_answer_moves_nothing_on() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    bench.put("a", 2, "a2")
    bench.view, before = UNKNOWN, bench.view
    assert bench.step().clusters is not None, "new clusters do no harm"
    for _ in range(3):
        bench.now += 100
        assert bench.step() == Step()
    bench.view = before
    assert bench.confirmed() == {"a": 1}


def test_refused_together_but_not_alone_is_refused_in_the_end() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    bench.put("b", 1, "b1")
    for round_ in (1, 2):
        assert bench.step().clusters is not None
        bench.view = replace(bench.view, clusters_refused=round_)
        step = bench.step()
        assert [item.name for item in step.suspects] == ["b"], "a has been accepted before"
        assert step.clusters is not None
        assert '"b1"' not in step.clusters.text, "what stands is what Envoy takes"
        bench.takes(step)
        bench.ledger.judge({}, step.suspects)
    assert bench.ledger.bad.keys() == {("u-b", 1)}
    bench.settle()
    assert bench.confirmed() == {"a": 1}
    bench.put("b", 2, "b1")
    bench.settle()
    assert bench.confirmed() == {"a": 1, "b": 2}


def test_counters_of_the_past_and_of_a_restarted_envoy_mean_nothing() -> None:
    bench = Bench()
    bench.view = replace(bench.view, clusters_refused=7, scopes_refused=3)
    bench.put("a", 1, "a1")
    bench.step()
    assert bench.step().suspects == ()
    bench.settle()
    bench.put("a", 2, "a1", "a2")
    assert bench.step().clusters is not None
    bench.view = replace(bench.view, clusters_refused=0, scopes_refused=0)
    assert bench.step().suspects == ()


def test_an_older_process_state_is_taken_up() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    files = {"clusters": "", "scopes": ""}
    for _ in range(4):
        step = bench.step()
        bench.takes(step)
        files["clusters"] = step.clusters.text if step.clusters else files["clusters"]
        files["scopes"] = step.scopes.text if step.scopes else files["scopes"]
    again = Bench()
    again.ledger.restore(files["clusters"], files["scopes"], bench.ledger.state())
    again.routes, again.view = bench.routes, bench.view
    assert again.step() == Step()
    assert again.confirmed() == {"a": 1}
    del again.routes["a"]
    step = again.step()
    assert step.scopes is not None, "its route goes first"
    assert step.clusters is None
