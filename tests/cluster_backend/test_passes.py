"""What an edit and what rest cost the operator, in passes and in requests to Kubernetes. Counts, no times: a pass that
follows no change, or a question whose answer is known, shows here."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.bench.counting import operator_requests, samples
from tests.cluster_backend.declared import VARIANTS, Declared
from tests.cluster_backend.hands import Hands
from tests.controller.process import OperatorProcess
from tests.controller.waiting import until

from localcluster.controlplane import ControlPlane
from sluice.api import names
from sluice.controller.cache import KINDS
from sluice.kube.client import KubeClient
from sluice.ports.kube import Object

pytestmark = pytest.mark.apiserver

Counts = Counter[tuple[str, str]]
READ_BY_THE_CLOCK = ("get", "ConfigMap")
"""The permissions and the instance types, every second here."""
SWEPT = {("list", kind) for kind in KINDS}
"""Listed when a watch is opened; passes have these from the cache."""


@pytest.fixture
async def world(
    control_plane: ControlPlane, kube: KubeClient, namespace: str, tmp_path: Path
) -> AsyncIterator[Declared]:
    hands = Hands(kube, namespace)
    process = OperatorProcess(
        control_plane.kubeconfig,
        tmp_path / "operator.log",
        SLUICE_IDENTITY="one",
        SLUICE_OPERATOR_NAMESPACE=namespace,
        SLUICE_WATCH_NAMESPACES=namespace,
        SLUICE_SWEEP_SECONDS="3600",
        SLUICE_PERMISSIONS_SECONDS="1",
    )
    await process.start()
    hands.work()
    yield Declared(kube, namespace, hands, process)
    await hands.rest()
    await process.end()
    assert "Traceback" not in process.log.read_text(), process.log.read_text()


async def counts(world: Declared) -> tuple[Counts, Counts]:
    """Passes by kind and outcome, and requests by verb and kind, without those for the Lease."""
    assert world.process is not None
    _, text = await world.process.ask("/metrics")
    passes: Counts = Counter()
    for labels, value in samples(text, "sluice_passes_total"):
        passes[labels["kind"], labels["outcome"]] += int(value)
    requests = operator_requests(text)
    return passes, Counter({k: number for k, number in requests.items() if k[1] != "Lease" and k not in SWEPT})


def by_kind(passes: Counts) -> Counter[str]:
    """Passes by kind."""
    found: Counter[str] = Counter()
    for (kind, _), number in passes.items():
        found[kind] += number
    return found


async def edited(world: Declared, weight: int) -> tuple[Counts, Counts]:
    """What one edit of a weight cost, until nothing moves any more."""
    before = await counts(world)
    variants = [{**VARIANTS[0], "initialVariantWeight": weight}, VARIANTS[1]]
    await world.apply("EndpointConfig", {"productionVariants": variants})

    async def followed() -> bool:
        return (await world.weights())["a"] == round(1_000_000 * weight / (weight + 1))

    await until(followed, 60)
    await world.ready(within=60)
    await world.quiet()
    passes, requests = (now - then for now, then in zip(await counts(world), before, strict=True))
    del requests[READ_BY_THE_CLOCK]
    return passes, requests


async def test_rest_costs_nothing_and_an_edit_what_it_changes(world: Declared) -> None:
    await world.declare()
    await world.ready()
    await world.quiet()
    before = await counts(world)

    async def time_passes() -> bool:
        return (await counts(world))[1][READ_BY_THE_CLOCK] >= before[1][READ_BY_THE_CLOCK] + 10

    await until(time_passes, 60)
    passes, requests = (now - then for now, then in zip(await counts(world), before, strict=True))
    assert passes.total() == 0, "the next look comes a minute after the last"
    assert set(+requests) == {READ_BY_THE_CLOCK}

    # Where the machine is slow routers are far apart, and a pass comes between: the cheapest edit is what one costs.
    edits = [await edited(world, weight) for weight in (2, 3, 4)]
    of_kind = [by_kind(passes) for passes, _ in edits]
    assert min(each["Endpoint"] for each in of_kind) <= 2, "the edit, and all routers' word: " + str(edits)
    assert min(each.total() for each in of_kind) <= 7, edits
    assert min(requests.total() for _, requests in edits) <= 19, edits
    reads = ("get", "list")
    assert min(sum(n for (verb, _), n in asked.items() if verb in reads) for _, asked in edits) <= 12, edits
    for _, asked in edits:
        assert asked["update_status", "EndpointConfig"] <= 1, "only when its newest content is in force"
        assert asked["update_status", "Model"] == 0, "nothing that it says has changed"
        assert asked["update", "EndpointRoute"] == 1


CANARY = {
    "blueGreenUpdatePolicy": {
        "trafficRoutingConfiguration": {
            "type": "CANARY",
            "canarySize": {"type": "CAPACITY_PERCENT", "value": 10},
            "waitIntervalInSeconds": 1,
        },
        "terminationWaitInSeconds": 1,
    }
}


async def history(world: Declared) -> list[Object]:
    """The deployments that have ended, as long as none runs."""
    endpoint = await world.kube.get("Endpoint", world.namespace, "churn") or {}
    return [] if "deployment" in endpoint["status"] else list(endpoint["status"]["history"])


async def deployed(world: Declared, image: str) -> tuple[Counts, Counts]:
    """What a canary cost, from the edit of its Model's image until nothing moves any more."""
    ended = len(await history(world))
    before = await counts(world)
    await world.apply("Model", {"primaryContainer": {"image": image}})

    async def followed() -> bool:
        return len(await history(world)) > ended

    await until(followed, 60)
    await world.ready(within=60)
    await world.quiet()
    passes, requests = (now - then for now, then in zip(await counts(world), before, strict=True))
    del requests[READ_BY_THE_CLOCK]
    return passes, requests


async def test_a_canary_costs_what_it_makes_and_moves(world: Declared) -> None:
    await world.declare(deploymentConfig=CANARY)
    await world.ready()
    await world.quiet()
    canaries = [await deployed(world, f"registry.example/churn:{tag}") for tag in (2, 3)]
    # Two fleets come, two go (their policies later, by the sweep); the routes are written with the new ones, at each of
    # two steps, and without the old ones.
    made = {("create", kind): 2 for kind in ("Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy")}
    made |= {("delete", kind): 0 if kind == "NetworkPolicy" else number for (_, kind), number in made.items()}
    made |= {("create", "ControllerRevision"): 1, ("update", names.ENDPOINT_ROUTE): 4}
    for _, asked in canaries:
        assert {key: asked[key] for key in made} == made
    # As above: the cheapest is what one costs. Measured: 13 passes over the Endpoint, which all write, 131 requests,
    # and four since that ask whose the objects of a fleet are before they are deleted.
    # What comes together on a quick machine comes one by one on a slow one, with passes that have nothing to do.
    wrote = [passes["Endpoint", "acted"] + passes["Endpoint", "persisted"] for passes, _ in canaries]
    assert min(wrote) <= 14, canaries
    of_kind = [by_kind(passes) for passes, _ in canaries]
    assert min(each["Endpoint"] for each in of_kind) <= 20, canaries
    assert min(each.total() for each in of_kind) <= 28, canaries
    assert min(asked["update_status", "Endpoint"] for _, asked in canaries) <= 12, canaries
    # What is believed for a minute is read anew where the machine is so slow that the minute passes.
    assert min(asked.total() for _, asked in canaries) <= 154, canaries
