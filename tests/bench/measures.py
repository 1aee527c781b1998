"""What is measured, one function each: it brings the world into a state, looks for a while, and returns figures."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable

from tests.bench.counting import READS, WRITES, kubernetes_requests, operator_requests, samples, total
from tests.bench.figures import Figure
from tests.bench.processes import machine_busy_seconds
from tests.bench.watching import Shown
from tests.bench.world import CREATE_SECONDS, NAMESPACE, ROLE, UNLIMITED, World, gauge, names

HOUR_SECONDS = 3600
FULL_LIST_SECONDS = 300
SWEEP_SECONDS = 30
CLOCK_SECONDS = 0.05
"""How far the simulator's clock and ours may be apart by our reckoning."""
QUIET_SECONDS = 40
"""Longer than a sweep: after it, nothing that was done before is still being found out."""


def creation(world: World, count: int, latency_seconds: float) -> list[Figure]:
    """All trios applied at once, with the operator running and no limit of its own on AWS calls."""
    world.start_operator(UNLIMITED)
    world.until("the operator works", lambda: gauge(world.metrics(), "sluice_lease_held") == 1, seconds=60)
    if latency_seconds:
        world.simulator.fault("latency", seconds=latency_seconds)
    world.simulator.clear_requests()
    began, busy = time.monotonic(), machine_busy_seconds()
    applied = world.apply_trios(count)
    if not world.watch.until(lambda: world.watch.count(_in_service) == count, seconds=900):
        raise RuntimeError(f"{world.watch.count(_in_service)} of {count} in service after 900 s:\n{_tail(world)}")
    took = time.monotonic() - began
    calls = sum(world.simulator.counts(ROLE).values())
    assert world.operator is not None
    used = world.operator.used()
    world.simulator.clear_faults()
    milliseconds = round(latency_seconds * 1000)
    return [
        Figure(
            f"created, {count} endpoints, {milliseconds} ms AWS latency",
            f"{took:.1f} s until all are InService and Ready",
            "< 15 s for 200" if count == 200 else "",
            {
                "seconds": round(took, 1),
                "secondsToApply": round(applied, 1),
                "createSecondsInSageMaker": CREATE_SECONDS,
                "operatorCpuSeconds": round(used.cpu_seconds, 1),
                "machineBusyCores": round((machine_busy_seconds() - busy) / took, 1),
            },
        ),
        Figure(
            f"AWS calls per endpoint created, {count} endpoints, {milliseconds} ms",
            f"{calls / count:.2f}",
            "about 5",
            {"calls": world.simulator.counts(ROLE)},
        ),
    ]


def restart(world: World, count: int) -> list[Figure]:
    """The operator is stopped and started with its default settings: until it has looked at each Endpoint again."""
    world.stop_operator()
    world.simulator.clear_requests()
    began, busy = time.monotonic(), machine_busy_seconds()
    started = world.start_operator()

    def armed() -> bool:
        metrics = world.metrics()
        passes = sum(value for labels, value in samples(metrics, "sluice_passes_total") if labels["kind"] == "Endpoint")
        return passes >= count and gauge(metrics, "sluice_queue_depth") == 0

    world.until(f"{count} Endpoints had a pass and nothing waits", armed, seconds=300, every=0.2)
    took = time.monotonic() - began
    return [
        Figure(
            f"restart, {count} endpoints",
            f"{took:.1f} s from the start of the process until all are re-armed",
            "< 5 s for 1,000",
            {
                "seconds": round(took, 1),
                "operatorCpuSeconds": round(started.used().cpu_seconds, 1),
                "machineBusyCores": round((machine_busy_seconds() - busy) / took, 1),
                "calls": world.simulator.counts(ROLE),
            },
        )
    ]


