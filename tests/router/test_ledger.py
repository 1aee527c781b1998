"""The order of writes, without an Envoy: each step is given what Envoy would say."""

import gc
from dataclasses import replace

from tests.router.specs import fleet, route

from sluice.api.routes import RouteReport, RouteSample
from sluice.router.ledger import Ledger, Step
from sluice.router.objects import Pod, Route
from sluice.router.view import UNKNOWN, UNKNOWN_ACTIVITY, Activity, Refusal, View
from sluice.router.wanted import resolve
from sluice.router.wire import Resource, Snapshot


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
    assert "a" in second.scopes.resources
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
    assert "b" in step.scopes.resources
    assert "a" not in step.scopes.resources
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
    bench.activity = Activity({}, {"a1": 1})
    bench.takes(routes)
    assert bench.step() == Step()
    assert bench.draining() == ["a1"]
    bench.now += 30
    assert bench.step() == Step(), "a request runs"
    bench.activity = UNKNOWN_ACTIVITY
    assert bench.step() == Step(), "nobody knows whether one runs"
    bench.activity = Activity({}, {})
    gone = bench.step()
    assert gone.clusters is not None
    assert "a1" not in gone.clusters.resources
    assert bench.draining() == []


def test_a_fleet_that_was_let_go_drains_also_while_envoy_is_to_have_something_newer() -> None:
    """Else its pods would be stopped with the requests that they have."""
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.put("b", 1, "b1")
    bench.settle()
    bench.activity = Activity({}, {"a1": 1})
    bench.put("a", 2, "a2")
    bench.takes(bench.step())  # the cluster
    let_go = bench.step()
    assert let_go.scopes is not None
    bench.put("b", 2, "b1", weight=5)
    newer = bench.step()
    assert newer.scopes is not None
    bench.takes(let_go)
    bench.step()
    assert (bench.confirmed(), bench.draining()) == ({"a": 2, "b": 1}, ["a1"])
    bench.now += 10
    bench.activity = Activity({}, {})
    bench.step()
    assert bench.draining() == ["a1"], "it goes only when nothing on its way to Envoy can name it"
    bench.takes(newer)
    bench.takes(bench.step())
    assert (bench.confirmed(), bench.draining()) == ({"a": 2, "b": 2}, [])


def test_a_fleet_lingers_from_when_the_last_routes_that_name_it_went_out_of_force() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    bench.put("a", 2, "a2")
    bench.settle()
    assert bench.draining() == ["a1"]
    bench.put("a", 3, "a1", "a2")
    named = bench.step()
    bench.put("a", 4, "a2")
    newer = bench.step()
    assert bench.step() == Step(), "neither has come to Envoy"
    bench.now += 10
    bench.takes(named)
    assert bench.step() == Step(), "they are in force"
    bench.now += 10
    bench.takes(newer)
    assert bench.step() == Step(), "a worker may have them a moment longer"
    bench.now += 1
    assert bench.step().clusters is not None


def test_a_drain_ends_at_its_deadline() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    bench.put("a", 2, "a2")
    bench.activity = Activity({}, {"a1": 1})
    bench.settle()
    bench.now += 484
    assert bench.step() == Step(), "what runs longer than the 60 s of an invocation is a stream"
    bench.now += 2
    assert bench.step().clusters is not None, "480 s and 5 more"


def test_an_invocation_that_may_run_for_longer_than_a_stream_is_waited_for() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    first = bench.routes["a"]
    assert first.spec is not None
    bench.routes["a"] = replace(first, spec=first.spec.model_copy(update={"timeout_seconds": 900}))
    bench.settle()
    bench.put("a", 2, "a2")
    bench.activity = Activity({}, {"a1": 1})
    bench.settle()
    bench.now += 904
    assert bench.step() == Step()
    bench.now += 2
    assert bench.step().clusters is not None


def rising(sample: RouteSample | None = None) -> Bench:
    """A route in force, and its next generation with a fleet that must be ready first and has no pod."""
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    spec = route("a", fleet("a1"), fleet("a2", require_ready=True, sample=sample))
    bench.routes["a"] = replace(bench.routes["a"], generation=2, spec=spec)
    bench.all_pods["a2"] = ()
    bench.settle()
    assert bench.confirmed() == {"a": 1}
    assert bench.ledger.served["a"].generation == 1, "what served goes on"
    return bench


READY = (Pod("p", "10.0.0.9", ready=True, lingering=False),)


def test_a_weight_rises_only_where_a_pod_can_take_it() -> None:
    bench = rising()
    bench.all_pods["a2"] = READY
    bench.settle()
    assert bench.confirmed() == {"a": 2}


def test_a_weight_rises_only_where_a_pod_has_passed_the_sample_invocation() -> None:
    bench = rising(RouteSample(body="x"))
    bench.all_pods["a2"] = READY
    bench.activity = Activity({"a2": 0}, {})
    bench.settle()
    assert bench.confirmed() == {"a": 1}
    bench.activity = Activity({"a2": 1}, {})
    bench.settle()
    assert bench.confirmed() == {"a": 2}


