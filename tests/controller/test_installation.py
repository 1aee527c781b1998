"""What the installation's settings become in manifests and decisions of the Cluster backend."""

from typing import Any

from sluice.cluster import router
from sluice.core.cluster.routing import Limits
from sluice.main.cluster import installation, limits
from sluice.main.settings import Settings

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
