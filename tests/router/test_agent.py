"""The agent's real process beside a real Envoy and a real API server."""

import signal
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.router.harness.api import Namespace, Wire
from tests.router.harness.caller import Load, client
from tests.router.harness.container import Container
from tests.router.harness.envoy import Envoy
from tests.router.harness.namespace import NetworkNamespace
from tests.router.harness.pod import RouterPod
from tests.router.specs import fleet, route

from localcluster.controlplane import ControlPlane
from sluice.api.routes import RouteSample
from sluice.router.reporting import PARTS, part_name

pytestmark = pytest.mark.apiserver

Make = Callable[..., Container]
until = Envoy.until
PART_OF_CHURN = zlib.crc32(b"churn") % PARTS


@pytest.fixture(scope="module")
def net() -> Iterator[NetworkNamespace]:
    made = NetworkNamespace()
    yield made
    made.close()


@pytest.fixture
def wire(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Wire]:
    made = Wire(control_plane.kubeconfig, tmp_path)
    yield made
    made.close()


@pytest.fixture
def team(control_plane: ControlPlane) -> Namespace:
    return Namespace(control_plane.kubeconfig)


@pytest.fixture
def pod(tmp_path: Path, net: NetworkNamespace, team: Namespace, wire: Wire) -> Iterator[RouterPod]:
    made = RouterPod(tmp_path, net, team.name, wire.kubeconfig)
    yield made
    made.close()


@pytest.fixture
def start(container: Make, net: NetworkNamespace) -> Make:
    """A container at 198.18.0.N:8080 of the namespace."""

    def make(number: int, **rest: object) -> Container:
        rest.setdefault("keep", False)
        return container(f"pod{number}", address=f"198.18.0.{number}", port=8080, enter=net.enter, **rest)

    return make


def serve(team: Namespace, endpoint: str, *numbers: int) -> int:
    """One endpoint with one fleet of these pods."""
    name = f"{endpoint.lower()}-a"
    team.put_pods(name, *(f"198.18.0.{n}" for n in numbers))
    return team.put_route(route(endpoint, fleet(name)))


def load(pod: RouterPod, net: NetworkNamespace, endpoint: str, **rest: int) -> Load:
    return Load(pod.envoy.url, endpoint, enter=net.enter, **rest)


def test_a_route_is_applied_confirmed_and_served(
    pod: RouterPod, team: Namespace, net: NetworkNamespace, start: Make
) -> None:
    start(1)
    serve(team, "Churn", 1)
    assert pod.probe("/ready") == 0
    pod.start_agent()
    until(lambda: pod.probe("/ready") == 200, 120)
    assert pod.probe("/live") == 200
    until(lambda: team.generation(pod.name, "churn") == 1, 120)
    answer = net.call(lambda: client(pod.envoy.url).invoke_endpoint(EndpointName="Churn", Body=b"x"))
    assert answer["InvokedProductionVariant"] == "a"
    written = team.report_objects(pod.name)
    assert [item["metadata"]["name"] for item in written] == ["router-0", part_name("router-0", PART_OF_CHURN)]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "router-0", "uid": "pod-uid-0"}
    assert [item["metadata"]["ownerReferences"] for item in written] == [[owner], [owner]]
    report = team.report(pod.name)
    assert report is not None
    assert (report.pod_uid, report.schema_version, report.rejected) == ("pod-uid-0", 1, ())
    assert [(f.name, f.hosts, f.healthy) for f in report.routes[0].fleets] == [("churn-a", 1, 1)]
    settled = time.monotonic() + 2.5
    until(lambda: time.monotonic() > settled, 120)
    assert team.report_objects(pod.name) == written, "nothing changed"
    assert pod.stop_agent() == 0


