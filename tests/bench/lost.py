"""Requests lost while things come and go: constant load, something happens again and again until so many requests are
answered, and every answer but a 200 is counted. One function for each case; each starts from a world of its own."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure
from tests.bench.routing import Called, Calls, Routing, cpu_seconds, envoy_pid, until
from tests.router.harness.pod import RouterPod
from tests.router.specs import fleet, route

from sluice.router.admin import Admin
from sluice.router.draining import drain

KEPT, SINGLES = 12, 4
"""Connections that are kept alive, and for one request each, of every case."""
SLOWEST_PER_SECOND = 150
"""A case that is slower than this is given up."""
BETWEEN = 500
"""Requests between two events, at least."""
FEWEST_EVENTS = 10
Case = Callable[[Routing, int], "Outcome"]


class Outcome:
    """What a case came to."""

    def __init__(self, called: Called, events: int, what: str, allowed: int = 0, **more: Any) -> None:
        self.called, self.events, self.what, self.allowed, self.more = called, events, what, allowed, more
        """`allowed`: lost in a way that cannot be otherwise."""


def measure(case: str, requests: int, directory: Path) -> list[Figure]:
    """One case with at least so many requests."""
    run, routers = CASES[case]
    with Routing(directory, routers) as world:
        return [counted(case, world, lambda: run(world, requests))]


def counted(case: str, world: Routing, run: Callable[[], Outcome]) -> Figure:
    """What a case comes to in a world that is there."""
    began, load = time.monotonic(), os.getloadavg()[0]
    before = {pid: cpu_seconds(pid) for pid in map(envoy_pid, world.routers)}
    outcome = run()
    envoy = sum(cpu_seconds(pid) - before.get(pid, 0.0) for pid in map(envoy_pid, world.routers))
    called = outcome.called
    lost = called.lost_count - outcome.allowed
    million = f"{1e6 * lost / called.total:.1f} per million" if lost else "0"
    value = f"{million} lost of {called.total:,} ({outcome.events} {outcome.what}); 95 %: "
    value += f"< {1e6 * upper_bound(lost) / called.total:.0f} per million"
    if outcome.allowed:
        value += f"; {outcome.allowed} more were in flight inside the killed pods"
    return Figure(
        f"lost, {case}",
        value,
        "0",
        {
            "requests": called.total,
            "statuses": called.statuses,
            "lost": lost,
            "inFlightInKilledPods": outcome.allowed,
            "events": outcome.events,
            "seconds": round(time.monotonic() - began, 1),
            "requestsPerSecond": round(called.total / called.seconds),
            "latenciesMs": called.latencies,
            "envoyCpuSeconds": round(envoy, 1),
            "loadAverage": [round(load, 1), round(os.getloadavg()[0], 1)],
            "samples": called.lost[:20],
            **outcome.more,
        },
        {"lost": lost},
    )


def upper_bound(lost: int) -> float:
    """Of the mean of a Poisson number of which `lost` were seen, one-sided 95 %: 3.0 for none."""

    def seen_at_most(mean: float) -> float:
        return sum(math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(lost + 1))

    low, high = 0.01, 10.0 + 3.0 * lost
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if seen_at_most(middle) > 0.05 else (low, middle)
    return high


def weights(world: Routing, requests: int) -> Outcome:
    """The weights of two variants change."""
    for number in (1, 2):
        world.pod(number)
        world.routes.put_pods(f"w-{'ab'[number - 1]}", number)

    def put(share: int) -> int:
        return world.routes.put(route("W", fleet("w-a", "a", share), fleet("w-b", "b", 1_000_000 - share)))

    world.confirmed("w", put(1_000_000))
    calls = call(world, "W")
    changes = 0
    for _ in rounds(calls, requests):
        changes += 1
        world.confirmed("w", put((changes % 5) * 250_000))
    return Outcome(calls.finish(), changes, "changes")


def removal(world: Routing, requests: int) -> Outcome:
    """A new revision takes over, the old fleet leaves the route, is drained, and its pod ends (SIGTERM)."""
    name = "r-0"
    pod = world.pod(1)
    world.routes.put_pods(name, 1)
    world.confirmed("r", world.routes.put(route("R", fleet(name))))
    calls = call(world, "R")
    takeovers = 0
    for _ in rounds(calls, requests):
        takeovers += 1
        number, following = 1 + takeovers % 2, f"r-{takeovers}"
        new = world.pod(number)
        world.routes.put_pods(following, number)
        both = route("R", fleet(name, weight=500_000), fleet(following, weight=500_000, require_ready=True))
        world.confirmed("r", world.routes.put(both))
        generation = world.routes.put(route("R", fleet(following)))
        world.confirmed("r", generation)
        _until_drained(world, "r", generation)
        pod.stop()
        world.routes.put_pods(name)
        pod, name = new, following
    return Outcome(calls.finish(), takeovers, "fleets taken over")


def pods(world: Routing, requests: int) -> Outcome:
    """Pods come and go: the one that goes leaves the slice, and ends (SIGTERM) when the router has let go."""
    running = {number: world.pod(number) for number in (1, 2)}
    world.routes.put_pods("p", *running)
    world.confirmed("p", world.routes.put(route("P", fleet("p"))))
    calls = call(world, "P")
    changes = 0
    for _ in rounds(calls, requests):
        changes += 1
        number = 1 + (changes + 1) % 3
        running[number] = world.pod(number)
        world.routes.put_pods("p", *running)
        _until_hosts(world, "p", len(running))
        leaving = running.pop(1 + (changes + 2) % 3)
        world.routes.put_pods("p", *running)
        _until_hosts(world, "p", len(running))
        # As preStop holds SIGTERM back until routers have let go and requests have ended.
        until("nothing is under way there", _pause(0.2), 5)
        leaving.stop()
    return Outcome(calls.finish(), changes, "pods replaced")


def pod_killed(world: Routing, requests: int) -> Outcome:
    """A pod is killed (SIGKILL) and stays listed for a while; then another takes its address."""
    running = {number: world.pod(number) for number in (1, 2, 3)}
    world.routes.put_pods("k", *running)
    world.confirmed("k", world.routes.put(route("K", fleet("k"))))
    calls = call(world, "K")
    killed: list[tuple[float, float]] = []
    for _ in rounds(calls, requests):
        number = 1 + len(killed) % 3
        began = time.monotonic()
        running[number].kill()
        killed.append((began, time.monotonic()))
        calls.until_total(calls.total + BETWEEN, BETWEEN / SLOWEST_PER_SECOND + 30)
        running[number] = world.pod(number)
    called = calls.finish()
    inside = [one for one in called.lost if any(one["began"] <= dead and one["ended"] >= kill for kill, dead in killed)]
    return Outcome(
        called, len(killed), "pods killed", allowed=len(inside), mostInFlightAtOnce=(KEPT + SINGLES) * len(killed)
    )


def agent_killed(world: Routing, requests: int) -> Outcome:
    """The agent is killed (SIGKILL), a weight changes meanwhile, and the next agent applies it."""
    router = world.routers[0]
    for number in (1, 2):
        world.pod(number)
        world.routes.put_pods(f"a-{'ab'[number - 1]}", number)

    def put(share: int) -> int:
        return world.routes.put(route("A", fleet("a-a", "a", share), fleet("a-b", "b", 1_000_000 - share)))

    world.confirmed("a", put(500_000))
    calls = call(world, "A")
    kills = 0
    for _ in rounds(calls, requests):
        kills += 1
        router.kill_agent()
        generation = put(100_000 * (1 + kills % 9))
        calls.until_total(calls.total + BETWEEN, BETWEEN / SLOWEST_PER_SECOND + 30)
        router.start_agent()
        world.confirmed("a", generation, within=60)
    return Outcome(calls.finish(), kills, "agents killed")


def other_deleted(world: Routing, requests: int) -> Outcome:
    """Another endpoint comes, serves, and is deleted."""
    world.pod(1)
    world.routes.put_pods("o", 1)
    world.confirmed("o", world.routes.put(route("O", fleet("o"))))
    calls = call(world, "O")
    deleted = 0
    for _ in rounds(calls, requests):
        deleted += 1
        other = f"x{deleted}"
        world.routes.put_pods(other, 1)
        world.confirmed(other, world.routes.put(route(other, fleet(other))))
        world.routes.delete(other)
        until("no router has it any more", lambda name=other: world.routes.gone(name), 30)  # type: ignore[misc]
    return Outcome(calls.finish(), deleted, "endpoints deleted")


def drained(world: Routing, requests: int) -> Outcome:
    """One of two routers leaves as its pod's hook lets it go, Envoy gets SIGTERM, and another takes its place."""
    world.pod(1)
    world.pod(2)
    world.routes.put_pods("d", 1, 2)
    world.confirmed("d", world.routes.put(route("D", fleet("d"))))
    calls = call(world, "D", *world.routers)
    gone = 0
    for _ in rounds(calls, requests):
        leaving, staying = (world.routers[(gone + n) % 2] for n in (0, 1))
        gone += 1
        # kube-proxy hears of it while the hook lets go.
        calls.use(staying)
        replace_router(leaving)
        calls.use(*world.routers)
    return Outcome(calls.finish(), gone, "routers drained and replaced")


