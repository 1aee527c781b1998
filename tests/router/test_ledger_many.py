"""What a change costs among many endpoints, and what is kept of those that are gone."""

import gc
import tracemalloc

from tests.router.bench import Bench

from sluice.api.routes import RouteReport
from sluice.router.ledger import Step
from sluice.router.objects import Pod
from sluice.router.wanted import resolve
from sluice.router.wire import Resource, Snapshot


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


def test_nothing_is_kept_of_generations_that_came_and_went() -> None:
    """An agent runs for weeks, and a scaler may change a route every few seconds."""

    def held(generations: range) -> int:
        for generation in generations:
            bench.put("a", generation, "a1", weight=generation)
            bench.settle()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    bench = Bench()
    tracemalloc.start()
    try:
        before = held(range(1, 200))
        after = held(range(200, 1200))
    finally:
        tracemalloc.stop()
    assert after - before < 60_000
