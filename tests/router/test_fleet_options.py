"""What one fleet can ask for: containers by name, a shadow, a sample invocation, limits."""

import time
from collections.abc import Callable

import botocore.exceptions
import pytest
from tests.router.harness.caller import Load, client
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.specs import fleet, route

from sluice.api.routes import RouteContainer, RouteSample, RouteShadow

Start = Callable[..., Container]


def test_a_request_names_its_container(envoy: Envoy, drive: Drive, container: Start) -> None:
    first, second = container("first"), container("second")
    containers = (RouteContainer(hostname="one", port=first.port), RouteContainer(hostname="two", port=second.port))
    drive.put(route("Direct", fleet("d", containers=containers)), ("d", "127.0.0.1"))
    drive.settle()
    runtime = client(envoy.url)
    for hostname, expected in (("one", b"first"), ("two", b"second")):
        for variant in ({}, {"TargetVariant": "a"}):
            answer = runtime.invoke_endpoint(
                EndpointName="Direct", Body=b"x", TargetContainerHostname=hostname, **variant
            )
            assert answer["Body"].read() == expected
    for wrong in ({}, {"TargetContainerHostname": "three"}, {"TargetVariant": "a"}):
        with pytest.raises(runtime.exceptions.ValidationError, match="must be one of one, two"):
            runtime.invoke_endpoint(EndpointName="Direct", Body=b"x", **wrong)


def test_a_shadow_gets_its_share_and_changes_no_answer(envoy: Envoy, drive: Drive, container: Start) -> None:
    real, shadow = container("real", keep=False), container("shadow", keep=False, status=500)
    drive.put(
        route(
            "Sh",
            fleet("sh", port=real.port),
            shadows=(RouteShadow(fleet=fleet("sh-shadow", "s", 0, shadow.port), sampling=500_000),),
        ),
        ("sh", "127.0.0.1"),
        ("sh-shadow", "127.0.0.1"),
    )
    drive.settle()
    with Load(envoy.url, "Sh") as load:
        Envoy.until(lambda: load.total >= 1000, 120)
    assert load.lost() == {}, load.samples
    assert 0.35 < shadow.answered[500] / load.total < 0.65
    with pytest.raises(botocore.exceptions.ClientError):
        client(envoy.url).invoke_endpoint(EndpointName="Sh", Body=b"x", TargetVariant="s")
    seen = shadow.answered[500]
    shadow.stop()
    with Load(envoy.url, "Sh") as load:
        Envoy.until(lambda: load.total >= 300, 120)
    assert load.lost() == {}, load.samples
    assert shadow.answered[500] == seen


def test_a_shadow_sees_only_what_a_container_sees(envoy: Envoy, drive: Drive, container: Start) -> None:
    real, shadow = container("real"), container("shadow")
    drive.put(
        route(
            "Sh",
            fleet("sh", port=real.port),
            shadows=(RouteShadow(fleet=fleet("sh-shadow", "s", 0, shadow.port), sampling=1_000_000),),
        ),
        ("sh", "127.0.0.1"),
        ("sh-shadow", "127.0.0.1"),
    )
    drive.settle()
    client(envoy.url).invoke_endpoint(EndpointName="Sh", Body=b"x", ContentType="text/csv", InferenceId="i")
    Envoy.until(lambda: shadow.requests, 120)
    # Envoy marks its own requests; both headers tell of the router, nothing of the caller.
    own = {"x-forwarded-for", "x-envoy-internal"}
    seen = {name: value for name, value in shadow.requests[0]["headers"].items() if name not in own}
    assert seen == real.requests[0]["headers"]
    assert shadow.requests[0]["path"] == "/invocations"


