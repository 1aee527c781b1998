"""Which Endpoints a change in the cluster wakes, and which it leaves alone."""

from typing import Any

import pytest
from tests.controller.objects import endpoint

from sluice.api import names
from sluice.controller.cache import Cache, Source
from sluice.controller.sites import longest_invocation_seconds, neighbours
from sluice.controller.wakes import SETTLE_SECONDS, Wakes
from sluice.core.cluster.routing import Limits
from sluice.core.identity import Key
from sluice.ports.kube import Object

READY = [{"type": "Ready", "status": "True"}, {"type": "Reconciling", "status": "False"}]
MOVING = [{"type": "Ready", "status": "False"}, {"type": "Reconciling", "status": "True"}]


def key(name: str, namespace: str = "team") -> Key:
    return Key(names.ENDPOINT, namespace, name)


class Woken:
    def __init__(self) -> None:
        self.cache = Cache()
        self.at_once: list[str] = []
        self.soon: list[str] = []
        self.wakes = Wakes(self.cache, lambda key: self.at_once.append(key.name), self._later)

    def _later(self, key: Key, seconds: float) -> None:
        assert seconds == SETTLE_SECONDS
        self.soon.append(key.name)

    def endpoint(self, name: str, conditions: list[Object], backend: str = "Cluster", **more: Any) -> None:
        kubernetes = more.pop("kubernetes", None)
        item = endpoint(name, status={"conditions": conditions}, **more)
        item["spec"]["backend"] = backend
        if kubernetes:
            item["spec"]["kubernetes"] = kubernetes
        self.cache.apply(item, Source.WATCH)

    def moved(self, kind: str, *, gone: bool = False, spec: Object | None = None, **metadata: Any) -> list[str]:
        """Who is woken."""
        self.at_once.clear()
        self.soon.clear()
        item = {"kind": kind, "metadata": {"name": "x", "namespace": "team", **metadata}, "spec": spec or {}}
        self.wakes.moved(item, gone=gone)
        return [*self.at_once, *self.soon]


@pytest.fixture
def woken() -> Woken:
    woken = Woken()
    woken.endpoint("steady", READY)
    woken.endpoint("steady-too", READY)
    woken.endpoint("moving", MOVING)
    woken.endpoint("going", READY, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["sluice.dev/endpoint"])
    woken.endpoint("in-aws", MOVING, backend="SageMaker")
    woken.endpoint("elsewhere", MOVING, namespace="other")
    return woken


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_a_fleets_objects_wake_its_endpoint(woken: Woken, kind: str) -> None:
    assert woken.moved(kind, labels={"sluice.dev/endpoint": "steady"}) == ["steady"]
    assert woken.moved(kind, labels={"sluice.dev/endpoint": "steady"}, gone=True) == ["steady"]
    assert woken.at_once == [], "with others of its kind"
    assert woken.moved(kind, labels={"sluice.dev/endpoint": "nobody"}) == []
    assert woken.moved(kind) == []


def test_a_name_too_long_for_a_label_is_in_the_annotation(woken: Woken) -> None:
    long = "a" * 63 + "-one"
    woken.endpoint(long, READY)
    labels, owner = {"sluice.dev/endpoint": long[:63]}, {"sluice.dev/owner": f"prod/team/{long}"}
    assert woken.moved("Deployment", labels=labels, annotations=owner) == [long]


def test_a_route_wakes_its_endpoint(woken: Woken) -> None:
    owner = {"sluice.dev/owner": "prod/team/steady"}
    assert woken.moved(names.ENDPOINT_ROUTE, annotations=owner, gone=True) == ["steady"]


def test_the_echo_of_a_passs_own_route_wakes_nobody(woken: Woken) -> None:
    owner = {"sluice.dev/owner": "prod/team/steady"}
    mine, other = {"endpointName": "steady", "fleets": []}, {"endpointName": "steady", "fleets": [{"name": "x"}]}

    def shown(spec: Object, **more: Any) -> list[str]:
        return woken.moved(names.ENDPOINT_ROUTE, name="steady", annotations=owner, spec=spec, **more)

    assert shown(mine) == ["steady"], "who wrote it is not known after a start"
    woken.wakes.writes_route(key("steady"), mine)
    assert shown(mine) == []
    assert shown(other) == ["steady"], "somebody else's hand"
    assert shown(mine, gone=True) == ["steady"]
    woken.wakes.forget(key("steady"))
    assert shown(mine) == ["steady"]


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_a_router_wakes_who_waits_for_it_and_one_who_may_mend_it(woken: Woken, kind: str) -> None:
    found = woken.moved(kind, labels={"sluice.dev/router": "sluice-router"})
    assert sorted(found) == ["going", "moving", "steady"]


def route(name: str, generation: int) -> Object:
    return {"name": name, "uid": "u", "generation": generation}


