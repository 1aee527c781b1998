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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.operator.harness.killing import (
    SECONDS,
    Crashes,
    End,
    Scenario,
    Undisturbed,
    at_each,
    reviving,
    without_moving,
)
from tests.operator.harness.kube import Object
from tests.operator.harness.proxy import Point, Proxies
from tests.operator.harness.world import Surroundings, World

AT_ONCE = 16
"""Runs beside each other: most of a run is waiting."""
STAGE_SECONDS = 20.0
"""Simulated seconds of every stage, and how far time jumps when the operator has seen one."""
SPEED = 100.0
"""Simulated seconds per second where time does not wait."""
MOST_LEFT_OUT = 4
"""So many recorded points of one scenario may turn out to be confirmations that not every run makes."""
_WATCHED = frozenset({"models", "endpointconfigs", "endpoints", "controllerrevisions"})


def undisturbed(surroundings: Surroundings, directory: Path, scenario: Scenario[World]) -> Undisturbed:
    """Run the scenario once and record it."""
    world, proxies = _stage(surroundings, directory)
    try:
        _begin(world, proxies, scenario)
        proxies.record()
        world.mark()
        with _time_waits(world, proxies):
            scenario.set_off(world)
            scenario.finish(world)
            world.steady()
        return Undisturbed(end_state(world), tuple(proxies.points()), tuple(call.key for call in proxies.calls))
    finally:
        world.close()
        proxies.stop()


def crash_everywhere(
    surroundings: Surroundings,
    directory: Path,
    scenario: Scenario[World],
    record: Undisturbed,
    points: Sequence[Point],
    *,
    seconds: float = SECONDS,
) -> Crashes:
    """Run the scenario once for each point."""
    return at_each(
        points,
        directory,
        lambda home, point: _crash(surroundings, home, scenario, record, point, seconds),
        at_once=AT_ONCE,
        most_left_out=MOST_LEFT_OUT,
    )


def _crash(
    surroundings: Surroundings,
    directory: Path,
    scenario: Scenario[World],
    record: Undisturbed,
    point: Point,
    seconds: float,
) -> bool:
    """One run; whether it came to the point. Raises AssertionError: it did not though it must, or ended otherwise."""
    world, proxies = _stage(surroundings, directory)
    end = End(lambda: end_state(world), record.end)
    try:
        _begin(world, proxies, scenario)
        proxies.arm(point, lambda: world.operator.signal_and_wait(signal.SIGKILL))
        world.mark()
        with _time_waits(world, proxies), reviving(world.operator, proxies):
            scenario.set_off(world)
            if point.optional:
                world.wait(
                    lambda: proxies.fired.is_set() or end.same(), f"{point}, or the end", seconds=seconds, every=0.2
                )
                world.steady()
            else:
                world.wait(proxies.fired.is_set, f"the operator comes to the point: {point}", seconds=seconds)
            end.awaited(world, seconds=seconds, every=0.2)
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


def _begin(world: World, proxies: Proxies, scenario: Scenario[World]) -> None:
    scenario.begin(world)
    if scenario.prepare is not None:
        world.wait(lambda: proxies.up(_WATCHED), "the operator has come up")
        world.steady(1)


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
