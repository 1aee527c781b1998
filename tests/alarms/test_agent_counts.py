"""The agent's real process answers what its Envoy counted."""

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.router.harness.api import Namespace
from tests.router.harness.caller import client
from tests.router.harness.container import Container
from tests.router.harness.envoy import Envoy
from tests.router.harness.namespace import NetworkNamespace
from tests.router.harness.pod import RouterPod
from tests.router.specs import fleet, route

from localcluster.controlplane import ControlPlane
from sluice.alarms.windows import read_answer

pytestmark = pytest.mark.apiserver


def test_the_agent_tells_what_was_counted(
    tmp_path: Path, control_plane: ControlPlane, container: Callable[..., Container]
) -> None:
    net, team = NetworkNamespace(), Namespace(control_plane.kubeconfig)
    pod = RouterPod(tmp_path, net, team.name, control_plane.kubeconfig)
    try:
        container("pod1", address="198.18.0.1", port=8080, enter=net.enter)
        team.put_pods("churn-a", "198.18.0.1")
        team.put_route(route("Churn", fleet("churn-a")))
        pod.start_agent()
        Envoy.until(lambda: pod.probe("/ready") == 200, 60)
        net.call(lambda: client(pod.envoy.url).invoke_endpoint(EndpointName="Churn", Body=b"x"))
        url = f"http://127.0.0.1:{pod.envoy.settings.health_port}/traffic?fleet=churn-a&fleet=other"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = read_answer(json.load(answer), ["churn-a", "other"])
        assert (found.fleets["churn-a"].requests, found.fleets["other"].requests) == (1, 0)
    finally:
        pod.close()
        net.close()
