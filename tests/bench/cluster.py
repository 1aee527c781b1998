"""What an edit of a Cluster Endpoint costs and how long it takes: the operator's process, an API server, and two
routers, each a real Envoy with the agent's process. Instead of controllers and kubelet hands make the pods; they rest
before anything is measured."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.counting import fetch, operator_requests, samples
from tests.bench.figures import Figure
from tests.bench.processes import Measured
from tests.bench.router import percentile
from tests.bench.routing import CHECKOUT, NAMESPACE, Routing, until
from tests.cluster_backend.hands import Hands
from tests.router.harness.envoy import free_port

from sluice.core.cluster.names import LABEL_FLEET, LABEL_ROUTER
from sluice.kube.client import KubeClient
from sluice.kube.configuration import load_configuration

ENDPOINTS = (1, 50)
HOUR_SECONDS = 3600
SPREAD_SECONDS = 1.0
"""Between two edits, so that each is one of its own."""
READY_SECONDS = 240
Counts = Counter[tuple[str, str]]


def edits(directory: Path, *, quick: bool) -> list[Figure]:
    """The weights of an EndpointConfig are patched: until every router has confirmed them."""
    figures, count = [], 5 if quick else 100
    for endpoints in ENDPOINTS:
        with _served(directory / str(endpoints), endpoints) as (world, operator):
            figures += _edits(world, operator, endpoints, count)
    return figures


def steady(directory: Path, *, quick: bool) -> list[Figure]:
    """Nothing changes: what the operator does."""
    figures, window = [], 20.0 if quick else 120.0
    for endpoints in ENDPOINTS:
        with _served(directory / str(endpoints), endpoints) as (_, operator):
            before, used, began = operator.counts(), operator.process.used(), time.monotonic()
            time.sleep(window)
            passed = time.monotonic() - began
            passes, requests = (now - then for now, then in zip(operator.counts(), before, strict=True))
            cpu = operator.process.used().cpu_seconds - used.cpu_seconds
            hours = endpoints * passed / HOUR_SECONDS
            figures.append(
                Figure(
                    f"steady, {endpoints} Cluster Endpoints of 2 variants",
                    f"{passes.total() / hours:.0f} passes and {requests.total() / hours:.0f} requests to Kubernetes "
                    f"per endpoint-hour; {60 * cpu / passed:.2f} s of CPU per minute",
                    "",
                    {"windowSeconds": round(passed), "passes": _named(passes), "requests": _named(requests)},
                )
            )
    return figures


class Operator:
    """Its process, with the default settings but for those that are given."""

    def __init__(self, world: Routing, **settings: str) -> None:
        port = free_port()
        self._metrics = f"http://127.0.0.1:{port}/metrics"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(world.directory),
            "PYTHONPATH": str(CHECKOUT / "operator"),
            "KUBECONFIG": str(world.kubeconfig),
            "SLUICE_IDENTITY": "bench",
            "SLUICE_OPERATOR_NAMESPACE": NAMESPACE,
            "SLUICE_HEALTH_PORT": str(port),
            "AWS_EC2_METADATA_DISABLED": "true",
            **settings,
        }
        words = [f"{name}={value}" for name, value in environment.items()]
        argv = ["/usr/bin/env", "-i", *words, sys.executable, "-m", "sluice.main"]
        self.process = Measured(argv, log=world.directory / "operator.log")

    def counts(self) -> tuple[Counts, Counts]:
        """Passes by kind and outcome, and requests to Kubernetes by verb and kind without those for the Lease."""
        text = fetch(self._metrics)
        passes: Counts = Counter()
        for labels, value in samples(text, "sluice_passes_total"):
            passes[labels["kind"], labels["outcome"]] += int(value)
        requests = Counter({key: value for key, value in operator_requests(text).items() if key[1] != "Lease"})
        return passes, requests


@contextmanager
def _served(directory: Path, endpoints: int) -> Iterator[tuple[Routing, Operator]]:
    """So many Endpoints of two variants, each with one pod, all Ready by two routers' word."""
    with Routing(directory, routers=0) as world:
        world.pod(1)
        operator = Operator(world)
        try:
            with hands_at(world):
                for number in range(endpoints):
                    _create(world, number)
                start_routers(world)
                slices: set[str] = set()

                def ready() -> bool:
                    for fleet in fleets_of(world) - slices:
                        world.routes.put_pods(fleet, 1)
                        slices.add(fleet)
                    return _ready(world) == endpoints

                until(f"{endpoints} Endpoints are Ready", ready, READY_SECONDS, every=0.5)
            time.sleep(5.0 + endpoints / 10)  # what is still on its way is not the edits' cost
            yield world, operator
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{operator.process.tail()}") from error
        finally:
            operator.process.stop()