def test_where_nothing_served_before_there_is_nothing_to_wait_with() -> None:
    """An Endpoint whose pods are all away when a router starts must not keep the router from being ready."""
    bench = Bench()
    bench.routes["a"] = Route("u-a", "a", 1, "2026-01-01T00:00:00Z", route("a", fleet("a1", require_ready=True)))
    bench.all_pods["a1"] = ()
    bench.settle()
    assert bench.confirmed() == {"a": 1}


def test_a_router_covers_the_routes_only_when_envoy_has_them() -> None:
    """Its readiness: a pod that is ready earlier is sent requests for endpoints that it does not know."""
    bench = Bench()
    bench.put("a", 1, "a1")

    def covers() -> bool:
        return bench.ledger.covers(resolve(bench.routes.values(), {}), bench.view)

    assert not covers()
    bench.takes(bench.step())
    scopes = bench.step()
    assert not covers(), "sent is not in force"
    bench.takes(scopes)
    assert covers()
    bench.view = replace(bench.view, warming=frozenset({"a1"}))
    assert not covers()


def test_however_many_fleets_of_an_endpoint_drain_all_are_told() -> None:
    """Ten variants that are deployed five times while streams run."""
    bench = Bench()
    for generation in range(1, 7):
        bench.put("a", generation, *(f"a{generation}-{variant}" for variant in range(10)))
        bench.activity = Activity({}, {f"a{old}-{variant}": 1 for old in range(generation) for variant in range(10)})
        bench.settle()
        bench.now += 60
    assert len(bench.draining()) == 50
    report, _ = bench.ledger.report(
        resolve(bench.routes.values(), {}), bench.routes.values(), bench.view, bench.activity
    )
    assert RouteReport.model_validate(report[0].model_dump(by_alias=True)) == report[0]


def test_a_fleet_that_is_wanted_again_stays() -> None:
    bench = Bench()
    bench.put("a", 1, "a1", "a2")
    bench.settle()
    bench.put("a", 2, "a2")
    bench.activity = Activity({}, {"a1": 1})
    bench.settle()
    assert bench.draining() == ["a1"]
    bench.put("a", 3, "a1", "a2")
    bench.settle()
    assert bench.draining() == []
    bench.now += 100
    bench.activity = Activity({}, {})
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
    for _ in (1, 2):
        sent = bench.step()
        assert sent.clusters is not None
        bench.view = replace(bench.view, clusters_refused=Refusal(sent.clusters.version, frozenset({"b1"}), "so"))
        step = bench.step()
        assert [item.name for item in step.suspects] == ["b"]
        assert step.clusters is not None
        assert "b1" not in step.clusters.resources, "what stands is what Envoy takes"
        bench.takes(step)
        bench.ledger.judge({}, step.suspects)
    assert bench.ledger.bad.keys() == {("u-b", 1)}
    bench.settle()
    assert bench.confirmed() == {"a": 1}
    bench.put("b", 2, "b1")
    bench.settle()
    assert bench.confirmed() == {"a": 1, "b": 2}


def test_only_what_was_refused_is_suspected() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    bench.put("a", 2, "a1", "a2")
    bench.put("b", 1, "b1")
    sent = bench.step()
    assert sent.clusters is not None
    bench.view = replace(bench.view, clusters_refused=Refusal(sent.clusters.version, frozenset({"b1"}), "so"))
    step = bench.step()
    assert [item.name for item in step.suspects] == ["b"]
    bench.takes(step)
    bench.settle()
    assert bench.confirmed() == {"a": 2}


def test_a_refusal_of_what_was_replaced_since_means_nothing() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    bench.put("a", 2, "a1", "a2")
    sent = bench.step()
    assert sent.clusters is not None
    spec = route("a", fleet("a1"), fleet("a2", port=8081))
    bench.routes["a"] = replace(bench.routes["a"], generation=3, spec=spec)
    assert bench.step().clusters is not None
    bench.view = replace(bench.view, clusters_refused=Refusal(sent.clusters.version, frozenset({"a2"}), "so"))
    assert bench.step().suspects == ()


def test_what_envoy_took_before_is_no_suspect_when_its_pods_change() -> None:
    """Else its route would be held back for another's fault."""
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    bench.put("b", 1, "b1")
    bench.all_pods["a1"] = READY
    sent = bench.step()
    assert sent.clusters is not None
    bench.view = replace(bench.view, clusters_refused=Refusal(sent.clusters.version, frozenset({"a1", "b1"}), "so"))
    assert [item.name for item in bench.step().suspects] == ["b"]