def test_changes_are_followed_without_a_loss(
    pod: RouterPod, team: Namespace, net: NetworkNamespace, start: Make
) -> None:
    for number in (1, 2, 3):
        start(number)
    serve(team, "Churn", 1, 2)
    serve(team, "Other", 3)
    pod.start_agent()
    until(lambda: pod.probe("/ready") == 200, 120)
    with load(pod, net, "Churn") as churn, load(pod, net, "Other") as other:
        for numbers in ((1,), (2,), (2, 3), (1, 2, 3), (1,)):
            team.put_pods("churn-a", *(f"198.18.0.{n}" for n in numbers))

            def seen(count: int = len(numbers)) -> bool:
                report = team.report(pod.name)
                return bool(report) and {f.hosts for r in report.routes if r.name == "churn" for f in r.fleets} == {
                    count
                }

            until(seen, 120)
        team.put_pods("churn-b", "198.18.0.2")
        for weight in (100_000, 500_000, 900_000):
            generation = team.put_route(
                route("Churn", fleet("churn-a", weight=1_000_000 - weight), fleet("churn-b", "b", weight))
            )
            until(lambda g=generation: team.generation(pod.name, "churn") == g, 120)
        until(lambda: churn.variants["b"] > 50, 120)
        team.delete_route("other")
        until(lambda: team.generation(pod.name, "other") is None, 120)
        before = churn.total
        until(lambda: churn.total > before + 200, 120)
    assert churn.lost() == {}, churn.samples
    assert other.lost().keys() <= {"400"}, other.samples


def test_a_route_that_lets_a_fleet_go_is_confirmed_at_once(
    pod: RouterPod, team: Namespace, net: NetworkNamespace, start: Make
) -> None:
    """As in a rollback: what drains is told with it, and nobody waits for the agent's next look."""
    for number in (1, 2):
        start(number)
    team.put_pods("churn-b", "198.18.0.2")
    team.put_pods("churn-a", "198.18.0.1")
    team.put_route(route("Churn", fleet("churn-a", weight=900_000), fleet("churn-b", "b", 100_000)))
    pod.start_agent(looks_by_itself=False)
    until(lambda: team.generation(pod.name, "churn") == 1, 120)
    generation = team.put_route(route("Churn", fleet("churn-a")))
    until(lambda: team.generation(pod.name, "churn") == generation, 120)
    report = team.report(pod.name)
    assert report is not None
    assert report.routes[0].draining == ("churn-b",)


def test_without_its_agent_envoy_serves_and_the_next_agent_goes_on(
    pod: RouterPod, team: Namespace, net: NetworkNamespace, start: Make
) -> None:
    start(1)
    start(2)
    serve(team, "Churn", 1)
    pod.start_agent()
    until(lambda: team.generation(pod.name, "churn") == 1, 120)
    with load(pod, net, "Churn") as churn:
        pod.kill_agent()
        generation = team.put_route(route("Churn", fleet("churn-a", weight=999_999), fleet("churn-b", "b", 1)))
        before = churn.total
        until(lambda: churn.total > before + 300, 120)
        assert team.generation(pod.name, "churn") == 1
        team.put_pods("churn-b", "198.18.0.2")
        pod.start_agent()
        until(lambda: team.generation(pod.name, "churn") == generation, 120)
    assert churn.lost() == {}, churn.samples


def test_a_stopped_agent_and_a_frozen_envoy_confirm_nothing(
    pod: RouterPod, team: Namespace, net: NetworkNamespace, start: Make
) -> None:
    start(1)
    serve(team, "Churn", 1)
    pod.start_agent()
    until(lambda: team.generation(pod.name, "churn") == 1, 120)
    pod.signal_agent(signal.SIGSTOP)
    generation = team.put_route(route("Churn", fleet("churn-a"), fleet("churn-b", "b", 0)))
    stays(lambda: team.generation(pod.name, "churn") == 1, 1.5)
    pod.signal_agent(signal.SIGCONT)
    until(lambda: team.generation(pod.name, "churn") == generation, 120)
    pod.envoy.signal(signal.SIGSTOP)
    later = team.put_route(route("Churn", fleet("churn-a")))
    stays(lambda: team.generation(pod.name, "churn") == generation, 3)
    until(lambda: pod.probe("/ready") == 503, 120)
    assert pod.probe("/live") == 200
    pod.envoy.signal(signal.SIGCONT)
    until(lambda: team.generation(pod.name, "churn") == later, 120)


