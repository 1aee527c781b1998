"""The agent's real process answers what its Envoy counted."""

import json
import urllib.error
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
from sluice.router.traffic import MAX_FLEETS

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
        place = f"127.0.0.1:{pod.envoy.settings.health_port}/traffic"
        # The second as operators of earlier versions ask.
        for query, body in (("", b"churn-a\nother"), ("?fleet=churn-a&fleet=other", None)):
            with urllib.request.urlopen(f"http://{place}{query}", body, timeout=10) as answer:
                found = read_answer(json.load(answer), ["churn-a", "other"])
            assert (found.fleets["churn-a"].requests, found.fleets["other"].requests) == (1, 0)
        many = b"a\n" * (MAX_FLEETS + 1)
        for wrong, status in ((b"", 400), ("caf\u00e9".encode(), 400), (many, 400), (b"a" * 99_999, 413)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"http://{place}", wrong, timeout=10)
            assert refused.value.code == status
    finally:
        pod.close()
        net.close()
