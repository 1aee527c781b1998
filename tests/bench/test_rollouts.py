"""The arithmetic and the small programs of the figures about deployments, without a cluster."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.bench.capacity import areas, least_beyond
from tests.bench.forwarding import Forward
from tests.bench.policies import policies
from tests.bench.reactions import MINIMUM, WINDOW_SECONDS, Bad, enough_at

from sluice.api.deployment import DeploymentConfig
from sluice.core.cluster import plans

HERE = Path(__file__).parent
LEAST = {
    # 10 instances by 20 %, bakes of 5 s: a second fleet of 10 through one, two and five bakes; two more through five.
    "ALL_AT_ONCE": 50,
    "CANARY": 100,
    "LINEAR": 250,
    "ROLLING": 50,
    "ROLLING, replaceFirst": 0,
}


@pytest.mark.parametrize("policy", LEAST)
def test_the_least_that_a_policy_can_do_with(policy: str) -> None:
    config, kubernetes = policies(5, 20)[policy]
    assert DeploymentConfig.model_validate(config)
    first = bool(kubernetes)
    steps = plans.plan(config, {"a": 10}, {"a": 10}, replace_first=first)
    plan = [step.model_dump(by_alias=True) for step in steps]
    assert least_beyond(plan, 10, replace_first=first) == LEAST[policy]


def test_pod_seconds_beyond_and_below() -> None:
    assert areas([(0.0, 10), (1.0, 12), (3.0, 9), (3.5, 10), (9.0, 10)], 10) == (4.0, 0.5)


def test_a_traffic_alarm_has_enough_when_so_many_came_within_its_window() -> None:
    slow = [number * WINDOW_SECONDS / (MINIMUM - 2) for number in range(20)]
    quick = [slow[-1] + WINDOW_SECONDS + number / 100 for number in range(MINIMUM)]
    assert enough_at(Bad({}, (*slow, *quick), 0.0, 0.0)) == quick[-1]


def test_a_forward_hands_on_every_byte_both_ways() -> None:
    behind = socket.create_server(("127.0.0.1", 0))
    with Forward("127.0.0.1", 0, lambda: socket.create_connection(behind.getsockname())) as forward:
        near = socket.create_connection(("127.0.0.1", forward.port), 10)
        near.sendall(b"x" * 200_000)
        far, _ = behind.accept()
        with far, near:
            assert len(_all_of(far, 200_000)) == 200_000
            far.sendall(b"answer")
            assert _all_of(near, 6) == b"answer"
            far.shutdown(socket.SHUT_WR)
            assert near.recv(1) == b""
    behind.close()


def _all_of(source: socket.socket, size: int) -> bytes:
    source.settimeout(10)
    found = b""
    while len(found) < size and (part := source.recv(65536)):
        found += part
    return found


def test_a_bad_model_answers_500_and_records_when_each_request_came(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    record = tmp_path / "record"
    argv = [sys.executable, str(HERE / "pod.py"), "bad", "127.0.0.1", str(port), str(record)]
    with subprocess.Popen(argv) as pod:  # noqa: S603 - the benchmark's own program
        try:
            began = time.time()
            _listens(port)
            called = _call(port, "--requests", "6", "--per-second", "20")
            ended = time.time()
        finally:
            pod.terminate()
    came = [float(line) for line in record.read_text().split()]
    assert called["statuses"] == {"500": 6}
    assert len(came) == 6
    assert began < came[0] <= came[-1] < ended
    assert called["seconds"] >= 6 / 20


def _listens(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            continue
        return
    raise AssertionError("the pod does not listen")


def _call(port: int, *options: str) -> dict[str, object]:
    argv = [sys.executable, str(HERE / "caller.py"), *options, "--concurrency", "4", "/x", f"127.0.0.1:{port}"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        return dict(json.loads(process.stdout.read().splitlines()[-1]))
