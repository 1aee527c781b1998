"""What the installation's settings become in manifests and decisions of the Cluster backend."""

from typing import Any

from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry

from sluice.cluster import router
from sluice.controller.metrics import Metrics
from sluice.core.cluster.peers import Bounds
from sluice.core.cluster.routing import Limits
from sluice.kube.client import KubeClient
from sluice.main.cluster import bounds, installation, limits
from sluice.main.settings import Settings
from sluice.main.wiring import Operator

CONTAINERS = {
    "envoy": ("router_resources", "envoy_resources"),
    "agent": ("router_agent_resources", "agent_resources"),
    "relay": ("router_relay_resources", "relay_resources"),
}


def pod(settings: Settings) -> dict[str, Any]:
    """The spec of a router's pod."""
    return dict(router.pod_template(installation(settings, "prod", None).routers)["spec"])


def test_each_container_of_a_router_and_the_loader_has_resources_of_its_own() -> None:
    plain = installation(Settings(), "prod", None)
    for name, (setting, field) in CONTAINERS.items():
        chosen: dict[str, Any] = {"requests": {"cpu": "3"}, "limits": {"memory": "7Gi"}}
        given: dict[str, Any] = {setting: chosen}
        spec = pod(Settings(**given))
        for container in spec["containers"]:
            mine = container["name"] == name
            assert (container["resources"] == chosen) == mine, (name, container["name"])
        assert getattr(plain.routers, field)["limits"], "left out, it is the builder's"
    loader = {"limits": {"memory": "9Gi"}}
    assert installation(Settings(loader_resources=loader), "prod", None).fleets.loader_resources == loader
    assert plain.fleets.loader_resources["limits"] == {"memory": "1Gi"}


def test_a_routers_time_to_go_covers_streams_and_is_the_administrators_to_shorten() -> None:
    assert pod(Settings())["terminationGracePeriodSeconds"] == 510
    assert pod(Settings(router_stream_drain_seconds=0))["terminationGracePeriodSeconds"] == 90
    assert pod(Settings(router_stream_drain_seconds=3600))["terminationGracePeriodSeconds"] == 3630
    relay = next(one for one in pod(Settings(router_stream_drain_seconds=120))["containers"] if one["name"] == "relay")
    assert {"name": "SLUICE_ROUTER_DRAIN_SECONDS", "value": "135"} in relay["env"]


def test_what_holds_of_requests_is_sagemakers_unless_it_is_set() -> None:
    assert limits(Settings()) == Limits() == Limits(60, 6_291_456)
    assert limits(Settings(invocation_timeout_seconds=300, max_payload_bytes=25 << 20)) == Limits(300, 25 << 20)


async def test_the_limits_on_deployments_are_those_that_are_set_for_who_starts_and_for_who_wakes_the_next() -> None:
    settings = Settings(
        max_concurrent_deployments=41,
        max_concurrent_deployments_per_namespace=7,
        max_rollbacks_of_one_image=5,
        rollback_window_seconds=3601,
    )
    asked = Bounds(deployments=41, deployments_per_namespace=7, rollbacks_of_one_image=5, rollback_window_seconds=3601)
    assert bounds(settings) == asked
    assert bounds(Settings()) == Bounds(50, 10, 3, 86400)
    kube = KubeClient(Configuration(), identity="test")
    operator = Operator(settings, kube, Metrics(CollectorRegistry(), "test"), "prod", in_cluster=True)
    try:
        starts: Any = operator._reconcilers["Endpoint"]
        assert starts.__self__._settings.decide.bounds == asked
        assert operator._cluster is not None
        assert operator._cluster.site._slots._bounds == asked
    finally:
        await kube.close()
