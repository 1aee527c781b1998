"""What keeps the Cluster backend from working is found at the start, and an API server that is away is waited for."""

import asyncio
import os

import pytest
from tests.controller.memory_kube import MemoryKube
from tests.controller.waiting import until

from localcluster.controlplane import ControlPlane
from sluice.kube import resources
from sluice.kube.client import KubeClient
from sluice.kube.configuration import load_configuration
from sluice.main.cluster import missing
from sluice.main.settings import Settings

pytestmark = pytest.mark.apiserver


async def test_nothing_is_missing_where_everything_is_there(kube: KubeClient, namespace: str) -> None:
    assert await missing(kube, Settings(watch_namespaces=(namespace,))) is None
    assert await missing(kube, Settings()) is None


async def test_it_can_be_switched_off() -> None:
    assert "SLUICE_CLUSTER_BACKEND" in str(await missing(MemoryKube(), Settings(cluster_backend=False)))


async def test_a_kind_that_is_not_served_is_named(
    kube: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = resources.Resource("sluice.dev/v1alpha1", "RouterReport", "notinstalled")
    monkeypatch.setitem(resources.RESOURCES, "RouterReport", absent)
    assert await missing(kube, Settings()) == "RouterReport is not served; install the CRDs (crds/) of this version"


async def test_a_right_that_is_missing_is_named(control_plane: ControlPlane, kube: KubeClient, namespace: str) -> None:
    configuration = await load_configuration({**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)})
    configuration.api_key, configuration.refresh_api_key_hook = {}, None
    anonymous = KubeClient(configuration, identity="test")
    assert 'cannot list resource "endpointroutes"' in str(await missing(anonymous, Settings()))
    await anonymous.close()


async def test_an_api_server_that_is_away_is_waited_for() -> None:
    kube = MemoryKube()
    kube.away = True
    asking = asyncio.create_task(missing(kube, Settings()))
    await until(lambda: bool(kube.calls), 60)
    kube.away = False
    assert await asyncio.wait_for(asking, 60) is None
