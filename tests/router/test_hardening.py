"""What strangers send: headers without end, slow bodies, odd paths; and what the other two ports show."""

import http.client
import re
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.router.harness.caller import client, order
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.specs import fleet, route

Start = Callable[..., Container]


@pytest.fixture
def one(drive: Drive, container: Start) -> Container:
    made = container("c")
    drive.put(route("Churn", fleet("churn-a", port=made.port)), ("churn-a", "127.0.0.1"))
    drive.settle()
    return made


def post(envoy: Envoy, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", envoy.settings.port, timeout=10)
    try:
        connection.request("POST", path, body=b"x", headers=headers or {})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def test_too_large_and_too_many_headers(envoy: Envoy, one: Container) -> None:
    path = "/endpoints/Churn/invocations"
    assert post(envoy, path, {"x-amzn-sagemaker-custom-attributes": "a" * 1024})[0] == 200
    assert post(envoy, path, {"x-amzn-sagemaker-custom-attributes": "a" * 40_000})[0] == 431
    assert post(envoy, path, {f"x-{n}": "1" for n in range(80)})[0] == 431
    assert len(one.requests) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/endpoints/../admin",
        "/endpoints/Churn%2Finvocations",
        "/endpoints/Churn/../../stats",
        "/endpoints//Churn/x/invocations",
        "/endpoints/" + "x" * 5000 + "/invocations",
    ],
)
def test_odd_paths_reach_no_container(envoy: Envoy, one: Container, path: str) -> None:
    status, _, _ = post(envoy, path)
    assert status in {400, 404}
    assert one.requests == []


def test_a_client_that_never_ends_its_headers_is_cut_off(envoy: Envoy) -> None:
    with socket.create_connection(("127.0.0.1", envoy.settings.port), timeout=90) as slow:
        slow.sendall(b"POST /endpoints/Churn/invocations HTTP/1.1\r\nhost: x\r\n")
        started = time.monotonic()
        answer = slow.recv(1000)
    assert b"408" in answer.split(b"\r\n")[0]
    assert 5 < time.monotonic() - started < 60


def test_metrics_tell_endpoint_variant_revision_and_fleet(envoy: Envoy, one: Container) -> None:
    runtime = client(envoy.url)
    for _ in range(3):
        runtime.invoke_endpoint(EndpointName="Churn", Body=b"x")
    with pytest.raises(runtime.exceptions.ModelError):
        runtime.invoke_endpoint(EndpointName="Churn", Body=order("answer", status=500))

    def scrape() -> str:
        with urllib.request.urlopen(envoy.metrics + "/stats/prometheus", timeout=5) as answer:  # noqa: S310 - loopback
            return str(answer.read().decode())

    Envoy.until(lambda: "envoy_cluster_upstream_rq_time_count" in scrape(), 120)
    text = scrape()
    labels = 'sluice_fleet="churn-a",sluice_endpoint="Churn",sluice_variant="a",sluice_revision="churn-r1"'
    for name, extra, value in (
        ("envoy_cluster_upstream_rq", 'envoy_response_code_class="2xx",', 3),
        ("envoy_cluster_upstream_rq", 'envoy_response_code_class="5xx",', 1),
        ("envoy_cluster_upstream_rq_total", "", 4),
        ("envoy_cluster_upstream_rq_time_count", "", 4),
        ("envoy_cluster_upstream_rq_active", "", 0),
    ):
        found = re.search(rf"^{name}{{{extra}{re.escape(labels)}[^}}]*}} (\d+)$", text, re.MULTILINE)
        assert found, (name, [line for line in text.splitlines() if line.startswith(name)][:5])
        assert int(found[1]) == value


@pytest.mark.parametrize(
    "path", ["/", "/config_dump", "/quitquitquit", "/stats", "/clusters", "/stats/prometheus/../.."]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_of_the_admin_interface_only_metrics_and_readiness_are_open(envoy: Envoy, path: str, method: str) -> None:
    request = urllib.request.Request(envoy.metrics + path, method=method)  # noqa: S310 - loopback
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=5)  # noqa: S310 - loopback
    assert caught.value.code in {400, 404}
    with urllib.request.urlopen(envoy.metrics + "/ready", timeout=5) as answer:  # noqa: S310 - loopback
        assert answer.read() == b"LIVE\n"


def scrapers(envoy: Envoy, count: int) -> list[socket.socket]:
    """Connections to the port of the metrics."""
    host, port = envoy.metrics.removeprefix("http://").split(":")
    return [socket.create_connection((host, int(port)), timeout=30) for _ in range(count)]


def scrape_at_once(connections: list[socket.socket]) -> list[bytes]:
    """The statuses; the connections are used up."""
    for connection in connections:
        connection.sendall(b"GET /stats/prometheus HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answers = [b"".join(iter(lambda one=connection: one.recv(65536), b"")) for connection in connections]  # type: ignore[misc]
    for connection in connections:
        connection.close()
    return [answer[9:12] for answer in answers]


def test_some_who_ask_for_metrics_at_the_same_time_are_all_answered(envoy: Envoy) -> None:
    """Two Prometheus servers, each with two jobs that find the routers: none may see them as down."""
    envoy.kill()
    envoy.start(threads=2)  # as in its pod: limits are counted over both
    for _ in range(200):
        for connection in scrapers(envoy, 2):  # so that Envoy has its connections to itself
            scrape_at_once([connection])
        assert scrape_at_once(scrapers(envoy, 8)) == [b"200"] * 8


def test_who_asks_for_metrics_again_and_again_gets_few_answers_and_holds_up_no_probe(envoy: Envoy) -> None:
    """Envoy's main thread writes them, and answers the liveness probe."""
    asking = scrapers(envoy, 100)
    try:
        for one_of_them in asking:
            one_of_them.sendall(b"GET /stats/prometheus HTTP/1.1\r\nhost: x\r\n\r\n")
        with urllib.request.urlopen(envoy.metrics + "/ready", timeout=30) as answer:  # noqa: S310 - loopback
            assert answer.read() == b"LIVE\n"
        statuses = Counter(one_of_them.recv(12)[9:] for one_of_them in asking)
    finally:
        for one_of_them in asking:
            one_of_them.close()
    assert statuses.keys() == {b"200", b"503"}, statuses


def test_without_memory_it_refuses_requests_and_lives(tmp_path: Path, container: Start) -> None:
    made = container("c")
    envoy = Envoy(tmp_path / "run", heap_bytes=1 << 20)  # less than it has at the start
    drive = Drive(envoy)
    try:
        envoy.start()
        drive.put(route("Churn", fleet("churn-a", port=made.port)), ("churn-a", "127.0.0.1"))
        drive.settle()
        envoy.until(lambda: post(envoy, "/endpoints/Churn/invocations")[0] == 503, 30)
        assert envoy.process is not None
        assert envoy.process.poll() is None
    finally:
        envoy.kill()
        envoy.end_serving()
