"""The pure half: headers, routes, clusters and bootstrap as Envoy gets them, against golden files."""

import json
import os
import re
from pathlib import Path

import pytest
from tests.router.specs import fleet, route

from sluice.api.routes import EndpointRouteSpec, RouteContainer, RouteSample, RouteShadow
from sluice.cluster.router import RUN_DIRECTORY as MOUNTED
from sluice.router.bootstrap import BootstrapSettings, bootstrap
from sluice.router.clusters import Host, cluster_names, compile_fleet
from sluice.router.headers import (
    REQUEST_HEADERS,
    REQUEST_HEADERS_REMOVED,
    RESPONSE_HEADERS,
    RESPONSE_HEADERS_REMOVED,
    all_but,
)
from sluice.router.objects import Objects, Pod, Route, read_route, read_slice, serving_pods
from sluice.router.routes import RouteProblem, compile_scope
from sluice.router.settings import RUN_DIRECTORY, Settings, WrongSettingError
from sluice.router.wanted import resolve

GOLDEN = Path(__file__).parent / "golden"
SAMPLE = RouteSample(body='{"x": 1}', expected_status=201, timeout_seconds=7, period_seconds=30)


def same(name: str, made: object) -> None:
    """Equal to the golden file; SLUICE_GOLDEN=write takes what was made for right."""
    path = GOLDEN / f"{name}.json"
    text = json.dumps(made, indent=1, sort_keys=True) + "\n"
    if os.environ.get("SLUICE_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("scope-one-fleet", route("Churn", fleet("churn-a"))),
        (
            "scope-canary-with-shadow",
            route(
                "Churn",
                fleet("churn-a-1", "a", 900_000, target_weight=900_000),
                fleet("churn-a-2", "a", 100_000, target_weight=100_000),
                fleet("churn-b-1", "b", 0),
                timeout_seconds=90,
                max_payload_bytes=1000,
                shadows=(RouteShadow(fleet=fleet("churn-s", "s", 0), sampling=250_000),),
            ),
        ),
        (
            "scope-direct",
            route(
                "D",
                fleet(
                    "d-a",
                    containers=(RouteContainer(hostname="x", port=8080), RouteContainer(hostname="y", port=8081)),
                ),
            ),
        ),
    ],
)
def test_scopes(name: str, spec: EndpointRouteSpec) -> None:
    same(name, compile_scope(spec, "uid@7"))


def test_clusters() -> None:
    hosts = [Host("10.0.0.1"), Host("fd00::2", passed=True)]
    once = SAMPLE.model_copy(update={"period_seconds": None})
    same(
        "clusters",
        [
            compile_fleet("Churn", fleet("plain"), hosts),
            compile_fleet("Churn", fleet("limited", max_requests_per_instance=3, balancing="RANDOM"), hosts),
            compile_fleet("Churn", fleet("sampled", sample=SAMPLE), hosts),
            compile_fleet("Churn", fleet("sampled-once", sample=once), hosts),
            compile_fleet("Churn", fleet("empty"), []),
        ],
    )


