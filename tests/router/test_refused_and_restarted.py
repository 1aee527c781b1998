"""What goes wrong: routes that cannot be applied, an Envoy that is killed, frozen or restarted."""

import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
from tests.router.harness.caller import Load, client, order
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.specs import fleet, route

from sluice.api.routes import RouteSample
from sluice.router.admin import Admin
from sluice.router.objects import read_route

Start = Callable[..., Container]
BAD = RouteSample(body="x", content_type="text/csv\nx-evil: 1")
"""Passes our schema; Envoy refuses the header."""


def test_a_route_that_envoy_refuses_holds_up_no_other(envoy: Envoy, drive: Drive, container: Start) -> None:
    made = container("c", keep=False)
    drive.put(route("Good", fleet("g", port=made.port)), ("g", "127.0.0.1"))
    drive.put(route("Bad", fleet("b", port=made.port)), ("b", "127.0.0.1"))
    drive.settle()
    with Load(envoy.url, "Good") as good, Load(envoy.url, "Bad") as bad:
        drive.put(route("Bad", fleet("b", port=made.port), fleet("b2", weight=1, port=made.port, sample=BAD)))
        drive.put(route("Good", fleet("g", port=made.port), fleet("g2", weight=0, port=made.port)))
        drive.settle()
        assert drive.generation("good") == 2
        assert drive.generation("bad") == 1
        (rejected,) = drive.rejected
        assert (rejected.name, rejected.generation) == ("bad", 2)
        assert "header" in rejected.message.lower()
        assert "b2" not in drive.ledger.placed, "an Envoy that starts anew takes all of it"
        drive.put(route("Bad", fleet("b", port=made.port), fleet("b3", weight=0, port=made.port)))
        drive.settle()
        assert drive.generation("bad") == 3
        assert drive.rejected == ()
        Envoy.until(lambda: good.total > 200 and bad.total > 200, 120)
    assert (good.lost(), bad.lost()) == ({}, {})


def test_routes_that_cannot_be_are_named(envoy: Envoy, drive: Drive, container: Start) -> None:
    made = container("c")
    drive.put(route("Churn", fleet("c", port=made.port)), ("c", "127.0.0.1"), name="first")
    drive.put(route("Churn", fleet("d", port=made.port)), ("d", "127.0.0.1"), name="second")
    drive.put(route("Zero", fleet("z", weight=0)), name="zero")
    metadata = {"uid": "u", "name": "newer", "generation": 4, "creationTimestamp": "2026-01-02T00:00:00Z"}
    drive.routes["newer"] = read_route({"metadata": metadata, "spec": {"schemaVersion": 99, "endpointName": "N"}})
    metadata = {"uid": "v", "name": "wrong", "generation": 1, "creationTimestamp": "2026-01-02T00:00:00Z"}
    drive.routes["wrong"] = read_route({"metadata": metadata, "spec": {"endpointName": "W", "timeoutSeconds": 0}})
    drive.settle()
    told = {rejected.name: rejected.message for rejected in drive.rejected}
    assert told.keys() == {"second", "zero", "newer", "wrong"}
    assert told["second"] == "endpointName Churn belongs to the older EndpointRoute first"
    assert "all 0" in told["zero"]
    assert told["newer"] == "schemaVersion 99 is newer than this router, which knows up to 1"
    assert told["wrong"].startswith("spec.timeoutSeconds: ")
    assert drive.generation("first") == 1


def test_a_killed_envoy_serves_again_from_its_files_alone(envoy: Envoy, drive: Drive, container: Start) -> None:
    made = container("c", keep=False)
    drive.put(route("K", fleet("k", port=made.port)), ("k", "127.0.0.1"))
    drive.settle()
    envoy.kill()
    envoy.start()
    with Load(envoy.url, "K", concurrency=1) as load:
        Envoy.until(lambda: load.total > 0, 60)
    assert set(load.statuses) == {"200"}


def test_a_frozen_envoy_confirms_nothing(envoy: Envoy, drive: Drive, container: Start) -> None:
    made = container("c", keep=False)
    drive.put(route("F", fleet("f", port=made.port)), ("f", "127.0.0.1"))
    drive.settle()
    envoy.signal(signal.SIGSTOP)
    drive.put(route("F", fleet("f", port=made.port), fleet("f2", weight=0, port=made.port)))
    for _ in range(3):
        drive.turn()
    assert drive.generation("f") == 1
    envoy.signal(signal.SIGCONT)
    drive.settle()
    assert drive.generation("f") == 2


def test_the_next_agent_process_goes_on_where_the_last_one_was(envoy: Envoy, drive: Drive, container: Start) -> None:
    made = container("c", keep=False)
    drive.put(route("N", fleet("n", port=made.port), fleet("n-old", weight=0, port=made.port)), ("n", "127.0.0.1"))
    drive.settle()
    before = drive.discovery.view()
    again = Drive(envoy)
    again.routes, again.pods = drive.routes, drive.pods
    again.settle()
    assert again.generation("n") == 1
    after = again.discovery.view()
    assert (after.clusters, after.scopes) == (before.clusters, before.scopes)
    # A bad generation that came while no agent ran: what an earlier process had applied stays.
    again.put(route("N", fleet("n", port=made.port), fleet("n-bad", weight=1, port=made.port, sample=BAD)))
    third = Drive(envoy)
    third.routes, third.pods = again.routes, again.pods
    third.settle()
    assert third.generation("n") == 1
    assert [rejected.generation for rejected in third.rejected] == [2]


def test_a_route_waits_for_the_pods_of_a_fleet_whose_weight_rises(envoy: Envoy, drive: Drive, container: Start) -> None:
    made = container("c", keep=False)
    drive.put(route("Q", fleet("q", port=made.port)), ("q", "127.0.0.1"))
    drive.settle()
    with Load(envoy.url, "Q") as load:
        drive.put(
            route(
                "Q",
                fleet("q", weight=500_000, port=made.port),
                fleet("q2", weight=500_000, port=made.port, require_ready=True),
            )
        )
        for _ in range(20):
            drive.turn()
        assert drive.generation("q") == 1, "its slice has not come yet"
        drive.add_pod("q2", "127.0.0.1")
        drive.settle()
        Envoy.until(lambda: drive.turn() and drive.generation("q") == 2, 120)
    assert load.lost() == {}, load.samples


def test_draining_fails_the_health_check_and_loses_nothing(envoy: Envoy, drive: Drive, container: Start) -> None:
    from sluice.router.draining import drain

    made = container("c", keep=False, delay_seconds=0.02)
    drive.put(route("Dr", fleet("dr", port=made.port)), ("dr", "127.0.0.1"))
    drive.settle()
    waits = threading.Thread(
        target=lambda: client(envoy.url).invoke_endpoint(EndpointName="Dr", Body=order("wait")), daemon=True
    )
    with Load(envoy.url, "Dr", concurrency=4) as load:
        Envoy.until(lambda: load.total > 50, 60)
        waits.start()
        Envoy.until(lambda: made.waiting == 1, 60)
        assert not envoy.ask(lambda admin: drain(admin, 1.0, 0.2)), "a request that runs keeps it waiting"
        assert not envoy.ask(lambda admin: admin.ready())
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(envoy.url + "/ping", timeout=5)  # noqa: S310 - loopback
    assert load.lost() == {}, load.samples
    made.open_gate()
    assert envoy.ask(lambda admin: drain(admin, 60.0, 0.2))

    async def running(admin: Admin) -> int:
        return await admin.requests_running()

    assert envoy.ask(running) == 0
