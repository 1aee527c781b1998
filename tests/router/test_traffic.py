"""Nothing is lost while routes, pods and weights change under load; splits are what the weights say."""

import math
import time
from collections.abc import Callable

import pytest
from tests.router.harness.caller import Load, client, order
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.specs import fleet, route

from sluice.router.__main__ import main

Start = Callable[..., Container]


def p_value(counts: list[int], shares: list[float]) -> float:
    """Of a chi-squared test with one or two degrees of freedom."""
    total = sum(counts)
    statistic = sum((n - total * share) ** 2 / (total * share) for n, share in zip(counts, shares, strict=True))
    return math.erfc(math.sqrt(statistic / 2)) if len(counts) == 2 else math.exp(-statistic / 2)


def until_total(load: Load, total: int, seconds: float = 120) -> None:
    Envoy.until(lambda: load.total >= total, seconds)


def test_the_split_is_random_and_exact(envoy: Envoy, drive: Drive, container: Start) -> None:
    one, two = container("one", keep=False), container("two", keep=False)
    drive.put(
        route("Split", fleet("s-a", "a", 666_667, one.port), fleet("s-b", "b", 333_333, two.port)),
        ("s-a", "127.0.0.1"),
        ("s-b", "127.0.0.1"),
    )
    drive.settle()
    with Load(envoy.url, "Split") as load:
        until_total(load, 6000)
    assert load.lost() == {}, load.samples
    assert p_value([load.variants["a"], load.variants["b"]], [2 / 3, 1 / 3]) >= 1e-6, load.variants


def test_weight_zero_is_reached_by_its_name_alone(envoy: Envoy, drive: Drive, container: Start) -> None:
    made = container("c", keep=False)
    drive.put(
        route("Z", fleet("z-a", "a", 1_000_000, made.port), fleet("z-b", "b", 0, made.port)),
        ("z-a", "127.0.0.1"),
        ("z-b", "127.0.0.1"),
    )
    drive.settle()
    with Load(envoy.url, "Z") as load:
        until_total(load, 500)
    assert load.variants == {"a": load.total}
    answer = client(envoy.url).invoke_endpoint(EndpointName="Z", Body=b"x", TargetVariant="b")
    assert answer["InvokedProductionVariant"] == "b"


def test_two_fleets_of_one_variant_share_its_name(envoy: Envoy, drive: Drive, container: Start) -> None:
    blue, green = container("blue"), container("green")
    drive.put(
        route(
            "BG",
            fleet("bg-blue", "a", 900_000, blue.port, target_weight=0),
            fleet("bg-green", "a", 100_000, green.port, target_weight=1_000_000),
        ),
        ("bg-blue", "127.0.0.1"),
        ("bg-green", "127.0.0.1"),
    )
    drive.settle()
    runtime = client(envoy.url)
    for _ in range(20):
        answer = runtime.invoke_endpoint(EndpointName="BG", Body=b"x", TargetVariant="a")
        assert (answer["InvokedProductionVariant"], answer["Body"].read()) == ("a", b"green")


def test_twenty_changes_of_weights_lose_nothing(envoy: Envoy, drive: Drive, container: Start) -> None:
    one, two = container("one", keep=False), container("two", keep=False)

    def weights(a: int) -> None:
        drive.put(route("W", fleet("w-a", "a", a, one.port), fleet("w-b", "b", 1_000_000 - a, two.port)))

    weights(1_000_000)
    drive.add_pod("w-a", "127.0.0.1")
    drive.add_pod("w-b", "127.0.0.1")
    drive.settle()
    with Load(envoy.url, "W") as load:
        for step in range(1, 21):
            weights((step % 5) * 250_000)
            drive.settle()
            assert drive.generation("w") == step + 1
            before = load.total
            until_total(load, before + 100)
        variants = dict(load.variants)
    assert load.lost() == {}, load.samples
    assert variants["a"] > 200
    assert variants["b"] > 200


def test_a_new_revision_takes_over_and_the_old_one_goes_without_a_loss(
    envoy: Envoy, drive: Drive, container: Start
) -> None:
    blue, green = container("blue", keep=False, delay_seconds=0.01), container("green", keep=False, delay_seconds=0.01)
    drive.put(route("R", fleet("r-blue", port=blue.port)), ("r-blue", "127.0.0.1"))
    drive.settle()
    with Load(envoy.url, "R", concurrency=16) as load:
        until_total(load, 200)
        drive.put(
            route(
                "R", fleet("r-blue", weight=500_000, port=blue.port), fleet("r-green", weight=500_000, port=green.port)
            ),
            ("r-green", "127.0.0.1"),
        )
        drive.settle()
        until_total(load, load.total + 300)
        drive.put(route("R", fleet("r-green", port=green.port)))
        drive.settle()
        Envoy.until(lambda: drive.turn() and not drive.ledger.leaving, 120)
        assert "r-blue" not in drive.ledger.placed
        blue.stop()
        until_total(load, load.total + 300)
    assert load.lost() == {}, load.samples