def steady(world: World, count: int, window_seconds: float) -> list[Figure]:
    """Nothing changes: what the operator costs. A window of 300 s holds ten sweeps, one of them a full listing."""
    assert world.operator is not None
    world.watch.until(lambda: False, seconds=QUIET_SECONDS)
    world.simulator.clear_requests()
    served, asked = kubernetes_requests(world.apiserver_metrics()), operator_requests(world.metrics())
    before, began = world.operator.used(), time.monotonic()
    world.watch.until(lambda: False, seconds=window_seconds)
    passed = time.monotonic() - began
    after, calls = world.operator.used(), world.simulator.counts(ROLE)
    served_now = _difference(kubernetes_requests(world.apiserver_metrics()), served)
    asked_now = _difference(operator_requests(world.metrics()), asked)
    hours = count * passed / HOUR_SECONDS
    leases = {verb: number for (verb, kind), number in asked_now.items() if kind == "Lease"}
    return [
        Figure(
            f"AWS calls per endpoint-hour, steady, {count} endpoints",
            f"{sum(calls.values()) / hours:.2f}",
            {200: "<= 0.75", 1000: "<= 0.25"}.get(count, ""),
            {"calls": calls, "windowSeconds": round(passed)},
        ),
        Figure(
            f"Kubernetes reads per endpoint-hour, steady, {count} endpoints",
            f"{total(served_now, READS) / hours:.2f}",
            "",
            {"requests": _named(served_now)},
        ),
        Figure(
            f"Kubernetes writes in {passed:.0f} s, steady, {count} endpoints",
            f"{total(served_now, WRITES)}",
            "0",
            {"leaseRequestsOfTheOperator": leases, "requestsThroughTheAdapter": _named(asked_now)},
            {"writes": total(served_now, WRITES)},
        ),
        Figure(
            f"memory, {count} endpoints",
            f"{after.resident_megabytes:.0f} MB resident, {after.peak_megabytes:.0f} MB at most",
            "< 250 MB at 1,000",
            {"residentMegabytes": round(after.resident_megabytes), "peakMegabytes": round(after.peak_megabytes)},
        ),
        Figure(
            f"CPU, steady, {count} endpoints",
            f"{(after.cpu_seconds - before.cpu_seconds) * 60 / passed:.2f} s per minute",
            "< 1 s/min",
            {"cpuSeconds": round(after.cpu_seconds - before.cpu_seconds, 2), "windowSeconds": round(passed)},
        ),
    ]


def steady_lag(world: World, count: int, changes: int, over_seconds: float) -> list[Figure]:
    """Somebody else changes endpoints that nobody expects to move, one at a time, evenly over more than one sweep."""
    dice = _dice(1)
    changed: dict[str, float] = {}
    for name in dice.sample(names(count), changes):
        world.simulator.change_endpoint(name, immediate=True, weights={"a": 7})
        changed[name] = time.time()
        world.watch.until(lambda: False, seconds=over_seconds / changes)
    lags = _arrivals(world, changed, lambda one: one.weight == 7, seconds=2 * SWEEP_SECONDS + 30)
    return [
        Figure(
            f"lag of a change outside, steady, {count} endpoints",
            _percentiles(lags, changes),
            "<= 35 s",
            {"lags": _rounded(lags), "changes": changes},
        )
    ]


def moving_lag(world: World, count: int, moving: int, rounds: int) -> list[Figure]:
    """Endpoints under maintenance (SystemUpdating) that end at different moments: when Kubernetes shows the end."""
    dice, lags = _dice(2), []
    expected = 0
    for _ in range(rounds):
        chosen = dice.sample(names(count), moving)
        began = time.time()
        for name in chosen:
            world.simulator.change_endpoint(name, maintenanceSeconds=dice.uniform(45, 75))
        # Each is shown as moving before the first one ends.
        seen = world.watch.until(
            lambda since=began, them=chosen: all(  # type: ignore[misc] # a lambda of the loop's own values
                world.watch.first_after(name, since, _system_updating) is not None for name in them
            ),
            seconds=SWEEP_SECONDS + 15,
        )
        if not seen:
            raise RuntimeError(f"not all of {chosen} were shown as SystemUpdating:\n{_tail(world)}")
        world.watch.until(lambda: False, seconds=max(0.0, began + 80 - time.time()))
        ended = _modified(world, chosen)
        lags += _arrivals(world, ended, lambda one: one.status == "InService", seconds=30)
        expected += len(chosen)
    return [
        Figure(
            f"lag of a status change, {moving} moving, {count} endpoints",
            _percentiles(lags, expected),
            "<= 6 s",
            {"lags": _rounded(lags), "changes": expected},
        )
    ]


def deletion_lag(world: World, count: int, deletions: int, over_seconds: float) -> list[Figure]:
    """Somebody else deletes endpoints: only a full listing shows that."""
    dice = _dice(3)
    gone: dict[str, float] = {}
    for name in dice.sample(names(count), deletions):
        world.simulator.delete_endpoint(name, now=True)
        gone[name] = time.time()
        world.watch.until(lambda: False, seconds=over_seconds / deletions)
    lags = _arrivals(world, gone, lambda one: one.reason == "Drifted", seconds=FULL_LIST_SECONDS + 30)
    return [
        Figure(
            f"lag of a deletion outside, {count} endpoints",
            _percentiles(lags, deletions),
            "<= 310 s",
            {"lags": _rounded(lags), "changes": deletions},
        )
    ]