def test_a_new_pod_must_answer_the_sample_once(envoy: Envoy, drive: Drive, container: Start) -> None:
    good = container("good", address="127.0.0.2")
    bad = container("bad", address="127.0.0.3", port=good.port, status=500)
    sample = RouteSample(body='{"do": "echo"}', content_type="application/x-sample", timeout_seconds=20)
    drive.put(route("Sam", fleet("sam", port=good.port, sample=sample)), ("sam", "127.0.0.2"), ("sam", "127.0.0.3"))
    drive.settle()
    Envoy.until(lambda: drive.turn() and [f.healthy for f in drive.reports[0].fleets] == [1], 120)
    assert good.requests[0]["body"] == b'{"do": "echo"}'
    assert good.requests[0]["headers"]["content-type"] == "application/x-sample"
    asked = len(good.requests)
    with Load(envoy.url, "Sam") as load:
        Envoy.until(lambda: load.total >= 200, 120)
    assert load.lost() == {}, "the pod that fails gets nothing"
    Envoy.until(lambda: len(bad.requests) >= 3, 120)
    bad.status = 200
    Envoy.until(lambda: drive.turn() and [f.healthy for f in drive.reports[0].fleets] == [2], 120)
    samples = [r for r in good.requests if r["headers"].get("content-type") == "application/x-sample"]
    assert len(samples) == asked == 1, "a pod that passed is not asked again"
    # A third pod: the two that passed are not asked for its sake.
    container("third", address="127.0.0.4", port=good.port)
    drive.turn()
    drive.add_pod("sam", "127.0.0.4")
    drive.settle()
    Envoy.until(lambda: drive.turn() and [f.healthy for f in drive.reports[0].fleets] == [3], 120)
    samples = [r for r in good.requests if r["headers"].get("content-type") == "application/x-sample"]
    assert len(samples) == 1


def test_a_slow_sample_passes_and_holds_up_no_other_endpoint(envoy: Envoy, drive: Drive, container: Start) -> None:
    slow = container("slow")
    sample = RouteSample(body='{"do": "wait"}', timeout_seconds=60)
    drive.put(route("Slow", fleet("slow", port=slow.port, sample=sample)), ("slow", "127.0.0.1"))
    drive.put(route("Other", fleet("other", port=slow.port)), ("other", "127.0.0.1"))
    Envoy.until(lambda: not drive.turn() and drive.generation("other") == 1, 120)
    Envoy.until(lambda: slow.waiting == 1, 120)
    asked = time.monotonic()
    while time.monotonic() < asked + 2.5:
        drive.turn()
        assert envoy.ask(lambda admin: admin.warming()) == {"slow"}
        assert drive.generation("slow") is None
    slow.open_gate()
    drive.settle()
    assert drive.generation("slow") == 1
    assert [item.healthy for report in drive.reports if report.name == "slow" for item in report.fleets] == [1]
    assert len(slow.requests) == 1, "asked once, and not cut off after a second"


def test_with_a_period_a_failing_pod_leaves_but_half_the_fleet_stays(
    envoy: Envoy, drive: Drive, container: Start
) -> None:
    pods = [container("p2", address="127.0.0.2")]
    pods += [container(f"p{n}", address=f"127.0.0.{n}", port=pods[0].port) for n in (3, 4, 5)]
    sample = RouteSample(body="sample", timeout_seconds=20, period_seconds=1)
    spec = route("Per", fleet("per", port=pods[0].port, sample=sample))
    drive.put(spec, *(("per", pod.address) for pod in pods))
    drive.settle()

    def healthy() -> int:
        drive.turn()
        return drive.reports[0].fleets[0].healthy

    Envoy.until(lambda: healthy() == 4, 120)
    pods[0].status = 500
    Envoy.until(lambda: healthy() == 3, 120)
    assert drive.reports[0].fleets[0].hosts == 4, "condition SampleInvocationFailing says: 1 of 4"
    served = len([r for r in pods[0].requests if r["body"] == b"x"])
    with Load(envoy.url, "Per") as load:
        Envoy.until(lambda: load.total >= 200, 120)
    assert load.lost() == {}
    assert len([r for r in pods[0].requests if r["body"] == b"x"]) == served
    for pod in pods[:3]:
        pod.status = 500
    Envoy.until(lambda: healthy() == 1, 120)
    runtime = client(envoy.url)
    answers = []
    for _ in range(60):
        try:
            answers.append(runtime.invoke_endpoint(EndpointName="Per", Body=b"x")["Body"].read())
        except runtime.exceptions.ModelError:
            answers.append(b"failed")
    assert answers.count(b"failed") > 10, "with less than half left, all pods serve again"


