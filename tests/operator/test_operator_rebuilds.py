"""A cluster that was rebuilt, from Git or from an old etcd snapshot, finds its endpoints and changes nothing in AWS."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.operator.harness.kube import Kube, install_crds
from tests.operator.harness.manifests import Manifest, canary, config, endpoint, model, variant
from tests.operator.harness.world import SECONDS, MakeWorld, Surroundings, World

from localcluster.controlplane import ControlPlane

NUMBER = 50
MID_CANARY = 8
CRDS = Path(__file__).parents[2] / "crds"
NEW = "registry.example/churn:2"


def names(number: int) -> list[str]:
    return [f"churn-{i}" for i in range(number)]


def manifests(name: str) -> tuple[Manifest, ...]:
    """Endpoints of some variety: counts, weights, several variants, tags."""
    number = int(name.rsplit("-", 1)[1])
    variants = [variant(model=name, count=1 + number % 4, weight=1 + number % 3)]
    if number % 5 == 0:
        variants.append(variant("b", model=name, count=2))
    tags = [{"key": "number", "value": str(number)}] if number % 2 else []
    return (
        model(name=name),
        config(*variants, name=name),
        endpoint(canary(50, wait=100), name=name, endpointConfigName=name, tags=tags),
    )


def all_ready(world: World, number: int, seconds: float) -> None:
    wanted = set(names(number))

    def ready() -> bool:
        found = set()
        for item in world.kube.list("Endpoint", world.namespace):
            shown = {c["type"]: c["status"] for c in (item.get("status") or {}).get("conditions") or ()}
            if shown.get("Ready") == "True" and shown.get("Reconciling") == "False":
                found.add(item["metadata"]["name"])
        return found == wanted

    world.wait(ready, f"all {number} Endpoints are Ready", seconds=seconds)


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_fifty_endpoints_are_recreated_without_status_beside_living_ones(make_world: MakeWorld) -> None:
    world = make_world()
    world.operator.start()
    for name in names(NUMBER):
        world.apply(*manifests(name))
    all_ready(world, NUMBER, seconds=200)
    world.steady()
    world.operator.stop()
    before = world.standing()
    for kind in ("Endpoint", "EndpointConfig", "Model", "ControllerRevision"):
        for item in world.kube.list(kind, world.namespace):
            name = item["metadata"]["name"]
            if item["metadata"].get("finalizers"):
                world.kube.patch(kind, world.namespace, name, {"metadata": {"finalizers": None}})
            world.delete(kind, name)
    world.mark()

    for name in names(NUMBER):
        world.apply(*manifests(name))
    world.operator.start()

    all_ready(world, NUMBER, seconds=200)
    world.steady()
    assert set(world.writes()) <= {"AddTags"}
    assert world.standing() == before
    assert len(world.revisions()) == NUMBER
    for name in names(NUMBER):
        assert world.status(name)["revision"]["endpointConfigName"] == world.described(name)["EndpointConfigName"]


@pytest.fixture
def own_control_plane(surroundings: Surroundings, tmp_path: Path) -> Iterator[tuple[Surroundings, ControlPlane]]:
    """An API server for one test, because it is taken back in time."""
    with ControlPlane(tmp_path / "control-plane") as started:
        kube = Kube(started.kubeconfig)
        install_crds(kube, CRDS)
        yield replace(surroundings, kube=kube, kubeconfig=started.kubeconfig), started
        kube.close()


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_an_old_etcd_snapshot_taken_mid_canary(
    own_control_plane: tuple[Surroundings, ControlPlane], tmp_path: Path
) -> None:
    surroundings, control_plane = own_control_plane
    world = World(surroundings, tmp_path, speed=0.0)
    try:
        world.operator.start()
        for name in names(MID_CANARY):
            world.apply(*manifests(name))
        world.wait(
            lambda: len(world.standing()["endpoints"]) == MID_CANARY, "all endpoints are being created", seconds=200
        )
        world.simulator.advance(30)
        all_ready(world, MID_CANARY, seconds=200)
        for name in names(MID_CANARY):
            world.apply(model(NEW, name=name))
        world.wait(
            lambda: all(
                (world.status(name).get("deployment") or {}).get("stage") == "Provisioning"
                and world.described(name)["EndpointStatus"] == "Updating"
                for name in names(MID_CANARY)
            ),
            "all canaries run",
        )
        world.simulator.advance(30)
        world.wait(
            lambda: all((world.status(n).get("deployment") or {}).get("stage") == "Baking" for n in names(MID_CANARY)),
            "all canaries bake",
        )
        world.operator.stop()
        snapshot = control_plane.snapshot()
        world.operator.start()
        world.simulator.advance(300)
        for name in names(MID_CANARY):
            world.deployed(NEW, name, seconds=2 * SECONDS)
        world.operator.stop()
        before = world.standing()
        world.mark()

        control_plane.restore(snapshot)
        assert all(world.status(name).get("deployment") for name in names(MID_CANARY)), "back in time"
        world.operator.start()

        all_ready(world, MID_CANARY, seconds=200)
        for name in names(MID_CANARY):
            world.deployed(NEW, name)
        assert set(world.writes()) <= {"AddTags"}
        assert world.standing() == before
    finally:
        world.close()
