"""The crash test's way: record a scenario undisturbed, then run it once for every point with a SIGKILL there.

Each run has a world of its own, so several run beside each other. What counts is the end: the same status, the same
stored revisions, the same things in SageMaker, and each effect exactly once.

Up to the kill simulated time waits for the operator: it goes on when the operator has looked and found nothing new. So
no state is too short to be seen on a slow machine, and each run comes to the recorded calls. After the kill it runs:
what happens while the operator is away happens unseen.
"""

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.operator.harness.kube import Object
from tests.operator.harness.proxy import Point, Proxies
from tests.operator.harness.world import Surroundings, World

AT_ONCE = 10
"""Runs beside each other: most of a run is waiting."""
SECONDS = 180.0
"""Bounds what never comes; nothing that comes depends on it."""
STAGE_SECONDS = 20.0
"""Simulated seconds of every stage, and how far time jumps when the operator has seen one."""
SPEED = 100.0
"""Simulated seconds per second where time does not wait."""
ENOUGH = 6
"""So many problems end the run: the rest would say the same."""
MOST_LEFT_OUT = 4
"""So many recorded points of one scenario may turn out to be confirmations that not every run makes."""
_WATCHED = frozenset({"models", "endpointconfigs", "endpoints", "controllerrevisions"})
_MOVING = frozenset(
    {
        "accepted", "attempt", "bakeUntil", "baseline", "contentHash", "creationTime", "creationTimestamp", "deadline",
        "digest", "endTime", "lastModifiedTime", "lastTransitionTime", "managedFields", "nextAttempt", "now",
        "resolutionTime", "resourceVersion", "since", "startTime", "time", "uid", "until",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scenario:
    """`prepare` runs before calls count (None: they count from the operator's start, after the change); `change` sets
    off what is tried; `finish` waits for its end."""

    prepare: Callable[[World], None] | None
    change: Callable[[World], None]
    finish: Callable[[World], None]


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a run without a crash came to."""

    end: Object
    points: tuple[Point, ...]
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Crashes:
    """What the runs with a crash came to: what went wrong, in words, and the confirmations that a run did not make,
    though it came to the same end."""

    problems: list[str]
    left_out: list[Point]


def undisturbed(surroundings: Surroundings, directory: Path, scenario: Scenario) -> Undisturbed:
    """Run the scenario once and record it."""
    world, proxies = _stage(surroundings, directory)
    try:
        _begin(world, proxies, scenario)
        proxies.record()
        world.mark()
        with _time_waits(world, proxies):
            _change(world, scenario)
            scenario.finish(world)
            world.steady()
        return Undisturbed(end_state(world), tuple(proxies.points()), tuple(call.key for call in proxies.calls))
    finally:
        world.close()
        proxies.stop()


def crash_everywhere(
    surroundings: Surroundings,
    directory: Path,
    scenario: Scenario,
    record: Undisturbed,
    points: Sequence[Point],
    *,
    seconds: float = SECONDS,
) -> Crashes:
    """Run the scenario once for each point."""
    crashes = Crashes([], [])

    def run(numbered: tuple[int, Point]) -> None:
        number, point = numbered
        if len(crashes.problems) >= ENOUGH:
            return
        home = directory / f"crash-{number}"
        home.mkdir()
        try:
            if not _crash(surroundings, home, scenario, record, point, seconds):
                crashes.left_out.append(point)
        except AssertionError as error:
            crashes.problems.append(f"{point}: {error}")

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="crash") as pool:
        list(pool.map(run, enumerate(points)))
    if len(crashes.left_out) > MOST_LEFT_OUT:
        crashes.problems.append(f"not come to, and too many of them: {', '.join(map(str, crashes.left_out))}")
    return crashes


def _crash(
    surroundings: Surroundings, directory: Path, scenario: Scenario, record: Undisturbed, point: Point, seconds: float
) -> bool:
    """One run; whether it came to the point. Raises AssertionError: it did not though it must, or ended otherwise."""
    world, proxies = _stage(surroundings, directory)
    differences: list[str] = []

    def same() -> bool:
        differences[:] = diff(end_state(world), record.end)
        return not differences

    try:
        _begin(world, proxies, scenario)
        proxies.arm(point, lambda: world.operator.signal_and_wait(signal.SIGKILL))
        world.mark()
        with _time_waits(world, proxies), _reviving(world, proxies):
            _change(world, scenario)
            if point.optional:
                world.wait(lambda: proxies.fired.is_set() or same(), f"{point}, or the end", seconds=seconds, every=0.2)
                world.steady()
            else:
                world.wait(proxies.fired.is_set, f"the operator comes to the point: {point}", seconds=seconds)
            try:
                world.wait(same, "the end state", seconds=seconds, every=0.2)
            except AssertionError as error:
                raise AssertionError(f"ended otherwise: {'; '.join(differences)}\n{error}") from None
            return proxies.fired.is_set()
    finally:
        world.close()
        proxies.stop()


@contextmanager
def _time_waits(world: World, proxies: Proxies) -> Iterator[None]:
    """Simulated time goes on by what the operator has seen, until it is killed."""
    over = threading.Event()

    def keep_time() -> None:
        while not over.is_set() and not proxies.fired.is_set():
            if proxies.looked(seconds=0.1):
                world.simulator.advance(STAGE_SECONDS)
                proxies.look_anew()
        if not over.is_set():
            world.simulator.pace(SPEED)

    world.simulator.pace(1.0)
    proxies.look_anew()
    keeper = threading.Thread(target=keep_time, name="simulated time")
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


@contextmanager
def _reviving(world: World, proxies: Proxies) -> Iterator[None]:
    """The operator is started again when it was killed."""
    over = threading.Event()

    def revive() -> None:
        while not over.is_set():
            if proxies.fired.wait(0.1):
                world.operator.kill()
                world.operator.start()
                return

    reviver = threading.Thread(target=revive, name="reviver")
    reviver.start()
    try:
        yield
    finally:
        over.set()
        reviver.join()


def _stage(surroundings: Surroundings, directory: Path) -> tuple[World, Proxies]:
    stages = ("create", "provision", "flip", "cleanup", "scale", "weight", "delete")
    world = World(
        surroundings,
        directory,
        speed=SPEED,
        patience=SECONDS,
        **{f"{stage}_seconds": STAGE_SECONDS for stage in stages},
    )
    proxies = Proxies(world.kube, world.simulator.url, surroundings.cloudwatch_url, directory).start()
    world.operator = world.installation(
        kubeconfig=proxies.kubeconfig,
        sagemaker_url=proxies.sagemaker,
        cloudwatch_url=proxies.cloudwatch,
        # A listing of everything is made at the start; later ones come at any time and are the same calls. What the
        # other backend asks and watches is not tried here.
        environment={"SLUICE_SWEEP_SECONDS": "3600", "SLUICE_CLUSTER_BACKEND": "false"},
    )
    return world, proxies


def _begin(world: World, proxies: Proxies, scenario: Scenario) -> None:
    if scenario.prepare is not None:
        world.operator.start()
        scenario.prepare(world)
        world.wait(lambda: proxies.up(_WATCHED), "the operator has come up")
        world.steady(1)


def _change(world: World, scenario: Scenario) -> None:
    """Where the operator's start is a part of it, it starts into what was applied: in which order watches would tell
    several new objects is anybody's guess, and each order has calls of its own."""
    scenario.change(world)
    if scenario.prepare is None:
        world.operator.start()


# What a world came to -------------------------------------------------------------------------------------------


def end_state(world: World) -> Object:
    """All that lasts, without times, uids and the names that hash the namespace in."""
    state = world.simulator.state()
    revisions = world.revisions()
    found: Object = {
        "kinds": {
            kind: [
                {
                    "name": item["metadata"]["name"],
                    "annotations": item["metadata"].get("annotations"),
                    "finalizers": item["metadata"].get("finalizers"),
                    "status": item.get("status"),
                }
                for item in world.kube.list(kind, world.namespace)
            ]
            for kind in ("Model", "EndpointConfig", "Endpoint")
        },
        "revisions": [
            {"name": r["metadata"]["name"], "annotations": r["metadata"].get("annotations"), "data": r["data"]}
            for r in revisions
        ],
        "sagemaker": state["regions"],
        "effects": Counter(world.writes()),
    }
    text = json.dumps(found).replace(world.namespace, "NAMESPACE")
    for number, revision in enumerate(revisions, 1):
        aws = revision["data"]["sagemaker"]
        names = {
            revision["metadata"]["name"]: f"REVISION-{number}",
            revision["data"]["fleetHash"]: f"FLEET-{number}",
            aws["endpointConfigName"]: f"CONFIG-{number}",
            **{name: f"MODEL-{number}-{i}" for i, name in enumerate(aws["modelNames"])},
        }
        for name, plain in names.items():
            text = text.replace(name.replace(world.namespace, "NAMESPACE"), plain)
    for item in found["kinds"]["Endpoint"]:
        desired = (item["status"] or {}).get("desiredRevision") or {}
        for field in ("name", "endpointConfigName"):
            if desired.get(field):  # of an adopted endpoint it is stored nowhere
                text = text.replace(desired[field].replace(world.namespace, "NAMESPACE"), f"DESIRED-{field}")
    settled: Object = without_moving(json.loads(text))
    return settled


def without_moving(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_moving(item) for key, item in value.items() if key not in _MOVING}
    if isinstance(value, list):
        return [without_moving(item) for item in value]
    return value


def diff(found: Any, wanted: Any, path: str = "") -> list[str]:
    """`path: found x, undisturbed y` for each difference."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted({*found, *wanted})
            for line in diff(found.get(key), wanted.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [line for i, (a, b) in enumerate(zip(found, wanted, strict=True)) for line in diff(a, b, f"{path}[{i}]")]
    return [] if found == wanted else [f"{path}: found {found!r}, undisturbed {wanted!r}"]