def test_while_a_new_pod_is_asked_the_others_are_told_as_healthy_as_they_serve(
    envoy: Envoy, drive: Drive, container: Start
) -> None:
    """With a period all pods are asked anew when one comes, by the clusters' next definition. Those of the definition
    that serves meanwhile have not stopped to pass: it would look as if the fleet were gone, and a deployment goes back
    then."""
    sample = RouteSample(body='{"do": "wait"}', timeout_seconds=20, period_seconds=3600)
    pods = [container("p2", address="127.0.0.2")]
    pods.append(container("p3", address="127.0.0.3", port=pods[0].port))
    for pod in pods:
        pod.open_gate()
    drive.put(route("Per", fleet("per", port=pods[0].port, sample=sample)), *(("per", pod.address) for pod in pods))

    def told() -> tuple[int, int]:
        drive.turn()
        found = drive.reports[0].fleets[0]
        return found.hosts, found.healthy

    drive.settle()
    Envoy.until(lambda: told() == (2, 2), 120)
    late = container("p4", address="127.0.0.4", port=pods[0].port)
    drive.add_pod("per", "127.0.0.4")
    Envoy.until(lambda: (told(), late.waiting)[1] == 1, 120)
    assert envoy.ask(lambda admin: admin.warming()) == {"per"}
    assert {told() for _ in range(20)} == {(2, 2)}
    with Load(envoy.url, "Per") as load:
        Envoy.until(lambda: load.total >= 100, 120)
    assert load.lost() == {}
    late.open_gate()
    drive.settle()
    Envoy.until(lambda: told() == (3, 3), 120)


def test_excluded_and_lingering_pods(envoy: Envoy, drive: Drive, container: Start) -> None:
    one = container("one", address="127.0.0.2")
    container("two", address="127.0.0.3", port=one.port)
    drive.put(route("E", fleet("e", port=one.port, excluded_pods=("e-127.0.0.3",))))
    drive.add_pod("e", "127.0.0.2")
    drive.add_pod("e", "127.0.0.3")
    drive.settle()
    runtime = client(envoy.url)
    assert {runtime.invoke_endpoint(EndpointName="E", Body=b"x")["Body"].read() for _ in range(10)} == {b"one"}


def test_more_requests_than_the_limit_are_refused(envoy: Envoy, drive: Drive, container: Start) -> None:
    made = container("c", delay_seconds=0.2, keep=False)
    drive.put(route("L", fleet("l", port=made.port, max_requests_per_instance=2)), ("l", "127.0.0.1"))
    drive.settle()
    with Load(envoy.url, "L", concurrency=12) as load:
        Envoy.until(lambda: load.statuses["503"] > 20 and load.statuses["200"] > 5, 120)
    assert load.lost().keys() == {"503"}
    assert "ServiceUnavailable" not in load.samples[0]
    assert "overflow" in load.samples[0]


def test_random_balancing(envoy: Envoy, drive: Drive, container: Start) -> None:
    one = container("one", address="127.0.0.2", keep=False)
    two = container("two", address="127.0.0.3", port=one.port, keep=False)
    drive.put(route("Ra", fleet("ra", port=one.port, balancing="RANDOM")), ("ra", "127.0.0.2"), ("ra", "127.0.0.3"))
    drive.settle()
    with Load(envoy.url, "Ra") as load:
        Envoy.until(lambda: load.total >= 1000, 120)
    assert 0.4 < one.answered[200] / (one.answered[200] + two.answered[200]) < 0.6


def test_least_request_prefers_the_idle_pod(envoy: Envoy, drive: Drive, container: Start) -> None:
    quick = container("quick", address="127.0.0.2", keep=False)
    slow = container("slow", address="127.0.0.3", port=quick.port, keep=False, delay_seconds=0.3)
    drive.put(route("Le", fleet("le", port=quick.port)), ("le", "127.0.0.2"), ("le", "127.0.0.3"))
    drive.settle()
    with Load(envoy.url, "Le", concurrency=2) as load:
        Envoy.until(lambda: load.total >= 400, 120)
    assert quick.answered[200] > 4 * slow.answered[200]