def test_pods_come_and_go_under_load(envoy: Envoy, drive: Drive, container: Start) -> None:
    pods = [container(f"p{n}", address=f"127.0.0.{n + 2}", port=port, keep=False) for n, port in enumerate([0])]
    port = pods[0].port
    pods += [container(f"p{n}", address=f"127.0.0.{n + 2}", port=port, keep=False) for n in range(1, 3)]
    drive.put(route("P", fleet("p", port=port)), ("p", "127.0.0.2"), ("p", "127.0.0.3"))
    drive.settle()
    with Load(envoy.url, "P", concurrency=16) as load, Load(envoy.url, "P", concurrency=4, keep_alive=False) as single:
        for change in range(30):
            drive.pods["p"] = ()
            for n in range(3):
                if n != change % 3:
                    drive.add_pod("p", f"127.0.0.{n + 2}")
            drive.settle()
            until_total(load, load.total + 50)
    assert load.lost() == {}, load.samples
    assert single.lost() == {}, single.samples
    assert all(pod.answered[200] for pod in pods)


def test_a_dead_pod_that_is_still_listed_costs_nothing(envoy: Envoy, drive: Drive, container: Start) -> None:
    alive = container("alive", address="127.0.0.2", keep=False)
    dead = container("dead", address="127.0.0.3", port=alive.port, keep=False)
    drive.put(route("D", fleet("d", port=alive.port)), ("d", "127.0.0.2"), ("d", "127.0.0.3"))
    drive.settle()
    dead.stop()
    with Load(envoy.url, "D") as load:
        until_total(load, 1000)
    assert load.lost() == {}, load.samples


def test_two_dead_pods_of_three_cost_nothing(envoy: Envoy, drive: Drive, container: Start) -> None:
    """At most half the pods are ejected, so that one of the two stays in, and as the least busy it is drawn first."""
    alive = container("alive", address="127.0.0.2", keep=False)
    dead = [container(f"dead{n}", address=f"127.0.0.{n}", port=alive.port, keep=False) for n in (3, 4)]
    drive.put(route("DD", fleet("dd", port=alive.port)), *(("dd", f"127.0.0.{n}") for n in (2, 3, 4)))
    drive.settle()
    for one in dead:
        one.stop()
    with Load(envoy.url, "DD") as load:
        until_total(load, 500)
    assert load.lost() == {}, load.samples


def test_a_slow_request_is_reported_as_draining_until_it_ends(envoy: Envoy, drive: Drive, container: Start) -> None:
    import threading

    old, new = container("old"), container("new")
    drive.put(route("S", fleet("s-old", port=old.port)), ("s-old", "127.0.0.1"))
    drive.settle()
    answers: list[bytes] = []

    def call() -> None:
        answers.append(client(envoy.url).invoke_endpoint(EndpointName="S", Body=order("wait"))["Body"].read())

    caller = threading.Thread(target=call)
    caller.start()
    Envoy.until(lambda: len(old.requests) == 1, 120)
    drive.put(route("S", fleet("s-new", port=new.port)), ("s-new", "127.0.0.1"))
    drive.settle()
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        drive.turn()
        assert [report.draining for report in drive.reports] == [("s-old",)], "generation 2 is in force, and one waits"
        assert drive.generation("s") == 2
    old.open_gate()
    caller.join(10)
    assert answers == [b"old"]
    Envoy.until(lambda: drive.turn() and drive.reports[0].draining == (), 120)
    assert "s-old" not in drive.ledger.placed


def test_an_endpoint_that_retires_is_unknown_and_confirmed(envoy: Envoy, drive: Drive, container: Start) -> None:
    made = container("c")
    drive.put(route("Old", fleet("o", port=made.port)), ("o", "127.0.0.1"))
    drive.put(route("Other", fleet("x", port=made.port)), ("x", "127.0.0.1"))
    drive.settle()
    with Load(envoy.url, "Other") as other:
        drive.put(route("Old"))
        drive.settle()
        assert drive.generation("old") == 2
        Envoy.until(lambda: drive.turn() and not drive.ledger.leaving, 120)
        until_total(other, other.total + 200)
    assert other.lost() == {}, other.samples
    with Load(envoy.url, "Old", concurrency=1) as load:
        until_total(load, 1)
    assert load.statuses.keys() == {"400"}


def test_a_person_sees_what_is_in_force(
    envoy: Envoy, drive: Drive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drive.put(route("Seen", fleet("seen", port=8080)), ("seen", "127.0.0.9"))
    drive.settle()
    monkeypatch.setenv("SLUICE_ROUTER_RUN_DIRECTORY", str(envoy.directory))
    assert main(["show"]) == 0
    shown = capsys.readouterr().out
    assert '"string_key": "Seen"' in shown
    assert '"address": "127.0.0.9"' in shown
    assert "Seen" in (envoy.directory / "endpoints" / "Seen.json").read_text()
    assert "127.0.0.9" in (envoy.directory / "fleets" / "seen.json").read_text()
    envoy.kill()
    assert main(["show"]) == 1
    assert "Envoy does not answer" in capsys.readouterr().err
