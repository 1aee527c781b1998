"""Where the operator asks routers what they counted: at pods that belong to the router's Deployment, and no others."""

import pytest
from tests.cluster_backend.objects import create, make_ready, pod_manifest
from tests.cluster_backend.world import World

from sluice.cluster.addresses import Addresses
from sluice.core.cluster.actions import EnsureRouter
from sluice.core.cluster.names import LABEL_ROUTER, ROUTER
from sluice.kube.client import KubeClient

pytestmark = pytest.mark.apiserver


async def test_routers_by_owner_with_the_addresses_that_they_have(kube: KubeClient, namespace: str) -> None:
    world = World(kube, namespace)
    assert await Addresses(kube)(namespace) == ()
    await world.act(EnsureRouter())
    with_address, without = await world.router_pods(2)
    await make_ready(kube, with_address, podIP="10.1.2.3")
    (stranger,) = await create(kube, pod_manifest("stranger", namespace, {LABEL_ROUTER: ROUTER}))
    await make_ready(kube, stranger, podIP="10.6.6.6")
    found = {router.pod: (router.uid, router.address) for router in await Addresses(kube)(namespace)}
    assert found == {
        with_address["metadata"]["name"]: (with_address["metadata"]["uid"], "10.1.2.3"),
        without["metadata"]["name"]: (without["metadata"]["uid"], ""),
    }
