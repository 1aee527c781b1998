"""What the operator's scenarios share, and one fresh world for each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.server import ThreadedMotoServer
from tests.operator.harness.kube import Kube, install_crds
from tests.operator.harness.nursery import Nursery
from tests.operator.harness.side_by_side import TESTS, WORLDS, SideBySide, runs_beside
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


@pytest.fixture(scope="session")
def side_by_side(
    request: pytest.FixtureRequest, surroundings: Surroundings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SideBySide]:
    """The scenarios of all tests that need not be alone."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and runs_beside(item)]
    made = SideBySide(surroundings, tmp_path_factory.mktemp("scenarios"), items)
    yield made
    made.close()


@pytest.fixture
def make_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeWorld | SideBySide]:
    """Worlds with settings of their own; the operator is not started."""
    if runs_beside(request.node):
        yield request.getfixturevalue("side_by_side")
        return
    surroundings = request.getfixturevalue("surroundings")
    made: list[World] = []

    def make(**settings: Any) -> World:
        made.append(World(surroundings, tmp_path, **settings))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: MakeWorld | SideBySide) -> World | SideBySide:
    """A world whose operator runs."""
    if isinstance(make_world, SideBySide):
        return make_world
    made = make_world()
    made.operator.start()
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test whose scenario runs beside others waits for it."""
    for name in WORLDS:
        scenarios = pyfuncitem.funcargs.get(name)
        if isinstance(scenarios, SideBySide):
            scenarios.wait_for(pyfuncitem)
            return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that must be alone come when the others are over."""
    places = [place for place, item in enumerate(items) if item.path.is_relative_to(TESTS)]
    mine = sorted((items[place] for place in places), key=lambda item: not runs_beside(item))
    for place, item in zip(places, mine, strict=True):
        items[place] = item
