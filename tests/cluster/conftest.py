"""The demo is told once for all cluster tests; each test goes on from the Endpoint that it leaves in service."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cluster.hosting import Hosting
from tests.cluster.patience import NAMESPACE, Patience
from tests.operator.harness.kube import Kube

from demo import install, steps
from demo.example import read_example
from demo.surroundings import CHECKOUT, Surroundings
from localcluster import Cluster, contrary
from localcluster.images import examples
from localcluster.images.dockerfile import Target

DEMO_SECONDS = 1200
"""It takes two and a half minutes here, some of them with images that nobody built yet."""
BUILD_SECONDS = 900
"""What a test gets more that may be the first to need an image which takes minutes to build."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fixtures count towards a test's time, and whichever comes first builds images and sits through the demo."""
    for item in items:
        needed = set(getattr(item, "fixturenames", ()))
        seconds = DEMO_SECONDS * ("told" in needed) + BUILD_SECONDS * bool(needed & {"mlflow", "mms"})
        own = next((mark.args[0] for mark in item.iter_markers("timeout")), 300)
        if seconds:
            item.add_marker(pytest.mark.timeout(own + seconds))


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A model server's image on the nodes, and the model archives for it by their names."""

    image: str
    archives: Mapping[str, Path]


def model_server(request: pytest.FixtureRequest, cluster: Cluster, target: Target) -> ModelServer:
    """Make image and archives, with the progress shown: it may take minutes."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        return ModelServer(examples.image(cluster, target), examples.archives(target))


@pytest.fixture(scope="session")
def mlflow(request: pytest.FixtureRequest, cluster: Cluster) -> ModelServer:
    """MLflow's scoring server: models tree, logistic, broken (answers 500), incomplete (does not start)."""
    return model_server(request, cluster, examples.MLFLOW)


@pytest.fixture(scope="session")
def mms(request: pytest.FixtureRequest, cluster: Cluster) -> ModelServer:
    """Amazon's toolkit, which needs root: models nearest, incomplete (/ping says Healthy, every answer is a 500)."""
    return model_server(request, cluster, examples.MMS)


@pytest.fixture(scope="session")
def contrary_image(cluster: Cluster) -> str:
    """A model server that misbehaves on order (local/localcluster/images/contrary_server.py)."""
    return contrary.image(cluster)


@dataclass(frozen=True, slots=True)
class Told:
    """A finished run of `python -m demo` without a terminal."""

    code: int
    output: str
    errors: str
    transcript: Path


@pytest.fixture(scope="session")
def surroundings() -> Surroundings:
    """The cluster of `make up`; without one this fails and says what to do."""
    return Surroundings.from_environment()


@pytest.fixture(scope="session")
def told(surroundings: Surroundings, mlflow: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The demo, run as a person without a terminal would."""
    transcript = tmp_path_factory.mktemp("demo") / "transcript.md"
    path = os.pathsep.join(str(CHECKOUT / place) for place in ("local", "simulator", "operator"))
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "demo", "--transcript", str(transcript)],
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    return Told(done.returncode, done.stdout, done.stderr, transcript)


@pytest.fixture(scope="session")
def stage(surroundings: Surroundings, told: Told) -> Iterator[steps.Stage]:
    """What the demo left running, with the demo's own eyes and hands."""
    assert told.code == 0, f"the demo failed, so there is nothing to go on from:\n{told.output}\n{told.errors}"
    example = read_example()
    with install.simulated_aws(surroundings) as aws, steps.watcher(surroundings, example) as watcher:
        made = steps.Stage(surroundings, aws, example, watcher, print)
        watcher.until("the demo's Endpoint is seen", lambda seen: seen.is_ready, seconds=120)
        yield made


@pytest.fixture(scope="session")
def patience(stage: steps.Stage, cluster: Cluster, contrary_image: str) -> Iterator[Patience]:
    """Deployments that take their time, under way."""
    begun = Patience(Hosting(stage, cluster, Kube(stage.surroundings.kubeconfig), contrary_image, NAMESPACE))
    begun.begin()
    yield begun
    begun.end()


@pytest.fixture(scope="session")
def hosting(
    request: pytest.FixtureRequest, stage: steps.Stage, cluster: Cluster, mlflow: ModelServer
) -> Iterator[Hosting]:
    """A namespace for Cluster Endpoints beside the demo's, driven by the demo's operator."""
    if any("patience" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("patience")  # it is asked for last, and may as well have its time now
    kube = Kube(stage.surroundings.kubeconfig)
    hosting = Hosting(stage, cluster, kube, mlflow.image, "hosted")
    hosting.open()
    yield hosting
    hosting.close()
    kube.close()