def throttled(world: World, count: int, seconds: float, share: float = 0.3, edited: int = 20) -> list[Figure]:
    """A share of all calls is refused as throttled while some endpoints deploy an edit: what that does to the Ready
    of the others, to the deployments, and to the number of calls."""
    world.watch.until(lambda: False, seconds=QUIET_SECONDS)
    world.simulator.clear_requests()
    began = time.time()
    fault = world.simulator.fault("throttling", probability=share, role=ROLE)
    chosen = _dice(4).sample(names(count), edited)
    for name in chosen:
        image = {"spec": {"primaryContainer": {"image": "registry.example/churn:2"}}}
        world.kube.patch("Model", NAMESPACE, name, image)
    world.watch.until(lambda: False, seconds=seconds)
    world.simulator.clear_faults(fault)
    calls, codes = world.simulator.counts(ROLE), world.simulator.codes()
    flips = sum(_flips(world, name, began) for name in names(count) if name not in chosen)
    done = sum(_flips(world, name, began) == 2 and _in_service(world.watch.shown[name][-1]) for name in chosen)
    when = f"{seconds:.0f} s under {share:.0%} throttling, {count} endpoints"
    return [
        Figure(f"Ready flips of endpoints nobody edited in {when}", str(flips), "0", zero={"flips": flips}),
        Figure(f"edits deployed in {when}", f"{done} of {edited}", "all"),
        Figure(
            f"AWS calls in {when}",
            f"{sum(calls.values())}, of which {codes.get('ThrottlingException', 0)} refused",
            "bounded",
            {"calls": calls, "codes": codes},
        ),
    ]


def _flips(world: World, name: str, since: float) -> int:
    """How often an Endpoint's Ready was lost or won since then."""
    states = world.watch.shown[name]
    return sum(after.at >= since and before.ready != after.ready for before, after in itertools.pairwise(states))


def _dice(seed: int) -> random.Random:
    """Which endpoints: the same in every run."""
    return random.Random(seed)  # noqa: S311 - nothing secret


def _in_service(one: Shown) -> bool:
    return one.status == "InService" and one.ready == "True"


def _system_updating(one: Shown) -> bool:
    return one.status == "SystemUpdating"


def _arrivals(
    world: World, changed: dict[str, float], condition: Callable[[Shown], bool], *, seconds: float
) -> list[float]:
    """Seconds from each change to the first state that shows it; a change that was never shown is left out."""

    def shown(name: str) -> float | None:
        return world.watch.first_after(name, changed[name] - CLOCK_SECONDS, condition)

    world.watch.until(lambda: all(shown(name) is not None for name in changed), seconds=seconds)
    return sorted(at - changed[name] for name in changed if (at := shown(name)) is not None)


def _modified(world: World, chosen: Iterable[str]) -> dict[str, float]:
    """LastModifiedTime of endpoints by the simulator, in this machine's time."""
    asked = time.time()
    now = world.simulator.now()  # a small question: the clocks are compared to within half of its round trip
    offset = now - (asked + time.time()) / 2
    regions = world.simulator.state()["regions"]
    found = {name: one for region in regions for name, one in region["endpoints"].items()}
    return {name: float(found[name]["lastModifiedTime"]) - offset for name in chosen}


def _percentiles(lags: list[float], expected: int) -> str:
    if not lags:
        return f"none of {expected} changes was shown"
    ordered = sorted(lags)
    p50 = ordered[len(ordered) // 2]
    p99 = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
    missed = f"; {expected - len(lags)} of {expected} never shown" if len(lags) < expected else ""
    return f"p50 {p50:.1f} s, p99 {p99:.1f} s ({len(lags)} changes{missed})"


def _rounded(lags: list[float]) -> list[float]:
    return [round(lag, 2) for lag in sorted(lags)]


def _difference(after: Counter[tuple[str, str]], before: Counter[tuple[str, str]]) -> Counter[tuple[str, str]]:
    return Counter({what: after[what] - before[what] for what in after if after[what] != before[what]})


def _named(counted: Counter[tuple[str, str]]) -> dict[str, int]:
    return {f"{verb} {what}": number for (verb, what), number in sorted(counted.items())}


def _tail(world: World) -> str:
    return world.operator.tail() if world.operator else "no operator runs"