def test_bootstrap() -> None:
    plain = bootstrap(BootstrapSettings(directory=Path("/run"), namespace="team-a"))
    filters = plain["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"][
        "http_filters"
    ]
    script = filters[1]["typed_config"]
    assert "ModelError" in script.pop("default_source_code")["inline_string"]
    inner = plain["static_resources"]["listeners"][1]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    assert "ModelError" in inner[0]["typed_config"].pop("default_source_code")["inline_string"]
    same("bootstrap", plain)
    full = bootstrap(BootstrapSettings(directory=Path("/run"), access_log=True, heap_bytes=1 << 30))
    manager = full["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    log = manager["access_log"][0]["typed_config"]["log_format"]["json_format"]
    assert {"inference_id", "variant", "endpoint", "status"} <= log.keys()
    assert [action["name"] for action in full["overload_manager"]["actions"]] == [
        "envoy.overload_actions.shrink_heap",
        "envoy.overload_actions.stop_accepting_requests",
    ]


def test_the_directory_is_the_one_that_is_mounted() -> None:
    assert RUN_DIRECTORY == MOUNTED


@pytest.mark.parametrize(
    ("pattern", "allowed", "removed"),
    [
        (REQUEST_HEADERS_REMOVED, REQUEST_HEADERS, RESPONSE_HEADERS[2:3]),
        (RESPONSE_HEADERS_REMOVED, RESPONSE_HEADERS, ("set-cookie", "server", "x-amzn-errortype", "location")),
    ],
)
def test_only_the_allowed_headers_stay(pattern: str, allowed: tuple[str, ...], removed: tuple[str, ...]) -> None:
    expression = re.compile(pattern)
    for name in (*allowed, ":path", ":method", ":authority", "host", "content-length"):
        assert not expression.fullmatch(name), name
    forged = ("authorization", "x-amz-security-token", "x-envoy-retry-on", "cookie", "x-forwarded-for", "a", "z")
    for name in (*removed, *forged, *(name[:-1] for name in allowed), *(f"{name}-" for name in allowed)):
        assert expression.fullmatch(name) or name in allowed, name


def test_all_but_of_names_that_begin_alike() -> None:
    expression = re.compile(all_but(["a", "ab", "abc-d"]))
    assert [
        name for name in ("a", "ab", "abc", "abc-", "abc-d", "abc-de", "b", ":a") if expression.fullmatch(name)
    ] == [
        "abc",
        "abc-",
        "abc-de",
        "b",
    ]


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(RouteProblem, match="weights of its 2 fleets are all 0"):
        compile_scope(route("Z", fleet("z1", weight=0), fleet("z2", weight=0)), "v")
    with pytest.raises(RouteProblem, match="fleet z is listed twice"):
        compile_scope(route("Z", fleet("z"), fleet("z")), "v")


def test_a_name_is_the_older_routes_whatever_their_uids() -> None:
    """Else an EndpointRoute that is made under a name that serves could take its requests."""
    older, newer = (
        Route(uid, name, 1, f"2026-01-01T00:00:0{second}Z", route("Churn", fleet(name)))
        for second, (uid, name) in enumerate((("z", "first"), ("a", "second")))
    )
    wanted = resolve([newer, older], {})
    assert wanted.routes == {"Churn": older}
    assert [(item.name, why) for item, why in wanted.rejected] == [
        ("second", "endpointName Churn belongs to the older EndpointRoute first")
    ]


def test_a_variant_that_none_of_its_fleets_is_to_answer_for_cannot_be_named() -> None:
    spec = route("Churn", fleet("churn-a", "a"), fleet("churn-b", "b", 0, target_weight=0))
    made = json.dumps(compile_scope(spec, "v"))
    assert "its production variants are a" in made
    assert "churn-b" not in made


def test_direct_fleets_have_a_cluster_per_container() -> None:
    made = fleet("d", containers=(RouteContainer(hostname="x", port=1), RouteContainer(hostname="y", port=2)))
    clusters = compile_fleet("D", made.model_copy(update={"sample": SAMPLE}), [Host("10.0.0.1")])
    assert tuple(item["name"] for item in clusters) == cluster_names(made) == ("d/x", "d/y")
    assert ["health_checks" in item for item in clusters] == [True, False], "the sample names no container"


def pod(name: str, **rest: bool) -> Pod:
    return Pod(
        name=name, address=f"10.0.0.{name}", ready=rest.get("ready", False), lingering=rest.get("lingering", False)
    )


@pytest.mark.parametrize(
    ("pods", "excluded", "expected"),
    [
        ([pod("1", ready=True), pod("2"), pod("3", lingering=True)], (), ["1"]),
        ([pod("2"), pod("3", lingering=True)], (), ["3"]),
        ([pod("1", ready=True), pod("4", ready=True)], ("1",), ["4"]),
        ([pod("1", ready=True), pod("3", lingering=True)], ("1",), ["3"]),
        ([], (), []),
    ],
)
def test_which_pods_serve(pods: list[Pod], excluded: tuple[str, ...], expected: list[str]) -> None:
    assert [item.name for item in serving_pods(pods, excluded)] == expected


def test_reading_a_slice() -> None:
    item = {
        "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "churn-a"}},
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "targetRef": {"name": "p1"}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False, "serving": True, "terminating": True}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": False}},
            {"addresses": ["10.0.0.4"]},
        ],
    }
    service, pods = read_slice(item)
    assert service == "churn-a"
    assert [(p.name, p.ready, p.lingering) for p in pods] == [
        ("p1", True, False),
        ("10.0.0.2", False, True),
        ("10.0.0.3", False, False),
        ("10.0.0.4", True, False),
    ]
    assert read_slice({"metadata": {"name": "s"}, "endpoints": None}) == ("", ())


def test_pods_of_a_service_are_those_of_all_its_slices_as_they_are_now() -> None:
    def made(name: str, address: str) -> dict[str, object]:
        metadata = {"name": name, "labels": {"kubernetes.io/service-name": "churn-a"}}
        return {"metadata": metadata, "endpoints": [{"addresses": [address]}]}

    objects = Objects()

    def addresses() -> list[str]:
        return [pod.address for pod in objects.pods("churn-a")]

    assert addresses() == []
    objects.put_slice(made("one", "10.0.0.1"))
    assert addresses() == ["10.0.0.1"]
    objects.put_slice(made("two", "10.0.0.2"))
    assert addresses() == ["10.0.0.1", "10.0.0.2"]
    assert objects.pods("churn-a") is objects.pods("churn-a"), "nothing changed, so nothing is compiled anew"
    objects.drop_slice(made("one", "10.0.0.1"))
    assert addresses() == ["10.0.0.2"]
    objects.drop_slice(made("two", "10.0.0.2"))
    assert addresses() == []
    assert (objects._by_service, objects._pods) == ({}, {}), "fleets come and go"


def test_a_route_that_was_made_again_is_another_one() -> None:
    """Of the same name, in its first generation too."""
    objects = Objects()
    for uid in ("before", "after"):
        metadata = {"uid": uid, "name": "churn", "generation": 1}
        objects.replace_routes([{"metadata": metadata, "spec": {"endpointName": uid}}])
    assert objects.routes["churn"].uid == "after"
    assert objects.routes["churn"].spec == EndpointRouteSpec(endpoint_name="after")


def test_reading_a_route_of_a_newer_operator_ignores_what_it_does_not_know() -> None:
    metadata = {"uid": "u", "name": "churn", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z"}
    read = read_route({"metadata": metadata, "spec": {"endpointName": "Churn", "surprise": 1}})
    assert read.spec == EndpointRouteSpec(endpoint_name="Churn")
    assert read.problem == ""


def test_settings() -> None:
    read = Settings.from_environment(
        {"POD_NAMESPACE": "n", "SLUICE_ROUTER_ACCESS_LOG": "true", "SLUICE_ROUTER_PORT": "1"}
    )
    assert (read.namespace, read.access_log, read.port) == ("n", True, 1)
    for name, value in (("ACCESS_LOG", "yes"), ("PORT", "x")):
        with pytest.raises(WrongSettingError, match=f"SLUICE_ROUTER_{name}='{value}' is not"):
            Settings.from_environment({f"SLUICE_ROUTER_{name}": value})
