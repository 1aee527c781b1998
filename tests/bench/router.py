"""What the router costs and how late it is. Each function starts from a world of its own and returns figures.

Where two ways are compared they take turns in short rounds within one run: what else the machine does falls on both. A
cost per request is CPU time of Envoy's process by the kernel's account, which holds on a busy machine, too.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.routing import Called, Routing, address_of, cpu_seconds, envoy_pid, resident_megabytes
from tests.bench.routing import until as wait_until
from tests.router.harness.envoy import Envoy
from tests.router.harness.pod import RouterPod
from tests.router.harness.relay import Relay
from tests.router.specs import fleet, route

from sluice.api.routes import EndpointRouteSpec
from sluice.router.bootstrap import ANSWERS_FILTER, DISCOVERY_SOCKET, ROUTE_ANEW_FILTER

BODIES = {"24 B": 24, "64 KiB": 65536, "1 MiB": 1048576}
ENDPOINTS = (1, 50, 200)
VARIANTS = "abc"
STREAM_MEBIBYTES = 16
STREAMS_AT_ONCE = 50
SPREAD_SECONDS = 0.6
"""Between two edits: a router reports four times a second at most (router/reporting.py)."""


def latency(directory: Path, *, quick: bool) -> list[Figure]:
    """Through the router and to the pod itself, with answers as large as requests, at several sizes and concurrency."""
    rounds, figures = (2 if quick else 10), []
    with _one_endpoint(directory) as world:
        pod, router = "198.18.0.1:8080", world.routers[0]
        for concurrency in (1, 8):
            for body, size in BODIES.items():
                requests = (200 if quick else 2000) if size < BODIES["1 MiB"] else (30 if quick else 200)
                direct: list[Called] = []
                routed: list[Called] = []
                used = 0.0
                for _ in range(rounds):
                    options = {"concurrency": concurrency, "body_bytes": size, "requests": requests}
                    direct.append(world.call_path("/invocations", pod, **options).wait(120))
                    before = cpu_seconds(envoy_pid(router))
                    routed.append(world.call("E0", **options).wait(120))
                    used += cpu_seconds(envoy_pid(router)) - before
                figures.append(_latency(f"{body}, {concurrency} at once", direct, routed, used))
    return figures


def _latency(what: str, direct: Sequence[Called], routed: Sequence[Called], envoy_cpu_seconds: float) -> Figure:
    if any(called.lost_count for called in (*direct, *routed)):
        raise RuntimeError(f"{what}: not every answer was a 200")
    medians, words = {}, []
    for name in ("p50", "p99"):
        near, far = (statistics.median(one.latencies[name] for one in ways) for ways in (direct, routed))
        medians[name] = {"directMs": round(near, 3), "routedMs": round(far, 3)}
        words.append(f"{name} {far - near:+.2f} ms ({near:.2f} -> {far:.2f}, x {far / near:.1f})")
    total = sum(called.total for called in routed)
    return Figure(
        f"added by the router, {what}",
        "; ".join(words),
        "",
        {
            "mediansOfRounds": medians,
            "rounds": len(routed),
            "requestsEachWay": total,
            "envoyCpuMicrosecondsPerRequest": round(1e6 * envoy_cpu_seconds / total, 1),
            "directRequestsPerSecond": round(statistics.median(one.total / one.seconds for one in direct)),
            "routedRequestsPerSecond": round(statistics.median(one.total / one.seconds for one in routed)),
        },
    )


def throughput(directory: Path, *, quick: bool) -> list[Figure]:
    """Requests of 24 B per second of one core that Envoy uses; the same without its filters for answers and for the
    route anew."""
    rounds, requests = (2, 2000) if quick else (10, 10_000)
    with _one_endpoint(directory) as world:
        plain = _only_routing(world, directory)
        ways = {"with": address_of(world.routers[0]), "without": f"127.0.0.1:{plain.settings.port}"}
        assert plain.process is not None
        pids = {"with": envoy_pid(world.routers[0]), "without": plain.process.pid}
        cost: dict[str, list[float]] = {name: [] for name in ways}
        per_second: list[float] = []
        try:
            for _ in range(rounds):
                for name, address in ways.items():
                    before = cpu_seconds(pids[name])
                    called = world.call_path("/endpoints/E0/invocations", address, concurrency=32, requests=requests)
                    answered = called.wait(120)
                    if answered.lost_count:
                        raise RuntimeError(f"lost: {answered.lost[:3]}")
                    cost[name].append(1e6 * (cpu_seconds(pids[name]) - before) / answered.total)
                    if name == "with":
                        per_second.append(answered.total / answered.seconds)
            alone = world.call_path("/invocations", "198.18.0.1:8080", concurrency=32, requests=requests).wait(120)
        finally:
            plain.kill()
    filtered, bare = (statistics.mean(cost[name]) for name in ("with", "without"))
    differences = [one - other for one, other in zip(cost["with"], cost["without"], strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5
    reached = statistics.median(per_second)
    return [
        Figure(
            "requests per second of one core of Envoy's, 24 B, 32 at once",
            f"{1e6 / filtered:,.0f} ({filtered:.0f} us of CPU each); {reached:,.0f}/s reached with Envoy, pod and "
            f"caller on these cores; the caller and the pod alone make {alone.total / alone.seconds:,.0f}/s",
            "",
            {"cpuMicroseconds": [round(one, 1) for one in cost["with"]], "requests": rounds * requests},
        ),
        Figure(
            "the cost of the filters for answers and for the route anew",
            f"{filtered - bare:.1f} us of CPU (standard error {error:.1f}) of {filtered:.0f}",
            "",
            {"withoutCpuMicroseconds": [round(one, 1) for one in cost["without"]], "requests": rounds * requests},
        ),
    ]


def _only_routing(world: Routing, directory: Path) -> Envoy:
    """A second Envoy of the same agent that only routes."""
    router = world.routers[0].envoy
    plain = Envoy(directory / "plain", prefix=world.net.prefix)
    text = plain.bootstrap.read_text()
    body = json.loads(text)
    managers = [
        listener["filter_chains"][0]["filters"][0]["typed_config"] for listener in body["static_resources"]["listeners"]
    ]
    own = {ANSWERS_FILTER, ROUTE_ANEW_FILTER}
    taken = Counter[str]()
    for manager in managers:
        taken.update(one["name"] for one in manager["http_filters"] if one["name"] in own)
        manager["http_filters"] = [one for one in manager["http_filters"] if one["name"] not in own]
    if taken != dict.fromkeys(own, 2):
        raise RuntimeError(f"the bootstrap does not hold the filters as expected: {taken}")
    bare = json.dumps(body)
    # What is in force there, here too.
    bare = bare.replace(str(plain.directory / DISCOVERY_SOCKET), str(router.directory / DISCOVERY_SOCKET))
    plain.bootstrap.write_text(bare)
    plain.start()
    return plain


def stream(directory: Path, *, quick: bool) -> list[Figure]:
    """The router's CPU (Envoy's and the relay's) for each MiB of a streamed answer, and how long many short ones take
    at once; beside it the same answers to ordinary invocations."""
    rounds = 2 if quick else 8
    with _one_endpoint(directory) as world:
        router = world.routers[0]
        paths = {"streamed": "invocations-response-stream", "ordinary": "invocations"}
        cost: dict[str, list[float]] = {name: [] for name in paths}
        rate: dict[str, list[float]] = {name: [] for name in paths}
        short: dict[str, list[Called]] = {name: [] for name in paths}
        each: dict[str, list[float]] = {name: [] for name in paths}
        order = f"stream {STREAM_MEBIBYTES << 20}".encode()
        relay = Relay(router.envoy)
        relay.start()
        assert relay.process is not None
        pids = (envoy_pid(router), relay.process.pid)
        try:
            for _ in range(rounds):
                for name, path in paths.items():
                    before, began = sum(map(cpu_seconds, pids)), time.monotonic()
                    for _ in range(3):
                        size = world.net.call(lambda at=path: _post(router, f"/endpoints/E0/{at}", order))  # type: ignore[misc]
                        if size < STREAM_MEBIBYTES << 20:
                            raise RuntimeError(f"{name}: {size} bytes")
                    mebibytes = 3 * STREAM_MEBIBYTES
                    cost[name].append(1000 * (sum(map(cpu_seconds, pids)) - before) / mebibytes)
                    rate[name].append(mebibytes / (time.monotonic() - began))
                for name, path in paths.items():
                    options = {"concurrency": STREAMS_AT_ONCE, "requests": 20 * STREAMS_AT_ONCE}
                    before = sum(map(cpu_seconds, pids))
                    short[name].append(
                        world.call_path(f"/endpoints/E0/{path}", address_of(router), **options).wait(120)
                    )
                    each[name].append(1000 * (sum(map(cpu_seconds, pids)) - before) / options["requests"])
        finally:
            relay.kill()
    streamed, ordinary = (statistics.mean(cost[name]) for name in paths)
    return [
        Figure(
            "streamed answers",
            f"{streamed:.1f} ms of the router's CPU for each MiB, {ordinary:.1f} ms unframed; "
            f"{statistics.median(rate['streamed']):.0f} MiB/s reached, "
            f"{statistics.median(rate['ordinary']):.0f} unframed",
            "",
            {"cpuMillisecondsPerMebibyte": {name: [round(one, 2) for one in found] for name, found in cost.items()}},
        ),
        _at_once(short, each),
    ]


def _at_once(short: Mapping[str, Sequence[Called]], each: Mapping[str, Sequence[float]]) -> Figure:
    """Short answers, streamed and ordinary, so many at once."""
    if any(called.lost_count for found in short.values() for called in found):
        raise RuntimeError("not every answer was a 200")
    medians = {
        name: {which: round(statistics.median(one.latencies[which] for one in found), 2) for which in ("p50", "p99")}
        for name, found in short.items()
    }
    cpu = {name: round(statistics.mean(found), 3) for name, found in each.items()}
    words = "; ".join(
        f"{name} p50 {medians[name]['p50']} ms, p99 {medians[name]['p99']} ms, {cpu[name]} ms of the router's CPU each"
        for name in medians
    )
    return Figure(
        f"{STREAMS_AT_ONCE} short answers at once", words, "", {"milliseconds": medians, "cpuMilliseconds": cpu}
    )


def _post(router: RouterPod, path: str, body: bytes) -> int:
    """The size of the answer."""
    connection = http.client.HTTPConnection(address_of(router), timeout=60)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        size = 0
        while part := answer.read(1 << 20):
            size += len(part)
        return size
    finally:
        connection.close()


def confirm(directory: Path, *, quick: bool) -> list[Figure]:
    """Memory of Envoy and the agent by endpoints of three variants each, and how long two routers take to confirm an
    edit of one route: from before its write to the report of the later one, seen by a watch."""
    edits, figures = (5 if quick else 100), []
    with Routing(directory, routers=2) as world:
        world.pod(1)
        count = 0
        for wanted in ENDPOINTS:
            for number in range(count, wanted):
                for variant in VARIANTS:
                    world.routes.put_pods(f"e{number}-{variant}", 1)
                world.routes.put(_route(number, 0))
            count = wanted
            world.confirmed(f"e{count - 1}", 1, within=120)
            time.sleep(3.0)
            figures.append(_memory(world, count))
            figures.append(_edits(world, count, edits))
    return figures


def _memory(world: Routing, count: int) -> Figure:
    router = world.routers[0]
    assert router.agent is not None
    envoy, agent = resident_megabytes(envoy_pid(router)), resident_megabytes(router.agent.pid)
    return Figure(
        f"memory of a router, {count} endpoints of 3 variants",
        f"Envoy {envoy:.0f} MB, agent {agent:.0f} MB",
        "",
        {"envoyMegabytes": round(envoy, 1), "agentMegabytes": round(agent, 1)},
    )


def _edits(world: Routing, count: int, edits: int) -> Figure:
    took = []
    agents = [router.agent.pid for router in world.routers if router.agent is not None]
    before = sum(map(cpu_seconds, agents)), sum(cpu_seconds(envoy_pid(router)) for router in world.routers)
    for edit in range(1, edits + 1):
        number = edit % count
        began = time.time()
        generation = world.routes.put(_route(number, edit))
        world.confirmed(f"e{number}", generation)
        took.append(1000 * (max(world.routes.confirmations(f"e{number}", generation).values()) - began))
        time.sleep(SPREAD_SECONDS)
    routers = len(world.routers)
    agent = sum(map(cpu_seconds, agents)) - before[0]
    envoy = sum(cpu_seconds(envoy_pid(router)) for router in world.routers) - before[1]
    return Figure(
        f"a route's edit until {routers} routers have confirmed, {count} endpoints of 3 variants",
        f"p50 {percentile(took, 0.5):.0f} ms, p99 {percentile(took, 0.99):.0f} ms ({edits} edits)",
        "p99 < 50 ms",
        {
            "milliseconds": [round(one, 1) for one in sorted(took)],
            "agentCpuMillisecondsPerEditAndRouter": round(1000 * agent / edits / routers, 1),
            "envoyCpuMillisecondsPerEditAndRouter": round(1000 * envoy / edits / routers, 1),
        },
    )


def ready(directory: Path, *, quick: bool) -> list[Figure]:
    """A pod becomes ready (its EndpointSlice says so) beside one that is busy: until its first answer is with a
    caller."""
    rounds, took = (3 if quick else 50), []
    with Routing(directory) as world:
        world.pod(1, "first")
        world.routes.put_pods("e0-a", 1)
        world.confirmed("e0", world.routes.put(route("E0", fleet("e0-a"))))
        for number in range(rounds):
            name = f"new-{number}"
            pod = world.pod(2, name)
            calls = world.call("E0", concurrency=8)
            calls.until_total(100, 30)
            began = time.time()
            world.routes.put_pods("e0-a", 1, 2)
            wait_until(f"{name} answers", lambda one=name, made=calls: one in made.first, 30)  # type: ignore[misc]
            took.append(1000 * (calls.first[name] - began))
            world.routes.put_pods("e0-a", 1)
            wait_until(
                "the router has let it go", lambda: world.routes.hosts.get((world.routers[0].name, "e0-a")) == 1, 30
            )
            calls.finish()
            pod.stop()
    return [
        Figure(
            "a ready pod until its first answer",
            f"p50 {percentile(took, 0.5):.0f} ms, p99 {percentile(took, 0.99):.0f} ms ({rounds} pods)",
            "",
            {"milliseconds": [round(one, 1) for one in sorted(took)]},
        )
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below this share of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextmanager
def _one_endpoint(directory: Path) -> Iterator[Routing]:
    """One router, and the endpoint E0 of three variants, all of the same pod."""
    with Routing(directory) as world:
        world.pod(1)
        for variant in VARIANTS:
            world.routes.put_pods(f"e0-{variant}", 1)
        world.confirmed("e0", world.routes.put(_route(0, 0)))
        yield world


def _route(number: int, edit: int) -> EndpointRouteSpec:
    """Three variants; the weights depend on the edit."""
    first = 100_000 + 1000 * (edit % 100)
    weights = (first, 500_000, 500_000 - first)
    fleets = (fleet(f"e{number}-{name}", name, weight) for name, weight in zip(VARIANTS, weights, strict=True))
    return route(f"E{number}", *fleets)


PARTS: dict[str, Callable[..., list[Figure]]] = {
    "router-latency": latency,
    "router-throughput": throughput,
    "router-stream": stream,
    "router-confirm": confirm,
    "router-ready": ready,
}
"""Each takes a directory of its own and `quick`."""