def test_without_the_api_server_a_killed_envoy_and_a_killed_agent_serve_again(
    pod: RouterPod, team: Namespace, net: NetworkNamespace, start: Make, wire: Wire
) -> None:
    start(1)
    serve(team, "Churn", 1)
    pod.start_agent()
    until(lambda: pod.probe("/ready") == 200, 120)
    wire.cut()
    pod.envoy.kill()
    pod.envoy.start()
    with load(pod, net, "Churn") as churn:
        until(lambda: churn.statuses["200"] > 50, 120)
    assert set(churn.statuses) == {"200"}, "from the agent's memory"
    pod.kill_agent()
    pod.envoy.kill()
    # An Envoy that nobody tells its routes does not answer that there are none.
    pod.envoy.start(wait=False)
    until((pod.envoy.directory / "admin.sock").exists, 60)
    stays(lambda: not pod.envoy.ask(lambda admin: admin.ready()), 1)
    pod.start_agent()
    pod.envoy.wait()
    with load(pod, net, "Churn") as churn:
        until(lambda: churn.statuses["200"] > 50, 120)
        # An agent that cannot read keeps its hands off what serves, and is not ready.
        until(lambda: pod.probe("/ready") == 503, 120)
        before = churn.total
        until(lambda: churn.total > before + 200, 120)
        wire.mend()
        until(lambda: pod.probe("/ready") == 200, 120)
    assert set(churn.statuses) == {"200"}, churn.samples


def test_with_the_api_server_away_what_is_known_is_kept_and_then_caught_up(
    pod: RouterPod, team: Namespace, net: NetworkNamespace, start: Make, wire: Wire
) -> None:
    start(1)
    serve(team, "Churn", 1)
    pod.start_agent()
    until(lambda: team.generation(pod.name, "churn") == 1, 120)
    wire.cut()
    generation = team.put_route(route("Churn", fleet("churn-a"), fleet("churn-b", "b", 0)))
    with load(pod, net, "Churn") as churn:
        until(lambda: churn.total > 300, 120)
        assert pod.probe("/ready") == 200
        wire.mend()
        until(lambda: team.generation(pod.name, "churn") == generation, 120)
    assert churn.lost() == {}, churn.samples


def test_an_edit_among_many_writes_one_part_and_an_agent_that_starts_anew_mends_all(
    pod: RouterPod, team: Namespace, net: NetworkNamespace, start: Make
) -> None:
    start(1)
    for number in range(20):
        serve(team, f"E{number}", 1)
    pod.start_agent()
    until(lambda: all(team.generation(pod.name, f"e{number}") == 1 for number in range(20)), 60)

    def versions() -> dict[str, str]:
        return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in team.report_objects(pod.name)}

    before = versions()
    assert len(before) > 5
    generation = team.put_route(route("E7", fleet("e7-a", weight=7)))
    until(lambda: team.generation(pod.name, "e7") == generation, 60)
    after = versions()
    assert [name for name in after if after[name] != before[name]] == [part_name(pod.name, zlib.crc32(b"e7") % PARTS)]
    pod.kill_agent()
    team.delete_route("e7")
    pod.start_agent()
    until(lambda: team.generation(pod.name, "e7") is None, 60)


def stays(condition: Callable[[], bool], seconds: float) -> None:
    """It holds all the while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition()


def test_what_a_pod_answers_that_fails_the_sample_invocation_is_reported(
    control_plane: ControlPlane, tmp_path: Path, net: NetworkNamespace, team: Namespace, start: Make
) -> None:
    """By the agent, which asks it; Envoy says only that it fails."""
    good, bad = start(1), start(2)
    bad.status = 503
    wire = Wire(control_plane.kubeconfig, tmp_path, inside=net.call)
    pod = RouterPod(tmp_path, net, team.name, wire.kubeconfig)
    try:
        team.put_pods("churn-a", good.address, bad.address)
        sample = RouteSample(body="sample", timeout_seconds=20)
        team.put_route(route("Churn", fleet("churn-a", sample=sample)))
        pod.start_agent(inside=True)

        def told() -> tuple[int, int, str | None]:
            report = team.report(pod.name)
            found = [(f.hosts, f.healthy, f.sample_answer) for r in report.routes for f in r.fleets] if report else []
            return found[0] if found else (0, 0, None)

        until(lambda: told() == (2, 1, "pod-198.18.0.2 answers 503: pod2"), 120)
        bad.status = 200
        until(lambda: told() == (2, 2, None), 120)
    finally:
        pod.close()
        wire.close()
