"""The crash test's way: record a scenario undisturbed, then run it once for every point with a SIGKILL there.

Each run has a world of its own, so several run beside each other. What counts is the end: the same status, the same
stored revisions, the same things in SageMaker, and each effect exactly once.
"""

import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.operator.harness.kube import Object
from tests.operator.harness.proxy import Point, Proxies
from tests.operator.harness.world import Surroundings, World

AT_ONCE = 6
"""Runs beside each other: most of a run is waiting."""
SECONDS = 60.0
WATCHED_KINDS = 4
ENOUGH = 6
"""So many problems end the run: the rest would say the same."""
_MOVING = frozenset(
    {
        "accepted", "attempt", "bakeUntil", "baseline", "contentHash", "creationTime", "creationTimestamp", "deadline",
        "digest", "endTime", "lastModifiedTime", "lastTransitionTime", "managedFields", "nextAttempt", "now",
        "resolutionTime", "resourceVersion", "since", "startTime", "time", "uid", "until",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scenario:
    """`prepare` runs before calls count (None: they count from the operator's start); `change` sets off what is
    tried; `finish` waits for its end."""

    prepare: Callable[[World], None] | None
    change: Callable[[World], None]
    finish: Callable[[World], None]


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a run without a crash came to."""

    end: Object
    points: tuple[Point, ...]
    calls: tuple[str, ...]


def undisturbed(surroundings: Surroundings, directory: Path, scenario: Scenario) -> Undisturbed:
    """Run the scenario once and record it."""
    world, proxies = _stage(surroundings, directory)
    try:
        _begin(world, proxies, scenario)
        proxies.record()
        world.mark()
        _change(world, scenario)
        scenario.finish(world)
        world.steady()
        return Undisturbed(end_state(world), tuple(proxies.points()), tuple(call.key for call in proxies.calls))
    finally:
        world.close()
        proxies.stop()


def crash_everywhere(
    surroundings: Surroundings, directory: Path, scenario: Scenario, record: Undisturbed, points: Sequence[Point]
) -> list[str]:
    """Run the scenario once for each point. Returns what went wrong, in words."""

    problems: list[str] = []

    def run(numbered: tuple[int, Point]) -> None:
        number, point = numbered
        if len(problems) >= ENOUGH:
            return
        home = directory / f"crash-{number}"
        home.mkdir()
        try:
            problem = _crash(surroundings, home, scenario, record, point)
        except AssertionError as error:
            problem = f"{point}: {error}"
        if problem:
            problems.append(problem)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="crash") as pool:
        list(pool.map(run, enumerate(points)))
    return problems


def _crash(
    surroundings: Surroundings, directory: Path, scenario: Scenario, record: Undisturbed, point: Point
) -> str | None:
    world, proxies = _stage(surroundings, directory)
    over = threading.Event()
    reviver = threading.Thread(target=_revive, args=(world, proxies, over))
    try:
        _begin(world, proxies, scenario)
        proxies.arm(point, lambda: world.operator.signal_and_wait(signal.SIGKILL))
        world.mark()
        reviver.start()
        _change(world, scenario)
        world.wait(proxies.fired.is_set, f"the operator comes to the point: {point}", seconds=SECONDS)
        differences: list[str] = []

        def same() -> bool:
            differences[:] = diff(end_state(world), record.end)
            return not differences

        try:
            world.wait(same, "the end state", seconds=SECONDS, every=0.2)
        except AssertionError:
            return f"{point}: ended otherwise: {'; '.join(differences)}\n{world.report()}"
        return None
    finally:
        over.set()
        proxies.fired.set()
        if reviver.ident is not None:
            reviver.join(SECONDS)
        world.close()
        proxies.stop()


def _revive(world: World, proxies: Proxies, over: threading.Event) -> None:
    proxies.fired.wait(2 * SECONDS)
    if not over.is_set():
        world.operator.kill()
        world.operator.start()


def _stage(surroundings: Surroundings, directory: Path) -> tuple[World, Proxies]:
    world = World(surroundings, directory)
    proxies = Proxies(world.kube, world.simulator.url, surroundings.cloudwatch_url, directory).start()
    world.operator = world.installation(
        kubeconfig=proxies.kubeconfig,
        sagemaker_url=proxies.sagemaker,
        cloudwatch_url=proxies.cloudwatch,
        # A listing of everything is made at the start; later ones come at any time and are the same calls.
        environment={"SLUICE_SWEEP_SECONDS": "3600"},
    )
    return world, proxies


def _begin(world: World, proxies: Proxies, scenario: Scenario) -> None:
    if scenario.prepare is not None:
        world.operator.start()
        scenario.prepare(world)
        world.wait(lambda: proxies.watches() == WATCHED_KINDS, "the operator has come up")


def _change(world: World, scenario: Scenario) -> None:
    if scenario.prepare is None:
        world.operator.start()
    scenario.change(world)


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
    settled: Object = _without_moving(json.loads(text))
    return settled


def _without_moving(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_moving(item) for key, item in value.items() if key not in _MOVING}
    if isinstance(value, list):
        return [_without_moving(item) for item in value]
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
