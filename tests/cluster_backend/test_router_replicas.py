"""How many router pods a namespace has: as many as the installation asks for, or as many as a person or a scaler set
since it last asked. Without an API server."""

from copy import deepcopy

import pytest
from tests.cluster_backend.objects import scale
from tests.cluster_backend.test_router_turns import Selecting, look
from tests.controller.clock import SteppedClock

from sluice.cluster.backend import KubernetesBackend
from sluice.cluster.rendering import Installation, Rendering
from sluice.cluster.router import RouterSettings
from sluice.cluster.template import FleetDefaults
from sluice.core.cluster.actions import EnsureRouter
from sluice.core.cluster.names import ROUTER
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.identity import Owner
from sluice.core.instance_types import parse
from sluice.ports.kube import Object

OWNER = Owner("prod", "a", "churn")


class Router:
    """The router of one namespace, as the first operator made it that wrote down what was asked for: two pods."""

    def __init__(self) -> None:
        self.kube, self.clock = Selecting(), SteppedClock()

    def backend(self, replicas: int = 2, image: str = "router:1") -> KubernetesBackend:
        types = parse(None)
        routers = RouterSettings(image, replicas=replicas)
        made = Rendering(Installation("prod", FleetDefaults("operator:1"), routers), lambda: types, lambda _space: 60)
        return KubernetesBackend(self.kube, self.clock, made, lambda _space, _name: 1, lambda _space, _name: "", ())

    @property
    def deployment(self) -> Object:
        return self.kube.objects["Deployment", "a", ROUTER]

    @property
    def replicas(self) -> int:
        return int(self.deployment["spec"]["replicas"])

    async def follows(self, replicas: int = 2, image: str = "router:1") -> int:
        """Passes of an operator with these settings; how often they wrote the Deployment."""
        backend, before = self.backend(replicas, image), len(self.kube.calls)
        for _ in range(3):
            if not (await look(backend, "a")).current:
                await backend.act(OWNER, EnsureRouter(update=True), ClusterObservation())
            await backend.act(OWNER, EnsureRouter(), ClusterObservation())
        assert (await look(backend, "a")).current
        return self.kube.calls[before:].count(("replace", "Deployment", ROUTER))


@pytest.fixture
async def router() -> Router:
    made = Router()
    await made.backend().act(OWNER, EnsureRouter(), ClusterObservation())
    return made


async def test_another_setting_reaches_a_router_that_stands(router: Router) -> None:
    template = deepcopy(router.deployment["spec"]["template"])
    assert await router.follows(replicas=5) == 1
    assert router.replicas == 5
    assert await router.follows(replicas=3) == 1
    assert router.replicas == 3
    assert router.deployment["spec"]["template"] == template


async def test_what_a_scaler_has_set_stays_until_the_setting_changes(router: Router) -> None:
    for scaled in (7, 1):
        await scale(router.kube, "a", ROUTER, scaled)
        assert await router.follows() == 0
        assert router.replicas == scaled
        assert await router.follows(image=f"router:for-{scaled}") == 1
        assert router.replicas == scaled, "an upgrade is no wish for another count"
        assert await router.follows(image="router:1") == 1
    await scale(router.kube, "a", ROUTER, 7)
    assert await router.follows(replicas=3) == 1
    assert router.replicas == 3


async def test_a_setting_that_comes_with_an_upgrade_is_written_with_it(router: Router) -> None:
    assert await router.follows(replicas=4, image="router:2") == 1
    assert router.replicas == 4
    assert router.deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "router:2"


@pytest.mark.parametrize(("stood", "setting", "stands"), [(2, 2, 2), (2, 4, 4), (6, 2, 6)])
async def test_pods_that_an_older_operator_made_are_not_replaced(
    router: Router, stood: int, setting: int, stands: int
) -> None:
    """It did not write down what was asked for: whoever raised the setting gets it, and no pod goes. Nor does a restart
    by hand, which is noted in the pod template, happen again."""
    before = router.deployment
    del before["metadata"]["annotations"]["sluice.dev/replicas"]
    before["spec"]["replicas"] = stood
    before["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "2026-11-01T00:00:00Z"
    template = deepcopy(before["spec"]["template"])
    assert await router.follows(replicas=setting) == 1
    assert router.replicas == stands
    assert router.deployment["spec"]["template"] == template