def test_while_a_refused_scope_is_judged_the_one_before_it_serves() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.put("b", 1, "b1")
    bench.settle()
    bench.put("a", 2, "a1", weight=999_999)
    bench.put("b", 2, "b1", weight=999_999)
    sent = bench.step()
    assert sent.scopes is not None
    bench.view = replace(bench.view, scopes_refused=Refusal(sent.scopes.version, frozenset({"a", "b"}), "so"))
    step = bench.step()
    assert {item.name for item in step.suspects} == {"a", "b"}
    assert step.scopes is not None
    assert step.scopes.resources.keys() == {"a", "b"}
    assert step.scopes.version == bench.view.scopes
    bench.ledger.judge({("u-a", 2): "so"}, step.suspects)
    bench.settle()
    assert bench.confirmed() == {"a": 1, "b": 2}


def test_an_older_process_state_is_taken_up() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    again = Bench()
    restored = again.ledger.restore(bench.ledger.placed, bench.ledger.served)
    assert restored.clusters is not None
    assert restored.scopes is not None
    assert (restored.clusters.version, restored.scopes.version) == (bench.view.clusters, bench.view.scopes)
    again.routes, again.view = bench.routes, bench.view
    assert again.step() == Step()
    assert again.confirmed() == {"a": 1}
    del again.routes["a"]
    step = again.step()
    assert step.scopes is not None, "its route goes first"
    assert step.clusters is None


def test_what_is_in_force_is_remembered_however_much_came_since() -> None:
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()
    for generation in range(2, 40):
        bench.put("a", generation, "a1", weight=generation)
        assert bench.step().scopes is not None
    assert bench.confirmed() == {"a": 1}


def test_pods_are_told_when_envoy_has_them_in_use() -> None:
    """What counts on them would else come too early."""
    bench = Bench()
    bench.put("a", 1, "a1")
    bench.settle()

    def hosts() -> list[int]:
        wanted = resolve(bench.routes.values(), bench.ledger.bad)
        reports, _ = bench.ledger.report(wanted, bench.routes.values(), bench.view, bench.activity)
        return [told.hosts for report in reports for told in report.fleets]

    bench.all_pods["a1"] = (*bench.pods("a1"), *READY)
    sent = bench.step()
    assert hosts() == [1]
    bench.takes(sent, warming=frozenset({"a1"}))
    bench.step()
    assert hosts() == [1]
    bench.view = replace(bench.view, warming=frozenset())
    bench.step()
    assert hosts() == [2]


def many(count: int) -> Bench:
    """Endpoints of three variants, all in force."""
    bench = Bench()
    for number in range(count):
        bench.put(f"e{number}", 1, *(f"e{number}-{variant}" for variant in "abc"))
    bench.settle()
    return bench


def anew(before: Snapshot, after: Snapshot) -> set[str]:
    """Resources that were made anew."""
    return {name for name, one in after.resources.items() if before.resources.get(name) is not one}


def test_a_weight_among_200_endpoints_makes_one_scope_and_no_cluster() -> None:
    bench = many(200)
    bench.put("e7", 2, *(f"e7-{variant}" for variant in "abc"), weight=5)
    first = bench.step()
    assert first.clusters is None
    assert first.scopes is not None
    bench.takes(first)
    assert bench.confirmed()["e7"] == 2
    bench.put("e7", 3, *(f"e7-{variant}" for variant in "abc"), weight=6)
    second = bench.step()
    assert second.scopes is not None
    assert anew(first.scopes, second.scopes) == {"e7"}


def test_a_pod_among_200_endpoints_makes_one_cluster_and_no_scope() -> None:
    bench = many(200)
    made = []
    for address in ("10.0.0.2", "10.0.0.3"):
        bench.all_pods["e7-b"] = (Pod("p", address, ready=True, lingering=False),)
        made.append(bench.step())
        bench.takes(made[-1])
    first, second = (step.clusters for step in made)
    assert first is not None
    assert second is not None
    assert anew(first, second) == {"e7-b"}
    assert bench.step() == Step()


def test_the_report_of_200_endpoints_makes_one_anew() -> None:
    bench = many(200)

    def told() -> dict[str, RouteReport]:
        wanted = resolve(bench.routes.values(), bench.ledger.bad)
        reports, _ = bench.ledger.report(wanted, bench.routes.values(), bench.view, bench.activity)
        return {report.name: report for report in reports}

    before = told()
    bench.put("e7", 2, *(f"e7-{variant}" for variant in "abc"), weight=5)
    bench.settle()
    after = told()
    assert [name for name in after if after[name] is not before[name]] == ["e7"]
    assert [fleet.hosts for fleet in after["e7"].fleets] == [1, 1, 1]


def test_nothing_is_kept_of_endpoints_that_are_gone() -> None:
    def resources() -> int:
        gc.collect()
        return sum(isinstance(one, Resource) for one in gc.get_objects())

    bench, before = Bench(), resources()
    for number in range(50):
        bench.routes.clear()
        bench.put(f"e{number}", 1, f"f{number}")
        bench.settle()
        bench.now += 10  # what leaves has left
        bench.settle()
    assert resources() - before <= 20, "of the newest, and of the last versions"
