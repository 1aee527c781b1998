"""What the operator's scenarios share, and one fresh world for each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from tests.operator.harness.kube import Kube, install_crds
from tests.operator.harness.nursery import Nursery
from tests.operator.harness.world import MakeWorld, Surroundings, World

from localcluster.controlplane import ControlPlane

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Starts operators without importing their libraries each time."""
    started = Nursery([ROOT / "operator"])
    yield started
    started.close()


@pytest.fixture(scope="session")
def cloudwatch_url() -> Iterator[str]:
    """moto's server, for CloudWatch."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def surroundings(control_plane: ControlPlane, nursery: Nursery, cloudwatch_url: str) -> Iterator[Surroundings]:
    """The API server with the CRDs installed, and what else there is one of."""
    kube = Kube(control_plane.kubeconfig)
    install_crds(kube, ROOT / "crds")
    yield Surroundings(kube, control_plane.kubeconfig, nursery, cloudwatch_url)
    kube.close()


@pytest.fixture
def make_world(surroundings: Surroundings, tmp_path: Path) -> Iterator[MakeWorld]:
    """Worlds with settings of their own; the operator is not started."""
    made: list[World] = []

    def make(**settings: Any) -> World:
        made.append(World(surroundings, tmp_path, **settings))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A world whose operator runs."""
    made = make_world()
    made.operator.start()
    return made