@contextmanager
def hands_at(world: Routing, *, reporting: bool = False) -> Iterator[Hands]:
    """They make pods, on a thread of their own; what routers report is left to the routers, unless they are to."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="hands", daemon=True)
    thread.start()

    def do(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)

    async def begin() -> tuple[KubeClient, Hands]:
        environ = {**os.environ, "KUBECONFIG": str(world.kubeconfig)}
        kube = KubeClient(await load_configuration(environ), identity="bench")
        hands = Hands(kube, NAMESPACE)
        hands.reporting = reporting
        hands.work()
        return kube, hands

    kube, hands = do(begin())
    try:
        yield hands
    finally:
        do(hands.rest())
        do(kube.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def _create(world: Routing, number: int) -> None:
    def make(kind: str, spec: dict[str, Any]) -> None:
        metadata = {"name": _name(number)}
        body = {"apiVersion": "sluice.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
        world.kube.create(body, NAMESPACE)

    make("Model", {"primaryContainer": {"image": "registry.example/churn:1"}})
    make("EndpointConfig", {"productionVariants": _variants(number, 0)})
    make("Endpoint", {"backend": "Cluster", "endpointConfigName": _name(number)})


def _variants(number: int, edit: int) -> list[dict[str, Any]]:
    return [
        {
            "variantName": variant,
            "modelName": _name(number),
            "instanceType": "ml.m5.large",
            "initialInstanceCount": 1,
            "initialVariantWeight": weight,
        }
        for variant, weight in (("a", 1 + edit), ("b", 1))
    ]


def _name(number: int) -> str:
    return f"e{number:03d}"


def start_routers(world: Routing) -> None:
    """Agents and Envoys for the router's pods, once the operator has made its Deployment and the hands the pods."""
    found: list[dict[str, Any]] = []

    def pods() -> bool:
        found[:] = _listed(world, "/api/v1", "pods", LABEL_ROUTER)
        return len(found) == 2

    until("there are two pods of the router", pods, READY_SECONDS, every=0.2)
    for pod in found:
        world.add_router(pod["metadata"]["name"], pod["metadata"]["uid"])


def fleets_of(world: Routing) -> set[str]:
    pods = _listed(world, "/api/v1", "pods", LABEL_FLEET)
    return {pod["metadata"]["labels"][LABEL_FLEET] for pod in pods}


def _ready(world: Routing) -> int:
    conditions = [
        condition
        for endpoint in world.kube.list("Endpoint", NAMESPACE)
        for condition in (endpoint.get("status") or {}).get("conditions") or ()
    ]
    return sum(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _listed(world: Routing, group: str, plural: str, label: str) -> list[dict[str, Any]]:
    found = world.kube.request("GET", f"{group}/namespaces/{NAMESPACE}/{plural}", labelSelector=label)
    return list(found["items"])


def _edits(world: Routing, operator: Operator, endpoints: int, count: int) -> list[Figure]:
    whole, written = [], []
    before, used = operator.counts(), operator.process.used()
    for edit in range(1, count + 1):
        number = edit % endpoints
        name = _name(number)
        generation = world.routes.specs[name][-1][1]
        began = time.time()
        world.kube.patch("EndpointConfig", NAMESPACE, name, {"spec": {"productionVariants": _variants(number, edit)}})

        def routed(name: str = name, generation: int = generation) -> bool:
            return world.routes.specs[name][-1][1] > generation

        until(f"the route of {name} has the new weights", routed, 60)
        at, generation, _ = world.routes.specs[name][-1]
        world.confirmed(name, generation, within=60)
        written.append(1000 * (at - began))
        whole.append(1000 * (max(world.routes.confirmations(name, generation).values()) - began))
        time.sleep(SPREAD_SECONDS)
    passes, requests = (now - then for now, then in zip(operator.counts(), before, strict=True))
    cpu = operator.process.used().cpu_seconds - used.cpu_seconds
    rest = [all_of_it - operators for all_of_it, operators in zip(whole, written, strict=True)]

    def said(values: list[float]) -> str:
        return f"p50 {percentile(values, 0.5):.0f} ms, p99 {percentile(values, 0.99):.0f} ms"

    return [
        Figure(
            f"a patched weight until 2 routers have confirmed, {endpoints} Cluster Endpoints",
            f"{said(whole)} ({count} edits); until the route is written {said(written)}; from there {said(rest)}",
            "p99 < 1 s; the routers' share < 50 ms",
            {"milliseconds": _rounded(whole), "written": _rounded(written), "routers": _rounded(rest)},
        ),
        Figure(
            f"the operator's work for an edit, {endpoints} Cluster Endpoints",
            f"{passes.total() / count:.1f} passes, {requests.total() / count:.1f} requests to Kubernetes, "
            f"{1000 * cpu / count:.0f} ms of CPU",
            "",
            {"edits": count, "passes": _named(passes), "requests": _named(requests)},
        ),
    ]


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 1) for value in sorted(values)]


def _named(counted: Counts) -> dict[str, int]:
    return {f"{first} {second}": number for (first, second), number in sorted(counted.items())}


PARTS: dict[str, Callable[..., list[Figure]]] = {"cluster-edits": edits, "cluster-steady": steady}
"""Each takes a directory of its own and `quick`."""
