"""What is said of pods that fail the sample invocation: who is asked, how often, and in which words it is told."""

import socket
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.router.harness.container import Container
from tests.router.harness.drive import Drive
from tests.router.harness.envoy import Envoy
from tests.router.specs import fleet, route

from sluice.api.routes import RouteFleet, RouteSample
from sluice.router import samples
from sluice.router.admin import EnvoyUnavailable
from sluice.router.objects import Pod
from sluice.router.samples import MOST_BYTES, Samples, ask, printable
from sluice.router.view import Activity

Start = Callable[..., Container]
SAMPLE = RouteSample(body="sample", content_type="application/x-sample", timeout_seconds=20)


def ordered(**order: Any) -> RouteSample:
    """A sample that the container answers so."""
    text = '{"do": "answer", ' + ", ".join(f'"{name}": {value}' for name, value in order.items()) + "}"
    return SAMPLE.model_copy(update={"body": text})


async def answered(made: Container, sample: RouteSample = SAMPLE) -> str:
    return await ask((made.address, made.port), "churn-a", sample)


async def test_it_is_asked_as_envoy_asks(container: Start) -> None:
    made = container("c")
    assert await answered(made) == "", "as expected"
    (request,) = made.requests
    assert (request["path"], request["body"]) == ("/invocations", b"sample")
    assert (request["headers"]["host"], request["headers"]["content-type"]) == ("churn-a", "application/x-sample")


async def test_the_status_and_the_body_are_told(container: Start) -> None:
    made = container("no such model")
    made.status = 500
    assert await answered(made) == "answers 500: no such model"
    assert await answered(made, SAMPLE.model_copy(update={"expected_status": 500})) == ""
    assert await answered(made, ordered(status=404)) == "answers 404"
    headers = '{"location": "/elsewhere"}'
    assert await answered(made, ordered(status=302, headers=headers)) == "answers 302", "where it leads, nobody asks"


async def test_of_a_long_body_the_beginning_is_told_on_one_line(container: Start) -> None:
    body = b"Traceback:\r\n\x1b[31m\xff  bad\x00 " + b"x" * 1_000_000
    words = await answered(container("c"), ordered(status=400, hex=f'"{body.hex()}"'))
    assert words.startswith("answers 400: Traceback: [31m bad xxx")
    assert words.endswith("x...")
    assert len(words) <= len("answers 400: ...") + MOST_BYTES


async def test_no_answer_is_told_too(container: Start) -> None:
    waits = SAMPLE.model_copy(update={"body": '{"do": "wait"}', "timeout_seconds": 1})
    slow = container("slow")
    assert await answered(slow, waits) == "does not answer within 1 s"
    slow.open_gate()
    breaks = SAMPLE.model_copy(update={"body": '{"do": "break"}'})
    assert (await answered(container("broken"), breaks)).startswith("cannot be asked: ")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert (await ask(bound.getsockname(), "churn-a", SAMPLE)).startswith("cannot be asked: Cannot connect")
    bad = SAMPLE.model_copy(update={"content_type": "a\r\nb: c"})
    assert (await answered(container("c"), bad)).startswith("cannot be asked: ")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"", ""),
        (b"\n\t \x00\x7f", ""),
        (b" a \r\n b\t", "a b"),
        ("ünïcode \u202e\u2028 x".encode(), "ünïcode x"),
        (b"x" * MOST_BYTES, "x" * MOST_BYTES),
        (b"x" * (MOST_BYTES + 1), "x" * MOST_BYTES + "..."),
        (b"x" * (MOST_BYTES - 1) + "ü".encode(), "x" * (MOST_BYTES - 1) + "..."),
    ],
)
def test_lines(body: bytes, line: str) -> None:
    assert printable(body) == line


class Envoys:
    """What Envoy says of failing pods, and how often it was asked."""

    def __init__(self, **failing: tuple[str, int]) -> None:
        self.failing = failing
        self.asked = 0
        self.away = False

    async def __call__(self) -> Mapping[str, frozenset[tuple[str, int]]]:
        self.asked += 1
        if self.away:
            raise EnvoyUnavailable("away")
        return {name: frozenset({host}) for name, host in self.failing.items()}