def replace_router(leaving: RouterPod) -> None:
    """It drains, its Envoy gets SIGTERM, and another takes its place and is ready."""
    if not asyncio.run(_drain(leaving)):
        raise RuntimeError("a router did not drain within 60 s")
    leaving.stop_agent()
    _end(leaving)
    leaving.envoy.start(wait=False)
    leaving.start_agent()
    until("the router is ready again", lambda: leaving.probe("/ready") == 200, 60)


async def _drain(router: RouterPod) -> bool:
    admin = Admin(router.envoy.directory / "admin.sock")
    try:
        return await drain(admin, 60)
    finally:
        await admin.close()


def _end(router: RouterPod) -> None:
    """What kubelet sends after the hook."""
    assert router.envoy.process is not None
    router.envoy.process.terminate()
    router.envoy.process.wait(30)
    router.envoy.process = None


def call(world: Routing, endpoint: str, *routers: RouterPod) -> Calls:
    """Begin the constant load, through the first router unless others are named."""
    calls = world.call(endpoint, *routers, concurrency=KEPT, singles=SINGLES)
    calls.until_total(BETWEEN, 60)
    return calls


def rounds(calls: Calls, requests: int, fewest: int = FEWEST_EVENTS) -> Iterator[int]:
    """One turn for each event, with requests between them, until there are enough of both."""
    deadline = time.monotonic() + 300 + requests / SLOWEST_PER_SECOND
    for number in itertools.count():
        if calls.total >= requests and number >= fewest:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{calls.total} of {requests} requests in time")
        yield number
        calls.until_total(calls.total + BETWEEN, BETWEEN / SLOWEST_PER_SECOND + 30)


def _until_drained(world: Routing, name: str, generation: int) -> None:
    def nothing_drains() -> bool:
        return all(
            not one.get("draining") for (_, key), one in list(world.routes.reported.items())
            if key == name and one["generation"] >= generation
        )  # fmt: skip

    until(f"nothing of {name} drains", nothing_drains, 60)


def _until_hosts(world: Routing, service: str, count: int) -> None:
    def known() -> bool:
        return all(world.routes.hosts.get((router.name, service)) == count for router in world.routers)

    until(f"the routers have {count} pods of {service}", known, 30)


def _pause(seconds: float) -> Callable[[], bool]:
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() > ends


CASES: dict[str, tuple[Case, int]] = {
    "weights": (weights, 1),
    "removal": (removal, 1),
    "pods": (pods, 1),
    "pod-killed": (pod_killed, 1),
    "agent-killed": (agent_killed, 1),
    "other-deleted": (other_deleted, 1),
    "drained": (drained, 2),
}
"""What happens, and how many routers it needs."""
