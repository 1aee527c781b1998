"""The order of writes, without an Envoy: each step is given what Envoy would say."""

from dataclasses import replace

from tests.router.bench import Bench
from tests.router.specs import fleet, route

from sluice.api.routes import RouteReport, RouteSample
from sluice.router.ledger import Ledger, Step
from sluice.router.objects import Pod, Route
from sluice.router.view import UNKNOWN, UNKNOWN_ACTIVITY, Activity, Refusal
from sluice.router.wanted import resolve


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


def test_of_a_fleet_that_leaves_nobody_asks_what_its_sample_is_answered() -> None:
    """Its pods end one after the other, and their failing would be told of what serves."""
    bench = Bench()
    sampled = RouteSample(body="x", period_seconds=5)
    bench.routes["a"] = Route("u-a", "a", 1, "2026-01-01T00:00:00Z", route("a", fleet("a1", sample=sampled)))
    bench.activity = Activity({"a1": 1}, {})
    bench.settle()
    failing = Activity({"a1": 0}, {"a1": 1})
    assert bench.ledger.failing(failing).keys() == {"a1"}
    bench.activity = failing
    bench.put("a", 2, "a2")
    bench.settle()
    assert bench.draining() == ["a1"]
    assert bench.ledger.failing(failing) == {}


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
    bench.settle()
    assert bench.ledger.bad.keys() == {("u-b", 1)}
    assert bench.confirmed() == {"a": 1}
    bench.put("b", 2, "b1")
    bench.settle()
    assert bench.confirmed() == {"a": 1, "b": 2}
    assert (bench.ledger.bad, bench.ledger._cleared) == ({}, set()), "of what is gone nothing is remembered"


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


def hosts(bench: Bench) -> dict[str, tuple[int, int]]:
    wanted = resolve(bench.routes.values(), bench.ledger.bad)
    reports, _ = bench.ledger.report(wanted, bench.routes.values(), bench.view, bench.activity)
    return {found.name: (found.hosts, found.healthy) for report in reports for found in report.fleets}


def test_a_restarted_agent_tells_of_the_pods_that_serve_also_when_others_have_come() -> None:
    """With one router, a report of no pods at all would turn a deployment back."""
    sample = RouteSample(body="sample", period_seconds=60)
    bench = Bench()
    spec = route("a", fleet("plain"), fleet("asked", "b", sample=sample))
    bench.routes["a"] = Route("u-a", "a", 1, "2026-01-01T00:00:00Z", spec)
    bench.activity = Activity({"asked": 1}, {})
    bench.settle()
    assert hosts(bench) == {"plain": (1, 1), "asked": (1, 1)}
    placed, served = bench.ledger.placed, bench.ledger.served
    bench.ledger = Ledger()
    bench.ledger.restore(placed, served)
    more = tuple(Pod(f"p{n}", f"10.0.0.{n}", ready=True, lingering=False) for n in (1, 2))
    bench.all_pods = {"plain": more, "asked": more}
    step = bench.step()
    assert step.clusters is not None
    bench.activity = Activity({"asked": 0}, {})
    assert hosts(bench) == {"plain": (1, 1), "asked": (1, 1)}, "Envoy has what the earlier process gave it"
    bench.takes(step, warming=frozenset({"asked"}))
    bench.step()
    assert hosts(bench) == {"plain": (2, 2), "asked": (1, 1)}
    bench.view, bench.activity = replace(bench.view, warming=frozenset()), Activity({"asked": 2}, {})
    bench.step()
    assert hosts(bench) == {"plain": (2, 2), "asked": (2, 2)}
