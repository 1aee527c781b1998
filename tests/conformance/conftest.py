"""One run of the whole table: an operator, a simulator, CloudWatch, an API server, and hands that do kubelet's work."""

import asyncio
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.conformance.drive import SECONDS, Images, Site, run
from tests.conformance.hands import ConformanceHands
from tests.conformance.recorder import Recorder
from tests.conformance.scenario import BACKENDS, Backend, Scenario, Seen
from tests.controller.conftest import Telemetry
from tests.operator.conftest import cloudwatch_url, nursery, surroundings
from tests.operator.harness.kube import Object
from tests.operator.harness.world import Surroundings, World

from localcluster.controlplane import ControlPlane
from sluice.kube.client import KubeClient
from sluice.kube.configuration import load_configuration

__all__ = ["cloudwatch_url", "nursery", "surroundings"]

NAMESPACE = "conformance"
IMAGES = Images(*(f"registry.example/churn:{tag}" for tag in ("old", "new", "third", "unhealthy")))
SIDE_BY_SIDE = 48
"""With more at once one operator on two cores is away for longer than a stage lasts."""
Results = dict[tuple[str, Backend], Future[Seen]]


@pytest.fixture(scope="session")
def results(
    request: pytest.FixtureRequest,
    surroundings: Surroundings,
    control_plane: ControlPlane,
    tmp_path_factory: pytest.TempPathFactory,
) -> Results:
    """What was seen of the scenarios that this run has selected, each once."""
    selected = _selected(request.session.items)
    world = World(
        surroundings,
        tmp_path_factory.mktemp("conformance"),
        speed=0.35,  # a stage lasts longer than a busy operator is away
        namespace=NAMESPACE,
        environment={
            "SLUICE_SAGEMAKER_MOVING_SECONDS": "0.2",
            "SLUICE_CLOUDWATCH_SECONDS": "0.5",
            "SLUICE_MAX_CONCURRENT_DEPLOYMENTS": "0",
            "SLUICE_MAX_CONCURRENT_DEPLOYMENTS_PER_NAMESPACE": "0",
            "SLUICE_MAX_ROLLBACKS_OF_ONE_IMAGE": "0",
        },
        create_seconds=2.0,
        provision_seconds=2.0,
        flip_seconds=2.0,
        cleanup_seconds=2.0,
        weight_seconds=2.0,
        scale_seconds=2.0,
    )
    recorder = Recorder(surroundings.kube, NAMESPACE)
    hands = _Handyman(control_plane)
    found: Results = {}
    try:
        world.operator.start()
        sites = {backend: _site(backend, world, recorder, hands) for backend in BACKENDS}
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            for scenario, backend in selected:
                found[(scenario.name, backend)] = pool.submit(run, scenario, sites[backend])
    finally:
        recorder.close()
        hands.rest()
        world.close()
    return found


def _selected(items: list[pytest.Item]) -> list[tuple[Scenario, Backend]]:
    params = (item.callspec.params for item in items if isinstance(item, pytest.Function) and hasattr(item, "callspec"))
    found = [(one["scenario"], one["backend"]) for one in params if isinstance(one.get("scenario"), Scenario)]
    return sorted(found, key=lambda one: one[1], reverse=True)  # what takes longer, on SageMaker, begins first


def _site(backend: Backend, world: World, recorder: Recorder, hands: "_Handyman") -> Site:
    def make_alarm(name: str, state: str) -> None:
        world.cloudwatch.put_metric_alarm(
            AlarmName=name,
            Namespace="Conformance",  # a metric of AWS/SageMaker would be refused in the cluster
            MetricName="Errors",
            Statistic="Sum",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1.0,
            ComparisonOperator="GreaterThanThreshold",
        )
        world.set_alarm(name, state)

    def prepare(scenario: Scenario, name: str) -> None:
        if scenario.unhealthy and backend == "SageMaker":
            world.simulator.fault("health_failure", target=name, count=1)

    def overtake(name: str) -> None:
        if backend == "SageMaker":
            world.simulator.change_endpoint(name, overdue=True)
            return
        over = {"status": {"deployment": {"deadline": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}}}
        world.kube.patch("Endpoint", NAMESPACE, name, over, subresource="status")

    def start_nothing(name: str) -> None:
        if backend == "SageMaker":
            world.simulator.fault("update_rollback_failed", target=name, count=1)
            return
        hands.start_nothing(name)
        recorder.until(name, _is_going_back, "the way back", SECONDS)
        ago = datetime.now(UTC) - timedelta(hours=1)  # more than a way back may take without getting on
        began = {"status": {"deployment": {"stageSince": f"{ago:%Y-%m-%dT%H:%M:%S.000Z}"}}}
        world.kube.patch("Endpoint", NAMESPACE, name, began, subresource="status")

    return Site(
        backend=backend,
        kube=world.kube,
        namespace=NAMESPACE,
        recorder=recorder,
        images=IMAGES,
        make_alarm=make_alarm,
        set_alarm=world.set_alarm,
        prepare=prepare,
        overtake=overtake,
        start_nothing=start_nothing,
    )


def _is_going_back(seen: list[Object]) -> bool:
    return ((seen[-1].get("status") or {}).get("deployment") or {}).get("stage") == "RollingBack"


class _Handyman:
    """Hands at work in a thread of their own."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        self._failure: BaseException | None = None
        self._starting_nothing: set[str] = set()
        self._thread = threading.Thread(target=self._run, args=(control_plane.kubeconfig,), daemon=True)
        self._thread.start()

    def start_nothing(self, endpoint: str) -> None:
        """Pods of this Endpoint crash from now on, but those that are there."""
        self._starting_nothing.add(endpoint)

    def rest(self) -> None:
        """End; a failure of theirs is the run's."""
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(120)
        if self._failure is not None:
            raise self._failure

    def _run(self, kubeconfig: Path) -> None:
        try:
            self._loop.run_until_complete(self._work(kubeconfig))
        except BaseException as error:  # noqa: BLE001 - raised where they rest
            self._failure = error

    async def _work(self, kubeconfig: Path) -> None:
        kube = KubeClient(
            await load_configuration({**os.environ, "KUBECONFIG": str(kubeconfig)}),
            identity="hands",
            telemetry=Telemetry(),
        )
        try:
            hands = ConformanceHands(kube, NAMESPACE, IMAGES.unhealthy)
            hands.starting_nothing = self._starting_nothing
            hands.work()
            await self._done.wait()
            await hands.rest()
        finally:
            await kube.close()