class Time:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


def pods(name: str) -> tuple[Pod, ...]:
    return (Pod(f"{name}-pod", "127.0.0.1", ready=True, lingering=False),)


async def test_a_failing_pod_is_asked_once_in_a_while_and_forgotten_when_it_passes(container: Start) -> None:
    bad = container("out of memory")
    bad.status = 500
    told: list[Mapping[str, str]] = []
    clock = Time()
    envoys = Envoys(bad=("127.0.0.1", bad.port))
    asking = Samples(envoys, pods, lambda: told.append(dict(asking.words)), clock.monotonic)
    failing = {name: fleet(name, sample=SAMPLE) for name in ("bad", "new")}

    async def follow(now: Mapping[str, RouteFleet]) -> None:
        asking.follow(now)
        await asking.ask_due()

    await follow(failing)
    assert asking.words == {"bad": "bad-pod answers 500: out of memory"}
    assert (len(bad.requests), envoys.asked) == (1, 1)

    await follow(failing)
    assert envoys.asked == 1
    clock.seconds += samples.LOOK_AGAIN_SECONDS
    await follow(failing)
    assert (len(bad.requests), envoys.asked) == (1, 2), "the one of which no pod had failed was looked at again"

    clock.seconds += samples.AGAIN_SECONDS
    bad.status = 501
    await follow(failing)
    assert (len(bad.requests), asking.words) == (2, {"bad": "bad-pod answers 501: out of memory"})

    clock.seconds += samples.AGAIN_SECONDS
    bad.status = 200
    await follow(failing)
    assert (len(bad.requests), asking.words) == (3, {}), "it answers as expected, whatever Envoy says"

    clock.seconds += samples.AGAIN_SECONDS
    bad.status = 500
    await follow(failing)
    assert asking.words == {"bad": "bad-pod answers 500: out of memory"}
    await follow({})
    assert asking.words == {}
    await follow(failing)
    assert len(bad.requests) == 5, "failing anew, it is asked at once"

    clock.seconds += samples.AGAIN_SECONDS
    envoys.away = True
    await follow(failing)
    assert asking.words == {"bad": "bad-pod answers 500: out of memory"}, "what was told stays while Envoy is silent"
    assert len(told) == 5, "only what is new wakes the agent"


def test_who_fails_and_what_is_reported_of_it(envoy: Envoy, drive: Drive, container: Start) -> None:
    good = container("good", address="127.0.0.2")
    bad = container("bad", address="127.0.0.3", port=good.port)
    bad.status = 500
    both = (("127.0.0.2", good.port), ("127.0.0.3", good.port))
    drive.put(route("Sam", fleet("sam", port=good.port, sample=SAMPLE)), *(("sam", address) for address, _ in both))
    drive.put(route("Other", fleet("other", port=good.port)), ("other", "127.0.0.3"))
    drive.settle()
    Envoy.until(lambda: envoy.ask(lambda admin: admin.failing())["sam"] == {both[1]}, 120)
    assert envoy.ask(lambda admin: admin.failing())["other"] == frozenset()
    assert envoy.ask(lambda admin: admin.passed())["sam"] == {"127.0.0.2"}
    words = {"sam": "it says no", "other": "never told"}
    drive.words = words

    def told() -> dict[str, str | None]:
        drive.turn()
        return {item.name: item.sample_answer for report in drive.reports for item in report.fleets}

    assert told() == {"sam": "it says no", "other": None}
    assert drive.ledger.failing(envoy.ask(lambda admin: admin.activity())).keys() == {"sam"}
    ejected = Activity({"sam": 2, "other": 0}, {})
    assert drive.ledger.failing(ejected) == {}, "without a sample nobody can be asked"
    bad.status = 200
    Envoy.until(lambda: told() == {"sam": None, "other": None}, 120)
    assert drive.ledger.failing(envoy.ask(lambda admin: admin.activity())) == {}