def test_a_report_wakes_at_once_whom_it_says_something_new_about(woken: Woken) -> None:
    kind = names.ROUTER_REPORT
    entries = [route("steady", 1), route("moving", 1), route("nobody", 1)]
    assert woken.moved(kind, spec={"routes": entries}) == ["moving", "steady"]
    assert woken.moved(kind, spec={"routes": [*entries[:1], route("moving", 2), entries[2]]}) == ["moving"]
    assert woken.soon == []
    same = {"routes": [route("steady", 1), route("moving", 2)], "schemaVersion": 1}
    assert woken.moved(kind, spec=same) == []
    rejected = {**same, "rejected": [{**route("steady", 2), "message": "no"}]}
    assert woken.moved(kind, spec=rejected) == ["steady"]
    assert woken.moved(kind, spec={"routes": [route("moving", 2)]}) == ["steady"], "it is in force no more"
    assert woken.moved(kind, gone=True) == [], "its pod's end wakes"
    assert woken.moved(kind, spec={"routes": [route("moving", 2)]}) == ["moving"], "a new report"


def test_reports_of_different_routers_are_told_apart(woken: Woken) -> None:
    kind, spec = names.ROUTER_REPORT, {"routes": [route("moving", 2)]}
    assert woken.moved(kind, spec=spec, name="one") == ["moving"]
    assert woken.moved(kind, spec=spec, name="two") == ["moving"]
    assert woken.moved(kind, spec=spec, name="one") == []


def test_the_last_router_to_confirm_wakes_at_once(woken: Woken) -> None:
    """The pass that one router of several would wake could only say that it waits for the others."""
    kind = names.ROUTER_REPORT
    for name in ("one", "two"):
        woken.moved(kind, spec={"routes": [route("moving", 1)]}, name=name)
    woken.moved(kind, spec={"routes": [route("moving", 2)]}, name="one")
    assert (woken.at_once, woken.soon) == ([], ["moving"])
    woken.moved(kind, spec={"routes": [route("moving", 2)]}, name="two")
    assert (woken.at_once, woken.soon) == (["moving"], [])
    woken.moved(kind, spec={"routes": [route("moving", 3)]}, name="two")
    assert (woken.at_once, woken.soon) == ([], ["moving"])
    woken.moved(kind, gone=True, name="one")
    woken.moved(kind, spec={"routes": [route("moving", 4)]}, name="two")
    assert (woken.at_once, woken.soon) == (["moving"], []), "the other router is gone"


def test_a_report_in_parts_is_one_routers(woken: Woken) -> None:
    kind = names.ROUTER_REPORT
    for uid in ("one", "two"):
        woken.moved(kind, spec={"podUID": uid, "routes": [route("steady", 1)]}, name=uid)
        woken.moved(kind, spec={"podUID": uid, "routes": [route("moving", 1)]}, name=f"{uid}.7")
    for uid, at_once in (("one", []), ("two", ["moving"])):
        woken.moved(kind, spec={"podUID": uid, "routes": [route("moving", 2)]}, name=f"{uid}.7")
        assert woken.at_once == at_once
    woken.moved(kind, spec={"podUID": "two"}, name="two.7", gone=True)
    assert woken.moved(kind, spec={"podUID": "two", "routes": [route("steady", 1)]}, name="two") == []


def test_a_router_whose_end_no_watch_told_is_waited_for_no_more(woken: Woken) -> None:
    kind = names.ROUTER_REPORT
    for uid in ("one", "two"):
        for part, name in (("", "moving"), (".7", "steady")):
            woken.moved(kind, spec={"podUID": uid, "routes": [route(name, 1)]}, name=uid + part)
    woken.wakes.lost("Pod", "team", "one")
    woken.moved(kind, spec={"podUID": "two", "routes": [route("moving", 2)]}, name="two")
    assert (woken.at_once, woken.soon) == ([], ["moving"])
    for name in ("one", "one.7"):
        woken.wakes.lost(kind, "team", name)
    woken.moved(kind, spec={"podUID": "two", "routes": [route("moving", 3)]}, name="two")
    assert (woken.at_once, woken.soon) == (["moving"], [])


def test_what_concerns_everybody_wakes_every_cluster_endpoint(woken: Woken) -> None:
    woken.wakes.everybody()
    assert sorted(woken.soon) == ["elsewhere", "going", "moving", "steady", "steady-too"]


def test_neighbours_are_the_other_cluster_endpoints_of_the_namespace(woken: Woken) -> None:
    assert neighbours(woken.cache)("team", "steady") == 3
    assert neighbours(woken.cache)("other", "elsewhere") == 0
    gone = woken.cache.get(names.ENDPOINT, "team", "moving")
    assert gone is not None
    woken.cache.remove(gone, Source.LIST)
    assert neighbours(woken.cache)("team", "steady") == 2


def test_the_longest_invocation_of_a_namespace(woken: Woken) -> None:
    longest = longest_invocation_seconds(woken.cache, Limits())
    assert longest("team") == 60
    assert longest("nowhere") == 60
    assert longest_invocation_seconds(woken.cache, Limits(timeout_seconds=120))("nowhere") == 120
    woken.endpoint("slow", READY, kubernetes={"invocationTimeoutSeconds": 900})
    assert longest("team") == 900
